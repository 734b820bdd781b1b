"""Which picture goes into which shard of codes: decided once, before the first is encoded, and kept beside the shards.

With the plan fixed, a shard depends on nothing but its own line of it: not on who encodes it, when, or how often it
was begun before. `plan.jsonl` has the settings on its first line and a shard on each other line.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidalle.data.listing import Record, list_pictures
from minidalle.data.pairs import Pairs, find_records, find_shards
from minidalle.data.report import Problem, Report
from minidalle.files import replacing

FILE = "plan.jsonl"


@dataclass(frozen=True)
class Settings:
    """All that the bytes of the shards depend on, apart from the pictures and the versions of libraries.

    Attributes:
        pictures: where they are: a folder or a captions file, or tar files, as absolute paths.
        captioned: whether there are captions; pictures of a folder without any are encoded with the caption "".
        size: side of the pictures in pixels. batch_size: pictures encoded at a time.
        shard_size: pictures of a shard, before the bad ones are left out; a tar file is a shard by itself.
        n_embed, weights: of the encoder, its codebook's size and the checksum of its weights.
    """

    pictures: tuple[str, ...]
    captioned: bool
    size: int
    batch_size: int
    shard_size: int
    n_embed: int
    weights: str


@dataclass(frozen=True)
class Plan:
    """The settings, and for each shard its records or its tar file."""

    settings: Settings
    shards: tuple[tuple[Record, ...] | Path, ...]

    def name(self, shard: int) -> str:
        """The file of a shard."""
        return f"{shard:05}.parquet"


class Batch(NamedTuple):
    """Pictures of one shard that are encoded together.

    Attributes:
        shard: its place in the plan. number: its own place in the shard. last: whether it ends the shard.
        images: `(batch_size, size, size, 3)` uint8, black behind the last picture.
        captions, sources: one for each picture.
        problems: what was wrong since the batch before.
    """

    shard: int
    number: int
    last: bool
    images: np.ndarray
    captions: list[str]
    sources: list[str]
    problems: list[Problem]


def make_plan(pictures: Sequence[str | os.PathLike], report: Report, **settings: Any) -> Plan:
    """List the pictures and cut the list into shards.

    Args:
        pictures: one folder, captions file, tar file or pattern, or several tar files; as `minidalle.data.load_pairs`.
        report: gets what does not match up (pictures without caption, captions without picture).
        settings: those of `Settings` that are not found out here.

    Raises as `load_pairs` does.
    """
    where, tars = find_pictures(pictures)
    if tars:
        return Plan(Settings(where, True, **settings), tuple(map(Path, where)))
    folder = Path(where[0])
    records = find_records(folder, None, report)
    captioned = bool(records)
    if not captioned and folder.is_dir() and (records := list_pictures(folder)):
        report.problems.clear()  # "picture without caption", for every one
        report.counts.clear()
        report.dropped = 0
    size = settings["shard_size"]
    cut = tuple(tuple(records[start : start + size]) for start in range(0, len(records), size))
    return Plan(Settings(where, captioned, **settings), cut)


def find_pictures(pictures: Sequence[str | os.PathLike]) -> tuple[tuple[str, ...], bool]:
    """The absolute paths that `pictures` names, and whether they are tar files; raises as `load_pairs` does."""
    if tars := find_shards(pictures[0] if len(pictures) == 1 else pictures):
        return tuple(str(path.resolve()) for path in tars), True
    if not Path(pictures[0]).exists():
        raise FileNotFoundError(f"there is nothing at {pictures[0]}; give a folder, a captions file or .tar shards")
    return (str(Path(pictures[0]).resolve()),), False


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write a plan, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        print(json.dumps(asdict(plan.settings)), file=file)
        for shard in plan.shards:
            print(
                json.dumps(
                    str(shard) if isinstance(shard, Path) else [[r.source, r.caption, str(r.picture)] for r in shard]
                ),
                file=file,
            )


def read_plan(path: str | Path) -> Plan:
    """Read what `write_plan` wrote; raises ValueError when it is something else."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            values = json.loads(next(file))
            settings = Settings(**values | {"pictures": tuple(values["pictures"])})
            shards = [json.loads(line) for line in file]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"{path} is not a plan of `minidalle encode` ({error}); choose another folder") from error
    return Plan(
        settings,
        tuple(
            Path(shard)
            if isinstance(shard, str)
            else tuple(Record(source, caption, Path(picture)) for source, caption, picture in shard)
            for shard in shards
        ),
    )


def read_batches(
    settings: Settings, shard: int, contents: tuple[Record, ...] | Path, threads: int = 1
) -> Iterator[Batch]:
    """Decode the pictures of a shard (its number and contents in the plan), batch by batch.

    There is at least one batch, which may be empty. `threads` decode together; how many does not change what is given.
    """
    listed = Report(details=10**9)  # every problem counts here
    pairs = Pairs(
        [contents] if isinstance(contents, Path) else list(contents),
        listed, settings.size, None, "center", 1, False, need_captions=settings.captioned, threads=threads,
    )  # fmt: skip
    number, told, images, captions, sources = -1, 0, [], [], []

    def batch(last: bool) -> Batch:
        nonlocal number, told
        number += 1
        problems, told = pairs.report.problems[told:], len(pairs.report.problems)
        whole = np.zeros((settings.batch_size, settings.size, settings.size, 3), np.uint8)
        if images:
            whole[: len(images)] = images
        return Batch(shard, number, last, whole, list(captions), list(sources), problems)

    for image, caption, source in pairs:
        if len(images) == settings.batch_size:
            yield batch(last=False)
            images, captions, sources = [], [], []
        images.append(image)
        captions.append(caption)
        sources.append(source)
    yield batch(last=True)
