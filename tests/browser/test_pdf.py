"""The printed book holds all that the pages hold. `make pdf` writes it."""

import re
import unicodedata

import pytest
from pypdf import PdfReader

from tools import pdf
from tools.chapters import listed, source_of
from tools.stamp import title


@pytest.fixture(scope="module")
def book() -> PdfReader:
    if not pdf.PDF.exists():
        pytest.exit(f"there is no {pdf.PDF}; run `make pdf` first", returncode=1)
    return PdfReader(pdf.PDF)


@pytest.fixture(scope="module")
def texts(book: PdfReader) -> list[str]:
    return [page.extract_text() for page in book.pages]


def squeezed(text: str) -> str:
    """Return a text without ligatures, white space and hyphens, which printing sets anew."""
    return re.sub(r"[\s\u00ad-]", "", unicodedata.normalize("NFKC", text))


def chapters_of(book: PdfReader) -> dict[str, int]:
    """Return the page, counted from 0, on which each chapter begins according to the outline."""
    return {item.title: book.get_destination_page_number(item) for item in book.outline if not isinstance(item, list)}


def test_the_outline_holds_every_page_of_the_book_in_order(book: PdfReader) -> None:
    assert [squeezed(name) for name in chapters_of(book)] == [
        squeezed(title(source_of(page)).replace("`", "")) for page in listed()
    ]


def test_chapters_begin_where_outline_and_contents_say(book: PdfReader, texts: list[str]) -> None:
    starts = chapters_of(book)
    front = "\n".join(texts[: min(starts.values())])
    for name, page in starts.items():
        assert squeezed(name) in squeezed(texts[page])
        assert squeezed(f"{name}{page + 1}") in squeezed(front), f"the contents give {name} another page"


def test_every_raster_figure_is_printed(book: PdfReader) -> None:
    figures = [path for path in (pdf.ONE_PAGE / "_images").iterdir() if path.suffix in {".png", ".jpg", ".webp"}]
    printed = {
        reference.idnum
        for page in book.pages
        for reference in page["/Resources"].get("/XObject", {}).values()
        if reference.get_object()["/Subtype"] == "/Image"
    }
    assert len(figures) > 20
    assert len(printed) >= len(figures)


def test_formulas_are_set_and_nothing_is_left_folded(texts: list[str]) -> None:
    text = "\n".join(texts)
    assert not re.search(r"\\(frac|mathbf|sum|begin)\b", text)
    # The code of solutions is folded on the pages.
    assert text.count("Solution to 1") >= 5
    assert "def top_p_by_hand" in text or "def solution" in text
    assert "Show code cell" not in text


def test_no_page_is_empty(book: PdfReader, texts: list[str]) -> None:
    empty = [
        number + 1
        for number, (page, text) in enumerate(zip(book.pages, texts, strict=True))
        if len(text.split()) < 3 and "/XObject" not in page["/Resources"]
    ]
    assert empty == []
