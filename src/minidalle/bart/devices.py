"""Pictures drawn side by side on several devices: each holds all weights and draws its share of the rows."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

DATA = "data"  # the mesh's only axis, along which rows are shared out


def replicate(model: nnx.Module) -> int:
    """Put a model's weights on every device of this process, in place; returns how many there are."""
    devices = jax.local_devices()
    if len(devices) > 1:
        mesh = jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)
        nnx.update(model, jax.device_put(nnx.state(model), NamedSharding(mesh, PartitionSpec())))
    return len(devices)


def row_sharding(parameters: Any, rows: int) -> NamedSharding | None:
    """How arrays of so many rows lie beside weights that `replicate` has spread; None: as JAX likes.

    Rows that the devices cannot share evenly are computed by each of them.
    """
    sharding = jax.tree.leaves(parameters)[0].sharding
    if not isinstance(sharding, NamedSharding) or DATA not in sharding.mesh.shape or rows % sharding.mesh.shape[DATA]:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(DATA))
