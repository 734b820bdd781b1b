"""How long does a training step take, beside PyTorch?

BART: ours against transformers' `BartForConditionalGeneration`, eager and compiled, the same weights and batch, AdamW. The
losses of the first steps are shown, since equal work gives equal losses. VQGAN: our training (channels last, fused AdamW)
against the same network in taming-transformers' layout, contiguous NCHW with PyTorch's plain Adam, both eager.
Each contestant lives in a process of its own, warm, and they take turns.

    python -m benchmarks.train                             BART of 6 + 6 layers of width 512, 64 tokens, 256 codes
    python -m benchmarks.train --model vqgan
    python -m benchmarks.train --width 1024 --depth 12 --batch 16 --dtype bfloat16        on a GPU
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

from benchmarks.processes import Contestant
from benchmarks.report import in_words, machine, ratio, spread, table, versions, where

CONTESTANTS = {
    "bart": ("minidalle", "transformers", "transformers, compiled"),
    "vqgan": ("minidalle, channels last", "taming-transformers' layout"),
}
SIZES = {
    "bart": {"width": 512, "depth": 6, "batch": 4, "text": 64, "codes": 256, "vocabulary": 16384},
    "vqgan": {"width": 32, "batch": 8, "side": 64},
}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    sizes = {name: getattr(options, name) or default for name, default in SIZES[options.model].items()}
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("minidalle", "jax", "flax", "torch", "transformers"),
    }
    found |= {"model": options.model, "sizes": sizes, "dtype": options.dtype}
    names = [name for name in CONTESTANTS[options.model] if not (options.eager and name.endswith("compiled"))]
    command = [sys.executable, "-m", "benchmarks.trainers"]
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(Contestant([*command, name])) for name in names}
        found |= compare(contestants, sizes, options)
    print(json.dumps(found, indent=1) if options.json else in_a_table(found))
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=list(SIZES), default="bart")
    for name in dict.fromkeys(name for each in SIZES.values() for name in each):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def compare(contestants: dict[str, Contestant], sizes: dict[str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each contestant's steps, the losses of its first ones, and ratios to the first contestant."""
    first, *_ = contestants.values()
    found: dict[str, Any] = {"rows": []}
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "bart":
            found["parameters"] = first.ask("write", sizes=sizes, folder=folder)
        for contestant in contestants.values():
            contestant.ask("prepare", sizes=sizes, folder=folder, dtype=options.dtype)
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for _ in range(options.repeats + 2):  # the first two are not counted: they compile, or fill caches
            for name, contestant in contestants.items():
                steps[name].append(contestant.ask("step"))
    seconds = {name: [step["seconds"] for step in each[2:]] for name, each in steps.items()}
    ours = next(iter(seconds.values()))
    for name, each in seconds.items():
        found["rows"].append(
            {
                "name": name,
                "first": steps[name][0]["seconds"],
                "seconds": spread(each),
                "over_ours": ratio(each, ours),
                "losses": [step["loss"] for step in steps[name][:3]],
            }
        )
    return found


def in_a_table(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    rows = [
        [
            row["name"],
            in_words(row["seconds"], unit=1e-3),
            f"{row['first']:.1f}",
            in_words(row["over_ours"]),
            ", ".join(f"{loss:.4f}" for loss in row["losses"]),
        ]
        for row in found["rows"]
    ]
    sizes = ", ".join(f"{name} {value:,}" for name, value in found["sizes"].items())
    return "\n\n".join(
        [
            where(found["machine"], found["versions"]),
            f"{found['model']}, {found['dtype']}: {sizes}"
            + (f"; {found['parameters']:,} parameters" if "parameters" in found else ""),
            table(["name", "ms a step", "s, first step", "over the first row's", "losses of the first steps"], rows),
        ]
    )


if __name__ == "__main__":
    main()
