"""Several processes that train one model: which of them writes, and how they wait for each other."""

import jax
from jax.experimental import multihost_utils


def leads() -> bool:
    """Whether this process is the one that writes the log and the results: the first, or the only one."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Return when all processes have come here; at once when there is one. `what`: a name that all of them give."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
