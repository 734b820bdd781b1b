"""Do mini and mega fit a TPU slice, how long is a step, and what is sent around, over generations and mesh shapes?

No TPU is there: libtpu compiles for described slices (`minidalle.scale.tpu`), and seconds are the compiler's estimate.
A row of training takes minutes of two cores, one of drawing seconds. It is appended to a file as soon as it is there, and rows that stand there are not
compiled again, so that a run can be stopped and started:

    python -m benchmarks.tpu benchmarks/tpu.jsonl            # compile what is missing
    python -m benchmarks.tpu benchmarks/tpu.jsonl --table    # only the table

Batches of training are the originals' for mini (34 pictures a core) and for mega on v3-256 (44 for each copy of the model);
the other rows of mega say theirs. Pictures drawn: 8 a chip. Gradients are accumulated over no batches, by AdamW.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import machine, table, versions

MODELS = ("mini", "mega")
# program, model, slice, mesh, batch; the most telling first
ROWS = (
    ("training", "mini", "v3-8", {"data": 8}, 272),
    ("training", "mini", "v5e-8", {"data": 8}, 272),
    ("training", "mega", "v3-8", {"fsdp": 8}, 8),
    ("training", "mega", "v3-256", {"data": 32, "model": 8}, 1408),
    ("training", "mini", "v6e-8", {"data": 8}, 272),
    ("training", "mini", "v3-8", {"fsdp": 8}, 272),
    ("training", "mini", "v3-8", {"data": 2, "model": 4}, 272),
    ("drawing", "mini", "v3-8", {"data": 8}, 32),
    ("training", "mini", "v4-8", {"data": 4}, 272),
    ("training", "mini", "v5p-8", {"data": 4}, 272),
    ("training", "mega", "v5e-16", {"fsdp": 16}, 352),
    ("training", "mega", "v6e-8", {"fsdp": 8}, 352),
    ("training", "mega", "v5p-8", {"fsdp": 4}, 352),
    ("training", "mega", "v4-32", {"fsdp": 16}, 352),
    ("training", "mega", "v3-32", {"fsdp": 4, "model": 8}, 176),
    ("training", "mega", "v5e-16", {"fsdp": 2, "model": 8}, 352),
    ("drawing", "mini", "v4-8", {"data": 4}, 32),
    ("drawing", "mini", "v5e-8", {"data": 8}, 64),
    ("drawing", "mini", "v5p-8", {"data": 4}, 32),
    ("drawing", "mini", "v6e-8", {"data": 8}, 64),
    ("drawing", "mega", "v3-8", {"data": 8}, 32),
    ("drawing", "mega", "v4-8", {"data": 4}, 32),
    ("drawing", "mega", "v5e-8", {"data": 8}, 64),
    ("drawing", "mega", "v5e-8", {"data": 2, "model": 4}, 64),
    ("drawing", "mega", "v5p-8", {"data": 4}, 32),
    ("drawing", "mega", "v6e-8", {"data": 8}, 64),
)


def compile_row(program: str, model: str, name: str, mesh: dict[str, int], batch: int) -> dict[str, Any]:
    """One row: what the compiler says, as plain values."""
    from minidalle.scale import cost, tpu

    config = {"mini": cost.MINI, "mega": cost.MEGA}[model]
    run = tpu.compile_training if program == "training" else tpu.compile_sampling
    report = run(config, name, batch, mesh=mesh)
    return {
        "program": program,
        "model": model,
        "slice": name,
        "mesh": mesh,
        "batch": batch,
        **report.told(),
        "compiled in": report.compiled_in,
        "versions": versions("jax", "libtpu"),
        "machine": machine(),
    }


def key(row: dict[str, Any]) -> str:
    """What a row is about, in one line."""
    mesh = " × ".join(f"{axis} {count}" for axis, count in row["mesh"].items() if count > 1)
    return f"{row['program']} {row['model']}, {row['slice']}, {mesh or 'one device'}, {row['batch']} pictures"


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = []
    for row in rows:
        seconds = row["computing"] + row["communicating"]
        told = "; ".join(
            f"{each['times']} {each['kind']} of {each['devices']}: {each['sent'] / 1e9:.3g} GB"
            for each in row["collectives"]
            if each["sent"] >= 1e6
        )
        lines.append(
            [
                key(row),
                f"{row['total'] / 2**30:.1f} of {row['capacity'] / 2**30:.1f}",
                "yes" if row["fits"] else "no",
                f"{row['computing']:.3f}" if row["fits"] else "",
                f"{row['communicating']:.3f}" if row["fits"] else "",
                f"{100 * row['utilisation']:.0f} %" if row["fits"] else "",
                f"{row['batch'] / seconds:,.0f}" if row["fits"] else "",
                told if row["fits"] else "",
            ]
        )
    header = ["program", "GiB a device", "fits", "s computing", "s sending", "of peak", "pictures a second"]
    return table([*header, "sent by each device"], lines)


def main() -> None:
    """Compile the rows that are missing and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path, help="rows, one JSON object a line")
    options.add_argument("--table", action="store_true", help="compile nothing")
    options.add_argument("--json", action="store_true", help="print the rows instead of the table")
    chosen = options.parse_args()
    rows = [json.loads(line) for line in chosen.file.read_text().splitlines()] if chosen.file.exists() else []
    for program, model, name, mesh, batch in () if chosen.table else ROWS:
        wanted = {"program": program, "model": model, "slice": name, "mesh": mesh, "batch": batch}
        if key(wanted) in map(key, rows):
            continue
        print(f"compiling {key(wanted)}", file=sys.stderr, flush=True)
        try:
            rows.append(compile_row(program, model, name, mesh, batch))
        except Exception as error:  # one row that the compiler refuses must not cost the others
            print(f"{key(wanted)}: {str(error)[:2000]}", file=sys.stderr, flush=True)
            continue
        with chosen.file.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    print(json.dumps(rows) if chosen.json else as_table(rows))


if __name__ == "__main__":
    main()
