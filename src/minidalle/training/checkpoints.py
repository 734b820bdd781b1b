"""Checkpoints of a run: written in the background, whole or not at all; verified when read, whatever the devices now.

Orbax writes into a temporary folder and renames it, so a kill in the middle leaves the earlier checkpoint standing.
What Orbax cannot see, bytes that changed on the disk, a fingerprint of every array does.
"""

import json
import shutil
import warnings
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from minidalle.training import processes
from minidalle.training.fingerprint import checksum, fingerprints

Like = jax.Array | jax.ShapeDtypeStruct


class AnotherRun(ValueError):
    """The checkpoint is whole, but of another model, optimizer or setting."""


class Checkpoints:
    """The last `keep` checkpoints under `folder`, each `{name: array}` with a small dictionary of plain values.

    Arrays may be sharded over devices and processes. Where there are several processes, all make the same calls, and
    all see the same `folder`.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        self.folder = Path(folder).absolute()
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=self._options)

    def save(self, step: int, arrays: Mapping[str, jax.Array], values: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint of `step`, and return; the arrays may be donated or deleted from then on.

        The checkpoint before is finished first. The oldest beyond `keep` are dropped when this one stands. What goes
        wrong in the background is raised by the next `save`, `wait` or `close`.
        """
        stored = {name: _storable(array) for name, array in arrays.items()}
        note = {**values, "fingerprints": fingerprints(stored)}
        note["note"] = _crc(note)
        self._manager.save(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(stored), values=ocp.args.JsonSave(note))
        )

    def wait(self) -> None:
        """Return when every checkpoint stands whole on the disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Mapping[str, Like]) -> tuple[int, dict[str, jax.Array], dict[str, Any]] | None:
        """The latest readable checkpoint as (step, arrays, values), or None when there is no checkpoint at all.

        Each array gets the type of its namesake in `like` and goes where that one's sharding says, on however many
        devices it was saved. A checkpoint that cannot be read, or whose bytes are not those that were written, is moved
        to `broken-<step>` beside the folder and the one before it is taken, with a UserWarning that says so. All
        processes take the same one.

        Raises ValueError when the checkpoint is of another model or optimizer than `like`, and when none can be read.
        """
        broken: list[tuple[int, str]] = []
        for step in processes.of_first(sorted(self._manager.all_steps(), reverse=True)):
            found, problem = self._attempt(step, like)
            if problem is None:
                self._set_aside(broken, taken=step)
                return step, *found
            broken.append((step, problem))
        if broken:
            raise ValueError(
                f"none of the checkpoints in {self.folder} can be read (step {broken[0][0]}: {broken[0][1][:200]}); "
                "start again with resume=False, or in an empty run folder"
            )
        return None

    def close(self) -> None:
        """Finish what is being written, and let go of Orbax's threads."""
        self._manager.close()

    def _attempt(self, step: int, like: Mapping[str, Like]) -> tuple[Any, str | None]:
        """What a checkpoint holds, or in words why it cannot be taken; every process comes to the same result.

        Reading waits for no other process, and computing on arrays of all processes begins when all have read theirs:
        so one that fails leaves none of the others waiting.
        """
        found, error = None, None
        try:
            found, note = _read(self.folder / str(step), like)
        except Exception as raised:  # whatever the storage layers raise: unreadable
            error = raised
        outcome = processes.largest(0 if error is None else 2 if isinstance(error, AnotherRun) else 1)
        if outcome == 2:
            raise error if isinstance(error, AnotherRun) else AnotherRun("another process refused the checkpoint")
        if outcome == 1:
            return None, _described(error) if error else "another process cannot read it"

        if "fingerprints" in note:
            written = note.pop("fingerprints")
            wrong = [name for name, number in fingerprints(found).items() if written.get(name) != number]
            if processes.largest(len(wrong)):
                return None, f"its bytes are not those that were written (fingerprint differs: {', '.join(wrong[:3])})"
        return ({name: _placed(found[name], like[name]) for name in like}, note), None

    def _set_aside(self, broken: list[tuple[int, str]], *, taken: int) -> None:
        for step, reason in broken:
            target = self.folder.parent / f"broken-{step}"
            if processes.leads():
                shutil.rmtree(target, ignore_errors=True)
                (self.folder / str(step)).rename(target)
            warnings.warn(
                f"the checkpoint at step {step} cannot be read ({reason[:200]}); going on from step {taken}, "
                f"and the broken one is moved to {target}",
                stacklevel=4,
            )
        if broken:
            processes.wait_for_all("broken checkpoints are set aside")
            self._manager.close()
            self._manager = ocp.CheckpointManager(self.folder, options=self._options)


def _read(folder: Path, like: Mapping[str, Like]) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The arrays as they were stored, where `like` wants them, and the values; without waiting for other processes."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="read"
    )
    with (
        closing(ocp.JsonCheckpointHandler(multiprocessing_options=alone)) as notes,
        closing(ocp.StandardCheckpointHandler(multiprocessing_options=alone)) as reader,
    ):
        values = notes.restore(epath.Path(folder / "values"))
        place = epath.Path(folder / "arrays")
        stored = _shapes(reader, place)
        _refuse_another(stored, like, folder)
        if "checksum" in values:  # of older versions: over the bytes of all arrays, on the host
            arrays = reader.restore(place, args=ocp.args.StandardRestore())
            arrays = {name: np.asarray(array) for name, array in arrays.items()}
            if checksum(arrays) != values.pop("checksum"):
                raise ValueError("its bytes are not those that were written (checksum differs)")
            return {name: jax.device_put(array, _sharding(like[name])) for name, array in arrays.items()}, values
        if _crc({name: value for name, value in values.items() if name != "note"}) != values.pop("note"):
            raise ValueError("its bytes are not those that were written (checksum of its values differs)")
        wanted = {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=_sharding(like[name]))
            for name, (shape, dtype) in stored.items()
        }
        return dict(reader.restore(place, args=ocp.args.StandardRestore(wanted))), values


def _shapes(reader: ocp.StandardCheckpointHandler, place: epath.Path) -> dict[str, tuple[tuple[int, ...], Any]]:
    metadata = reader.metadata(place)
    tree = getattr(metadata, "item_metadata", metadata)
    tree = getattr(tree, "tree", tree)
    return {name: (tuple(array.shape), array.dtype) for name, array in dict(tree).items()}


def _refuse_another(stored: Mapping[str, Any], like: Mapping[str, Like], where: Path) -> None:
    different = sorted(stored.keys() ^ like.keys())
    different += [name for name in like if name in stored and _stored_shape(like[name]) != stored[name][0]]
    if different:
        raise AnotherRun(
            f"the checkpoint {where} belongs to another model, optimizer or setting than this run "
            f"({len(different)} entries differ, the first: {different[:3]}); use another run folder, or resume=False"
        )


# --- one array, as it is computed with and as it is stored: typed random keys have no bytes of their own on disk, their
# counters have; a scalar becomes a vector of one, as run folders have had it from the beginning


def _storable(array: jax.Array) -> jax.Array:
    if _is_key(array):
        array = jax.random.key_data(array)
    if array.ndim == 0:
        array = array.reshape(1)
    return _copied(array)


def _stored_shape(like: Like) -> tuple[int, ...]:
    shape = jax.eval_shape(jax.random.key_data, like).shape if _is_key(like) else like.shape
    return tuple(shape) or (1,)


def _placed(found: jax.Array, like: Like) -> jax.Array:
    if _is_key(like):
        kinds: list[Any] = []
        # Asked while tracing, since an array's description has no kind that could be asked for.
        shape = jax.eval_shape(
            lambda key: kinds.append(jax.random.key_impl(key)) or jax.random.key_data(key), like
        ).shape
        return jax.random.wrap_key_data(_copied(found.reshape(shape)), impl=kinds[0])
    return _copied(found.reshape(like.shape).astype(like.dtype))


def _copied(array: jax.Array) -> jax.Array:
    # A CPU "device" shares memory with the host: without a copy, Orbax would go on reading buffers that the next step is
    # given to overwrite, and that step would overwrite what Orbax has read. Other devices copy to the host by themselves.
    on_cpu = next(iter(array.sharding.device_set)).platform == "cpu"
    return jnp.copy(array) if on_cpu else array


def _sharding(like: Like) -> jax.sharding.Sharding:
    if like.sharding is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return like.sharding


def _is_key(like: Like) -> bool:
    return jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)


def _crc(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
