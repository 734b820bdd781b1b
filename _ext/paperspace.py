"""A launch button for Paperspace beside Colab's, on every page made from a notebook.

sphinx-book-theme knows no Paperspace (executablebooks/sphinx-book-theme#850). It fills the group of launch buttons
while a page's context is made; this runs right after it and adds one more entry to the same group.
"""

from sphinx.application import Sphinx

CONSOLE = "https://console.paperspace.com/github"


def link(repository_url: str, branch: str, path: str) -> str:
    """Return the address that opens a notebook of a GitHub repository on Paperspace."""
    slug = repository_url.rstrip("/").removesuffix(".git").removeprefix("https://github.com/")
    return f"{CONSOLE}/{slug}/blob/{branch}/{path}?machine=Free-GPU"


def add_button(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Append the button to the page's launch buttons, where the page is a notebook."""
    if doctree is None or app.env.doc2path(pagename, base=False)[-6:] != ".ipynb":
        return
    options = app.config.html_theme_options
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            button = {
                "type": "link",
                "text": "Paperspace",
                "tooltip": "Open this chapter on Paperspace",
                "icon": "fas fa-rocket",
                "url": link(options["repository_url"], options.get("repository_branch", "main"), f"{pagename}.ipynb"),
                "label": "launch-paperspace",
            }
            group["buttons"].append(button)


def setup(app: Sphinx) -> dict:
    """Register with Sphinx, behind the theme's own listener (priority 501)."""
    app.connect("html-page-context", add_button, priority=502)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
