"""In which order should a matrix lie that is multiplied with a few rows?

The sampler multiplies each of the decoder's matrices once a step, with as many rows as there are pictures and their
unconditional twins. `nnx.Linear` keeps a matrix (inputs, outputs) and multiplies `x @ kernel`; `minidalle.bart.turned`
keeps it (outputs, inputs) and multiplies from the left, in floats or, "turned, int8", in 8 bits (the same rows for all
matrices, so that they are rounded once; a step of the sampler rounds them for every one to three). "x @ turned.T" leaves the
order of the factors to XLA; PyTorch has a matrix as `nnx.Linear` keeps it. The matrices of a run are so many that no cache
holds them.

    python -m benchmarks.matrices                 1024 × 2730, the feed-forward blocks of DALL·E mini
    python -m benchmarks.matrices --inputs 2048 --outputs 4096 --rows 2 18
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import torch

from benchmarks.report import in_words, machine, ratio, spread, table, versions, where
from minidalle.bart.turned import Rounded, multiply_turned, round_vectors, turn
from minidalle.scale.timing import race


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrices", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1024)
    parser.add_argument("--outputs", type=int, default=2730)
    parser.add_argument("--matrices", type=int, default=48)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 8, 18, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    shape = (options.inputs, options.outputs)
    kernels = [jax.random.normal(jax.random.key(number), shape) for number in range(options.matrices)]
    turned = [turn(kernel).copy() for kernel in kernels]
    rounded = [jax.jit(round_vectors)(matrix) for matrix in turned]
    tensors = [torch.from_dlpack(kernel) for kernel in kernels]
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("jax", "jaxlib", "torch"),
        "weights": options.inputs * options.outputs * options.matrices,
        "rows": [],
    }
    for rows in options.rows:
        x = jax.random.normal(jax.random.key(rows), (rows, options.inputs))
        contestants = {
            "x @ kernel": compiled(lambda x, w: x @ w, x, kernels),
            "turned": compiled(multiply_turned, x, turned),
            "turned, int8": compiled(multiply_turned, x, rounded),
            "x @ turned.T": compiled(lambda x, w: x @ w.T, x, turned),
            "PyTorch": multiplied(torch.from_dlpack(x), tensors),
        }
        times = {name: timing.calls for name, timing in race(contestants, repeats=options.repeats).items()}
        for name, each in times.items():
            faster = ratio(times["x @ kernel"], each)
            found["rows"].append({"rows": rows, "name": name, "seconds": spread(each), "times_faster": faster})
    print(json.dumps(found, indent=1) if options.json else in_a_table(found))
    return found


def compiled(product: Callable, x: jax.Array, matrices: list[jax.Array] | list[Rounded]) -> Callable[[], Any]:
    """A call that multiplies x with each of the matrices in one compiled function."""
    all_products = jax.jit(lambda x, matrices: sum(product(x, matrix) for matrix in matrices))
    return lambda: all_products(x, matrices)


def multiplied(x: torch.Tensor, matrices: list[torch.Tensor]) -> Callable[[], Any]:
    """The same in PyTorch, one product after the other."""
    return lambda: sum(x @ matrix for matrix in matrices)


def in_a_table(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    rows = [
        [
            str(row["rows"]),
            row["name"],
            in_words(row["seconds"], unit=1e-3),
            f"{found['weights'] / row['seconds']['median'] / 1e9:.2f}",
            in_words(row["times_faster"]),
        ]
        for row in found["rows"]
    ]
    header = ["rows", "product", "ms", "1e9 weights/s", "times as fast as x @ kernel"]
    return f"{where(found['machine'], found['versions'])}\n\n{table(header, rows)}"


if __name__ == "__main__":
    main()
