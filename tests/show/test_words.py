"""Captions in boxes: each piece is the tokenizer's own, at every number of merges, and the page can be played with."""

import json
import re
import shutil
from importlib.resources import files

import pytest
import tokenizers

from minidalle import show
from minidalle.show.words import merge_stages, readable
from minidalle.text import Tokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CAPTIONS = ["woman firefighter: medium skin tone", "Café 😀 </script><b>", "", "  aaaa aa "]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(files("minidalle") / "checkpoints/emoji")


def test_tokens_are_written_for_people():
    assert readable("Ġskin") == "␣skin" and readable("<pad>") == "<pad>"
    assert readable("cafÃ©") == "café"
    assert readable("ðŁ") == "⟨F0⟩⟨9F⟩"


@pytest.mark.parametrize("caption", CAPTIONS)
def test_stages_go_from_bytes_to_the_tokenizers_own_cut(tokenizer, caption):
    stages = merge_stages(tokenizer, caption)
    numbers = [number for number, _ in stages]
    assert numbers[0] == 0 and numbers == sorted(set(numbers))
    assert all(len(token) == 1 for token in stages[0][1])
    assert stages[-1][1] == tokenizer.backend.encode(caption, add_special_tokens=False).tokens
    assert len({"".join(cut) for _, cut in stages}) == 1


@pytest.mark.parametrize("count", [1, 17, 100, 400])
def test_a_stage_is_the_cut_of_the_tokenizer_that_knows_no_later_merge(tokenizer, count):
    model = json.loads(tokenizer.backend.to_str())
    model["model"]["merges"] = model["model"]["merges"][:count]
    fewer = tokenizers.Tokenizer.from_str(json.dumps(model))
    for caption in CAPTIONS:
        expected = fewer.encode(caption, add_special_tokens=False).tokens
        assert [cut for number, cut in merge_stages(tokenizer, caption) if number <= count][-1] == expected


def test_pieces_are_all_drawn_with_their_number_and_wrapped():
    figure = show.pieces({"few": ["␣a", "␣cat"], "many": ["␣sunglasses"] * 9})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("␣sunglasses") == 9 and "9 tokens" in texts and "2 tokens" in texts
    figure.draw_without_rendering()
    frame = figure.axes[0].get_window_extent()
    for text in figure.axes[0].texts:
        extent = text.get_window_extent()
        assert frame.x0 - 2 <= extent.x0 and extent.x1 <= frame.x1 + 2, text.get_text()
    with pytest.raises(ValueError, match="no rows"):
        show.pieces({})


def test_the_slider_carries_every_stage_and_no_markup_of_a_caption(tokenizer):
    fragment = show.merge_slider(tokenizer, CAPTIONS)
    stored = json.loads(re.search(r'getElementById\("[\w-]+"\), (\{.*\})\);</script>', fragment.html).group(1))
    for caption, stages in zip(CAPTIONS, stored["stages"], strict=True):
        cuts = [[stored["ids"][token] for token in cut] for _, cut in stages]
        assert cuts[-1] == tokenizer.backend.encode(caption, add_special_tokens=False).ids
    assert "<b>" not in fragment.html
    with pytest.raises(ValueError, match="no captions"):
        show.merge_slider(tokenizer, [])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_slider_moves_without_kernel_and_network(tokenizer, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    page_file = tmp_path / "page.html"
    page_file.write_text(f"<!doctype html><meta charset=utf-8>{show.merge_slider(tokenizer, CAPTIONS).html}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 700})
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri())
        shown = "() => [...document.querySelectorAll('.pieces li')].map(item => item.firstChild.textContent)"
        assert page.evaluate(shown)[:2] == ["␣woman", "␣firefighter"]
        page.fill("input[type=range]", "0")
        assert page.evaluate(shown)[:4] == ["␣", "w", "o", "m"]
        assert page.is_disabled("text=change before") and "Every byte" in page.inner_text(".status")
        page.click("text=next change")
        assert int(page.input_value("input[type=range]")) == merge_stages(tokenizer, CAPTIONS[0])[1][0]
        page.select_option("select", "1")
        assert "".join(page.evaluate(shown)).startswith("␣Caf")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360 and not complaints
        browser.close()
