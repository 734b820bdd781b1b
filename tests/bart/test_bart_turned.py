"""A turned kernel gives what the kernel gives, in every dense layer of a decoder, and nothing else is turned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.bart.blocks import FeedForward
from minidalle.bart.config import DalleBartConfig
from minidalle.bart.turned import expect_turned, multiply_turned, turn, turn_kernels

CONFIG = DalleBartConfig(d_model=16, decoder_ffn_dim=24, decoder_attention_heads=2, encoder_attention_heads=2)


@pytest.mark.parametrize("shape", [(16,), (3, 16), (3, 5, 16)])
def test_the_product_is_that_of_the_kernel_as_it_was(shape):
    x, kernel = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), (16, 7))
    np.testing.assert_allclose(
        multiply_turned(x, turn(kernel)), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("use_bias", [False, True])
def test_a_block_with_turned_kernels_computes_the_same(use_bias):
    config = DalleBartConfig.from_dict(CONFIG.to_dict() | {"use_bias": use_bias})
    block = FeedForward(config, "decoder", rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32)
    structure, parameters = nnx.split(block)
    turned = expect_turned(nnx.merge(structure, turn_kernels(parameters)))
    x = jax.random.normal(jax.random.key(2), (4, 1, 16))
    np.testing.assert_allclose(jax.jit(turned.__call__)(x), block(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError):  # the same layers, not told
        nnx.merge(structure, turn_kernels(parameters))(x)


def test_kernels_alone_are_turned():
    block = FeedForward(CONFIG, "decoder", rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32)
    before = nnx.state(block)
    after = turn_kernels(before)
    assert after["gate"]["kernel"][...].shape == (24, 16) and before["gate"]["kernel"][...].shape == (16, 24)
    assert after["pre_norm"]["bias"][...].shape == (16,)
