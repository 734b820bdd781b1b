"""How long until something happens: importing, the first picture, compiling?

- `import minidalle` beside an empty Python, and beside `import jax` and `import torch`, each in a new process;
- `minidalle generate` from the shell to the file, in a new process, nothing compiled before;
- compiling DalleBart's training step for depths of 2 to 24 layers a stack, scanned as the library does it, and with the
  layers written out one after the other (`use_scan = False`).

    python -m benchmarks.start
    python -m benchmarks.start --depths 2 4 --width 64 --repeats 1
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.report import in_words, machine, spread, table, versions, where

IMPORTS = {"nothing": "pass", "minidalle": "import minidalle", "jax": "import jax", "torch": "import torch"}
CAPTION = "cat with sunglasses"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.partition("\n")[0])
    parser.add_argument("--depths", type=int, nargs="*", default=[2, 6, 12, 24], help="layers of each stack")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"machine": machine(), "versions": versions("minidalle", "jax", "flax", "torch")}
    calls = {f"import {name}": [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        generate = [sys.executable, "-m", "minidalle.cli", "generate", CAPTION, "-n", "8", "--out", f"{folder}/a.png"]
        seconds = in_turns(calls | {"minidalle generate, 8 pictures": generate}, options.repeats)
        assert Path(folder, "a.png").exists()
    found["seconds"] = {name: spread(each) for name, each in seconds.items()}
    compiling = {
        (depth, scanned): [compile_seconds(depth, options.width, scanned) for _ in range(options.repeats)]
        for depth in options.depths
        for scanned in (True, False)
    }
    found["compiling"] = [
        {"depth": depth, "scanned": scanned, **spread(each)} for (depth, scanned), each in compiling.items()
    ]
    print(json.dumps(found, indent=1) if options.json else in_tables(found))
    return found


def in_turns(calls: dict[str, list[str]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each command, the first round (files read from disk) not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(-1, repeats):
        for name, command in calls.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def compile_seconds(depth: int, width: int, scanned: bool) -> float:
    """Seconds to trace and compile a training step (loss, gradient, AdamW), in a new process."""
    arguments = [
        sys.executable,
        "-c",
        f"from benchmarks.start import compile_step; compile_step{depth, width, scanned}",
    ]
    done = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def compile_step(depth: int, width: int, scanned: bool) -> None:
    """Print how long compiling took."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from minidalle.bart import DalleBart, DalleBartConfig, objective
    from minidalle.training.step import Step

    heads = max(1, width // 64)
    config = DalleBartConfig(
        encoder_vocab_size=1024, image_vocab_size=1024, image_length=64, max_text_length=32, d_model=width,
        encoder_layers=depth, decoder_layers=depth, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width,
        encoder_attention_heads=heads, decoder_attention_heads=heads, dropout=0.0, use_scan=scanned,
        gradient_checkpointing=False,
    )  # fmt: skip

    def loss(model: DalleBart, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict]:
        return objective.loss(model, batch["ids"], jnp.ones_like(batch["ids"]), batch["codes"]), {}

    batch = {name: jax.ShapeDtypeStruct((8, length), jnp.int32) for name, length in (("ids", 32), ("codes", 64))}
    model = nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0)))
    step = Step(loss, model, optax.adamw(1e-3), batch)
    began = time.perf_counter()
    step.lower().compile()
    print(time.perf_counter() - began)


def in_tables(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    depths = list(dict.fromkeys(row["depth"] for row in found["compiling"]))
    compiling = {(row["depth"], row["scanned"]): in_words(row) for row in found["compiling"]}
    return "\n\n".join(
        [
            where(found["machine"], found["versions"]),
            table(["from the shell", "s"], [[name, in_words(each)] for name, each in found["seconds"].items()]),
            table(
                ["layers a stack", "s to compile, scanned", "written out"],
                [[str(depth), compiling[depth, True], compiling[depth, False]] for depth in depths],
            ),
        ]
    )


if __name__ == "__main__":
    main()
