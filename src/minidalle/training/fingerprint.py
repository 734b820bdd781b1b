"""A number for each array that tells whether any of its bytes changed, the same however the array is sharded.

The array is read as 32-bit words, each is multiplied by an odd number that depends on its place, and the products are
added modulo 2³². Such sums don't depend on their order: every device adds up its own part, and only one number a device
is communicated. A single changed word always shows, since no odd number times a difference is 0 modulo 2³²; several
changed words stay hidden with a chance of about 2⁻³². It protects from accidents, not from people.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprints(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """`{name: number below 2³²}` of arrays of any shape, type and sharding; every process gets all of them.

    In a run of several processes all must call it.
    """
    # One after the other: simulated devices share the cores' threads, and many sums that wait for each other at once may
    # leave no thread for the device that they all wait for.
    return {name: int(_fingerprint(array)) for name, array in arrays.items()}


@jax.jit
def _fingerprint(array: jax.Array) -> jax.Array:
    words = _words(array)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # The finalizer of MurmurHash3 (Appleby, public domain) makes neighbouring places unlike.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        place = (place ^ (place >> shift)) * jnp.uint32(factor)
    return jnp.sum(words * (place | 1), dtype=jnp.uint32)


def _words(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    if array.dtype.itemsize >= 4:  # 8 bytes become a last axis of two words
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)


def checksum(arrays: Mapping[str, Any]) -> int:
    """CRC-32 over names and bytes of all arrays, in the order of their names: what older run folders hold."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1), total)
    return total
