"""What the processes of one run tell each other; in a run of one process nothing is sent."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Whether this process is the one that writes logs and results."""
    return jax.process_index() == 0


def largest(value: int) -> int:
    """The largest of the numbers that the processes give, the same in each; all of them must call it."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def of_first(values: list[int], room: int = 64) -> list[int]:
    """The first process's list of whole numbers ≥ 0, at most `room` of them, in every process; all of them must call it."""
    if jax.process_count() == 1:
        return values
    padded = np.full(room, -1, np.int32)
    padded[: len(values[:room])] = values[:room]
    return [int(value) for value in multihost_utils.broadcast_one_to_all(padded) if value >= 0]


def wait_for_all(name: str) -> None:
    """Return when every process has come to the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
