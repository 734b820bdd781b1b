"""Several processes that train one model: which of them writes, what they tell each other, how they wait.

Where there is one process nothing is sent. What is said of several holds for all: each must make the call.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils


def leads() -> bool:
    """Whether this process is the one that writes the log and the results: the first, or the only one."""
    return jax.process_index() == 0


def largest(value: int) -> int:
    """The largest of the numbers that the processes give, the same in each."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def any_stops(stop: bool, *, meeting: bool) -> bool:
    """Whether the run stops at this step since a process was asked to, the same answer in each.

    `meeting` says whether the processes ask each other at this step: a question costs a wait, and none may stop while
    the others go on. A process alone needs no meeting.
    """
    if jax.process_count() == 1:
        return stop
    return meeting and largest(int(stop)) == 1


def of_first(values: list[int], room: int = 64) -> list[int]:
    """The first process's list of whole numbers ≥ 0, at most `room` of them, in every process."""
    if jax.process_count() == 1:
        return values
    padded = np.full(room, -1, np.int32)
    padded[: len(values[:room])] = values[:room]
    return [int(value) for value in multihost_utils.broadcast_one_to_all(padded) if value >= 0]


def wait_for_all(what: str) -> None:
    """Return when all processes have come here; at once when there is one. `what`: a name that all of them give."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
