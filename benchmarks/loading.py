"""Load one DalleBart and print, as JSON, how many seconds and bytes of memory that took at most.

`python -m benchmarks.loading {msgpack,safetensors} FOLDER DTYPE`, in a fresh process: what an earlier load left behind
would count.
"""

import json
import sys
import time

import jax
from flax import nnx

from benchmarks.memory import with_peak
from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.native import load_bart

LOADERS = {"msgpack": load_dallebart, "safetensors": load_bart}


def measure(form: str, folder: str, dtype: str) -> dict[str, float | int | None]:
    """Seconds, and bytes beyond those that the interpreter and its libraries take (None where Linux does not count)."""
    jax.block_until_ready(jax.numpy.ones(3) + 1)

    def load() -> tuple[nnx.Module, float]:
        start = time.perf_counter()
        model = LOADERS[form](folder, dtype=dtype, param_dtype=dtype)
        jax.block_until_ready(model.lm_head.kernel[...])
        return model, time.perf_counter() - start  # the model, so that it lives until its memory is counted

    (_, seconds), peak = with_peak(load)
    return {"seconds": seconds, "peak_bytes": peak}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
