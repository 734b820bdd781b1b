"""The shipped emoji model draws nearly the same in 8 bits, and the benchmark that counts it runs on a few captions."""

import json

import numpy as np
import pytest

from benchmarks import rounding


@pytest.fixture(scope="module")
def run():
    """What `--json` printed, of twelve captions and the real emoji of few others."""
    with pytest.MonkeyPatch.context() as patched:
        lines = []
        patched.setattr("builtins.print", lambda text: lines.append(text))
        found = rounding.main(["--captions", "12", "--real", "20", "--json"])
    assert json.loads(lines[0]) == found
    return found


def test_most_codes_of_the_emoji_model_stay(run):
    """Of all 80 captions 86 % do; twelve pictures, each equal up to some code, give 0.86 ± 0.06."""
    same = run["agreement"]
    assert same["pictures"] == 12 and same["code_length"] == 64
    assert 0.65 < same["equal_codes"] < 1  # all equal: nothing was rounded
    assert same["equal_first_codes"] >= 0.75 and same["median_first_difference"] > 8


def test_both_sides_are_judged(run):
    assert list(run["judged"]) == ["float32", "int8"]
    for judged in run["judged"].values():
        assert list(judged) == ["exact", "role", "tone", "role_and_tone"]
        assert all(hits["n"] == 12 and hits["low"] <= hits["share"] <= hits["high"] for hits in judged.values())
        assert judged["role_and_tone"]["share"] > 0.3, "among few emoji most are found"


def test_agreement_is_counted_by_code_and_by_picture():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = rounding.agreement(exact, np.array([[1, 2, 3, 4], [5, 6, 0, 8]]))
    assert (found["equal_codes"], found["equal_pictures"]) == (7 / 8, 1 / 2)
    assert found["equal_first_codes"] == 1 and found["median_first_difference"] == 3


def test_the_table_shows_the_same(run):
    text = rounding.in_tables(run)
    assert "12 pictures of 64 codes" in text and "| int8 |" in text and "| float32 |" in text
