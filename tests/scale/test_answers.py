"""The compiler's answers: asked where libtpu is, and the same as those that are stored for where it is not."""

import importlib.util

import jax.numpy as jnp
import pytest

from minidalle.scale import answers, cost
from minidalle.scale.answers import Answers, Shaped
from tools.chapters import ROOT

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
SQUARE = [Shaped((129, 129), jnp.float32)] * 2


def test_without_a_compiler_the_stored_answer_is_given_and_nothing_is_computed():
    told = Answers(compiling=False).ask("square 129", None, *SQUARE)
    assert told.results == 136 * 256 * 4  # tiles of 8 × 128
    assert told.operations == pytest.approx(2 * 129**3, rel=0.01) and "ENTRY" in told.text


@needs_libtpu
def test_the_compiler_still_says_what_is_stored():
    asked, stored = Answers(compiling=True), Answers(compiling=False)
    new, old = (each.ask("square 129", jnp.dot, *SQUARE) for each in (asked, stored))
    assert (new.arguments, new.results, new.operations) == (old.arguments, old.results, old.operations)


@needs_libtpu
def test_what_was_heard_can_be_stored_and_told_again(tmp_path):
    path = tmp_path / "answers.json"
    asked = Answers(compiling=True)
    rows, weights = Shaped((64, 128), axes=(None, "model")), Shaped((128, 256), axes=("model",))
    new = asked.ask("summed", jnp.dot, rows, weights, mesh={"model": 8}, results=())
    refused = asked.refusal("refused", jnp.dot, *[Shaped((2**16, 2**16))] * 2)
    asked.save(path)
    again = Answers(compiling=False, stored=path)
    assert again.ask("summed", None) == new and again.refusal("refused", None) == refused
    assert [(each.kind, each.devices, each.bytes) for each in new.collectives] == [("all-reduce", 8, 64 * 256 * 2)]
    assert "exceeds" in refused


def test_an_unknown_question_without_a_compiler_says_what_to_install():
    with pytest.raises(LookupError, match="pip install libtpu"):
        Answers(compiling=False).recall("never asked", lambda: 1)


def test_readable_keeps_the_program_and_drops_the_notes():
    text = (
        'HloModule m, is_scheduled=true, x={1}\n\nFileNames\n1 "a.py"\n\nENTRY %main (a: f32[8]) -> f32[8] {\n'
        '  ROOT %b = f32[8]{0:T(128)} tanh(%a), metadata={op_name="t{}" id=1}, backend_config={"a":{"b":[]}}, z=1\n}\n'
    )
    assert answers.readable(text) == (
        "HloModule m\n\nENTRY %main (a: f32[8]) -> f32[8] {\n  ROOT %b = f32[8]{0:T(128)} tanh(%a), z=1\n}"
    )


def test_rows_are_those_of_the_benchmark_and_plausible():
    assert answers.ROWS.read_text() == (ROOT / "benchmarks/tpu.jsonl").read_text(), "copy benchmarks/tpu.jsonl there"
    first = answers.rows()[0]
    assert (first["program"], first["model"], first["slice"]) == ("training", "mini", "v3-8") and first["fits"]
    state = 3 * 4 * cost.dallebart_parameters(cost.MINI)
    assert first["arguments"] == pytest.approx(state, rel=0.02)
