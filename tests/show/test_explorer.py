"""The ranking explorer: every candidate is inside the page, the best of the first n is lit, and the verdict is told."""

import numpy as np
import pytest

from minidalle import show
from tests.show.test_widgets import PROMPTS, Page, opened, picture, stored_data  # noqa: F401 - `opened` is a fixture

COUNT = 4
SCORES = np.array([[0.3, 0.1, 0.8, 0.8], [0.5, 0.2, 0.1, 0.0]])
RIGHT = np.array([[True, False, False, True], [False, False, False, False]])
CURVES = {
    "chance": np.full(COUNT, 0.25),
    "CLIP": np.linspace(0.25, 0.5, COUNT),
    "judge": np.linspace(0.25, 0.75, COUNT),
}


def judged(row, caption):
    images = np.full((COUNT, 8, 8, 3), 200, np.uint8)
    images[..., 0] = 60 * np.arange(COUNT)[:, None, None]
    images[..., 1] = 100 * row
    return show.Judged(caption, images, SCORES[row], RIGHT[row], [f"<i>{place}</i>" for place in range(COUNT)])


def explorer(**named):
    return show.ranking_explorer([judged(row, caption) for row, caption in enumerate(PROMPTS)], CURVES, **named)


def test_the_page_holds_every_candidate_as_it_was_drawn():
    data = stored_data(explorer())
    assert data["captions"] == PROMPTS
    for row, entries in enumerate(data["candidates"]):
        assert [entry["score"] for entry in entries] == SCORES[row].tolist()
        assert [entry["right"] for entry in entries] == RIGHT[row].tolist()
        for place, entry in enumerate(entries):
            np.testing.assert_allclose(picture(entry["source"])[4, 4], (60 * place, 100 * row, 200), atol=6)


def test_the_markup_is_closed_labelled_and_harmless():
    fragment = explorer()
    page = Page(fragment.html)
    assert page.tags[0][1]["aria-label"] and fragment.html.count("</script>") == 1
    assert not page.all("b") and not page.all("i") and PROMPTS[1] in page.words
    assert all(image["alt"] and image["src"].startswith("data:") for image in page.all("img"))
    (plot,) = page.all("svg")
    assert plot["role"] == "img" and "CLIP from 25 % to 50 %" in plot["aria-label"]


def test_without_a_script_the_first_caption_is_ranked_and_judged():
    page = Page(explorer().html)
    assert [image["alt"][:8] for image in page.all("img")] == ["number 3", "number 4", "number 1", "number 2"]
    assert [item.get("class") for item in page.all("li")] == ["explorer-pick", "", "", ""]
    status = "".join(page.words)
    assert "Of 4 drawn, 2 are right. CLIP picks the framed one, with 0.80: wrong, the judge sees “<i>2</i>”." in status
    assert "hidden" in dict(
        next(attributes for _, attributes in page.tags if "controls" in attributes.get("class", ""))
    )


def test_the_slider_lights_the_best_of_the_first_n_and_moves_the_points(opened):  # noqa: F811
    fragment = explorer()
    data, page = stored_data(fragment), opened(fragment)

    def state():
        items = page.eval_on_selector_all(
            ".explorer-pictures li",
            "items => items.map(item => [item.querySelector('img').alt[7] - 1, item.className])",
        )
        places = page.eval_on_selector_all(
            "circle", "dots => dots.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])"
        )
        return items, places

    later = "explorer-later"
    page.focus("input")
    page.keyboard.press("Home")
    items, places = state()
    assert items == [[0, "explorer-pick"], [2, later], [3, later], [1, later]]
    assert places == [data["curves"][name][0] for name in CURVES]
    assert page.text_content(".status") == "Of 1 drawn, 1 is right. CLIP picks the framed one, with 0.30: right."
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    items, places = state()
    assert items == [[2, "explorer-pick"], [0, ""], [1, ""], [3, later]]
    assert places == [data["curves"][name][2] for name in CURVES]
    assert page.text_content(".status").endswith("A right one was there, and the ranker missed it.")
    assert page.locator(".explorer-name").nth(2).text_content() == "judge 58 %"


def test_orders_and_captions_can_be_chosen(opened):  # noqa: F811
    page = opened(explorer())

    def order():
        return page.eval_on_selector_all(".explorer-pictures img", "all => all.map(one => one.alt[7] - 1)")

    assert order() == [2, 3, 0, 1]
    page.select_option(".explorer-order", "0")
    assert order() == [0, 1, 2, 3]
    page.select_option(".explorer-order", "2")
    assert order() == [3, 0, 2, 1]
    page.select_option(".explorer-caption", "1")
    assert order() == [0, 1, 2, 3] and page.text_content(".heading") == f"“{PROMPTS[1]}”"
    assert page.text_content(".status").startswith("Of 4 drawn, 0 are right.")
    assert page.text_content(".status").endswith("No ranker could have helped.")
    assert page.locator(".explorer-pick").count() == 1


def test_it_fits_a_phone(opened):  # noqa: F811
    page = opened(explorer(start=2), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.input_value("input") == "2"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: show.ranking_explorer([]), "no captions"),
        (lambda: show.ranking_explorer([judged(0, "a"), show.Judged("b", np.zeros((2, 8, 8, 3)), [1, 2], [0, 1], "ab")]), "2 images"),
        (lambda: show.ranking_explorer([judged(0, "a")], {"x": [0.5]}), "give 4 shares"),
        (lambda: show.ranking_explorer([judged(0, "a")], {"x": [0, 1, 2, 3]}), "give 4 shares"),
        (lambda: show.ranking_explorer([judged(0, "a")], {str(n): [0] * 4 for n in range(5)}), "at most 4"),
        (lambda: explorer(start=0), "start is 0"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_curves_can_be_left_out(opened):  # noqa: F811
    page = opened(show.ranking_explorer([judged(0, "a")]))
    assert page.locator("svg").count() == 0
    page.press("input", "Home")
    assert "Of 1 drawn" in page.text_content(".status")
