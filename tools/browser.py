"""The Chromium that the machine has, for printing the book and for looking at its pages."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Return the browser's path; the variable CHROMIUM names another. Raises FileNotFoundError when there is none."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None or not Path(program).exists():
        missing = f"there is no {program}" if program else "no Chromium found"
        raise FileNotFoundError(f"{missing}; install Debian's package chromium, or set CHROMIUM to a browser")
    return program


def open_page(page: Page, address: str) -> None:
    """Load a page of the book, and wait until nothing is loading and formulas are set."""
    page.goto(address, wait_until="load")  # on a busy machine the network can idle while the page is still being read
    page.wait_for_load_state("networkidle")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => null) : null")
