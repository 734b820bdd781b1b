"""Every rendered page as a reader's browser shows it."""

import re

import pytest

from tests.browser.conftest import Visit, articles, rendered, source_path
from tools.stamp import project

# Text of the page without what is meant to be read raw: code, and mathematics that MathJax keeps for screen readers.
PROSE = """() => {
  const copy = document.querySelector("article, main, body").cloneNode(true);
  copy.querySelectorAll("pre, code, script, style, mjx-container, .highlight").forEach(node => node.remove());
  return copy.textContent;
}"""
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("path", rendered())
def test_page_loads_without_a_complaint_and_without_the_network(visit: Visit, path: str) -> None:
    visit.open(path)
    assert visit.complaints == []


@pytest.mark.parametrize("path", articles())
def test_prose_holds_no_markup_and_no_error(visit: Visit, path: str) -> None:
    page = visit.open(path)
    prose = page.evaluate(PROSE)
    assert len(prose.split()) > 20, "the page is all but empty"
    for pattern in (
        r"Traceback \(most recent call last\)",
        r"```\{",
        r":::\{",
        r"\{(numref|term|cite|ref|eq|doc)[:}]",
        r"<!-- ",
    ):
        assert not re.search(pattern, prose), f"{pattern} stands in the text"
    outputs = " ".join(page.locator(".cell_output").all_text_contents())
    raising = page.locator(".cell.tag_raises-exception").count()
    assert raising or "Traceback (most recent call last)" not in outputs
    assert page.locator(".system-message, .problematic").count() == 0


@pytest.mark.parametrize("path", articles())
def test_every_formula_is_typeset(visit: Visit, path: str) -> None:
    page = visit.open(path)
    formulas = page.locator("span.math, div.math")
    assert page.locator("mjx-container").count() >= formulas.count()
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    prose = page.evaluate(PROSE)
    for pattern in (r"\\\(", r"\\\[", r"\$[^$\d\s][^$\n]{0,60}\$", r"\\(frac|mathbf|sum|begin)\b"):
        assert not re.search(pattern, prose), f"raw mathematics: {re.search(pattern, prose)}"


@pytest.mark.parametrize("path", articles())
def test_every_picture_is_loaded_described_and_opaque(visit: Visit, path: str) -> None:
    page = visit.open(path)
    # Lazy pictures load when they come into view.
    page.evaluate("() => document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    pictures = page.evaluate("""() => [...document.querySelectorAll("article img")].map(image => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 1;
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0, 1, 1, 0, 0, 1, 1);
      let corner = 255;
      try { corner = context.getImageData(0, 0, 1, 1).data[3]; } catch (error) { corner = -1; }
      const output = image.closest(".cell_output") !== null;
      // A picture on a button that has words is decoration: an empty alt keeps it from being read out twice.
      const alt = image.alt || image.closest("button")?.textContent || "";
      return {source: image.src.slice(0, 120), width: image.naturalWidth, alt, corner, output};
    })""")
    for picture in pictures:
        assert picture["width"] > 0, f"not loaded: {picture}"
        assert picture["alt"].strip(), f"no alt text; set mystnb.image.alt in the cell's metadata: {picture}"
        assert not picture["alt"].endswith((".png", ".svg", ".jpg")), f"the alt text is a file name: {picture}"
        if picture["output"]:
            assert picture["corner"] == 255, f"no facecolor, unreadable in dark mode: {picture}"


@pytest.mark.parametrize("path", [path for path in articles() if source_path(path).suffix == ".ipynb"])
def test_launch_buttons_open_this_very_notebook(visit: Visit, path: str) -> None:
    page = visit.open(path)
    links = page.evaluate("() => [...document.querySelectorAll('.dropdown-launch-buttons a')].map(link => link.href)")
    tail = f"/github/{project().slug}/blob/main/{path.removesuffix('.html')}.ipynb"
    assert f"https://colab.research.google.com{tail}" in links
    assert f"https://console.paperspace.com{tail}?machine=Free-GPU" in links


@pytest.mark.parametrize("path", articles())
@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}], indirect=True, ids=["dark"])
def test_dark_mode_is_readable(visit: Visit, path: str) -> None:
    page = visit.open(path)
    page.evaluate("() => { document.documentElement.dataset.mode = document.documentElement.dataset.theme = 'dark'; }")
    page.wait_for_timeout(300)  # colours fade over
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    found = page.evaluate("""() => {
      const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
      const luminance = ([red, green, blue]) => {
        const linear = [red, green, blue].map(value => {
          value /= 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
      };
      const ground = node => {
        for (; node; node = node.parentElement) {
          const colour = numbers(getComputedStyle(node).backgroundColor);
          if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
      };
      const own = node => [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim());
      const texts = [...document.querySelectorAll("article *")].filter(node =>
        node.offsetParent && (own(node) || node.matches("mjx-container")) && !node.closest("svg, mjx-container *"));
      return texts.map(node => {
        const light = luminance(numbers(getComputedStyle(node).color)), dark = luminance(ground(node));
        const contrast = (Math.max(light, dark) + 0.05) / (Math.min(light, dark) + 0.05);
        return [Math.round(contrast * 100) / 100, node.tagName, node.textContent.trim().slice(0, 60)];
      }).filter(([contrast]) => contrast < 4.5);
    }""")
    assert found == [], "text with a contrast below 4.5 to 1"


@pytest.mark.parametrize("path", articles())
@pytest.mark.parametrize("visit", [PHONE], indirect=True, ids=["phone"])
def test_nothing_is_wider_than_a_phone(visit: Visit, path: str) -> None:
    page = visit.open(path)
    width, window = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    wide = page.evaluate("""() => [...document.querySelectorAll("article *")].filter(node => {
      if (node.getBoundingClientRect().right <= window.innerWidth + 1 || !node.offsetParent) return false;
      for (let box = node.parentElement; box; box = box.parentElement) {
        if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(box).overflowX)) return false;
      }
      return true;
    }).map(node => node.outerHTML.slice(0, 100))""")
    assert wide == []
    assert width <= window


def test_the_ranking_explorer_is_worked_by_keys_on_its_page(visit: Visit) -> None:
    page = visit.open("book/dalle/ranking.html")
    explorer = page.locator("[id^=minidalle-explorer]")
    assert explorer.locator(".explorer-pick").count() == 1
    explorer.locator("input").press("Home")
    assert explorer.locator(".status").text_content().startswith("Of 1 drawn")
    explorer.locator("input").press("End")
    assert explorer.locator(".explorer-later").count() == 0
    explorer.locator(".explorer-caption").select_option(index=1)
    assert explorer.locator(".heading").text_content() == f"“{explorer.locator('option').nth(1).text_content()}”"
    assert explorer.evaluate("node => node.outerHTML.length") < 400_000
    assert visit.complaints == []


def test_search_finds_codebook(visit: Visit) -> None:
    page = visit.open("search.html?q=codebook")
    page.wait_for_selector("#search-results li", timeout=15_000)
    found = page.locator("#search-results li a").all_text_contents()
    assert any("Glossary" in title for title in found), found
    assert visit.complaints == []


def test_the_front_door_leads_to_the_introduction(visit: Visit) -> None:
    page = visit.open("index.html")
    page.wait_for_url("**/book/intro.html")
    assert page.locator("article h1").count() == 1
