"""How long does a picture take, beside min-dalle and transformers' BART?

min-dalle and we draw the codes of the same captions with guidance, from the same random weights, in float32 unless told
otherwise; then both turn codes into pictures. A BART of transformers that is as large draws as many codes in as many rows by
its own `generate` (no guidance, no pictures). Each lives in a process of its own, warm, and they take turns. min-dalle is
the package of PyPI, 0.4.11, in an environment that this file makes.

    python -m benchmarks.generate                        mini: 1, 4 and 9 pictures, 5 repetitions of 64 steps
    python -m benchmarks.generate --size mega --pictures 1 9 36 --device gpu --dtype float16
    python -m benchmarks.generate --size tiny --peers transformers       min-dalle has no such size
    python -m benchmarks.generate --int8                 and ours once more, its steps multiplying in 8 bits

A step of either costs the same wherever in the picture it is, so that 64 of 256 stand for all; a picture's time is that
of the caption and the first step, and 255 times that of a further step. Every step reads the weights of the decoder once,
whatever the number of pictures: their bytes over the step's time are shown beside what this machine's memory gives.

Found on 2026-11-30 on two cores of an Intel Xeon (Ice Lake, KVM), mini, float32, with JAX 0.10.2, Flax 0.12.8, PyTorch 2.13.0 and
min-dalle 0.4.11: README.md has the tables. A code takes min-dalle 1.9 times as long as us at 1 picture, 3.7 times at 4 and 3.4
times at 9; the goals of 4 at 1 and 7 at 9 are missed. transformers' BART takes 0.84 and 0.91 of our time at 1 and 9.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import venv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Contestant
from benchmarks.report import in_words, machine, ratio, spread, table

PEER = ("torch==2.13.0", "numpy", "pillow", "requests", "emoji", "typing_extensions")
GUIDANCE, TOP_K = 16, 256  # min-dalle's own defaults
OURS, INT8, MIN_DALLE, BART = "minidalle", "minidalle, int8", "min-dalle", "transformers"  # the contestants
PEERS = MIN_DALLE, BART
RATIOS = (MIN_DALLE, OURS), (MIN_DALLE, INT8), (BART, OURS), (BART, INT8), (OURS, INT8)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        found = run(options, Path(folder))
    print(json.dumps(found, indent=1) if options.json else in_tables(found))
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=["tiny", "mini", "mega"], default="mini")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 9], help="drawn at once; squares")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=64, help="codes of each picture that are drawn, at most all")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    formats = ["msgpack", "safetensors"]
    parser.add_argument(
        "--loading", choices=formats, nargs="*", default=formats, help="formats whose loading is measured"
    )
    parser.add_argument("--int8", action="store_true", help="one more contestant: ours, multiplying in 8 bits")
    parser.add_argument("--peers", choices=PEERS, nargs="*", default=PEERS, help="beside which it is measured")
    parser.add_argument("--peer", type=Path, default=ROOT / "_build" / "min-dalle", help="min-dalle's environment")
    parser.add_argument(
        "--work", type=Path, help="folder for the weights while it runs (mini: 6 GB; without --loading 2 GB)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.size == "tiny" and MIN_DALLE in options.peers:
        parser.error("min-dalle has mini and mega alone; give --peers transformers with --size tiny")
    if options.device == "cpu" and options.dtype != "float32" and MIN_DALLE in options.peers:
        parser.error("on a CPU min-dalle runs in float32 alone; give --peers transformers, or --device gpu")
    if any(round(count**0.5) ** 2 != count for count in options.pictures):
        parser.error("min-dalle draws square numbers of pictures; give some of 1, 4, 9, 16, 25, 36")
    return options


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    found: dict[str, Any] = {"machine": machine(), "settings": settings(options)}
    command = [sys.executable, "-m", "benchmarks.weights", options.size, folder, "min-dalle", *options.loading]
    subprocess.run(command, cwd=ROOT, check=True)
    found["loading"] = [load(folder / form, options.dtype) for form in options.loading]
    weights = folder / "min-dalle"
    platforms = {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {}
    commands = {OURS: [sys.executable, "-m", "benchmarks.draw_minidalle", weights, options.dtype]}
    if options.int8:
        commands[INT8] = [*commands[OURS], "--int8"]
    device = "cpu" if options.device == "cpu" else "cuda"
    same = [options.size, options.dtype, device]
    if MIN_DALLE in options.peers:
        python = peer_environment(options.peer)
        commands[MIN_DALLE] = [python, "-m", "benchmarks.draw_min_dalle", weights, *same]
    if BART in options.peers:
        commands[BART] = [sys.executable, "-m", "benchmarks.draw_transformers", *same]
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(Contestant(command, platforms)) for name, command in commands.items()}
        found |= compare(contestants, options, folder)
    return found


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as JSON holds it."""
    names = "size", "pictures", "repeats", "steps", "dtype", "device"
    return {"guidance": GUIDANCE, "top_k": TOP_K, **{name: getattr(options, name) for name in names}}


def peer_environment(folder: Path) -> Path:
    """The interpreter of min-dalle's environment, which is made when there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    found = subprocess.run([python, "-c", "import min_dalle"], capture_output=True)
    if found.returncode:
        subprocess.run([*install, *PEER], check=True)
        subprocess.run([*install, "--no-deps", "min-dalle==0.4.11"], check=True)
    return python


def load(folder: Path, dtype: str) -> dict[str, Any]:
    """Seconds and memory to load a DalleBart, its file in the page cache, in a process of its own."""
    file = next(path for path in folder.iterdir() if path.suffix in (".msgpack", ".safetensors"))
    command = [sys.executable, "-m", "benchmarks.loading", folder.name, folder, dtype]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {"format": folder.name, "file_bytes": file.stat().st_size, **json.loads(done.stdout)}


def compare(contestants: dict[str, Contestant], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rows and ratios; one contestant works at a time."""
    about = {name: contestant.ask("about") for name, contestant in contestants.items()}
    ours = about[OURS]
    length, generator = ours["code_length"], random.Random(0)
    steps = min(options.steps, length)
    caption = [0, *(generator.randrange(3, ours["text_vocabulary"]) for _ in range(9)), 2]
    some = [generator.randrange(ours["codebook_size"]) for _ in range(length)]
    found: dict[str, Any] = {"about": about, "rows": [], "ratios": []}
    found["bandwidth"] = contestants[OURS].ask("bandwidth", megabytes=16 if options.size == "tiny" else 1000)
    if MIN_DALLE in contestants:
        found["logits_differ_by"] = logits_differ_by(contestants, folder, caption, some[:15])
    for pictures in options.pictures:
        codes = [some[index:] + some[:index] for index in range(pictures)]
        times: dict[str, dict[str, list[float]]] = {name: {} for name in contestants}
        for repeat in range(-1, options.repeats):  # the first is not counted: it compiles, or fills caches
            for name, contestant in contestants.items():
                contestant.ask("read", caption=caption, pictures=pictures)
                count = steps if repeat >= 0 else min(steps, 4)
                drawn = contestant.ask("draw", steps=count, guidance=GUIDANCE, top_k=TOP_K, seed=repeat + 2)
                took = {"codes": (drawn["first"] + (length - 1) * drawn["step"]) / pictures, "step": drawn["step"]}
                if name != BART:  # which has nothing that decodes
                    took["decode"] = contestant.ask("decode", codes=codes) / pictures
                if repeat >= 0:
                    for what, seconds in took.items():
                        times[name].setdefault(what, []).append(seconds)
        for name, measured in times.items():
            row = {"pictures": pictures, "name": name, **{what: spread(values) for what, values in measured.items()}}
            rate = about[name]["bytes"] / row["step"]["median"]
            found["rows"].append(row | {"bytes_a_second": rate, "share_of_bandwidth": rate / found["bandwidth"]})
        for these, those in RATIOS:
            if these in times and those in times:
                both = [what for what in times[these] if what in times[those]]
                ratios = {what: ratio(times[these][what], times[those][what]) for what in both}
                found["ratios"].append({"pictures": pictures, "these": these, "those": those, **ratios})
    return found


def logits_differ_by(contestants: dict[str, Contestant], folder: Path, caption: list[int], codes: list[int]) -> float:
    """Largest difference of both sides' logits, unconditional and conditional, over the largest logit."""
    import numpy as np

    files = {
        name: contestants[name].ask("logits", file=str(folder / f"{name}.npy"), caption=caption, codes=codes)
        for name in (OURS, MIN_DALLE)
    }
    ours, theirs = (np.load(files[name]) for name in (OURS, MIN_DALLE))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def in_tables(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    machine, settings, about = found["machine"], found["settings"], found["about"]
    lines = [
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, load before {machine['load']}; computed on "
        f"{about[OURS]['device']}",
        *(
            f"{name}: "
            + ", ".join(f"{k} {v}" for k, v in one["versions"].items())
            + f"; {one['bytes'] / 1e6:.3g} MB a step"
            for name, one in about.items()
        ),
        f"{settings['size']}, {settings['dtype']}, guidance {settings['guidance']}, top-k {settings['top_k']}, "
        f"{settings['repeats']} repetitions of {min(settings['steps'], about['minidalle']['code_length'])} of "
        f"{about[OURS]['code_length']} steps; memory read at {found['bandwidth'] / 1e9:.1f} GB/s",
    ]
    if "logits_differ_by" in found:
        lines.append(f"logits differ by {found['logits_differ_by']:.1e} of the largest")
    rows = [
        [
            str(row["pictures"]),
            row["name"],
            in_words(row["step"], unit=1e-3),
            in_words(row["codes"]),
            in_words(row["decode"]) if "decode" in row else "",
            f"{row['bytes_a_second'] / 1e9:.1f} GB/s, {row['share_of_bandwidth']:.0%}",
        ]
        for row in found["rows"]
    ]
    header = ["pictures", "name", "ms a step", "s a picture, codes", "s a picture, decoding", "weights read"]
    tables = [table(header, rows)]
    if found["ratios"]:
        rows = [
            [
                str(row["pictures"]),
                row["these"],
                row["those"],
                *(in_words(row[what]) if what in row else "" for what in ("codes", "decode")),
            ]
            for row in found["ratios"]
        ]
        tables.append(table(["pictures", "time of", "over that of", "codes", "decoding"], rows))
    rows = [
        [
            one["format"],
            f"{one['file_bytes'] / 1e6:.3g} MB",
            f"{one['seconds']:.2f}",
            f"{one['peak_bytes'] / one['file_bytes']:.2f} × the file"
            if one["peak_bytes"] is not None
            else "not counted",
        ]
        for one in found["loading"]
    ]
    tables.append(table(["loading", "file", "s", "memory at most"], rows))
    return "\n\n".join(["\n\n".join(lines), *tables])


if __name__ == "__main__":
    main()
