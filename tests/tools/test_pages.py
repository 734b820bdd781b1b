"""The words and the pieces that the pages are put together from."""

import dataclasses
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest

from tools import exercises, pins, render, stamp, status, vendor
from tools.chapters import ROOT

sys.path.insert(0, str(ROOT / "_ext"))
import paperspace  # noqa: E402
import plain_docstrings  # noqa: E402

RECORD = {
    "seconds": 125.4,
    "peak_bytes": 1_840_000_000,
    "machine": "2 cores (A Processor)",
    "devices": ["cpu"],
    "date": "2026-11-01",
    "python": "3.11.7",
    "jax": "0.10.2",
    "flax": "0.12.8",
    "torch": "2.13.0",
}


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (4230, "1 h 10 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert status.span(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(640_000_000, "640 MB"), (1_840_000_000, "1.8 GB")])
def test_sizes_in_words(count: int, words: str) -> None:
    assert status.size(count) == words


def test_the_measured_line_takes_its_place() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# Title\n\n{status.LINE}\n")])
    render.complete(notebook, "book/tour", RECORD)
    text = notebook.cells[0].source
    assert "**2 min 5 s**" in text and "**1.8 GB**" in text and "1 November 2026" in text
    assert "2 cores (A Processor)" in text and "cpu" not in text
    assert status.LINE not in text


def test_the_status_table_adds_up_and_names_each_environment_once() -> None:
    gpu = RECORD | {"seconds": 60.0, "devices": ["NVIDIA H200"]}
    table = status.table({"book/tour": RECORD, "book/images/vqgan": RECORD, "book/text/bart": gpu})
    assert "| [](/book/tour) | 2 min 5 s | 1.8 GB | 1 November 2026 |" in table
    assert "**5 min 11 s**" in table
    assert table.count("Python 3.11.7") == 2
    assert table.count("NVIDIA H200") == 1


def test_a_book_without_chapters_says_so() -> None:
    assert "No chapter" in render.fill(status.TABLE, {}, {})


EXERCISES = "**1. How many?** Count them.\n\n**Solution to 1.** Three.\n\n**2. And why.** Say it.\n\n**Solution to 2**"


def exercise_book(text: str = EXERCISES) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def test_exercises_are_listed_with_links_to_targets_that_stand_before_them() -> None:
    tasks = exercises.titles(exercise_book())
    assert tasks == {"1": "How many?", "2": "And why"}
    listed = render.fill(exercises.PLACE, {}, {"book/images/vqgan": tasks})
    marked = exercises.mark(EXERCISES, "book/images/vqgan")
    assert "1. [How many?](#exercise-images-vqgan-1) ([solution](#solution-images-vqgan-1))" in listed
    assert "(exercise-images-vqgan-1)=\n**1. How many?**" in marked
    assert "(solution-images-vqgan-2)=\n**Solution to 2**" in marked


def test_an_exercise_without_a_solution_stops_the_build() -> None:
    with pytest.raises(ValueError, match="3"):
        exercises.titles(exercise_book(EXERCISES + "\n\n**3. Alone.** Nobody answers."))


def test_progress_bars_leave_the_page_and_other_outputs_stay() -> None:
    def shown(text: str) -> nbformat.NotebookNode:
        return nbformat.v4.new_output(
            "display_data", {"text/plain": text, "application/vnd.jupyter.widget-view+json": {}}
        )

    kept = [shown("IntSlider(value=3)"), nbformat.v4.new_output("stream", text="50%|")]
    bars = [
        shown("  0%|          | 0/3 [00:00<?, ?it/s]"),
        shown("loss 0.2:  67%|██ | 2/3"),
        shown("0it [00:00, ?it/s]"),
    ]
    assert render.without_progress_bars([*bars, *kept]) == kept


def archive(**files: str) -> bytes:
    """Return a .tgz of these files, below `package/`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo("package/" + name.replace("__", "/"))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_vendored_files_are_those_that_are_kept(tmp_path: Path) -> None:
    data = archive(a__x="1", a__y="2", b="3", **{"a__z.map": "4"})
    keep = vendor.Package("f", "p", hashlib.sha256(data).hexdigest(), {"package/a/": "c/"}, (".map",))
    vendor.unpack(data, keep, tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "c/x",
        "c/y",
    ]


def test_an_archive_that_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        vendor.unpack(archive(a="1"), vendor.Package("f", "p", "0" * 64, {"package/": ""}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_vendored_file_is_mended_or_the_change_is_noticed(tmp_path: Path) -> None:
    data = archive(a="old words")
    package = vendor.Package("f", "p", hashlib.sha256(data).hexdigest(), {"package/": ""}, (), (("a", "old", "new"),))
    vendor.unpack(data, package, tmp_path)
    assert (tmp_path / "a").read_text() == "new words"
    gone = dataclasses.replace(package, mend=(("a", "older", "new"),))
    assert gone.mark != package.mark
    with pytest.raises(ValueError, match="no longer holds"):
        vendor.unpack(data, gone, tmp_path)


def test_an_archive_may_not_write_outside(tmp_path: Path) -> None:
    data = archive(**{"..__..__evil": "1"})
    package = vendor.Package("f", "p", hashlib.sha256(data).hexdigest(), {"package/": ""})
    with pytest.raises(ValueError, match="leaves its folder"):
        vendor.unpack(data, package, tmp_path / "in")


OLD = stamp.Project("https://github.com/old/book", "0.1.0")
NEW = stamp.Project("https://github.com/New/library", "0.2.0")


def test_every_form_of_the_address_moves() -> None:
    text = (
        "https://github.com/old/book/issues git+https://github.com/old/book@v1 https://old.github.io/book/x.html "
        "https://colab.research.google.com/github/old/book/blob/main/a.ipynb https://github.com/old/bookshelf"
    )
    assert stamp.readdress(text, OLD, NEW) == (
        "https://github.com/New/library/issues git+https://github.com/New/library@v1 https://new.github.io/library/x.html "
        "https://colab.research.google.com/github/New/library/blob/main/a.ipynb https://github.com/old/bookshelf"
    )


def test_stamping_puts_the_first_cell_behind_the_opening_and_renews_it() -> None:
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("x = 1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    stamp.stamp_notebook(notebook, OLD)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code"]
    stamp.stamp_notebook(notebook, NEW)
    assert len(notebook.cells) == 3
    assert "github.com/New/library@v0.2.0" in notebook.cells[1].source
    nbformat.validate(notebook)


def test_an_address_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nversion = "1"\n[project.urls]\nRepository = "https://example.org/x"\n')
    with pytest.raises(ValueError, match="github.com/OWNER/NAME"):
        stamp.project(path)


def test_paperspace_opens_the_notebook() -> None:
    link = paperspace.link("https://github.com/old/book/", "main", "book/tour.ipynb")
    assert link == "https://console.paperspace.com/github/old/book/blob/main/book/tour.ipynb?machine=Free-GPU"


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return `x` of `(B, L)`.", ["Return ``x`` of ``(B, L)``.", ""]),
        ("Two\nlines, x_ and a*b|c.", [r"Two lines, x\_ and a\*b\|c.", ""]),
        ("steps: how many,\n    at most.\nseed: of all.", ["- steps: how many, at most.", "- seed: of all.", ""]),
        ("Args:\n    x: a `y`.", ["Args:", "    x: a ``y``.", ""]),
        ("- one\n  and more\n- two", ["- one and more", "- two", ""]),
        ("the `code`s", [r"the ``code``\ s", ""]),
        (">>> x = `a`", [">>> x = `a`", ""]),
    ],
)
def test_docstrings_read_on_the_page_as_in_the_source(docstring: str, expected: list[str]) -> None:
    assert plain_docstrings.lines_to_rst(docstring.split("\n")) == expected


def test_a_pin_without_a_reason_is_refused() -> None:
    found = pins.direct("# head\nA_b[some]==1.0  # because\n" + pins.MARK + "\nc==2\n")
    assert {name: (str(pin.specifier), pin.extras) for name, pin in found.items()} == {"a-b": ("==1.0", {"some"})}
    with pytest.raises(ValueError, match="why it is needed"):
        pins.direct("a==1.0\n")
