"""Checkpoints of a run: written whole or not at all, verified when read, an older one taken when the latest is broken.

Orbax writes into a temporary folder and renames it, so a kill in the middle leaves the earlier checkpoint standing.
What Orbax cannot see, bytes that changed on the disk, a checksum over every array does.
"""

import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The last `keep` checkpoints under `folder`, each `{name: array}` with a small dictionary of plain values."""

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        self.folder = Path(folder).absolute()
        # Synchronous: the next step donates these very buffers, and on a CPU Orbax would read them without a copy.
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=self._options)

    def save(self, step: int, arrays: Mapping[str, jax.Array], values: Mapping[str, Any]) -> None:
        """Write a checkpoint of `step`, replacing one of the same step, and drop the oldest beyond `keep`."""
        stored = {name: _storable(array) for name, array in arrays.items()}
        note = {**values, "checksum": checksum(stored)}
        self._manager.save(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(stored), values=ocp.args.JsonSave(note))
        )
        self._manager.wait_until_finished()

    def restore(self, like: Mapping[str, jax.Array]) -> tuple[int, dict[str, jax.Array], dict[str, Any]] | None:
        """The latest readable checkpoint as (step, arrays, values), or None when there is no checkpoint at all.

        A checkpoint that cannot be read, or whose checksum is wrong, is moved to `broken-<step>` beside the folder and
        the one before it is taken, with a UserWarning that says so.

        Raises ValueError when the checkpoint is of another model or optimizer than `like`, and when none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        broken: list[tuple[int, str]] = []
        for step in steps:
            try:
                found, values = self._read(step)
            except Exception as error:  # whatever the storage layers raise: unreadable
                broken.append((step, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
                continue
            arrays = _matched(found, like, self.folder / str(step))
            self._set_aside(broken, taken=step)
            return step, arrays, values
        if broken:
            raise ValueError(
                f"none of the checkpoints in {self.folder} can be read (step {broken[0][0]}: {broken[0][1][:200]}); "
                "start again with resume=False, or in an empty run folder"
            )
        return None

    def close(self) -> None:
        """Let go of Orbax's threads."""
        self._manager.close()

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        saved = self._manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(), values=ocp.args.JsonRestore())
        )
        arrays, values = dict(saved["arrays"]), dict(saved["values"])
        if checksum(arrays) != values.pop("checksum"):
            raise ValueError("its bytes are not those that were written (checksum differs)")
        return arrays, values

    def _set_aside(self, broken: list[tuple[int, str]], *, taken: int) -> None:
        for step, reason in broken:
            target = self.folder.parent / f"broken-{step}"
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(step)).rename(target)
            warnings.warn(
                f"the checkpoint at step {step} cannot be read ({reason[:200]}); going on from step {taken}, "
                f"and the broken one is moved to {target}",
                stacklevel=4,
            )
        if broken:
            self._manager.close()
            self._manager = ocp.CheckpointManager(self.folder, options=self._options)


def checksum(arrays: Mapping[str, Any]) -> int:
    """CRC-32 over names and bytes of all arrays, in the order of their names."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1), total)
    return total


def _storable(array: jax.Array) -> np.ndarray:
    # Typed random keys have no bytes of their own on disk; their counters have.
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.atleast_1d(np.asarray(array))


def _matched(found: Mapping[str, Any], like: Mapping[str, jax.Array], where: Path) -> dict[str, jax.Array]:
    different = sorted(found.keys() ^ like.keys())
    different += [n for n in like if n in found and _storable(like[n]).shape != found[n].shape]
    if different:
        raise ValueError(
            f"the checkpoint {where} belongs to another model, optimizer or setting than this run "
            f"({len(different)} entries differ, the first: {different[:3]}); use another run folder, or resume=False"
        )
    arrays = {}
    for name, expected in like.items():
        if jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key):
            arrays[name] = jax.random.wrap_key_data(found[name].reshape(jax.random.key_data(expected).shape))
        else:
            # A copy of its own: the first step donates it, which must not reach into memory that numpy owns.
            arrays[name] = jax.numpy.array(found[name].reshape(expected.shape), dtype=expected.dtype, copy=True)
    return arrays
