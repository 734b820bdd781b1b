"""Real TPU programs, compiled here for slices that are not here; skipped where libtpu is missing."""

import importlib.util
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from minidalle.bart import DalleBartConfig
from minidalle.scale import cost, tpu

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
SMALL = DalleBartConfig(
    d_model=128, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=256, decoder_ffn_dim=256, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_vocab_size=128, image_vocab_size=511, image_length=16, max_text_length=8, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def reports():
    """A training step with rows shared out, and one with rows and weights."""
    return [tpu.compile_training(SMALL, "v3-8", 16, mesh=mesh) for mesh in ({}, {"model": 2, "fsdp": 2})]


@needs_libtpu
def test_every_core_holds_weights_and_moments_and_its_rows(reports):
    plain, cut = reports
    parameters = cost.dallebart_parameters(SMALL)
    rows = 16 // 8 * (2 * SMALL.max_text_length + SMALL.image_length) * 4
    # Three float32 numbers a parameter (weights, two moments); tiles of 8 × 128 numbers leave some of the memory empty.
    assert plain.arguments == pytest.approx(3 * 4 * parameters + rows, rel=0.1)
    assert cut.arguments < plain.arguments / 2
    assert plain.fits and plain.capacity == 16 * 2**30
    assert plain.mesh == {"data": 8, "fsdp": 1, "model": 1} and cut.mesh == {"data": 2, "fsdp": 2, "model": 2}


@needs_libtpu
def test_gradients_of_all_parameters_are_summed_over_the_cores(reports):
    sums = [each for each in reports[0].collectives if each.kind == "all-reduce" and each.devices == 8]
    parameters = cost.dallebart_parameters(SMALL)
    # As bfloat16 or float32, whichever the compiler takes.
    assert 2 * parameters <= sum(each.bytes for each in sums) <= 1.2 * 4 * parameters
    assert {each.devices for each in reports[1].collectives} != {8}


@needs_libtpu
def test_time_is_more_than_the_peak_allows(reports):
    for report in reports:
        assert 0 < report.utilisation < 1
        assert report.seconds == report.computing + report.communicating


@needs_libtpu
def test_drawing_sums_over_heads_at_every_step():
    report = tpu.compile_sampling(SMALL, "v3-8", 8, mesh={"model": 4})
    # Two attentions and one feed-forward block a layer, at each code.
    sums = sum(each.times for each in report.collectives if each.kind == "all-reduce" and each.devices == 4)
    assert sums >= 3 * SMALL.decoder_layers * SMALL.image_length
    assert 0 < report.utilisation < 1


@needs_libtpu
def test_what_does_not_fit_is_told_with_what_it_would_need():
    """One matrix product of 24 GiB on a core with 16."""
    sharding = jax.sharding.SingleDeviceSharding(tpu.devices("v3-8")[0])
    side = 2**16
    big = jax.ShapeDtypeStruct((side, side), jnp.bfloat16, sharding=sharding)  # 8 GiB
    lowered = jax.jit(jnp.dot).lower(big, big)
    placement = tpu.on_mesh(devices=tpu.devices("v3-8"))
    report = tpu._report(lowered, "v3-8", placement, 1, 2 * side**3)
    assert not report.fits and report.total > 3 * 8 * 2**30 * 0.99
    assert report.capacity == pytest.approx(16 * 2**30, rel=0.05) and math.isnan(report.computing)


@needs_libtpu
def test_a_mesh_or_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        tpu.compile_training(SMALL, "v3-8", 16, mesh={"model": 3})
    with pytest.raises(ValueError, match="shared evenly"):
        tpu.compile_training(SMALL, "v3-8", 12)


@needs_libtpu
def test_nothing_is_printed_and_no_process_minds_another():
    code = "from minidalle.scale import tpu; import jax; print(len(tpu.devices('v5e-16'))); print(jax.default_backend())"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=600)
        assert out.splitlines()[0] == "16" and err == ""


def test_without_libtpu_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tpu.devices.cache_clear()
    with pytest.raises(ImportError, match="pip install"):
        tpu.devices("v3-8")
