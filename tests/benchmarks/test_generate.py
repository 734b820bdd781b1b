"""The benchmark runs at toy size, without min-dalle, and prints what it promises."""

import json

import pytest

from benchmarks import generate
from benchmarks.draw_transformers import as_large_as
from benchmarks.generate import BART, INT8, OURS
from benchmarks.processes import Contestant
from benchmarks.report import spread
from benchmarks.weights import SIZES
from minidalle.bart import DalleBartConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What `--json` printed, of a run beside transformers' BART."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patched:
        lines = []
        patched.setattr("builtins.print", lambda text: lines.append(text))
        size = [
            "--size",
            "tiny",
            "--peers",
            "transformers",
            "--int8",
            "--repeats",
            "2",
            "--pictures",
            "1",
            "4",
            "--loading",
            "safetensors",
        ]
        found = generate.main([*size, "--work", str(folder), "--json"])
    assert list(folder.iterdir()) == [], "the weights were left behind"
    assert json.loads(lines[0]) == found
    return found


def test_every_number_has_its_spread(run):
    names = OURS, INT8, BART
    assert [(row["pictures"], row["name"]) for row in run["rows"]] == [(n, name) for n in (1, 4) for name in names]
    for row in run["rows"]:
        for what in ("codes", "step", "decode") if row["name"] != BART else ("codes", "step"):
            assert 0 < row[what]["lowest"] <= row[what]["median"] <= row[what]["highest"] < 60
        assert row["bytes_a_second"] == pytest.approx(run["about"][row["name"]]["bytes"] / row["step"]["median"])
        assert 0 < row["share_of_bandwidth"] < 1
    pairs = [(BART, OURS), (BART, INT8), (OURS, INT8)]
    compared = [(row["pictures"], row["these"], row["those"]) for row in run["ratios"]]
    assert compared == [(pictures, *pair) for pictures in (1, 4) for pair in pairs]
    assert all(row["codes"]["lowest"] > 0 for row in run["ratios"])
    assert ["decode" in row for row in run["ratios"]] == [False, False, True] * 2


def test_bytes_of_a_step_are_those_of_the_decoders_weights(run):
    width, hidden, codes = 32, 40, 512
    attention = 6 * width * width + 6 * width  # not the keys and values of the caption; norms: 1, 2, 1, 2 vectors
    assert run["about"][OURS]["bytes"] == 4 * (2 * (attention + 3 * width * hidden + width + hidden) + width * codes)
    assert run["about"][INT8]["bytes"] * 4 == run["about"][OURS]["bytes"]


def test_the_bart_of_transformers_is_as_large():
    """Of mini's size, without weights: what a step reads, but for biases and norms."""
    ours = DalleBartConfig(**SIZES["mini"][0])
    theirs = as_large_as(ours)
    a_layer = 3 * ours.d_model * ours.decoder_ffn_dim
    assert 2 * theirs.d_model * theirs.decoder_ffn_dim == a_layer
    assert (theirs.d_model, theirs.decoder_layers) == (ours.d_model, ours.decoder_layers)
    assert theirs.vocab_size == ours.codebook_size + 1


def test_machine_versions_and_loading_are_told(run):
    assert run["machine"].keys() == {"processor", "cores", "load", "date"}
    assert run["settings"]["guidance"] == 16 and run["settings"]["size"] == "tiny"
    assert {"minidalle", "jax", "torch", "python"} <= run["about"][OURS]["versions"].keys()
    (loading,) = run["loading"]
    assert loading["format"] == "safetensors" and loading["seconds"] > 0 and loading["file_bytes"] > 100_000


def test_the_tables_show_the_same(run):
    text = generate.in_tables(run)
    assert "| pictures | name | ms a step |" in text and "| 4 | minidalle |" in text and "| safetensors |" in text
    assert "| 4 | minidalle | minidalle, int8 |" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "tiny"], "min-dalle has mini and mega alone"),
        (["--dtype", "float16"], "runs in float32 alone"),
        (["--pictures", "3"], "square numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        generate.main(arguments)
    assert message in capsys.readouterr().err


def test_a_contestant_that_fails_is_told():
    with (
        Contestant(["python3", "-c", "raise SystemExit(3)"]) as failing,
        pytest.raises(RuntimeError, match="ended with 3"),
    ):
        failing.ask("draw")


def test_a_spread_is_median_lowest_highest():
    assert spread([5.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 5.0}
