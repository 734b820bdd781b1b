"""How does the loss fall with width, data and compute, and do small runs foretell larger ones?

Members of `minidalle.scale.family`, every combination of width and steps, three seeds each; and at a few of them half and
twice the learning rate, since a law of badly trained models is a law of bad training. Each run is appended to a file as
soon as it is there, and runs that stand there are not made again, so that it can be stopped and started:

    python -m benchmarks.scaling src/minidalle/scale/measured/scaling.jsonl            # make what is missing
    python -m benchmarks.scaling src/minidalle/scale/measured/scaling.jsonl --table    # only the table

Losses do not depend on what else the machine does; no times are taken.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import table
from minidalle.training import log

WIDTHS, LARGER, SEEDS = (16, 24, 40, 64, 96), (128, 192), (0, 1, 2)
STEPS, OTHER_STEPS = 160, (80, 320)
TUNED = (16, 40, 96)


class Task(NamedTuple):
    width: int
    steps: int
    seed: int
    times_rate: float = 1.0


def tasks() -> Iterator[Task]:
    """All runs, those first that the others are compared with."""
    for width in (*WIDTHS, *LARGER):
        yield from (Task(width, STEPS, seed) for seed in SEEDS)
    for steps in OTHER_STEPS:
        for width in (*WIDTHS, LARGER[0]):
            yield from (Task(width, steps, seed) for seed in SEEDS)
    for width in TUNED:
        yield from (Task(width, STEPS, 0, times) for times in (0.5, 2.0))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--table", action="store_true", help="only print what stands in the file")
    options = parser.parse_args(arguments)
    rows = log.read(options.path) if options.path.exists() else []
    if not options.table:
        made = {Task(row["width"], row["steps"], row["seed"], row["times_rate"]) for row in rows}
        rows += make([task for task in tasks() if task not in made], options.path)
    print(in_a_table(rows))


def make(missing: list[Task], path: Path) -> list[dict[str, Any]]:
    """Train what is missing and append it to the file, run by run."""
    from minidalle.scale import cost, family

    if not missing:
        return []
    world, rows = family.World(), []
    examples = world.examples(max(STEPS, *OTHER_STEPS) * family.BATCH, seed=1)
    aside = world.examples(1024, seed=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    for task in missing:
        config = world.member(task.width)
        rates = family.schedule(task.steps, task.times_rate * family.peak_rate(task.width))
        run = family.train(config, examples, aside, rates, task.seed)
        pictures = task.steps * family.BATCH
        row = task._asdict() | {
            "parameters": family.multiplying_parameters(config),
            "codes": pictures * config.image_length,
            "operations": cost.training_operations(config, pictures),
            "loss": round(run.final, 5),
        }
        log.append(path, row)
        rows.append(row)
        print(row, flush=True)
    return rows


def in_a_table(rows: list[dict[str, Any]]) -> str:
    """Losses of each width, steps and rate, seed beside seed, as Markdown."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["times_rate"], row["steps"], row["width"]), []).append(row)
    lines = []
    for (times, steps, width), group in sorted(groups.items()):
        losses = [row["loss"] for row in group]
        lines.append(
            [
                f"{width}",
                f"{group[0]['parameters']:,}",
                f"{steps}",
                f"{times:g}",
                f"{group[0]['operations']:.2e}",
                f"{statistics.mean(losses):.4f}",
                ", ".join(f"{loss:.4f}" for loss in losses),
            ]
        )
    return table(["width", "parameters", "steps", "× rate", "operations", "mean loss", "losses"], lines)


if __name__ == "__main__":
    main()
