"""Your own pictures with captions: a folder, a captions file or WebDataset shards, as one stream of ready pairs.

    pairs = load_pairs("photos/", size=256, seed=0)
    for image, caption, source in pairs: ...
    print(pairs.report)

Notable:
- pictures are decoded when their turn comes, so memory does not grow with the collection (shards: with `buffer`);
- the same seed gives the same order and the same crops; another seed, another epoch;
- whatever is wrong with the data is named in the report and left out, unless `strict`.
"""

import os
import random as standard_random
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from glob import glob
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidalle.data.decode import PictureError, decode
from minidalle.data.listing import CAPTION_FILES, Record, list_folder
from minidalle.data.report import Problem, Report
from minidalle.data.shards import read_shard

SHARD = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)


class Pair(NamedTuple):
    """A picture `(size, size, 3)` uint8, its caption, and the name of the file or sample that it comes from."""

    image: np.ndarray
    caption: str
    source: str


def load_pairs(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    size: int = 256,
    seed: int | None = None,
    crop: str = "center",
    captions: str | os.PathLike | None = None,
    buffer: int = 1000,
    keep_duplicates: bool = False,
    strict: bool = False,
) -> "Pairs":
    """Opens a collection of captioned pictures, to be iterated over as often as wanted.

    path: a folder of pictures (with `.txt` files or a captions file), a captions file beside its pictures, a folder of
        `.tar` shards, one shard, a pattern such as "data/{00..15}.tar" or "data/*.tar", or a list of shards.
    size: height and width of the pictures given, in pixels. crop: "center", or "random" (by the seed).
    seed: shuffles; None keeps the order of the files. Shards are shuffled among each other, and their pairs within
        `buffer` (which holds them undecoded).
    captions: the captions file, where it is not in the folder or is one of several.
    keep_duplicates: gives the same picture with the same caption again, rather than reporting it.
    strict: raises `ValueError` at the first problem that would drop a pair.

    Raises `FileNotFoundError` when nothing is there, `ValueError` for an empty folder, a captions file that cannot be
    understood, and arguments that make no sense.
    """
    if size < 1 or buffer < 1:
        raise ValueError(f"size is {size} and buffer is {buffer}; both must be at least 1")
    if crop not in ("center", "random"):
        raise ValueError(f"crop is {crop!r}; expected 'center' or 'random'")
    if crop == "random" and seed is None:
        raise ValueError("crop='random' needs a seed, so that the same pictures can be had again")
    listed = Report(strict=strict)
    shards = find_shards(path)
    records = None if shards else find_records(Path(path), Path(captions) if captions else None, listed)
    return Pairs(shards or records, listed, size, seed, crop, buffer, keep_duplicates)


class _Read(NamedTuple):
    image: np.ndarray
    caption: str
    mode: str | None  # what it was converted from
    key: bytes  # equal for the same picture with the same caption


class Pairs:
    """A collection opened by `load_pairs`: iterate for `Pair`s, then look at `report`, which starts anew each time."""

    def __init__(
        self,
        contents: list[Record] | list[Path],
        listed: Report,
        size: int,
        seed: int | None,
        crop: str,
        buffer: int,
        keep_duplicates: bool,
        need_captions: bool = True,
        threads: int = 1,
    ):
        self.contents, self.listed, self.report = contents, listed, listed
        self.size, self.seed, self.crop, self.buffer = size, seed, crop, buffer
        self.keep_duplicates, self.need_captions, self.threads = keep_duplicates, need_captions, threads

    def __iter__(self) -> Iterator[Pair]:
        listed = self.listed
        self.report = report = replace(listed, problems=list(listed.problems), counts=listed.counts.copy())
        seen = set()
        for record, read in in_order(self._read, enumerate(self._ordered(report)), self.threads):
            if isinstance(read, Problem):
                report.add(read.kind, read.source, read.message)
            elif not self.keep_duplicates and read.key in seen:
                report.add("duplicate", record.source, "the same picture with the same caption came before")
            else:
                seen.add(read.key)
                if read.mode is not None:
                    report.add("converted", record.source, f"from {read.mode} to RGB", dropped=False)
                report.read += 1
                yield Pair(read.image, read.caption, record.source)

    def _read(self, numbered: tuple[int, Record]) -> "tuple[Record, _Read | Problem]":
        """One record's picture, or what is wrong with it; nothing else is changed, so that threads may share the work."""
        index, record = numbered
        caption = _tidy(record.caption)
        if self.need_captions and not caption:
            return record, Problem("empty caption", record.source, "the caption holds no text")
        random = np.random.default_rng([self.seed, index]) if self.crop == "random" else None
        try:
            data = record.picture if isinstance(record.picture, bytes) else record.picture.read_bytes()
            image, mode = decode(data, self.size, random)
        except OSError as error:
            return record, Problem("unreadable", record.source, str(error))
        except PictureError as error:
            return record, Problem(error.kind, record.source, str(error))
        key = blake2b(data + caption.encode(errors="surrogatepass"), digest_size=12).digest()
        return record, _Read(image, caption, mode, key)

    def _ordered(self, report: Report) -> Iterator[Record]:
        """The records in the order of the seed; those of shards as they stream by."""
        order = range(len(self.contents))
        if self.seed is not None:
            order = np.random.default_rng(self.seed).permutation(len(self.contents)).tolist()
        contents = (self.contents[index] for index in order)
        if not self.contents or isinstance(self.contents[0], Record):
            return contents
        stream = (record for shard in contents for record in read_shard(shard, report))
        if self.seed is None or self.buffer == 1:
            return stream
        from webdataset import shuffle  # slow to import, and needed for shards alone

        return shuffle(self.buffer, initial=self.buffer, rng=standard_random.Random(self.seed))(stream)


def find_records(path: Path, captions: Path | None, report: Report) -> list[Record]:
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}; give a folder, a captions file or .tar shards")
    if captions is not None and not captions.is_file():
        raise FileNotFoundError(f"there is no captions file at {captions}")
    if path.is_file():
        if path.suffix.lower() not in CAPTION_FILES:
            raise ValueError(f"{path} is neither a captions file (.csv, .tsv, .jsonl, .json) nor a .tar shard")
        path, captions = path.parent, path
    records = list_folder(path, captions, report)
    if not records and not report.counts:
        raise ValueError(f"{path} holds no pictures and no .tar shards; see load_pairs for what it may hold")
    return records


def find_shards(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    """The shards that `path` names, each checked to be a file; [] where it names something else."""
    if isinstance(path, str | os.PathLike):
        name = os.fspath(path)
        if Path(name).is_dir():
            return sorted(shard for shard in Path(name).iterdir() if SHARD.search(shard.name) and shard.is_file())
        if not SHARD.search(name):
            return []
        if "{" in name and not Path(name).exists():
            from braceexpand import braceexpand

            paths = list(braceexpand(name))
        elif any(letter in name for letter in "*?[") and not Path(name).exists():
            paths = sorted(glob(name)) or [name]
        else:
            paths = [name]
    else:
        paths = list(path)
        if not paths:
            raise ValueError("the list of shards is empty; give at least one .tar file")
    for shard in paths:
        if not Path(shard).is_file():
            raise FileNotFoundError(f"there is no shard at {shard}; only files on this machine can be read")
    return [Path(shard) for shard in paths]


def in_order(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """`map(function, items)`, computed by several threads a little ahead of the one who takes the results."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tidy(caption: str) -> str:
    """One line of text: control characters and runs of spaces become single spaces, broken Unicode becomes '�'."""
    caption = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in caption)
    return " ".join(caption.encode("utf-8", "surrogatepass").decode("utf-8", "replace").split())
