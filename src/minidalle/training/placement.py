"""Where arrays live when there are several devices: one mesh with three axes, and a rule for every parameter.

- "data": each device has all weights and its share of the batch's rows;
- "fsdp" (fully sharded data parallel): it has its share of the rows too, and of each weight only a part;
- "model" (tensor parallel): each device has all rows, and a part of each layer's heads and hidden units.

What is computed stays the same program: JAX cuts it up by where its inputs lie, and adds the communication.
Which parameter is cut where is a table, `minidalle.scale.mesh.RULES`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from minidalle.training.tree import flatten_names

AXES = DATA, FSDP, MODEL = "data", "fsdp", "model"
ROWS = (DATA, FSDP)  # the axes that share out the rows of a batch

Rules = Sequence[tuple[str, tuple[str | None, ...]]]  # pattern of a name, and the axes that cut its last dimensions


def make_mesh(
    *, data: int | None = None, fsdp: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The devices in a grid of data × fsdp × model.

    data: None takes what the other two axes leave. devices: None takes all of all processes; those of a topology
        description (`jax.experimental.topologies`) do as well, to compile for machines that are not there.

    Raises ValueError when the grid does not have as many places as there are devices.
    """
    devices = jax.devices() if devices is None else devices
    if data is None:
        data = max(1, len(devices) // max(1, fsdp * model))
    shape = (data, fsdp, model)
    if min(shape) < 1 or math.prod(shape) != len(devices):
        raise ValueError(
            f"a mesh of data={data} × fsdp={fsdp} × model={model} does not fit {len(devices)} devices; "
            "their product must be the number of devices, or say which to take with devices="
        )
    # Auto, said aloud: the default differs between the versions of JAX.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@dataclass(frozen=True)
class Placement:
    """A mesh, and by which rules parameters are cut over it; without rules every device has them whole.

    A rule is a pattern (`re.search` in the dotted name that `flatten_names` gives) and the mesh axes that cut the *last*
    dimensions; dimensions before those, such as that of stacked layers, stay whole. The first rule that fits counts.
    """

    mesh: Mesh
    rules: Rules = ()

    def rule(self, name: str) -> tuple[str | None, ...]:
        """The axes that are to cut the last dimensions of this parameter, whether they can or not."""
        return next((axes for pattern, axes in self.rules if re.search(pattern, name)), ())

    def spec(self, name: str, shape: Sequence[int]) -> PartitionSpec:
        """How a parameter of this name and shape is cut; a dimension that its axis does not divide stays whole."""
        axes = self.rule(name)
        if len(axes) > len(shape):
            raise ValueError(f"the rule for {name} cuts {len(axes)} dimensions, but its shape is {tuple(shape)}")
        axes = (None,) * (len(shape) - len(axes)) + axes
        return PartitionSpec(
            *(
                axis if axis and size % self.mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape, strict=True)
            )
        )

    def sharding(self, name: str, shape: Sequence[int]) -> NamedSharding:
        """`spec` on this mesh."""
        return NamedSharding(self.mesh, self.spec(name, shape))

    def shardings(self, state: Any, parameters: Mapping[str, Any]) -> Any:
        """Shardings for a tree that has leaves of its own for each parameter: moments, averages, accumulated gradients.

        state: any tree in which such leaves stand under their parameter's name, as in what optax makes of
            `{name: array}`. parameters: `{name: array}`.

        A leaf of its parameter's shape lies as its parameter does. All else is whole on every device: counts, and the
        factored moments of Adafactor, which are small.
        """

        def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            keys = (getattr(entry, "key", None) for entry in reversed(path))
            name = next((key for key in keys if key in parameters), None)
            if name is None or leaf.shape != parameters[name].shape:
                return NamedSharding(self.mesh, PartitionSpec())
            return self.sharding(name, leaf.shape)

        return jax.tree_util.tree_map_with_path(of, state)

    def gather_tables(self, parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Inside a compiled function: matrices that stand alone, whole along "fsdp". Those of stacked layers stay as they are.

        They are used once in a step. Left in parts, a table's rows would be looked up in parts, and put together as
        what is computed, of which there is more.
        """

        def whole(name: str, array: jax.Array) -> jax.Array:
            if array.ndim != 2:
                return array
            spec = PartitionSpec(*(None if axis == FSDP else axis for axis in self.spec(name, array.shape)))
            return jax.lax.with_sharding_constraint(array, NamedSharding(self.mesh, spec))

        return {name: whole(name, array) for name, array in parameters.items()}

    def place(self, model: nnx.Module) -> nnx.Module:
        """Move a model's arrays to their devices, in place; returns the model."""
        named, structure = flatten_names(nnx.state(model))
        placed = [move(array, self.sharding(name, array.shape)) for name, array in named.items()]
        nnx.update(model, jax.tree.unflatten(structure, placed))
        return model

    def build(self, build: Callable[[], nnx.Module]) -> nnx.Module:
        """The model that `build` makes, each device making its own part: for models that no single device can hold."""
        graph, state = nnx.split(nnx.eval_shape(build))
        named, structure = flatten_names(state)
        shardings = jax.tree.unflatten(structure, [self.sharding(name, a.shape) for name, a in named.items()])
        return nnx.merge(graph, jax.jit(lambda: nnx.state(build()), out_shardings=shardings)())

    def rows(self, batch: Any) -> Any:
        """Shardings of a batch (any tree): the first axis of each array is shared out over "data" and "fsdp"."""
        return jax.tree.map(
            lambda leaf: NamedSharding(self.mesh, PartitionSpec(ROWS) if np.ndim(leaf) else PartitionSpec()), batch
        )

    def put_rows(self, batch: Any) -> Any:
        """The whole batch over all devices, from the rows that this process has; see `local_rows` for which those are.

        Raises ValueError when the devices cannot share the rows evenly.
        """

        def put(sharding: NamedSharding, local: Any) -> jax.Array:
            local = np.asarray(local)
            if local.ndim and len(local) % self.row_shares(local_only=True):
                raise ValueError(
                    f"{len(local)} rows cannot be shared evenly by the {self.row_shares(local_only=True)} parts of "
                    f"data={self.mesh.shape[DATA]} × fsdp={self.mesh.shape[FSDP]} that this process has; "
                    "choose a batch_size that is a multiple of data × fsdp"
                )
            return jax.make_array_from_process_local_data(sharding, local)

        return jax.tree.map(put, self.rows(batch), batch)

    def row_shares(self, *, local_only: bool = False) -> int:
        """In how many parts the rows of a batch are cut; with `local_only`, how many of them this process has."""
        count = self.mesh.shape[DATA] * self.mesh.shape[FSDP]
        return len(self._local_parts()) if local_only else count

    def local_rows(self, count: int) -> np.ndarray:
        """Which of a batch's `count` rows this process is to bring, in order; all of them when it is the only one."""
        parts = self.row_shares()
        if count % parts:
            raise ValueError(f"a batch of {count} rows cannot be cut into data × fsdp = {parts} equal parts")
        return np.arange(count).reshape(parts, -1)[self._local_parts()].reshape(-1)

    def share(self, batches: Callable[[int], Any]) -> Callable[[int], Any]:
        """Of batches that every process makes whole, the rows that this one is to bring, as `fit` wants them.

        What reads files should rather read its own rows alone; `local_rows` says which.
        """
        if jax.process_count() == 1:
            return batches
        return lambda step: jax.tree.map(lambda array: array[self.local_rows(len(array))], batches(step))

    def gather(self, model: nnx.Module) -> nnx.Module:
        """With several processes: the whole model on one device of each, for what is to be computed or written there.

        All processes must call it. With one process, the model itself, which can do all that as it lies.
        """
        if jax.process_count() == 1:
            return model
        graph, state = nnx.split(model)
        whole = jax.jit(lambda state: state, out_shardings=NamedSharding(self.mesh, PartitionSpec()))(state)
        return nnx.merge(graph, jax.tree.map(lambda array: array.addressable_data(0), whole))

    def _local_parts(self) -> list[int]:
        here = np.vectorize(lambda device: device.process_index == jax.process_index())(self.mesh.devices)
        return np.flatnonzero(here.any(axis=2).reshape(-1)).tolist()


def by_rows(x: jax.Array) -> jax.Array:
    """An array whose first axis are rows, shared out as a batch is, where such a mesh is set (`jax.set_mesh`); else as it is.

    XLA decides by itself which of two cuts to follow, that of the rows or that of the weights. Inside a scan it follows the
    weights, so that with "fsdp" every device would have all rows of what is computed, and send those instead of weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not set(ROWS) <= set(mesh.axis_names) or x.shape[0] % Placement(mesh).row_shares():
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROWS))


def move(array: Any, sharding: NamedSharding) -> jax.Array:
    """An array that this process has whole (every process its own equal one), or has already, as `sharding` wants it."""
    if sharding.is_fully_addressable or not getattr(array, "is_fully_addressable", True):
        return jax.device_put(array, sharding)
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(move(jax.random.key_data(array), sharding))
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
