"""The benchmark runs at toy size, without its peer, and prints what it promises."""

import json

import pytest

from benchmarks import generate
from benchmarks.processes import Contestant
from benchmarks.report import spread


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What `--json` printed, of a run that measures minidalle alone."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patched:
        lines = []
        patched.setattr("builtins.print", lambda text: lines.append(text))
        size = [
            "--size",
            "tiny",
            "--alone",
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
    names = "minidalle", "minidalle, int8"
    assert [(row["pictures"], row["name"]) for row in run["rows"]] == [(n, name) for n in (1, 4) for name in names]
    for row in run["rows"]:
        for what in ("codes", "step", "decode"):
            assert 0 < row[what]["lowest"] <= row[what]["median"] <= row[what]["highest"] < 60
        assert row["bytes_a_second"] == pytest.approx(run["about"][row["name"]]["bytes"] / row["step"]["median"])
        assert 0 < row["share_of_bandwidth"] < 1
    for row, pictures in zip(run["ratios"], (1, 4), strict=True):
        assert (row["pictures"], row["these"], row["those"]) == (pictures, *names)
        assert row["codes"]["lowest"] > 0


def test_bytes_of_a_step_are_those_of_the_decoders_weights(run):
    width, hidden, codes = 32, 40, 512
    attention = 6 * width * width + 6 * width  # not the keys and values of the caption; norms: 1, 2, 1, 2 vectors
    assert run["about"]["minidalle"]["bytes"] == 4 * (
        2 * (attention + 3 * width * hidden + width + hidden) + width * codes
    )
    assert run["about"]["minidalle, int8"]["bytes"] * 4 == run["about"]["minidalle"]["bytes"]


def test_machine_versions_and_loading_are_told(run):
    assert run["machine"].keys() == {"processor", "cores", "load", "date"}
    assert run["settings"]["guidance"] == 16 and run["settings"]["size"] == "tiny"
    assert {"minidalle", "jax", "torch", "python"} <= run["about"]["minidalle"]["versions"].keys()
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
