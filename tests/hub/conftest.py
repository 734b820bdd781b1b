"""Networks with random weights in no time: built as shapes alone, then filled by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx


@pytest.fixture(scope="session")
def drawn():
    def fill(build):
        structure, state = nnx.split(nnx.eval_shape(build))
        generator = np.random.default_rng(0)
        values = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), state)
        return nnx.merge(structure, values)

    return fill
