"""Serve MathJax and the widgets' scripts from the book itself, where `make` has put them into `vendor/`.

A plain `jupyter-book build .` without that folder still works, and its pages then ask the usual public servers.
The files go into `_static/` through here and not by lying there: jupyter-book loads each script that lies there on
every page.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def use_vendored(app: Sphinx, config: Config) -> None:
    """Point formulas and widgets at the scripts below `vendor/`, if it is there."""
    vendor = Path(app.srcdir) / "vendor"
    if not vendor.is_dir():
        return
    config.html_static_path.append(str(vendor))
    config.mathjax_path = "mathjax/tex-chtml-full.js"
    config.nb_ipywidgets_js = {"html-manager/embed.js": {}}


def drop_repeated(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Keep each inline script of a page once.

    jupyter-book 1 sets Sphinx up twice in one run, and sphinx-thebe's `const` in a page twice is an error there.
    """
    seen = set()
    kept = []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"] = kept


def setup(app: Sphinx) -> dict:
    """Register with Sphinx; late, so that every extension's configuration values exist."""
    app.connect("config-inited", use_vendored, priority=900)
    app.connect("html-page-context", drop_repeated, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
