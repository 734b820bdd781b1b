"""From one device to a mesh: the table of which parameter is cut along which axis, and what comes of it.

    placement = on_mesh(fsdp=4, model=2)             # 8 devices
    model = placement.place(model)                   # or placement.build(lambda: DalleBart(…)), never whole anywhere
    fit(…, placement=placement)                      # training; `sample(model, …)` draws

The mesh and its three axes are explained in `minidalle.training.placement`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from minidalle.training.placement import AXES, DATA, FSDP, MODEL, Placement, Rules, make_mesh
from minidalle.training.recipe import section
from minidalle.training.tree import flatten_names

__all__ = [
    "AXES",
    "DATA",
    "FSDP",
    "MODEL",
    "RULES",
    "Placement",
    "Split",
    "bytes_per_device",
    "describe",
    "from_recipe",
    "make_mesh",
    "on_mesh",
    "owners",
]

# Pairs of matrices as in Megatron-LM (Shoeybi et al. 2019, section 3): the first is cut by its outputs, so that each device
# has whole heads and hidden units, the second by its inputs, and one sum over devices follows.
RULES: Rules = (
    # DalleBart (feed_forward.gate, .value, .output) and CLIP (fc1, fc2, out); the dimension of layers comes before these
    (r"(^|\.)(query|key|value|gate|fc1)\.kernel$", (FSDP, MODEL)),
    (r"(^|\.)(query|key|value|gate|fc1)\.bias$", (MODEL,)),
    (r"(^|\.)middle_norm\.(scale|bias)$", (MODEL,)),
    (r"(^|\.)(output|out|fc2)\.kernel$", (MODEL, FSDP)),
    # tables: each device has some of the words, and the logits of those
    (r"(^|\.)(embed_tokens|token_embedding)\.embedding$", (MODEL, FSDP)),
    (r"(^|\.)lm_head\.kernel$", (FSDP, MODEL)),
    # whatever else is a matrix or a convolution, the VQGAN's all: stored in parts, computed whole
    (r"(^|\.)kernel$", (None, FSDP)),
)


def on_mesh(
    *, data: int | None = None, fsdp: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Placement:
    """The placement of all our networks on a mesh of data × fsdp × model devices; arguments and errors of `make_mesh`."""
    return Placement(make_mesh(data=data, fsdp=fsdp, model=model, devices=devices), RULES)


MESH = {
    "data": 0,  # devices that share out the rows; 0 takes what the other axes leave
    "fsdp": 1,  # devices that share out rows and weights
    "model": 1,  # devices that share out heads and hidden units
}


def from_recipe(recipe: Mapping[str, Any]) -> Placement | None:
    """The placement that a recipe's [mesh] asks for, over all devices of all processes.

    A recipe without one trains on one device (None), and with several processes data-parallel.

    Raises ValueError for unknown keys, and for a mesh that does not fit the devices.
    """
    if not recipe.get("mesh") and jax.process_count() == 1:
        return None
    sizes = section(recipe, "mesh", MESH)
    return on_mesh(data=sizes["data"] or None, fsdp=sizes["fsdp"], model=sizes["model"])


class Split(NamedTuple):
    """How one array lies on the mesh."""

    name: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    block: tuple[int, ...]  # the shape of what one device has
    undivided: tuple[str, ...]  # axes that were to cut it, but do not divide their dimension


def describe(placement: Placement, parameters: Any) -> list[Split]:
    """What is split and what is not, parameter by parameter.

    parameters: a tree of arrays or `jax.ShapeDtypeStruct`s, as `nnx.state(model, nnx.Param)`.
    """
    rows = []
    for name, array in flatten_names(parameters)[0].items():
        sharding = placement.sharding(name, array.shape)
        undivided = [axis for axis in placement.rule(name) if axis and axis not in sharding.spec]
        rows.append(Split(name, array.shape, sharding.spec, sharding.shard_shape(tuple(array.shape)), tuple(undivided)))
    return rows


def bytes_per_device(tree: Any) -> int:
    """Bytes that each device has of a tree of sharded arrays, or of `jax.ShapeDtypeStruct`s with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def owners(array: jax.Array) -> np.ndarray:
    """Which devices have which block of a matrix: (blocks down, blocks across, devices that have this block), their ids."""
    if array.ndim != 2:
        raise ValueError(f"owners draws matrices; this array has {array.ndim} dimensions, take one layer of it")
    places: dict[tuple[int, int], list[int]] = {}
    for device, (down, across) in array.sharding.devices_indices_map(array.shape).items():
        places.setdefault((down.start or 0, across.start or 0), []).append(device.id)
    blocks = [len({place[axis] for place in places}) for axis in (0, 1)]
    return np.array([sorted(places[place]) for place in sorted(places)]).reshape(*blocks, -1)
