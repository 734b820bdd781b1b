"""Ranked candidates stand in the order of their scores, each with the judge's verdict; shares are drawn as they are."""

import numpy as np
import pytest

from minidalle import show

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
SCORES = [0.2, 0.9, 0.2, -0.1]
RIGHT = [False, True, True, False]


def shown(figure):
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def test_candidates_stand_in_the_order_of_their_scores_and_say_whether_they_are_right():
    figure = show.ranked({"cat": (PICTURES, SCORES, RIGHT)})
    np.testing.assert_array_equal(np.stack(shown(figure)), PICTURES[[1, 0, 2, 3]])
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels == ["0.90 ✓", "0.20 ✗", "0.20 ✓", "-0.10 ✗"]


def test_only_the_best_are_shown_where_that_is_asked():
    figure = show.ranked({"cat": (PICTURES, SCORES, RIGHT), "dog": (PICTURES, RIGHT, RIGHT)}, most=2)
    np.testing.assert_array_equal(np.stack(shown(figure)), PICTURES[[1, 0, 1, 2]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "no rows"),
        ({"cat": (PICTURES, SCORES[:3], RIGHT)}, "4 images, 3 scores and 4 verdicts"),
        ({"cat": (PICTURES, SCORES, RIGHT), "dog": (PICTURES[:2], SCORES[:2], RIGHT[:2])}, "differ in length"),
    ],
)
def test_rows_that_do_not_belong_together_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        show.ranked(rows)


def test_the_areas_lie_between_the_curves_that_were_given():
    picked, possible = [0.4, 0.5, 0.55], [0.4, 0.7, 0.9]
    (axis,) = show.blame(0.4, picked, possible).axes
    areas = [area.get_paths()[0].vertices for area in axis.collections]
    for area, low, high in zip(areas, ([0, 0, 0], picked, possible), (picked, possible, [1, 1, 1]), strict=True):
        for n in (1, 2, 3):
            at = area[area[:, 0] == n, 1]
            assert {round(float(at.min()), 6), round(float(at.max()), 6)} == {low[n - 1], high[n - 1]}


@pytest.mark.parametrize(
    ("curves", "message"), [(([0.5], [0.5, 0.6]), "same N"), (([0.5, 0.4], [0.5, 1.2]), r"numbers in \[0, 1\]")]
)
def test_curves_that_are_no_shares_are_named(curves, message):
    with pytest.raises(ValueError, match=message):
        show.blame(0.5, *curves)
