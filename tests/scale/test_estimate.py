"""Estimates and claims: their sums, their errors, and the command."""

import importlib.util
import json

import pytest

from minidalle.bart import DalleBartConfig
from minidalle.cli import main
from minidalle.scale import claims, cost
from minidalle.scale.estimate import estimate, in_words

SMALL = DalleBartConfig(
    d_model=128, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=256, decoder_ffn_dim=256, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_vocab_size=128, image_vocab_size=511, image_length=16, max_text_length=8, dropout=0.0,
)  # fmt: skip
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def test_eight_cores_share_rows_and_what_is_fully_sharded():
    whole = estimate(cost.MINI, "v3-8", 64, compiled=False)
    cut = estimate(cost.MINI, "v3-8", 64, mesh={"fsdp": 8}, compiled=False)
    assert whole["mesh"] == {"data": 8, "fsdp": 1, "model": 1} and cut["mesh"] == {"data": 1, "fsdp": 8, "model": 1}
    assert whole["memory"]["weights"] == 8 * cut["memory"]["weights"] == 4 * whole["parameters"]
    assert whole["memory"]["kept"] == cut["memory"]["kept"]
    assert whole["roofline"]["computing"] == pytest.approx(
        cost.training_operations(cost.MINI, 64, recomputing=True) / (4 * 123e12)
    )


def test_mega_does_not_fit_a_t4_and_says_what_takes_the_room():
    result = estimate(cost.MEGA, "t4", 1)
    assert result["on"] == "T4" and not result["memory"]["fits"] and result["dollars"] is None
    assert "does not fit: weights 9.6" in in_words(result)


def test_a_million_pictures_cost_their_hours():
    result = estimate(cost.MINI, "v3-8", 272, compiled=False)
    hours = result["roofline"]["all"] / 272 * 1e6 / 3600
    assert result["dollars"] == pytest.approx({"on demand": 8 * hours, "spot": 2.4 * hours})


def test_without_libtpu_it_says_what_it_cannot_know(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = estimate(SMALL, "v3-8", 16)
    assert result["compiled"] is None and "libtpu is missing" in result["unknown"]
    assert result["roofline"]["all"] > 0 and "not known: the compiler's memory" in in_words(result)


@pytest.mark.parametrize(
    ("on", "options", "message"),
    [
        ("v7x-8", {}, "GPUs are T4, .*TPU slices v2-8"),
        ("T4", {"mesh": {"data": 2}}, "one device"),
        ("v3-8", {"mesh": {"data": 3}}, "does not fit 8 devices"),
        ("v3-8", {"mesh": {"pipe": 8}}, "no axis 'pipe'"),
        ("v3-8", {"batch": 12}, "shared evenly"),
        ("v3-8", {"batch": 0}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(on, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(SMALL, on, options.get("batch", 16), mesh=options.get("mesh"))


@needs_libtpu
def test_the_command_compiles_a_configuration_for_a_slice(tmp_path, capfd):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL.to_dict()))
    command = ["estimate", str(path), "--on", "v3-8", "--batch", "16", "--mesh", "data=4,model=2"]
    assert main([*command, "--json"]) == 0
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert result["compiled"]["fits"] and result["compiled"]["seconds"] > 0
    assert {each["devices"] for each in result["compiled"]["collectives"]} >= {2, 4}
    assert "by the compiler" in in_words(result)


def test_the_command_knows_the_published_models_and_what_ships(capsys):
    for name, parameters in (("mini", 437_833_712), ("emoji", None)):
        assert main(["estimate", name, "--on", "A100", "--batch", "8", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["parameters"]
        assert found == parameters or parameters is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mini", "--on", "v3-8", "--mesh", "data:8"], "not of the form data=4,model=2"),
        (["nowhere", "--on", "T4"], "no checkpoint 'nowhere'"),
        (["mini", "--on", "abacus"], "no device 'abacus'"),
    ],
)
def test_errors_of_the_command_are_one_sentence(arguments, message, capsys):
    assert main(["estimate", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_claims_hold_as_far_as_arithmetic_goes():
    found = {claim.about: claim for claim in claims.claims(step_seconds=0.5, batch=272)}
    assert found["times smaller than DALL·E"].found == pytest.approx(27.4, abs=0.05)
    assert found["pictures seen in three days"].found == pytest.approx(3 * 86400 / 0.5 * 272)
    assert found["three days on spot machines"].found == pytest.approx(172.8)
    assert found["three days on demand"].found == pytest.approx(576)
    assert all(claim.assumptions for claim in found.values())


def test_without_the_compiler_a_step_is_as_short_as_it_can_be():
    bound = next(claim for claim in claims.claims() if claim.about == "one step on a v3-8")
    assert bound.found == pytest.approx(
        cost.training_operations(cost.MINI, 272, recomputing=True) / (4 * 123e12), rel=0.1
    )
    with pytest.raises(ValueError, match="positive"):
        claims.claims(step_seconds=0)
