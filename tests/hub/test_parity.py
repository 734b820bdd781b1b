"""What the originals computed comes out again: the whole parity table, case by case."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.min_dalle import save_min_dalle
from tools.parity import FIXTURES, cases, compare, kind_of, main, relative_error

CASES = [folder.name for folder in cases([FIXTURES])]
# Losses and networks of training alone; tests/vqgan holds them.
TRAINING = {"taming_discriminator", "taming_lpips", "taming_quantizer"}
DALLEBARTS = [name for name in CASES if name.startswith("dallebart_") and name != "dallebart_sampling"]


@pytest.fixture(autouse=True)
def every_test(quickly_compiled):
    """All tests here are so."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory, unstacked):
    """Checkpoints that are not stored, since they hold another case's weights in another layout; written by us."""
    converted = tmp_path_factory.mktemp("converted")
    save_min_dalle(load_dallebart(FIXTURES / "dallebart_mini_scan", param_dtype=jnp.float16), converted)
    return {"dallebart_mini_noscan": unstacked, "min_dalle_bart_converted": converted}


@pytest.fixture(scope="module")
def half_precision(weights):
    """The errors of each DalleBart in bfloat16."""
    rows = {case: compare(FIXTURES / case, "bfloat16", weights.get(case)) for case in DALLEBARTS}
    return {case: {row.output: row.error for row in found} for case, found in rows.items()}


@pytest.mark.parametrize("case", [name for name in CASES if name not in TRAINING])
def test_every_output_is_the_originals(case, weights):
    rows = compare(FIXTURES / case, weights=weights.get(case))
    assert rows
    far = {row.output: row.error for row in rows if row.error > (0 if row.codes else 1e-5)}
    assert far == {}
    if case in DALLEBARTS and case != "dallebart_mini_noscan":  # which has the drawing of dallebart_mini_scan
        outputs = {row.output for row in rows}
        assert {
            "logits",
            "codes, guidance 10",
            "random codes, 5 runs",
            "loss",
            "gradient norms",
            "gradients",
        } <= outputs


@pytest.mark.xfail(
    raises=AssertionError,
    reason="measured: 1.0e-2 to 1.9e-2; rounding the weights alone makes 0.7e-2 to 1.0e-2",
    strict=True,
)
@pytest.mark.parametrize("case", DALLEBARTS)
def test_logits_in_bfloat16_are_within_a_hundredth_of_the_originals(half_precision, case):
    assert half_precision[case]["logits"] < 1e-2


@pytest.mark.parametrize("case", DALLEBARTS)
def test_logits_in_bfloat16_are_within_a_fiftieth_of_the_originals(half_precision, case):
    assert 1e-4 < half_precision[case]["logits"] < 2e-2, "1e-4: something was computed in half precision"
    assert half_precision[case]["unconditional logits"] < 2e-2


def test_every_case_is_of_a_known_kind():
    unknown = {folder.name for folder in cases([FIXTURES]) if kind_of(folder, dict(np.load(folder / "io.npz"))) is None}
    assert unknown == TRAINING


def test_a_difference_is_seen():
    theirs = np.array([1.0, -4.0, -np.inf])
    assert relative_error(theirs, theirs) == 0
    assert relative_error(theirs + np.array([0, 0.2, 0]), theirs) == pytest.approx(0.05)
    assert relative_error(np.array([1.0, -4.0, 0.0]), theirs) == float("inf")
    assert relative_error(theirs[:2], theirs) == float("inf")


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_table_names_what_differs_and_what_was_left_out(tmp_path, capsys, form):
    """A case of the owner's own: known by its arrays, whatever its folder is called."""
    recorded = dict(np.load(FIXTURES / "dallebart_sampling/io.npz"))
    recorded["s3:warped"] = recorded["s3:warped"] * 1.1
    recorded["s2:drawn"] = recorded["s2:drawn"] + 1
    for name, arrays in {"mine": recorded, "other": {"x": np.zeros(3)}}.items():
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "io.npz", **arrays)
    (tmp_path / "mine/meta.json").write_text((FIXTURES / "dallebart_sampling/meta.json").read_text())
    main([str(tmp_path), *(["--json"] if form == "json" else [])])
    printed = capsys.readouterr().out
    if form == "table":
        assert (
            "| mine | guided logits, 10 settings | " in printed
            and "| mine | codes, 10 settings | 10.0% differ |" in printed
        )
        assert "- other: no kind of case" in printed
    else:
        errors = {row["output"]: row["error"] for row in json.loads(printed)["rows"]}
        assert 1e-3 < errors["filtered logits, 10 settings"] < 1e-2 and errors["probabilities, 10 settings"] < 1e-5
