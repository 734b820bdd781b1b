"""Eight devices learn and draw what one does, whichever way the mesh cuts arrays and batches."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.scale.mesh import AXES, RULES, Placement, describe, make_mesh
from minidalle.training import make_optimizer
from minidalle.training.optimizer import OPTIMIZERS

MESH = jax.sharding.AbstractMesh((1, 2, 4), AXES)  # needs no devices


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("devices") / "found.npz"
    command = [sys.executable, str(Path(__file__).with_name("eight_devices.py")), str(out)]
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize("kind", ["bart", "clip"])
def test_eight_devices_learn_what_one_learns(found, kind):
    assert len(found[f"{kind} one"]) == 3
    np.testing.assert_allclose(found[f"{kind} all"], found[f"{kind} one"], rtol=1e-5)


def test_a_run_of_two_devices_goes_on_on_four_that_have_parts_of_the_weights(found):
    np.testing.assert_allclose(found["bart data, then fsdp"], found["bart one"], rtol=1e-5)


@pytest.mark.parametrize(("mesh", "shares"), [("model", 1), ("all", 4)])
def test_the_same_codes_are_drawn_on_every_mesh(found, mesh, shares):
    np.testing.assert_array_equal(found[f"codes {mesh}"], found["codes one"])
    assert found[f"shares {mesh}"] == shares


def test_about_the_same_codes_are_drawn_in_8_bits(found):
    """A number that lies between two of 8 bits may go either way, since devices sum in another order."""
    for other in "codes in 8 bits one", "codes one":
        assert (found["codes in 8 bits all"] == found[other]).mean() > 0.7


def test_the_step_lowers_without_weights_in_parts(found):
    assert "sharding" in str(found["lowered"])
    on_a_device, whole = found["bytes"]
    assert whole / 4 < on_a_device < whole / 3  # fsdp × model = 4, and some vectors are whole everywhere


def test_fully_sharded_gathers_weights_and_sums_nothing_of_what_is_computed(found):
    assert "all-gather" in found["sent when fully sharded"]
    assert "all-reduce" not in found["sent when fully sharded"]


def test_a_model_is_built_in_parts(found):
    assert found["built"] < 1e-6


def test_every_block_of_a_matrix_has_its_devices(found):
    # fsdp cuts downwards and model across; the two devices of the data axis have the same block.
    assert found["owners"].tolist() == [[[0, 4], [1, 5]], [[2, 6], [3, 7]]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_lie_as_their_parameters_and_factored_ones_are_whole(name):
    placement = Placement(MESH, RULES)
    parameters = {"layers.query.kernel": jnp.zeros((4, 256, 512)), "head.kernel": jnp.zeros((256, 512))}
    optimizer = make_optimizer(name, 0.1, 9, accumulate=2)
    state = jax.eval_shape(optimizer.init, parameters)
    shardings = jax.tree.leaves(placement.shardings(state, parameters))
    lying = [(leaf.shape, tuple(way.spec)) for leaf, way in zip(jax.tree.leaves(state), shardings, strict=True)]
    assert lying.count(((4, 256, 512), (None, "fsdp", "model"))) >= 2  # momentum, and accumulated gradients
    assert lying.count(((256, 512), (None, "fsdp"))) >= 2
    assert {spec for shape, spec in lying if shape not in {array.shape for array in parameters.values()}} == {()}


def test_the_axis_of_layers_and_what_an_axis_does_not_divide_stay_whole():
    config = DalleBartConfig(
        d_model=16, encoder_layers=4, decoder_layers=4, encoder_ffn_dim=24, decoder_ffn_dim=30, image_vocab_size=16,
        encoder_vocab_size=40, encoder_attention_heads=4, decoder_attention_heads=4, image_length=4, max_text_length=4,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0)))
    rows = {row.name: row for row in describe(Placement(MESH, RULES), nnx.state(model, nnx.Param))}
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
