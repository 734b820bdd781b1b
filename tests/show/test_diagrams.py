"""The drawn diagrams: what lies in the folder is what the scripts draw, and every word can be read."""

import itertools
import re
import runpy
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

FOLDER = Path(__file__).parents[2] / "book" / "figures"
FILES = sorted(FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_scripts_draw_exactly_what_lies_there(tmp_path):
    for script in sorted(FOLDER.glob("*.py")):
        shutil.copy(script, tmp_path)
    for script in tmp_path.glob("make_*.py"):
        runpy.run_path(str(script), run_name="__main__")
    made = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    lying = {path.name: path.read_text() for path in FILES}
    assert made.keys() == lying.keys()
    assert [name for name in made if made[name] != lying[name]] == [], "run the scripts in book/figures again"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_diagram_stands_alone_and_describes_itself(path):
    tree = ElementTree.parse(path).getroot()
    assert tree.find(f"{SVG}title").text and len(tree.find(f"{SVG}desc").text) > 80
    assert tree.get("role") == "img"
    source = path.read_text()
    assert not re.search(r"href|url\(|<script|<image", source), "nothing from outside"
    background = tree.find(f"{SVG}rect")
    assert background.get("width") == tree.get("width") and background.get("fill").startswith("#f"), (
        "its own light card"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_words_are_large_enough_at_the_width_of_a_page(path):
    tree = ElementTree.parse(path).getroot()
    sizes = [float(text.get("font-size")) for text in tree.iter(f"{SVG}text")]
    assert min(sizes) * 700 / float(tree.get("width")) >= 13


def test_each_chapter_lights_other_parts_of_the_same_road():
    roads = {path.stem: path.read_text() for path in FILES if path.stem.startswith("road-")}
    words = {name: sorted(re.findall(r">([^<>]+)</text>", source)) for name, source in roads.items()}
    assert len({tuple(each) for each in words.values()}) == 1, "the same map everywhere"
    lit = {name: source.count('stroke-width="3"') for name, source in roads.items()}
    assert lit["road-tour"] == 11 and lit["road-codebook"] == 1 and lit["road-vqgan"] == 5


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_words_stay_on_the_card_and_off_each_other(page, path):
    page.goto(path.as_uri())
    boxes = page.eval_on_selector_all(
        "text", "all => all.map(t => { const b = t.getBBox(); return [t.textContent, b.x, b.y, b.width, b.height] })"
    )
    width, height = page.evaluate("[document.documentElement.viewBox.baseVal.width, "
                                  "document.documentElement.viewBox.baseVal.height]")  # fmt: skip
    for words, x, y, wide, high in boxes:
        assert x >= 6 and x + wide <= width - 6 and y >= 0 and y + high <= height, f"{words!r} leaves the card"
    for (one, x, y, wide, high), (other, left, top, breadth, depth) in itertools.combinations(boxes, 2):
        beside = x + wide <= left or left + breadth <= x
        above = y + high * 0.85 <= top or top + depth * 0.85 <= y  # a line box is taller than its letters
        assert beside or above, f"{one!r} and {other!r} overlap"
