"""What do our quantizers cost beside those of vector-quantize-pytorch, in time and in memory?

A training step of the quantizer alone (forward and backward) on random vectors, by three kinds: a codebook learned by
gradient, one that follows running means, and the latter with the rotation trick. Both sides start from the same codebook,
and the share of equal codes is shown. Each lives in a process of its own, warm, and they take turns;
peak memory is counted in further processes whose allocator gives everything back at once.

    python -m benchmarks.quantize                   codebooks of 256 to 65,536 rows, vectors of 256 numbers
    python -m benchmarks.quantize --sizes 1024 --pictures 2 --grid 8
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.processes import Contestant
from benchmarks.report import in_words, machine, ratio, spread, table, versions, where

KINDS = ("gradient", "ema", "rotation")
SIDES = ("minidalle", "vector-quantize-pytorch")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}  # glibc: large blocks leave when freed


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantize", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096, 16384, 65536], help="codebook rows")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--dim", type=int, default=256, help="numbers of a vector")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--grid", type=int, default=16, help="positions of a picture: grid × grid")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = {
        "machine": machine(),
        "versions": versions("minidalle", "torch", "vector-quantize-pytorch"),
        "settings": vars(options),
        "rows": [compare(kind, n_embed, options) for kind in options.kinds for n_embed in options.sizes],
    }
    print(json.dumps(found, indent=1) if options.json else in_a_table(found))
    return found


def compare(kind: str, n_embed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes of both sides for one kind and one size, and what theirs are of ours."""
    case = {"kind": kind, "n_embed": n_embed, "dim": options.dim, "pictures": options.pictures, "grid": options.grid}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    command = [sys.executable, "-m", "benchmarks.quantizers"]
    with Contestant([*command, SIDES[0]]) as ours, Contestant([*command, SIDES[1]]) as theirs:
        contestants = dict(zip(SIDES, (ours, theirs), strict=True))
        codes = [contestant.ask("prepare", **case) for contestant in contestants.values()]
        for repeat in range(-2, options.repeats):  # the first two are not counted: they warm up
            for side, contestant in contestants.items():
                seconds = contestant.ask("step")
                if repeat >= 0:
                    times[side].append(seconds)
    peaks = {side: peak_of([*command, side], case) for side in SIDES}
    return {
        "kind": kind,
        "n_embed": n_embed,
        "equal_codes": sum(a == b for a, b in zip(*codes, strict=True)) / len(codes[0]),
        "seconds": {side: spread(each) for side, each in times.items()},
        "times_faster": ratio(times[SIDES[1]], times[SIDES[0]]),
        "peak_bytes": peaks,
    }


def peak_of(command: list[str], case: dict[str, Any]) -> int | None:
    """Bytes that a step takes at most, in a process that does nothing else."""
    with Contestant(command, GIVE_BACK) as contestant:
        contestant.ask("prepare", **case)
        return contestant.ask("peak")


def in_a_table(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    settings = found["settings"]
    rows = []
    for row in found["rows"]:
        ours, theirs = (in_words(row["seconds"][side], unit=1e-3) for side in SIDES)
        megabytes = [
            "not counted" if row["peak_bytes"][side] is None else f"{row['peak_bytes'][side] / 1e6:,.0f}"
            for side in SIDES
        ]
        rows.append([row["kind"], f"{row['n_embed']:,}", ours, theirs, in_words(row["times_faster"]), *megabytes])
    header = ["kind", "codes", "ms, ours", "ms, theirs", "theirs over ours", "MB at most, ours", "theirs"]
    return "\n\n".join(
        [
            where(found["machine"], found["versions"]),
            f"{settings['pictures']} pictures of {settings['grid']} × {settings['grid']} vectors of {settings['dim']} "
            f"numbers; {settings['repeats']} repetitions; at least "
            f"{min(row['equal_codes'] for row in found['rows']):.2%} of the codes are the same",
            table(header, rows),
        ]
    )


if __name__ == "__main__":
    main()
