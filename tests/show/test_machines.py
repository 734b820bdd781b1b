"""Pictures of machines: what is drawn where, and what is refused."""

import numpy as np
import pytest

from minidalle import show


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_systolic_writes_what_busy_cells_multiply_and_leaves_idle_ones_empty():
    inputs = np.full((2, 2, 2), np.nan)
    inputs[1, 0] = 5, 7
    figure = show.systolic(inputs, [[2, 3], [4, 6]], np.full((2, 2, 2), 9.0), [0, 1])
    assert texts(figure) == ["5×2", "9 ↓", "7×3", "9 ↓"]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["cycle 0", "cycle 1"]


def test_chips_links_neighbours_only():
    figure = show.chips([(0, 0), (1, 0), (0, 1)], [[0, 1], [2, 3], [4, 5]])
    assert len(figure.axes[0].lines) == 2  # none along the diagonal
    assert set(texts(figure)) >= set("012345") | {"chip (1, 0)"}


def test_roofline_puts_programs_below_the_roof():
    figure = show.roofline({"few": (1e9, 1e9, 1.0), "many": (1e12, 1e6, 1.0)}, 1e13, 1e11)
    roof = figure.axes[0].lines[0].get_ydata()
    assert roof.max() == pytest.approx(10) and "100 " in texts(figure)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: show.systolic(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)), [0]), "must both be"),
        (lambda: show.chips([(0, 0)], []), "one group for each place"),
        (lambda: show.roofline({"none": (0, 1, 1)}, 1, 1), "above 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
