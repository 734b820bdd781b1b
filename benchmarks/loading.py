"""Load one DalleBart and print, as JSON, how many seconds and bytes of memory that took at most.

`python -m benchmarks.loading {msgpack,safetensors} FOLDER DTYPE`, in a fresh process: what an earlier load left behind
would count.
"""

import json
import sys
import time
from pathlib import Path

import jax

from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.native import load_bart

LOADERS = {"msgpack": load_dallebart, "safetensors": load_bart}


def status(key: str) -> int:
    """Bytes in this process's memory, as Linux counts them: "VmRSS" now, "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def measure(form: str, folder: str, dtype: str) -> dict[str, float | int | None]:
    """Seconds, and bytes beyond those that the interpreter and its libraries take (None where Linux does not count)."""
    jax.block_until_ready(jax.numpy.ones(3) + 1)
    counted = Path("/proc/self/clear_refs").exists()
    if counted:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew: imports take up to 400 MB of their own
        before = status("VmRSS")
    start = time.perf_counter()
    model = LOADERS[form](folder, dtype=dtype, param_dtype=dtype)
    jax.block_until_ready(model.lm_head.kernel[...])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": status("VmHWM") - before if counted else None}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
