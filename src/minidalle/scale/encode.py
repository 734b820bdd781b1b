"""Pictures to shards of codes, at any scale: plan, decode, encode, write; stopped anywhere, it goes on from there.

- The plan says beforehand which picture goes into which shard (`minidalle.scale.plan`); a shard that stands is done.
- An engine gives encoded batches: one process here, Ray's workers in `minidalle.scale.ray_engine`. It decides who works
  and when, and nothing about the result: batches are those of the plan, and all have one size, so that XLA compiles once.
- This process alone writes, and a shard appears whole or not at all.
"""

import json
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike, cpu_count
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from minidalle.data.encoded import Encoded, count_pictures
from minidalle.data.report import Problem, Report
from minidalle.files import locked, write_text
from minidalle.scale.plan import FILE, Batch, Plan, find_pictures, make_plan, read_batches, read_plan, write_plan
from minidalle.vqgan.port import weights_of
from minidalle.vqgan.twin import VQGANTwin

ENGINES = ("local", "ray")
ENCODING = ("encoder.", "quant_conv.", "quantize.")  # the weights that codes depend on


@dataclass(frozen=True)
class Shards:
    """What `encode` wrote.

    Attributes:
        folder: where. files: the shards, in the plan's order.
        pictures: how many are in them. code_length: codes of each.
        problems: all that was found wrong, the plan's first, then shard by shard.
    """

    folder: Path
    files: list[Path]
    pictures: int
    code_length: int
    problems: list[Problem]


class Encoder:
    """A VQGAN's encoding half for whole batches of bytes: `(n, size, size, 3)` uint8 to codes `(n, code_length)` int32."""

    def __init__(self, vqgan: VQGANTwin):
        self.vqgan = vqgan

    def __call__(self, images: np.ndarray) -> np.ndarray:
        # Bytes go to the device and are divided there: a quarter of what floats would take.
        return np.asarray(self.vqgan.encode(jnp.asarray(images).astype(jnp.float32) / 255))


def encode(
    pictures: str | PathLike | Sequence[str | PathLike],
    out: str | PathLike,
    load: Callable[[], VQGANTwin],
    *,
    batch_size: int = 64,
    shard_size: int = 8192,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Shards:
    """Encode pictures into shards of codes in the folder `out`, or finish what was begun there.

    Besides the shards (`00000.parquet` …, see `minidalle.data.encoded`), `out` gets `plan.jsonl`, `problems/` and
    `report.txt`. Whatever the engine, the workers and the interruptions, the shards have the same bytes, on one kind of
    device and with one set of versions.

    Args:
        pictures: a folder with captions or without any, a captions file, WebDataset tar files; see `make_plan`.
        out: a folder of its own.
        load: gives the VQGAN; with Ray it is called in each worker, so it must be picklable.
        batch_size: pictures encoded at a time, in one compiled shape.
        shard_size: pictures of a shard; each tar file is a shard by itself.
        engine: "local", this process with one device; or "ray", Ray Data: readers decode for encoders, one for each GPU or
            CPU core. Ray's encoders share the GPUs with this process, which loads the VQGAN as well, for its checksum:
            set `jax.config.update("jax_platforms", "cpu")` before, as the command does.
        address: of a Ray cluster whose machines all see `pictures` and `load`'s files; None starts Ray on this machine.
        workers: encoders (ray; None: as many as there are GPUs, else cores) or threads that decode (local; None: cores).
        progress: show a bar.

    Raises:
        BlockingIOError: another process is writing into `out`.
        ValueError: `out` was begun with other pictures, sizes or weights; an argument makes no sense; no picture at all
            could be read. FileNotFoundError: `pictures` is not there. ImportError: pyarrow, or Ray, is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise ValueError("address= (--address) belongs to Ray; say engine='ray' (--engine ray) with it")
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size), ("workers", workers or 1)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    out = Path(out)
    pictures = [pictures] if isinstance(pictures, str | PathLike) else list(pictures)
    find_pictures(pictures)  # what is not there is told before anything is made
    vqgan = load()
    with locked(out):
        for leftover in out.rglob(".*.tmp"):  # of a run that was killed; nobody else writes here
            leftover.unlink()
        plan = planned(
            out,
            pictures,
            size=vqgan.config.resolution,
            batch_size=batch_size,
            shard_size=shard_size,
            n_embed=vqgan.config.n_embed,
            weights=checksum(vqgan),
        )
        missing = [shard for shard in range(len(plan.shards)) if not (out / plan.name(shard)).exists()]
        length = (vqgan.config.resolution // vqgan.config.downsampling) ** 2
        if missing:
            if engine == "local":
                results = encode_here(plan, missing, Encoder(vqgan), workers or cpu_count() or 1)
            else:
                from minidalle.scale.ray_engine import encode_on_ray

                results = encode_on_ray(plan, missing, load, address=address, workers=workers)
            with tqdm(total=len(plan.shards), initial=len(plan.shards) - len(missing), unit="shard",
                      disable=not progress) as bar:  # fmt: skip
                for shard in write_shards(out, plan, results, length):
                    bar.set_postfix_str(plan.name(shard))
                    bar.update()
        return finish(out, plan, length)


def planned(out: Path, pictures: Sequence[str | PathLike], **settings: Any) -> Plan:
    """The plan that `out` was begun with, checked against the settings; or a new one, which is then written there."""
    if not (out / FILE).exists():
        if others := sorted(path.name for path in out.glob("*.parquet")):
            raise ValueError(f"{out} holds {others[0]} but no {FILE}; choose a folder that is new or was begun here")
        report = Report(details=10**9)
        plan = make_plan(pictures, report, **settings)
        write_problems(out / "problems" / "plan.jsonl", report.problems)
        write_plan(out / FILE, plan)
        return plan
    plan = read_plan(out / FILE)
    begun = asdict(plan.settings)
    asked = settings | {"pictures": find_pictures(pictures)[0]}
    for name, value in asked.items():
        if begun[name] != value:
            raise ValueError(
                f"{out} was begun with {name} = {begun[name]!r}, now it is {value!r}; go on with the same, or choose another folder"
            )
    return plan


def checksum(vqgan: VQGANTwin) -> str:
    """Eight hexadecimal digits of all weights that the codes depend on."""
    total = 0
    for name, array in sorted(weights_of(vqgan).items()):
        if name.startswith(ENCODING):
            total = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def encode_here(
    plan: Plan, shards: Iterable[int], encoder: Callable[[np.ndarray], np.ndarray], threads: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """The local engine: threads decode the next batches while this one is encoded."""
    read = (batch for shard in shards for batch in read_batches(plan.settings, shard, plan.shards[shard], threads))
    for batch in ahead(read):
        yield batch, encode_batch(batch, encoder)


def encode_batch(batch: Batch, encoder: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Codes of a batch's pictures, without those of its padding: `(n, code_length)` int32; `(0, 0)` of none."""
    count = len(batch.captions)
    return encoder(batch.images)[:count] if count else np.zeros((0, 0), np.int32)


def ahead(items: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """The same items, made by a thread of their own that keeps up to `depth` of them ready."""
    ready: queue.Queue = queue.Queue(depth)
    closed = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not closed.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put("item", item)
                if closed.is_set():
                    return
            put("end", None)
        except BaseException as error:  # it is raised where the items are taken
            put("error", error)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        closed.set()
        maker.join()


def write_shards(out: Path, plan: Plan, results: Iterable[tuple[Batch, np.ndarray]], code_length: int) -> Iterator[int]:
    """Write each shard when all of its batches have come, in whatever order, and give its number."""
    begun: dict[int, list[tuple[Batch, np.ndarray]]] = {}
    for batch, codes in results:
        parts = begun.setdefault(batch.shard, [])
        # The pictures are no longer needed, and a shard of them would fill the memory.
        parts.append((batch._replace(images=np.empty(0, np.uint8)), codes.reshape(-1, code_length)))
        parts.sort(key=lambda part: part[0].number)
        if not parts[-1][0].last or len(parts) <= parts[-1][0].number:
            continue
        del begun[batch.shard]
        problems = [problem for part, _ in parts for problem in part.problems]
        # First what was wrong, then the shard: whoever finds the shard finds the problems as well.
        name = plan.name(batch.shard)
        write_problems((out / "problems" / name).with_suffix(".jsonl"), problems)
        Encoded(
            np.concatenate([codes for _, codes in parts]).astype(np.int32),
            [caption for part, _ in parts for caption in part.captions],
            [source for part, _ in parts for source in part.sources],
            plan.settings.n_embed,
        ).save(out / name)
        yield batch.shard


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """One problem a line, sorted: threads that read ahead may find them in another order."""
    lines = sorted(json.dumps([p.source, p.kind, p.message, p.dropped]) + "\n" for p in problems)
    if lines or path.exists():
        write_text(path, "".join(lines))


def read_problems(path: Path) -> list[Problem]:
    """Read what `write_problems` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Problem(kind, source, message, dropped) for source, kind, message, dropped in rows]


def finish(out: Path, plan: Plan, code_length: int) -> Shards:
    """Write `report.txt`, which names every problem, and sum up; raises ValueError when no picture was good."""
    names = ["plan", *(Path(plan.name(shard)).stem for shard in range(len(plan.shards)))]
    problems = [problem for name in names for problem in read_problems(out / "problems" / f"{name}.jsonl")]
    files = [out / plan.name(shard) for shard in range(len(plan.shards))]
    pictures = sum(map(count_pictures, files))
    report = Report(read=pictures)
    for problem in problems:
        report.add(problem.kind, problem.source, problem.message, dropped=problem.dropped)
    head = str(report).splitlines()[0]
    write_text(out / "report.txt", "\n".join([head, *(f"  {problem}" for problem in problems)]) + "\n")
    if not pictures:
        raise ValueError(f"no picture of {', '.join(plan.settings.pictures)} could be read:\n{report}")
    return Shards(out, files, pictures, code_length, problems)
