"""The matrix names what stands in it, and the slider's states are softmaxes that were computed beforehand."""

import json
import re

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy.special import log_softmax, softmax

from minidalle import show

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
CAPTIONS = ["red apple", "cat </script> & <b>dog</b>", "a price of $5 or $6"]
VALUES = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.4], [0.5, 0.6, 0.7]])


def test_the_matrix_writes_its_values_and_frames_its_diagonal():
    figure = show.similarity_matrix(IMAGES, CAPTIONS, VALUES, label="cosine")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == [f"{value:.2f}" for value in VALUES.ravel()]
    frames = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    assert frames == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_every_row_of_the_matrix_begins_with_its_picture():
    axis = show.similarity_matrix(IMAGES, CAPTIONS, VALUES).axes[0]
    shown = [inside.images[0].get_array() for inside in axis.child_axes]
    np.testing.assert_array_equal(np.stack(shown), IMAGES)


def test_a_matrix_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"\(2, 3\); expected \(3, 3\)"):
        show.similarity_matrix(IMAGES, CAPTIONS, VALUES[:2])


def test_the_slider_holds_a_softmax_for_each_temperature_and_the_loss_of_the_right_caption():
    temperatures = [0.01, 0.1, 1.0]
    page = show.temperature_slider(IMAGES[2], CAPTIONS, VALUES[2], temperatures=temperatures, start=1, right=2).html
    data = json.loads(re.search(r'getElementById\("[^"]+"\), (.*)\);</script>', page).group(1))
    for place, each in enumerate(temperatures):
        np.testing.assert_allclose(data["shares"][place], 100 * softmax(VALUES[2] / each), atol=0.051)
        assert float(data["losses"][place]) == pytest.approx(-log_softmax(VALUES[2] / each)[2], abs=6e-4)
    assert "<b>dog" not in page and page.count("</script>") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperatures": [0.1, 0.0]}, "each above 0"),
        ({"temperatures": []}, "at least one"),
        ({"temperatures": [0.1], "start": 1}, "start is 1"),
        ({"temperatures": [0.1], "right": 3}, "right is 3"),
    ],
)
def test_wrong_settings_of_the_slider_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        show.temperature_slider(IMAGES[0], CAPTIONS, VALUES[0], **arguments)


def test_the_slider_moves_without_a_kernel(browser):
    page = browser.new_page()
    page.set_content(
        show.temperature_slider(IMAGES[0], CAPTIONS, VALUES[0], temperatures=[0.01, 1.0]).html, wait_until="load"
    )
    first = page.locator(".chance output").first
    assert first.inner_text() == "100.0 %"
    page.locator("input").press("ArrowRight")
    assert first.inner_text() == f"{100 * softmax(VALUES[0])[0]:.1f} %"
    page.close()
