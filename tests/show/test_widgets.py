"""What a reader can click: every state is inside the page, text is harmless, and it moves without kernel or network."""

import base64
import io
import json
import re
import types
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from minidalle import show
from minidalle.pipeline import Sampling
from minidalle.show.widgets import is_live, live_box

PROMPTS = ["a cat", 'evil "prompt" </script><img src=x onerror=alert(1)> & <b>bold</b>']


class FakePipeline:
    """Draws a flat picture whose colour tells the setting apart, so that a shown picture can be traced back."""

    sampling = Sampling(guidance=2.0, temperature=0.5)

    def __init__(self, scored: bool = True):
        self.calls, self.scored = [], scored

    def generate(self, prompts, *, n, seed, guidance, temperature):
        self.calls.append({"n": n, "seed": seed, "guidance": guidance, "temperature": temperature})
        if "fail" in prompts[0]:
            raise ValueError("the prompt <i>fails</i>; write another")
        found = []
        for index in range(len(prompts)):
            images = np.zeros((n, 16, 16, 3), np.uint8)
            images[..., 0] = 40 + 100 * index
            images[..., 1] = 60 * guidance
            images[..., 2] = (20 * np.arange(n) + 100 * seed)[:, None, None]
            scores = np.linspace(0.9, 0.1, n) if self.scored else None
            found.append(types.SimpleNamespace(images=images, scores=scores))
        return found


class Page(HTMLParser):
    """Collects what a browser would make of the markup."""

    VOID = {"img", "input", "br", "hr", "meta", "link"}

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f"tags left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def stored_data(fragment) -> dict:
    source = re.search(r'getElementById\("[\w-]+"\), (\{.*\})\);</script>', fragment.html, re.DOTALL).group(1)
    return json.loads(source)


def picture(source: str) -> np.ndarray:
    assert source.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def gallery():
    states = show.explore(FakePipeline(), PROMPTS, guidance=(1.0, 3.0), seeds=(0, 1), n=3)
    return show.prompt_gallery(states)


def decode(codes):
    """A decoder whose cells spill one pixel to the right: code c is a 4 × 4 block of grey c."""
    grey = np.asarray(codes, np.float32).reshape(-1, 4, 4).repeat(4, 1).repeat(4, 2)
    spill = grey.copy()
    spill[:, :, 4::4] = grey[:, :, 3:-1:4]
    return (spill / 255)[..., None].repeat(3, axis=-1)


CODES = np.arange(16) * 10


def picker(**named):
    return show.code_picker(np.full((16, 16, 3), 200, np.uint8), CODES, decode, alternatives=(0, 150, 255), **named)


def causal(rng, length):
    weights = np.tril(rng.random((length, length)))
    return weights / weights.sum(-1, keepdims=True)


def viewer(**changes):
    rng = np.random.default_rng(0)
    words = ["<s>", " red", " </script><b>"]
    views = {name: (rng.dirichlet(np.ones(3), 16), causal(rng, 16)) for name in ("mean", "layer 1")}
    return show.attention_viewer(np.full((16, 16, 3), 200, np.uint8), words, views | changes, start=5)


def damages():
    """Two texts, two corruptions, two seeds; the second corruption is repaired for seed 1 alone."""
    found = []
    for pieces in (["red", " heart"], [PROMPTS[1]]):
        for seed in (0, 1):
            found.append(show.Damage("masking", seed, pieces, ["<mask>", *pieces[1:]], "wrong"))
            found.append(show.Damage("nothing", seed, pieces, pieces * (seed + 1), "".join(pieces) if seed else ""))
    return found


def corruptions():
    return show.corruption_picker(damages())


@pytest.mark.parametrize("make", [gallery, picker, viewer, corruptions])
def test_the_markup_is_closed_labelled_and_asks_for_nothing_outside(make):
    page = Page(make().html)
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities)) == 1
    assert all("alt" in image for image in page.all("img"))
    assert all(button.get("type") == "button" for button in page.all("button"))
    assert page.tags[0][1]["aria-label"]
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert (sources or make is corruptions) and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?:|//cdn|@import|url\(", make().html)


def test_two_parts_on_one_page_do_not_share_an_id():
    identity = re.compile(r'id="([\w-]+)"')
    assert identity.search(gallery().html).group(1) != identity.search(gallery().html).group(1)


def test_a_caption_cannot_become_markup():
    fragment = gallery()
    page = Page(fragment.html)
    assert fragment.html.count("</script>") == 1
    assert not page.all("b") and not any("onerror" in image for image in page.all("img"))
    assert PROMPTS[1] in page.words, "the words themselves are shown unchanged"
    assert stored_data(fragment)["axes"][0]["values"] == PROMPTS


def test_the_gallery_holds_the_picture_of_every_state():
    data = stored_data(gallery())
    assert [axis["name"] for axis in data["axes"]] == ["prompt", "guidance", "temperature", "seed"]
    assert data["axes"][1]["values"] == ["1", "3"]
    assert len(data["states"]) == 2 * 2 * 1 * 2
    for key, state in data["states"].items():
        prompt, guidance, _, seed = map(int, key.split(","))
        for index, entry in enumerate(state["pictures"]):
            wanted = (40 + 100 * prompt, 60 * (1, 3)[guidance], 20 * index + 100 * seed)
            np.testing.assert_allclose(picture(entry["source"])[8, 8], wanted, atol=6)
            assert entry["alt"] == f"{PROMPTS[prompt]}, picture {index + 1} of 3"


def test_without_a_script_the_first_state_is_there():
    page = Page(gallery().html)
    assert len(page.all("img")) == 3
    np.testing.assert_allclose(picture(page.all("img")[0]["src"])[0, 0], (40, 60, 0), atol=6)


def test_a_missing_or_double_state_is_named():
    states = show.explore(FakePipeline(), ["a cat"], guidance=(1.0, 3.0), seeds=(0, 1), n=1)
    with pytest.raises(ValueError, match=r"lacks prompt 'a cat', guidance 3.0, temperature 1.0, seed 1"):
        show.prompt_gallery(states[:-1])
    with pytest.raises(ValueError, match="seed 0 twice"):
        show.prompt_gallery([*states, states[0]])
    with pytest.raises(ValueError, match="no states"):
        show.prompt_gallery([])


def test_unranked_pictures_show_no_score():
    fragment = show.prompt_gallery(show.explore(FakePipeline(scored=False), ["a cat"], n=2))
    states = stored_data(fragment)["states"].values()
    assert {entry["score"] for state in states for entry in state["pictures"]} == {""}
    assert {state["note"] for state in states} == {""}


def test_the_picker_holds_every_cell_with_every_alternative():
    data = stored_data(picker(quality=100))
    np.testing.assert_array_equal(picture(data["decoded"]), np.round(decode(CODES[None])[0] * 255))
    for cell in range(16):
        for choice, code in enumerate((0, 150, 255)):
            changed = CODES.copy()
            changed[cell] = code
            np.testing.assert_array_equal(
                picture(data["variants"][cell][choice]), np.round(decode(changed[None])[0] * 255)
            )
    assert data["notes"][0][0] == "no pixel changes visibly"
    assert data["notes"][0][1] == "8% of the pixels change, 20% of these outside the cell"
    assert data["notes"][3][0] == "5% of the pixels change, 0% of these outside the cell"
    np.testing.assert_array_equal(picture(data["patches"]["150"]), np.full((4, 4, 3), 150))


def test_the_picker_compiles_once_whatever_the_number_of_pictures():
    shapes = set()

    def watched(codes):
        shapes.add((codes.shape, codes.dtype.name))
        return decode(codes)

    show.code_picker(np.zeros((16, 16, 3), np.uint8), CODES, watched, alternatives=5, batch=7)
    assert shapes == {((7, 16), "int32")}


def test_alternatives_default_to_the_most_frequent_codes():
    codes = np.array([7] * 9 + [3] * 5 + [200, 100])
    data = stored_data(show.code_picker(np.zeros((16, 16, 3), np.uint8), codes, decode, alternatives=3))
    assert data["alternatives"] == [7, 3, 100]
    with pytest.raises(ValueError, match="each once"):
        show.code_picker(np.zeros((16, 16, 3), np.uint8), codes, decode, alternatives=[3, 3])


def displayed(box) -> str:
    return box.children[-1].value


def test_the_live_box_draws_what_its_controls_say():
    pipe = FakePipeline()
    box = live_box(pipe)
    prompt, candidates, temperature, guidance, seed, button, _ = box.children
    prompt.value, candidates.value, temperature.value, guidance.value, seed.value = "<i>cat</i>", 2, 0.5, 4.0, 7
    button.click()
    assert pipe.calls == [{"n": 2, "seed": 7, "guidance": 4.0, "temperature": 0.5}]
    page = Page(displayed(box))
    assert [image["alt"] for image in page.all("img")] == [f"<i>cat</i>, picture {index} of 2" for index in (1, 2)]
    assert not page.all("i") and not button.disabled


def test_the_live_box_shows_an_error_and_stays_usable():
    box = live_box(FakePipeline())
    box.children[0].value = "fail"
    box.children[5].click()
    assert "ValueError: the prompt <i>fails</i>; write another" in Page(displayed(box)).words
    assert not box.children[5].disabled and box.children[5].description == "Generate"


def test_the_box_is_left_out_of_the_static_page(monkeypatch):
    import IPython

    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(IPython, "get_ipython", lambda: kernel)
    assert not is_live(), "pytest, and so nbmake, is no reader"
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert is_live()
    monkeypatch.setenv("MINIDALLE_STATIC", "1")
    assert not is_live()
    states = show.explore(FakePipeline(), ["a cat"], n=1)
    assert show.prompt_box(FakePipeline(), states).box is None
    assert show.prompt_box(FakePipeline(), states, live=True).box is not None
    with pytest.raises(ValueError, match="give states"):
        show.prompt_box(FakePipeline())


@pytest.fixture
def opened(browser, tmp_path):
    """Open fragments as a page that may not ask the network for anything, and fail on any script error."""
    troubles = []

    def open_page(*fragments, width=900):
        body = "\n".join(fragment.html for fragment in fragments)
        (tmp_path / "page.html").write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{body}')
        page = browser.new_page(viewport={"width": width, "height": 700})
        page.route(re.compile("^https?:"), lambda route: (troubles.append(route.request.url), route.abort()))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert troubles == []


def test_sliders_and_prompts_change_the_pictures(opened):
    fragment = gallery()
    data, page = stored_data(fragment), opened(fragment)

    def sources():
        return page.eval_on_selector_all(".pictures img", "images => images.map(image => image.src)")

    def wanted(key, count=3):
        return [entry["source"] for entry in data["states"][key]["pictures"][:count]]

    assert sources() == wanted("0,0,0,0")
    page.select_option("[data-axis=prompt]", "1")
    assert sources() == wanted("1,0,0,0")
    page.focus("[data-axis=guidance]")
    page.keyboard.press("ArrowRight")
    assert sources() == wanted("1,1,0,0")
    assert page.get_attribute("[data-axis=guidance]", "aria-valuetext") == "3"
    page.focus("[data-axis=seed]")
    page.keyboard.press("End")
    assert sources() == wanted("1,1,0,1")
    page.focus("[data-axis=pictures]")
    page.keyboard.press("Home")
    assert sources() == wanted("1,1,0,1", 1)
    assert PROMPTS[1] in page.text_content(".status") and "seed 1" in page.text_content(".status")
    assert page.is_disabled("[data-axis=temperature]"), "an axis with one value cannot be moved"


def test_choosing_a_corruption_and_a_seed_changes_the_damage(opened):
    page = opened(corruptions())

    def damaged():
        return page.eval_on_selector_all(".damaged li", "items => items.map(item => item.textContent)")

    assert damaged() == ["<mask>", " heart"] and page.locator(".damaged .mask").count() == 1
    assert page.text_content(".status") == "2 tokens became 2, 1 mask among them. The model writes “wrong”."
    page.select_option("[data-axis=corruption]", "1")
    assert page.text_content(".status") == "2 tokens became 2."
    page.focus("[data-axis=seed]")
    page.keyboard.press("ArrowRight")
    assert damaged() == ["red", " heart"] * 2 and page.locator(".damaged .mask").count() == 0
    assert page.text_content(".status").endswith("The model writes “red heart”: repaired.")
    page.select_option("[data-axis=text]", "1")
    assert damaged() == [PROMPTS[1]] * 2
    assert page.text_content(".status").startswith("1 token became 2.")


def test_a_missing_damage_is_named():
    with pytest.raises(ValueError, match="picker lacks text .*, corruption 'nothing', seed 1"):
        show.corruption_picker(damages()[:-1])


def test_clicking_a_cell_and_a_code_changes_the_picture(opened):
    fragment = picker()
    data, page = stored_data(fragment), opened(fragment)

    def shown():
        return page.get_attribute(".result img", "src")

    assert shown() == data["decoded"]
    page.click(".cells button >> nth=3")
    assert shown() == data["decoded"] and "Code 30 stands at row 1, column 4" in page.text_content(".status")
    assert page.text_content(".choices button >> nth=0") == "keep 30"
    page.click(".choices button >> nth=3")
    assert shown() == data["variants"][3][2] and data["notes"][3][2] in page.text_content(".status")
    page.click(".cells button >> nth=0")
    assert shown() == data["variants"][0][2]
    page.click(".choices button >> nth=1")
    assert "already stands" in page.text_content(".status")
    page.click(".choices button >> nth=0")
    assert shown() == data["decoded"]


def test_the_picker_is_worked_by_keys_alone(opened):
    page = opened(picker())
    page.keyboard.press("Tab")
    chosen = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(chosen) == "row 3, column 3, code 100"
    for key, label in [
        ("ArrowUp", "row 2, column 3, code 60"),
        ("ArrowRight", "row 2, column 4, code 70"),
        ("ArrowRight", "row 2, column 4, code 70"),
        ("ArrowDown", "row 3, column 4, code 110"),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(chosen) == label
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert "Code 110 at row 3, column 4 replaced by 0" in page.text_content(".status")
    assert page.locator("[role=radio][tabindex='0']").count() == 2, "one stop for Tab in each group"


def test_the_viewer_holds_all_weights_and_nothing_ahead():
    rng = np.random.default_rng(0)
    first = (rng.dirichlet(np.ones(3), 16), causal(rng, 16))
    data = stored_data(viewer())
    assert [view["name"] for view in data["views"]] == ["mean", "layer 1"]
    np.testing.assert_allclose(np.array(data["views"][0]["cross"]) / 1000, first[0], atol=6e-4)
    assert [len(row) for row in data["views"][0]["own"]] == list(range(1, 17))
    np.testing.assert_allclose(np.array(data["views"][0]["own"][7]) / 1000, first[1][7, :8], atol=6e-4)
    page = Page(viewer().html)
    shares = [f"{round(1000 * share) / 10:.0f} %" for share in first[0][5]]
    assert [word for word in page.words if word.endswith(" %")] == shares, "without a script the first code is there"


def test_weights_that_cannot_be_attention_are_refused():
    cross, own = np.full((16, 3), 1 / 3), causal(np.random.default_rng(0), 16)
    with pytest.raises(ValueError, match="look ahead"):
        viewer(mean=(cross, own.T / own.T.sum(-1, keepdims=True)))
    with pytest.raises(ValueError, match="sum to 1"):
        viewer(mean=(cross / 2, own))
    with pytest.raises(ValueError, match=r"\(16, 2\) and \(16, 16\) for 3 words"):
        viewer(mean=(np.full((16, 2), 0.5), own))
    with pytest.raises(ValueError, match="no views"):
        show.attention_viewer(np.zeros((16, 16, 3), np.uint8), ["a"], {})


def test_choosing_a_code_shows_its_words_and_the_codes_before_it(opened):
    fragment = viewer()
    data, page = stored_data(fragment), opened(fragment)

    def alphas():
        read = "all => all.map(b => Number((b.style.backgroundColor.match(/, ([.0-9]+)\\)/) || [0, 0])[1]))"
        return np.array(page.eval_on_selector_all(".cells button", read))

    def bars():
        return page.eval_on_selector_all(".weights .bar", "all => all.map(bar => parseFloat(bar.style.width))")

    for cell, layer in ((5, 0), (9, 0), (9, 1), (0, 1)):
        page.click(f".cells button >> nth={cell}")
        page.select_option("select", str(layer))
        view = data["views"][layer]
        np.testing.assert_allclose(bars(), np.array(view["cross"][cell]) / 10, atol=0.01)
        own = np.array(view["own"][cell][1:])
        np.testing.assert_allclose(alphas()[:cell], 0.85 * own / max([*own, 1]), atol=0.01)
        assert (alphas()[cell:] == 0).all() and page.locator(".cells .unseen").count() == 15 - cell
    assert "row 1, column 1" in page.text_content(".status") and "the start token (100 %" in page.text_content(
        ".status"
    )
    page.focus(".cells button >> nth=0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 2"
    assert "row 2, column 2" in page.text_content(".status")


def test_all_fit_a_phone_and_live_on_one_page(opened):
    page = opened(gallery(), picker(), corruptions(), gallery(), viewer(), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.select_option("[data-axis=prompt] >> nth=1", "1")
    assert page.locator(".status").nth(0).text_content().startswith("“a cat”")
    assert page.locator(".status").nth(3).text_content().startswith("“evil")
