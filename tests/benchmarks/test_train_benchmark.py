"""The benchmark of training steps runs at toy size; equal weights and batches give equal losses on both sides."""

import json

import pytest

from benchmarks import train

TOY = ["--batch", "2", "--repeats", "1"]


def test_a_bart_of_the_same_weights_has_the_same_losses_step_by_step(capsys):
    sizes = ["--width", "32", "--depth", "1", "--text", "6", "--codes", "8", "--vocabulary", "64"]
    found = train.main([*TOY, *sizes, "--eager", "--json"])
    assert json.loads(capsys.readouterr().out) == found
    ours, theirs = found["rows"]
    assert (ours["name"], theirs["name"]) == ("minidalle", "transformers")
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
    assert ours["losses"][0] > ours["losses"][2], "it learns"
    assert ours["over_ours"]["median"] == 1 and theirs["over_ours"]["median"] > 0
    assert all(0 < row["seconds"]["lowest"] <= row["seconds"]["highest"] for row in found["rows"])


def test_a_vqgan_in_either_layout_is_the_same_network(capsys):
    found = train.main([*TOY, "--model", "vqgan", "--width", "32", "--side", "16"])
    first, second = (row["losses"][0] for row in found["rows"])
    assert first == pytest.approx(second, rel=1e-4)
    assert "taming-transformers' layout" in capsys.readouterr().out
