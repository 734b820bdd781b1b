"""Products in 8 bits are as near as their scales say, in every dense layer of a decoder, and never hide a NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.bart import sample, stream
from minidalle.bart.blocks import FeedForward
from minidalle.bart.turned import Rounded, expect_turned, multiply_turned, round_vectors, turn, turn_kernels

KEY = jax.random.key(7)
BLANK = np.array([[0, 2, 1, 1, 1, 1, 1, 1]]), np.array([[1, 1, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def captions(tiny_batch):
    return (*tiny_batch[:2], *BLANK)


def random(seed, *shape, dtype=jnp.float32):
    """Vectors whose lengths lie far apart, one of them of zeros."""
    array = jax.random.normal(jax.random.key(seed), shape) * 10.0 ** jnp.arange(-3, shape[0] - 3)[:, None]
    return array.at[1].set(0).astype(dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_no_weight_is_off_by_more_than_half_a_scale(dtype):
    kernel = random(0, 6, 40, dtype=dtype).T
    rounded = turn(kernel, int8=True)
    assert isinstance(rounded, Rounded) and rounded.values.dtype == jnp.int8 and rounded.scale.dtype == jnp.float32
    wanted = np.asarray(kernel, np.float64).T
    values, scale = np.asarray(rounded.values, np.float64), np.asarray(rounded.scale, np.float64)[:, None]
    assert (np.abs(wanted - scale * values) <= scale * (0.5 + 1e-4)).all()
    largest = np.abs(values).max(axis=1)
    assert largest.tolist() == [127, 0, 127, 127, 127, 127] and scale[1] == 0


@pytest.mark.parametrize("shape", [(40,), (3, 40), (3, 5, 40)])
def test_the_product_is_as_near_as_both_scales_say(shape):
    """|x w - x̂ ŵ| is at most the sum of |x||w - ŵ| + |ŵ||x - x̂| over the inputs."""
    x, turned = jax.random.normal(jax.random.key(1), shape), random(2, 6, 40)
    weights, rows = round_vectors(turned), round_vectors(x)
    found = np.asarray(jax.jit(multiply_turned)(x, weights), np.float64)
    x, turned, unit = (np.asarray(array, np.float64) for array in (x, turned, rows.scale))
    scale = np.asarray(weights.scale, np.float64)
    near = np.abs(np.asarray(weights.values, np.float64)).sum(axis=1) * scale
    bound = np.abs(x).sum(-1)[..., None] * scale / 2 + near * unit[..., None] / 2
    difference = np.abs(found - x @ turned.T)
    assert found.shape == (*shape[:-1], 6)
    assert (difference <= bound * 1.001).all()
    assert (difference[..., [0, 2, 3, 4, 5]] > 0).any() and not found[..., 1].any()


def test_a_row_does_not_depend_on_the_others():
    x, weights = random(3, 4, 40), round_vectors(random(4, 6, 40))
    alone = np.stack([multiply_turned(row, weights) for row in x])
    np.testing.assert_array_equal(multiply_turned(x, weights), alone)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad, dtype):
    x, kernel = random(5, 4, 40, dtype=dtype), random(6, 6, 40, dtype=dtype)
    in_a_row = multiply_turned(x.at[2, 3].set(bad), round_vectors(kernel))
    assert in_a_row.dtype == dtype
    finite = np.isfinite(np.asarray(in_a_row, np.float32))
    assert not finite[2].any() and finite[[0, 1, 3]].all()
    in_an_output = multiply_turned(x, round_vectors(kernel.at[2, 3].set(bad)))
    finite = np.isfinite(np.asarray(in_an_output, np.float32))
    assert not finite[:, 2].any() and finite[:, [0, 1, 3, 4, 5]].all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("use_bias", [False, True])
def test_a_block_in_8_bits_computes_nearly_the_same_in_its_type(tiny_config, use_bias, dtype):
    config = tiny_config(use_bias=use_bias)
    block = FeedForward(config, "decoder", rngs=nnx.Rngs(0), dtype=dtype, param_dtype=jnp.float32)
    if use_bias:
        for part in (block.gate, block.value, block.output):
            part.bias[...] = jnp.linspace(-1, 1, part.out_features)
    structure, parameters = nnx.split(block)
    rounded = turn_kernels(parameters, int8=True)
    x = jax.random.normal(jax.random.key(2), (4, 1, 16)).astype(dtype)
    found = jax.jit(lambda weights, x: expect_turned(nnx.merge(structure, weights))(x))(rounded, x)
    wanted = np.asarray(block(x), np.float32)
    assert found.dtype == dtype
    # A product of 16 to 24 inputs is off by about 1/127 of a term at each.
    assert 0 < np.abs(np.asarray(found, np.float32) - wanted).max() < 0.05 * np.abs(wanted).max()
    for name in ("gate", "value", "output"):
        assert rounded[name]["kernel"][...].values.dtype == jnp.int8
        assert not use_bias or rounded[name]["bias"][...].dtype == jnp.float32


def test_pictures_in_8_bits_are_nearly_those_of_floats(make_tiny, captions):
    model = make_tiny(use_bias=True, tie_word_embeddings=True, dtype=jnp.bfloat16)
    exact = np.asarray(sample(model, *captions, key=KEY, guidance=2.0, temperature=0))
    found = sample(model, *captions, key=KEY, guidance=2.0, temperature=0, int8=True)
    assert found.dtype == jnp.int32 and found.shape == exact.shape
    assert (exact[:, 0] == found[:, 0]).all() and (exact == found).mean() > 0.6
    *_, (_, streamed) = stream(model, *captions, key=KEY, guidance=2.0, temperature=0, int8=True, every=4)
    np.testing.assert_array_equal(found, streamed)


def test_weights_that_are_not_numbers_are_reported_in_8_bits_too(make_tiny, captions):
    model = make_tiny(seed=1)
    kernel = model.decoder.layers.feed_forward.gate.kernel
    kernel[...] = kernel[...].at[0, 3, 4].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(model, *captions, key=KEY, int8=True)
