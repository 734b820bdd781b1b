"""A browser, and a server that gives it the rendered book as a web host would."""

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tools.browser import FLAGS, find_chromium, open_page
from tools.chapters import HTML, ROOT


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Serve `_build/html` on a free port of this machine."""
    if not (HTML / "index.html").exists():
        pytest.exit("there is no _build/html/index.html to look at; run `make book` first", returncode=1)
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the Chromium that the machine has; CHROMIUM names another."""
    try:
        program = find_chromium()
    except FileNotFoundError as error:
        pytest.exit(str(error), returncode=1)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS, headless=True)
        yield running
        running.close()


@dataclass
class Visit:
    """An opened page and what went wrong while it loaded."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Load a page of the book, and wait until nothing is loading and formulas are set."""
        open_page(self.page, f"{self.address}/{path}")
        return self.page


@pytest.fixture
def visit(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Give a fresh window that notes errors, failed loads and every attempt to reach another server."""
    options = getattr(request, "param", {})
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    this = Visit(context.new_page(), address)

    def is_local(url: str) -> bool:
        return url.startswith((address, "data:", "blob:", "about:"))

    def note_request(sent: Request) -> None:
        if not is_local(sent.url):
            this.complaints.append(f"asks another server: {sent.url}")

    context.route(lambda url: not is_local(url), lambda route: route.abort())
    this.page.on("request", note_request)
    this.page.on("requestfailed", lambda sent: this.complaints.append(f"failed to load: {sent.url} ({sent.failure})"))
    this.page.on("response", lambda got: got.status >= 400 and this.complaints.append(f"{got.status}: {got.url}"))
    this.page.on("pageerror", lambda error: this.complaints.append(f"script error: {error}"))
    this.page.on(
        "console", lambda said: said.type == "error" and this.complaints.append(f"console: {said.text} {said.location}")
    )
    yield this
    context.close()


def rendered() -> list[str]:
    """Return every page of the rendered book, as a path below `_build/html`."""
    skip = ("_static", "_sphinx_design_static", "_images", "_downloads")
    paths = sorted(path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return [path.as_posix() for path in paths if path.parts[0] not in skip] or ["index.html"]


def articles() -> list[str]:
    """Return the pages that people wrote, as opposed to indices and listings that Sphinx made."""
    return [path for path in rendered() if path.startswith("book/")]


def source_path(page: str) -> Path:
    """Return the notebook or Markdown file behind a rendered article."""
    base = ROOT / page.removesuffix(".html")
    notebook = base.with_suffix(".ipynb")
    return notebook if notebook.exists() else base.with_suffix(".md")
