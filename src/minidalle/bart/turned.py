"""Dense layers for few rows at a time: matrices stored output by output, and multiplied from the left.

A step of the sampler multiplies every matrix with as many rows as there are pictures, so that most of its time goes into
reading the matrices. On a CPU the order in which they lie decides how fast that goes: each output's weights side by side
are read at up to twice the speed of each input's, as `nnx.Linear` has them (`benchmarks/matrices.py` measures it).

Where 8 bits are asked for, a matrix is rounded once, each output's weights on a scale of their own, and so is each row that
it is multiplied with, at every product: the "vector-wise quantization" of LLM.int8() (Dettmers et al. 2022). Rounded weights
alone would not do. XLA's CPU backend makes floats of them first, anew at every step.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rounded:
    """Vectors in 8 bits: nearly `values * scale[..., None]`.

    Attributes:
        values: (..., size) int8, whole numbers from -127 to 127.
        scale: (...) float32, what each vector's numbers count; 0 for one of zeros, and not finite where the vector is not.
    """

    values: jax.Array
    scale: jax.Array

    def __getitem__(self, _: Any) -> "Rounded":
        return self  # a dense layer reads its parameters as `kernel[...]`


def round_vectors(vectors: jax.Array) -> Rounded:
    """Vectors (..., size) in 8 bits, none of their numbers off by more than half a scale."""
    vectors = vectors.astype(jnp.float32)
    scale = jnp.abs(vectors).max(-1) / 127
    return Rounded(jnp.round(vectors / jnp.where(scale == 0, 1, scale)[..., None]).astype(jnp.int8), scale)


def turn(matrices: jax.Array, *, int8: bool = False) -> jax.Array | Rounded:
    """Kernels (..., inputs, outputs) as (..., outputs, inputs), and each output's weights in 8 bits if so asked."""
    turned = matrices.swapaxes(-1, -2)
    return round_vectors(turned) if int8 else turned


def turn_kernels(parameters: nnx.State, *, int8: bool = False) -> nnx.State:
    """Parameters of dense layers and others, with every dense layer's kernel turned."""
    return jax.tree.map_with_path(
        lambda path, leaf: turn(leaf, int8=int8) if jax.tree_util.DictKey("kernel") in path else leaf, parameters
    )


def multiply_turned(x: jax.Array, turned: jax.Array | Rounded) -> jax.Array:
    """The product (..., outputs) of x (..., inputs) with a turned kernel (outputs, inputs)."""
    if not isinstance(turned, Rounded):
        return _multiply(x, turned)
    rows = round_vectors(x)
    product = _multiply(rows.values, turned.values, jnp.int32)  # exact: |product| is at most 127² inputs
    return (product * rows.scale[..., None] * turned.scale).astype(x.dtype)


def _multiply(x: jax.Array, turned: jax.Array, dtype: Any = None) -> jax.Array:
    product = jax.lax.dot_general(turned, x, (((1,), (x.ndim - 1,)), ((), ())), preferred_element_type=dtype)
    # XLA would exchange the factors to save the exchange of axes, and some versions multiply ten times slower then.
    product = jax.lax.platform_dependent(product, cpu=jax.lax.optimization_barrier, default=lambda product: product)
    return jnp.moveaxis(product, 0, -1)  # of (outputs, ...)


def expect_turned(module: nnx.Module) -> nnx.Module:
    """The module, its dense layers told that their kernels are turned, and perhaps rounded."""
    for _, part in nnx.iter_graph(module):
        if isinstance(part, nnx.Linear):
            part.dot_general = _as_dot_general
            part.promote_dtype = functools.partial(_promote_dtype, part.promote_dtype)
    return module


def _as_dot_general(x: jax.Array, kernel: jax.Array | Rounded, *_: Any, **__: Any) -> jax.Array:
    return multiply_turned(x, kernel)


def _promote_dtype(promote: Callable, arrays: tuple, **options: Any) -> tuple:
    """What `promote` makes of a dense layer's input, kernel and bias, but for a rounded kernel."""
    x, kernel, bias = arrays
    if not isinstance(kernel, Rounded):
        return promote(arrays, **options)
    x, bias = promote((x, bias), **options)
    return x, kernel, bias
