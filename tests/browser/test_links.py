"""Every link inside the rendered book leads somewhere: the page exists, and so does the place on it."""

from functools import cache
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from tests.browser.conftest import rendered
from tools.chapters import HTML

# Filled by a script when the page is open.
BY_SCRIPT = {"search.html"}


@cache
def soup(path: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / path).read_text(encoding="utf8"), "html.parser")


@cache
def places(path: str) -> frozenset[str]:
    return frozenset(node["id"] for node in soup(path).find_all(id=True)) | {"", "top"}


def inside(path: str) -> set[str]:
    """Return the addresses of a page that stay inside the book, as they stand there."""
    found = {node.get("href") for node in soup(path).find_all("a", href=True)}
    found |= {node.get("src") for node in soup(path).find_all(["img", "script"], src=True)}
    found |= {node.get("href") for node in soup(path).find_all("link", href=True, rel="stylesheet")}
    return {address for address in found if not urlsplit(address).scheme and not address.startswith("//")}


@pytest.mark.parametrize("path", rendered())
def test_links_lead_somewhere(path: str) -> None:
    links = inside(path)
    assert links or path == "index.html", "a page without a single link"  # that one only leads on
    broken = []
    for address in links:
        target = urlsplit(urljoin(f"/{path}", address))
        file = unquote(target.path).lstrip("/")
        if not (HTML / file).is_file():
            broken.append(address)
        elif file.endswith(".html") and file not in BY_SCRIPT and unquote(target.fragment) not in places(file):
            broken.append(address)
    assert broken == []


def test_a_broken_link_would_be_seen() -> None:
    assert "no-such-place" not in places("book/back/glossary.html")
    assert "term-codebook" in places("book/back/glossary.html")
    assert any(address.startswith("../back/glossary.html#term-") for address in inside("book/images/codebook.html"))


def test_the_index_leads_from_every_word_of_the_glossary_to_where_it_is_used() -> None:
    words = {node.get_text(" ", strip=True).rstrip("# ") for node in soup("book/back/glossary.html").find_all("dt")}
    entries = soup("book/back/index.html").select(".term-index > li")
    assert {entry.strong.get_text() for entry in entries} == words
    (codebook,) = (entry for entry in entries if entry.strong.get_text() == "codebook")
    used = {link["href"].split("#")[0] for link in codebook.find_all("a", href=True)}
    assert {"glossary.html", "../images/codebook.html", "../images/vqgan.html"} <= used
