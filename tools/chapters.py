"""Which chapters there are, and what their results depend on.

Everything the build makes lies in `.executed/` (chapters with outputs, and what was measured) and `_build/` (pages).
nbmake skips every path that has `_build` in it, hence the two folders.
"""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
EXECUTED = ROOT / ".executed"
SOURCE = ROOT / "_build" / "source"
HTML = ROOT / "_build" / "html"

# What a chapter's outputs cannot depend on, though it lies below a folder that they depend on.
_LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".ruff_cache"}


def listed(toc: Path = ROOT / "_toc.yml") -> list[str]:
    """Return the pages of the table of contents in reading order, as paths without suffix (`book/tour`)."""
    found = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.extend(node[key] for key in ("root", "file") if key in node)
            for key in ("parts", "chapters", "sections", "entries"):
                walk(node.get(key, []))
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(yaml.safe_load(toc.read_text(encoding="utf8")))
    return found


def source_of(page: str, root: Path = ROOT) -> Path:
    """Return the file behind a page of the table of contents: its notebook or its Markdown."""
    for suffix in (".ipynb", ".md"):
        if (path := root / (page + suffix)).exists():
            return path
    raise FileNotFoundError(
        f"_toc.yml lists {page}, but neither {page}.ipynb nor {page}.md exists; write it or unlist it"
    )


def notebooks(book: Path = BOOK) -> list[Path]:
    """Return every chapter that runs, listed or not, sorted by path."""
    return [path for path in sorted(book.rglob("*.ipynb")) if not _LEFT_OUT & set(path.parts)]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        skip = _LEFT_OUT & set(path.parts) or any(part.endswith(".egg-info") for part in path.parts)
        if path.is_file() and not skip:
            yield path


def fingerprint(paths: list[Path], root: Path = ROOT) -> str:
    """Return the SHA-256, in hex, of these files' relative paths and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def surroundings(root: Path = ROOT) -> str:
    """Return one fingerprint of all that every chapter depends on besides its own cells.

    That is the library with its data and checkpoints, the pinned versions, and files beside the chapters that are
    neither chapters nor prose (pictures that a chapter might open).
    """
    beside = [path for path in _files(root / "book") if path.suffix not in {".ipynb", ".md", ".bib"}]
    return fingerprint([*_files(root / "src"), *beside, root / "requirements.txt"], root)


def key_of(notebook: Path, around: str, root: Path = ROOT) -> str:
    """Return the key under which this chapter's outputs are kept; it changes when they might."""
    return hashlib.sha256((around + fingerprint([notebook], root)).encode()).hexdigest()


def tracked(*patterns: str) -> list[Path]:
    """Return the files in git (and new ones that git does not ignore) that match the patterns; all without any."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in sorted(set(names)) if name and (ROOT / name).is_file()]
