"""Carry the repository's address, and the version, from pyproject.toml to wherever else they have to stand.

`python -m tools.stamp` writes the first code cell of every chapter, the list of chapters with their launch buttons in
README.md, `_config.yml`, `CITATION.cff` and every other tracked text that names the address. To move the repository, edit
`[project.urls] Repository` and run it again.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from tools import chapters
from tools.chapters import ROOT

SETUP_TAG = "minidalle-setup"
SETUP_ID = "minidalle-setup"
SETUP = """\
# Installs minidalle where it is missing (Colab, Paperspace); no package that is there already is moved.
import importlib.util

if importlib.util.find_spec("minidalle") is None:
    %pip install -q "minidalle[widgets,text] @ git+{address}@v{version}"

import minidalle.show

minidalle.show.about()"""
LISTED = re.compile(r"(<!-- chapters: written by `make stamp` -->\n).*?(<!-- /chapters -->)", re.DOTALL)
# What may hold an address besides chapters: prose, settings, workflows. Never data, weights or this file's source.
TEXTS = ("*.md", "*.cff", "*.yml", "*.yaml", "*.svg", "LICENSE*", "src/*.py")


@dataclass(frozen=True)
class Project:
    """What is stamped: the repository's address without a slash at its end, and the version."""

    address: str
    version: str

    @property
    def slug(self) -> str:
        """Owner and name: `minidalle/minidalle`."""
        return self.address.removeprefix("https://github.com/")

    @property
    def pages(self) -> str:
        """Where GitHub Pages serves the book."""
        owner, name = self.slug.split("/")
        return f"https://{owner.lower()}.github.io/{name}"


def project(path: Path = ROOT / "pyproject.toml") -> Project:
    """Read the one place. Raises ValueError when the address is not that of a GitHub repository."""
    table = tomllib.loads(path.read_text(encoding="utf8"))["project"]
    address = table["urls"]["Repository"].rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"pyproject.toml: Repository is {address!r}; expected https://github.com/OWNER/NAME")
    return Project(address, table["version"])


def setup_cell(this: Project) -> nbformat.NotebookNode:
    """Return the first code cell, the same in every chapter."""
    source = SETUP.format(address=this.address, version=this.version)
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [SETUP_TAG, "hide-input"]})
    cell["id"] = SETUP_ID
    return cell


def stamp_notebook(notebook: nbformat.NotebookNode, this: Project) -> None:
    """Put the first code cell in its place, behind the opening; a chapter that has one gets the present one."""
    cells = notebook.cells
    for index, cell in enumerate(cells):
        if SETUP_TAG in cell.metadata.get("tags", []):
            cells[index] = setup_cell(this)
            return
    first = next((index for index, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
    cells.insert(first, setup_cell(this))


def title(path: Path) -> str:
    """Return a page's first heading."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf8")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{path}: no line starts with '# '; every page needs a title")
    return found.group(1).strip()


def badges(path: str, this: Project) -> str:
    """Return the two launch buttons of a chapter, as Markdown."""
    colab = f"https://colab.research.google.com/github/{this.slug}/blob/main/{path}"
    paperspace = f"https://console.paperspace.com/github/{this.slug}/blob/main/{path}?machine=Free-GPU"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Run on Paperspace](https://assets.paperspace.io/img/gradient-badge.svg)]({paperspace})"
    )


def chapter_table(this: Project, root: Path = ROOT) -> str:
    """Return README.md's table of the chapters that run, in reading order."""
    rows = ["| chapter | read | run |", "|---|---|---|"]
    for page in chapters.listed(root / "_toc.yml"):
        source = chapters.source_of(page, root)
        if source.suffix == ".ipynb":
            rows.append(f"| {title(source)} | [page]({this.pages}/{page}.html) | {badges(f'{page}.ipynb', this)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def readdress(text: str, old: Project, new: Project) -> str:
    """Replace every form in which the old address may stand: repository, launch button, pages."""
    for before, after in ((old.pages, new.pages), (f"github.com/{old.slug}", f"github.com/{new.slug}")):
        text = re.sub(re.escape(before) + r"(?![\w-])", after, text, flags=re.IGNORECASE)
    return re.sub(rf"/github/{re.escape(old.slug)}/", f"/github/{new.slug}/", text)


def stamped_text(path: Path, old: Project, new: Project) -> str:
    """Return what a text file should hold."""
    text = readdress(path.read_text(encoding="utf8"), old, new)
    if path == ROOT / "README.md":
        table = chapter_table(new)
        text = LISTED.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)
    if path == ROOT / "CITATION.cff":
        text = re.sub(r"(?m)^version: .*$", f"version: {new.version}", text)
    return text


def main() -> int:
    """Stamp everything and say which files changed."""
    new = project()
    # Where the book was last stamped to; nobody edits this one by hand.
    old_address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]["url"].rstrip("/")
    old = Project(old_address, new.version)
    for path in chapters.notebooks():
        notebook = nbformat.read(path, as_version=4)
        before = nbformat.writes(notebook)
        stamp_notebook(notebook, new)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = readdress(cell.source, old, new)
        if (after := nbformat.writes(notebook)) != before:
            path.write_text(after + "\n", encoding="utf8")
            print(f"stamped {path.relative_to(ROOT)}")
    for path in chapters.tracked(*TEXTS):
        text = stamped_text(path, old, new)
        if text != path.read_text(encoding="utf8"):
            path.write_text(text, encoding="utf8")
            print(f"stamped {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
