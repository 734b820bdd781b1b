"""Pictures drawn side by side on several devices: each draws its share of the rows."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from minidalle.training.placement import DATA, MODEL, ROWS, Placement, make_mesh


def replicate(model: nnx.Module) -> int:
    """Put a model's weights on every device of this process, in place; one that lies on a mesh already stays there.

    Returns in how many shares its rows are computed.
    """
    devices = jax.local_devices()
    mesh = mesh_of(nnx.state(model))
    if mesh is None and len(devices) > 1:
        mesh = make_mesh(devices=devices)
        Placement(mesh).place(model)
    return 1 if mesh is None else Placement(mesh).row_shares()


def mesh_of(parameters: Any) -> Mesh | None:
    """The mesh on which parameters were placed; None when they are on one device."""
    sharding = jax.tree.leaves(parameters)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) and DATA in sharding.mesh.shape else None


def row_sharding(parameters: Any, rows: int) -> NamedSharding | None:
    """How arrays of so many rows lie beside weights that were placed on a mesh; None: as JAX likes.

    Rows that the devices cannot share evenly are computed by each of them.
    """
    mesh = mesh_of(parameters)
    if mesh is None:
        return None
    return NamedSharding(mesh, PartitionSpec(None if rows % Placement(mesh).row_shares() else ROWS))


def head_sharding(rows: NamedSharding | None, heads: int) -> NamedSharding | None:
    """How keys and values (rows, heads, …) lie beside arrays of these rows: heads are shared out where they can be."""
    if rows is None:
        return None
    return NamedSharding(rows.mesh, PartitionSpec(*rows.spec, MODEL if heads % rows.mesh.shape[MODEL] == 0 else None))
