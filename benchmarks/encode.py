"""How many pictures a second become codes, beside what the encoder alone could do?

- ideal: the encoder on one batch that lies decoded in memory, again and again;
- local: `minidalle encode`'s own process, from JPEG files to shards on disk, threads decoding ahead of the encoder;
- in turn: the same without threads, so that nobody decodes while the encoder works;
- ray: Ray's readers and encoders on this machine, as many encoders as there are GPUs, or else cores.

All use the same batch size and take turns. What begins a run (loading, compiling, starting Ray) is told apart: a rate is
that of the batches after the first ones.

    python -m benchmarks.encode
    python -m benchmarks.encode --network mini --pictures 96 --batch-size 8 --shard-size 24
    python -m benchmarks.encode --pictures 24 --batch-size 4 --shard-size 8 --repeats 1 --engines local
"""

import argparse
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.report import in_words, machine, ratio, spread, table, versions, where
from minidalle.hub.assemble import load_any_vqgan
from minidalle.scale import cost
from minidalle.scale.encode import Encoder, checksum, encode_batch, encode_here, planned, write_shards
from minidalle.scale.plan import Plan, read_batches
from minidalle.vqgan.port import VQGANTwin

ENGINES = ("local", "in turn", "ray")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="emoji", help="mini (the original's size, random weights), or a VQGAN")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--side", type=int, default=256, help="of the JPEG files")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--workers", type=int, help="Ray's encoders")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("minidalle", "jax", "flax", "pillow", "pyarrow"),
    }
    load = functools.partial(load_network, options.network)
    encoder = Encoder(network := load())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found["bytes a file"] = write_pictures(folder / "photos", options.pictures, options.side)
        sizes = {"batch_size": options.batch_size, "shard_size": options.shard_size}
        known = {"size": network.config.resolution, "n_embed": network.config.n_embed, "weights": checksum(network)}
        plan = planned(folder / "plan", [folder / "photos"], **sizes, **known)
        batch = next(read_batches(plan.settings, 0, plan.shards[0]))
        engines = {
            "local": lambda shards: encode_here(plan, shards, encoder, os.cpu_count() or 1),
            "in turn": lambda shards: in_turn(plan, shards, encoder),
            "ray": lambda shards: on_ray(plan, shards, load, options.workers),
        }
        calls = {"ideal": lambda: ideal_rate(encoder, batch.images, options.pictures)}
        length = (network.config.resolution // network.config.downsampling) ** 2
        for name in options.engines:
            calls[name] = functools.partial(rate, engines[name], plan, folder / "codes", length)
        began = time.perf_counter()
        encoder(batch.images)
        found["seconds to compile"] = time.perf_counter() - began
        found["seconds to decode a picture"] = decode_seconds(plan)
        with ray_session(found) if "ray" in options.engines else tempfile.TemporaryDirectory():
            rates: dict[str, list[float]] = {name: [] for name in calls}
            for repeat in range(options.repeats):
                names = list(calls)
                for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                    rates[name].append(calls[name]())
    devices = jax.devices()
    found["per"] = devices[0].device_kind if devices[0].platform != "cpu" else "core"
    units = len(devices) if devices[0].platform != "cpu" else os.cpu_count() or 1
    found["pictures a second"] = {name: spread(each) for name, each in rates.items()}
    found["for each"] = {name: spread([value / units for value in each]) for name, each in rates.items()}
    found["of the ideal"] = {name: ratio(each, rates["ideal"]) for name, each in rates.items()}
    print(json.dumps(found, indent=1) if options.json else in_tables(found))
    return found


def load_network(name: str) -> VQGANTwin:
    """A VQGAN by its name or path; "mini": the original's sizes with random weights."""
    if name != "mini":
        return load_any_vqgan(name)
    from flax import nnx

    return VQGANTwin(cost.VQGAN, rngs=nnx.Rngs(0))


def write_pictures(folder: Path, count: int, side: int) -> int:
    """Captioned JPEG files, smooth like photographs; the mean size of a file in bytes."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06}.jpg", quality=90)
        (folder / f"{number:06}.txt").write_text(f"picture {number}")
    return sum(path.stat().st_size for path in folder.glob("*.jpg")) // count


def ideal_rate(encoder: Encoder, images: np.ndarray, pictures: int) -> float:
    """Pictures a second of the encoder alone, results waited for."""
    calls = max(2, pictures // len(images))
    began = time.perf_counter()
    for _ in range(calls):
        encoder(images)
    return calls * len(images) / (time.perf_counter() - began)


def decode_seconds(plan: Plan) -> float:
    """Seconds to read and decode one picture, one after the other."""
    began = time.perf_counter()
    pictures = sum(len(batch.captions) for batch in read_batches(plan.settings, 0, plan.shards[0]))
    return (time.perf_counter() - began) / pictures


def rate(engine: Callable[[list[int]], Iterator], plan: Plan, out: Path, code_length: int) -> float:
    """Pictures a second from the first batch's arrival to the last shard's writing."""
    shutil.rmtree(out, ignore_errors=True)
    arrivals: list[tuple[float, int]] = []

    def stamped() -> Iterator:
        for batch, codes in engine(list(range(len(plan.shards)))):
            arrivals.append((time.perf_counter(), len(codes)))
            yield batch, codes

    for _ in write_shards(out, plan, stamped(), code_length):
        pass
    began, first = arrivals[0]
    return (sum(count for _, count in arrivals) - first) / (time.perf_counter() - began)


def in_turn(plan: Plan, shards: list[int], encoder: Encoder) -> Iterator:
    """One thread that decodes a batch, encodes it, and only then decodes the next."""
    for shard in shards:
        for batch in read_batches(plan.settings, shard, plan.shards[shard]):
            yield batch, encode_batch(batch, encoder)


def on_ray(plan: Plan, shards: list[int], load: Callable[[], VQGANTwin], workers: int | None) -> Iterator:
    from minidalle.scale.ray_engine import encode_on_ray

    return encode_on_ray(plan, shards, load, workers=workers)


class ray_session:
    """Ray, started for all repeats and ended; how long that took goes into `found`."""

    def __init__(self, found: dict[str, Any]):
        self.found = found

    def __enter__(self) -> None:
        from minidalle.scale.ray_engine import session

        began = time.perf_counter()
        self.session = session(None)
        self.session.__enter__()
        self.found["seconds to start Ray"] = time.perf_counter() - began

    def __exit__(self, *error: Any) -> None:
        self.session.__exit__(*error)


def in_tables(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    alone = [name for name in found if name.startswith("seconds")]
    rows = [
        [name, *(in_words(found[key][name]) for key in ("pictures a second", "for each", "of the ideal"))]
        for name in found["pictures a second"]
    ]
    return "\n\n".join(
        [
            where(found["machine"], found["versions"]),
            table(["engine", "pictures/s", f"pictures/s and {found['per']}", "of the ideal"], rows),
            "\n".join(f"- {name}: {found[name]:.3g}" for name in alone),
        ]
    )


if __name__ == "__main__":
    main()
