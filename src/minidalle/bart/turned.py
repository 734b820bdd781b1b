"""Dense layers for few rows at a time: matrices stored output by output, and multiplied from the left.

A step of the sampler multiplies every matrix with as many rows as there are pictures, so that most of its time goes into
reading the matrices. On a CPU the order in which they lie decides how fast that goes: each output's weights side by side
are read at up to twice the speed of each input's, as `nnx.Linear` has them (`benchmarks/matrices.py` measures it).
"""

from typing import Any

import jax
from flax import nnx


def turn(matrices: jax.Array) -> jax.Array:
    """Kernels (..., inputs, outputs) as (..., outputs, inputs)."""
    return matrices.swapaxes(-1, -2)


def turn_kernels(parameters: nnx.State) -> nnx.State:
    """Parameters of dense layers and others, with every dense layer's kernel turned."""
    return jax.tree.map_with_path(
        lambda path, leaf: turn(leaf) if jax.tree_util.DictKey("kernel") in path else leaf, parameters
    )


def multiply_turned(x: jax.Array, turned: jax.Array) -> jax.Array:
    """The product (..., outputs) of x (..., inputs) with a turned kernel (outputs, inputs)."""
    product = jax.lax.dot_general(turned, x, (((1,), (x.ndim - 1,)), ((), ())))  # (outputs, ...)
    # XLA would exchange the factors to save the exchange of axes, and some versions multiply ten times slower then.
    product = jax.lax.platform_dependent(product, cpu=jax.lax.optimization_barrier, default=lambda product: product)
    return jax.numpy.moveaxis(product, 0, -1)


def expect_turned(module: nnx.Module) -> nnx.Module:
    """The module, its dense layers told that their kernels are turned."""
    for _, part in nnx.iter_graph(module):
        if isinstance(part, nnx.Linear):
            part.dot_general = _as_dot_general
    return module


def _as_dot_general(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    return multiply_turned(x, kernel)
