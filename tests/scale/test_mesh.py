"""Eight devices learn and draw what one does, whichever way the mesh cuts arrays and batches."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.scale.mesh import describe, make_mesh, on_mesh

MESHES = ("data", "fsdp", "model", "all")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("devices") / "found.npz"
    command = [sys.executable, str(Path(__file__).with_name("eight_devices.py")), str(out)]
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize("mesh", MESHES)
def test_dalle_bart_learns_the_same_on_every_mesh(found, mesh):
    np.testing.assert_allclose(found[f"bart {mesh}"], found["bart one"], rtol=1e-5)


@pytest.mark.parametrize("what", ["clip", "adafactor", "muon"])
def test_so_do_clip_and_the_other_optimizers(found, what):
    np.testing.assert_allclose(found[f"{what} all"], found[f"{what} one"], rtol=1e-5)


def test_a_run_goes_on_on_another_mesh(found):
    np.testing.assert_allclose(found["resumed"], found["bart one"], rtol=1e-5)


@pytest.mark.parametrize(("mesh", "shares"), [("data", 2), ("fsdp", 4), ("model", 1), ("all", 4)])
def test_the_same_codes_are_drawn_on_every_mesh(found, mesh, shares):
    np.testing.assert_array_equal(found[f"codes {mesh}"], found["codes one"])
    assert found[f"shares {mesh}"] == shares


def test_the_step_lowers_without_weights_and_communicates(found):
    assert {"all-reduce", "all-gather"} <= set(found["collectives"])
    on_a_device, whole = found["bytes"]
    assert whole / 4 < on_a_device < whole / 3  # fsdp × model = 4, and some vectors are whole everywhere


def test_a_model_is_built_in_parts(found):
    assert found["built"] < 1e-6


def test_every_block_of_a_matrix_has_its_devices(found):
    # fsdp cuts downwards and model across; the two devices of the data axis have the same block.
    assert found["owners"].tolist() == [[[0, 4], [1, 5]], [[2, 6], [3, 7]]]


def test_the_axis_of_layers_and_what_an_axis_does_not_divide_stay_whole():
    """Without devices: 8 of a described TPU would do as well."""
    mesh = jax.sharding.AbstractMesh((1, 2, 4), ("data", "fsdp", "model"))
    config = DalleBartConfig(
        d_model=16, encoder_layers=4, decoder_layers=4, encoder_ffn_dim=24, decoder_ffn_dim=30, image_vocab_size=16,
        encoder_vocab_size=40, encoder_attention_heads=4, decoder_attention_heads=4, image_length=4, max_text_length=4,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0)))
    placement = on_mesh(devices=jax.devices()[:1])
    rows = {row.name: row for row in describe(type(placement)(mesh, placement.rules), nnx.state(model, nnx.Param))}
    gate, output = (rows[f"encoder.layers.feed_forward.{name}.kernel"] for name in ("gate", "output"))
    assert (gate.shape, gate.block, gate.undivided) == ((4, 16, 24), (4, 8, 6), ())
    assert (output.shape, output.block, output.undivided) == ((4, 24, 16), (4, 6, 8), ())
    gate = rows["decoder.layers.feed_forward.gate.kernel"]
    assert (gate.shape, gate.block, gate.undivided) == ((4, 16, 30), (4, 8, 30), ("model",))
    assert rows["lm_head.kernel"].undivided == ("model",)  # 16 codes and the start token
    assert all(row.block[0] == row.shape[0] for name, row in rows.items() if ".layers." in name)


def test_a_mesh_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match=r"data=3 × fsdp=1 × model=1 does not fit 1 devices"):
        make_mesh(data=3, devices=jax.devices()[:1])


def test_rows_that_cannot_be_shared_are_refused(found):
    assert "multiple of data × fsdp" in str(found["refused"])
