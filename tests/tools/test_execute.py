"""Chapters run once, again only when something they depend on changed, and what they took is written down."""

import json
from pathlib import Path

import nbformat
import pytest

from tools import chapters, execute


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one chapter, into which the tools are pointed."""
    (tmp_path / "src/package").mkdir(parents=True)
    (tmp_path / "src/package/code.py").write_text("x = 1\n")
    (tmp_path / "requirements.txt").write_text("numpy==2.0.0\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/chapter\n")
    (tmp_path / "book").mkdir()
    write(tmp_path / "book/chapter.ipynb", "print(6 * 7)")
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    monkeypatch.setattr(chapters, "BOOK", tmp_path / "book")
    monkeypatch.setattr(chapters, "EXECUTED", tmp_path / ".executed")
    return tmp_path


def write(path: Path, *sources: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def run(root: Path) -> list[str]:
    """Do what `python -m tools.execute` does and return the chapters that it ran."""
    around = chapters.surroundings(root)
    due = [
        path for path in chapters.notebooks(root / "book") if execute.stale(path, chapters.key_of(path, around, root))
    ]
    execute.lay_out(due)
    if due:
        execute.run([execute.paths_of(path)[0] for path in due], timeout=60)
    return [path.stem for path in due if execute.collect(path, chapters.key_of(path, around, root))]


def test_a_chapter_runs_once_until_it_or_the_library_changes(repository: Path) -> None:
    assert run(repository) == ["chapter"]
    copy, record = execute.paths_of(repository / "book/chapter.ipynb")
    executed = nbformat.read(copy, as_version=4)
    assert [cell.source for cell in executed.cells] == ["print(6 * 7)"], "the probe is taken out again"
    assert executed.cells[0].outputs[0].text == "42\n"
    found = json.loads(record.read_text())
    assert 0 < found["seconds"] < 60
    assert found["peak_bytes"] > 10e6, "a kernel that loaded JAX takes more than 10 MB"
    assert found["python"].startswith("3.")
    assert found["devices"]

    assert run(repository) == [], "nothing changed"
    (repository / "src/package/code.py").write_text("x = 2\n")
    assert run(repository) == ["chapter"], "the library changed"
    (repository / "book/note.md").write_text("prose alone changes no output\n")
    (repository / "book/.ruff_cache").mkdir()
    (repository / "book/.ruff_cache/found").write_text("nor does what the linter remembers\n")
    assert run(repository) == []
    assert not nbformat.read(repository / "book/chapter.ipynb", as_version=4).cells[0].outputs


def test_a_chapter_that_fails_leaves_no_record(repository: Path) -> None:
    write(repository / "book/chapter.ipynb", "assert 1 == 2")
    assert run(repository) == []
    chapter = repository / "book/chapter.ipynb"
    assert execute.measured(chapter) is None
    assert execute.stale(chapter, chapters.key_of(chapter, chapters.surroundings(repository), repository))


def test_seconds_are_the_cells_own() -> None:
    times = [
        ("2026-11-21T10:00:00.500000Z", "2026-11-21T10:00:02.500000Z"),
        ("2026-11-21T10:05:00Z", "2026-11-21T10:05:01Z"),
    ]
    cells = [nbformat.v4.new_markdown_cell("no time")]
    for start, end in times:
        execution = {"iopub.execute_input": start, "shell.execute_reply": end}
        cells.append(nbformat.v4.new_code_cell("", metadata={"execution": execution}))
    assert execute.seconds_of(nbformat.v4.new_notebook(cells=cells)) == pytest.approx(3.0)


def test_the_probe_must_be_there_to_be_taken_out() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    with pytest.raises(ValueError, match="not the probe"):
        execute.take_probe(notebook)


def test_the_key_knows_names_and_contents_apart(repository: Path) -> None:
    first, second = repository / "one.txt", repository / "two.txt"
    first.write_text("ab")
    second.write_text("c")
    before = chapters.fingerprint([first, second], repository)
    first.write_text("a")
    second.write_text("bc")
    assert chapters.fingerprint([first, second], repository) != before


def test_a_listed_page_without_a_file_is_named(repository: Path) -> None:
    (repository / "_toc.yml").write_text("root: book/chapter\nparts: [{chapters: [{file: book/gone}]}]\n")
    assert chapters.listed(repository / "_toc.yml") == ["book/chapter", "book/gone"]
    with pytest.raises(FileNotFoundError, match="book/gone"):
        chapters.source_of("book/gone", repository)
