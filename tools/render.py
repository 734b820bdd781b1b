"""Render the executed chapters: `python -m tools.render` writes the book to `_build/html`.

The pages' sources are gathered in `_build/source/`: prose from `book/`, chapters from `.executed/`, and in each the
measured time and memory where the text asks for it. Nothing is run here, every warning is an error.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from tools import chapters, execute, exercises, status, vendor

# Both are read by Sphinx from the gathered sources, so they stand there as they stand in the repository.
FOLDERS = ("_ext", "_static")
# How a progress bar describes itself: `  0%|          | 0/3 [00:00<?, ?it/s]`, or `0it [00:00, ?it/s]`.
_BAR = re.compile(r"^(.*: )?\s*(\d+%\||\d+it \[)")


def fill(text: str, records: dict[str, dict], tasks: dict[str, dict[str, str]]) -> str:
    """Return a page of prose with the table of run times and the list of exercises in their places."""
    return text.replace(status.TABLE, status.table(records)).replace(exercises.PLACE, exercises.listing(tasks))


def complete(notebook: nbformat.NotebookNode, page: str, record: dict) -> None:
    """Give a chapter that has run its measured line and its exercises' targets, and take its progress bars away."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = exercises.mark(cell.source, page).replace(status.LINE, status.line(record))
        elif cell.cell_type == "code":
            cell.outputs = without_progress_bars(cell.outputs)


def without_progress_bars(outputs: list) -> list:
    """Return a cell's outputs without tqdm's bars: of use while a cell runs, and dead on the page."""
    return [one for one in outputs if not _BAR.match("".join(one.get("data", {}).get("text/plain", "")))]


def write_config(target: Path) -> None:
    """Copy `_config.yml` with execution turned off: the chapters have run."""
    config = yaml.safe_load((chapters.ROOT / "_config.yml").read_text(encoding="utf8"))
    config["execute"]["execute_notebooks"] = "off"
    target.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf8")


def gather(source: Path = chapters.SOURCE) -> list[str]:
    """Fill the folder that Sphinx reads; return the listed chapters that have not run from their present sources."""
    shutil.rmtree(source, ignore_errors=True)
    beside = shutil.ignore_patterns("*.ipynb", ".*", "__pycache__")
    shutil.copytree(chapters.BOOK, source / "book", ignore=beside)
    for name in FOLDERS:
        if (chapters.ROOT / name).is_dir():
            shutil.copytree(chapters.ROOT / name, source / name, ignore=beside)
    shutil.copytree(vendor.VENDOR, source / "vendor")
    shutil.copy2(chapters.ROOT / "_toc.yml", source / "_toc.yml")
    write_config(source / "_config.yml")

    around = chapters.surroundings()
    paths = {page: chapters.source_of(page) for page in chapters.listed()}
    runnable = {page: path for page, path in paths.items() if path.suffix == ".ipynb"}
    late = [page for page, path in runnable.items() if execute.stale(path, chapters.key_of(path, around))]
    records = {page: execute.measured(path) for page, path in runnable.items() if page not in late}
    ran = {page: nbformat.read(execute.paths_of(runnable[page])[0], as_version=4) for page in records}
    tasks = {page: exercises.titles(notebook) for page, notebook in ran.items()}
    for page, path in paths.items():
        target = source / path.relative_to(chapters.ROOT)
        if path.suffix == ".md":
            target.write_text(fill(path.read_text(encoding="utf8"), records, tasks), encoding="utf8")
        elif page in ran:
            complete(ran[page], page, records[page])
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(ran[page], target)
    return late


def main() -> int:
    """Gather and render; return 0 when not a single warning was given."""
    parser = argparse.ArgumentParser(description="Render the executed chapters to _build/html, strictly.")
    parser.add_argument("--builder", default="html", help="html (default), linkcheck, …")
    arguments = parser.parse_args()
    if vendor.main():
        return 1
    if late := gather():
        print(f"These chapters have not run from their present sources: {', '.join(late)}.", file=sys.stderr)
        print("Run `python -m tools.execute` first; `make book` does both.", file=sys.stderr)
        return 1
    # Pages are rendered anew, all of them: Sphinx repeats no warning about a page that it does not read again.
    for left in (arguments.builder, ".doctrees", "jupyter_execute"):
        shutil.rmtree(chapters.ROOT / "_build" / left, ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")  # it has no `python -m` form
    command = [program, "build", chapters.SOURCE, "--path-output", chapters.ROOT]
    command += ["-W", "-n", "--keep-going", "--builder", arguments.builder]
    code = subprocess.run(command, cwd=chapters.ROOT).returncode
    if code == 0 and arguments.builder == "html":
        print(f"The book: {chapters.HTML / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
