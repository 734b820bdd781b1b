"""The benchmark of quantizers runs at toy size, both sides choosing the same codes."""

import json
import sys

from benchmarks import quantize

TOY = ["--sizes", "16", "--dim", "8", "--pictures", "1", "--grid", "4", "--repeats", "2"]


def test_both_sides_choose_the_same_codes_and_have_their_times_and_memory(capsys):
    found = quantize.main([*TOY, "--kinds", "gradient", "rotation", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    assert [(row["kind"], row["n_embed"]) for row in found["rows"]] == [("gradient", 16), ("rotation", 16)]
    for row in found["rows"]:
        assert row["equal_codes"] == 1
        assert all(0 < row["seconds"][side]["lowest"] <= row["seconds"][side]["highest"] for side in quantize.SIDES)
        assert row["times_faster"]["median"] > 0
        assert all((peak is None) != (sys.platform == "linux") for peak in row["peak_bytes"].values())


def test_the_table_shows_them(capsys):
    quantize.main([*TOY, "--kinds", "ema"])
    text = capsys.readouterr().out
    assert "| ema | 16 |" in text and "100.00% of the codes" in text and "vector-quantize-pytorch" in text
