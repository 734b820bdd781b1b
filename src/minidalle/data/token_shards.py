"""Token shards that need not fit into memory, through Grain: any row by its number, and batches that are plain indexing.

    minidalle encode "tars/{000..999}.tar" --out codes/      # WebDataset in, one token shard for each tar file out

    shards = TokenShards("codes")
    batches = read_batches(shards, 256, seed=0)
    batches(1000)                                            # the batch of step 1,000, whatever was read before

A shard is decoded as a whole, so rows drawn from all shards at once would decode one for every row. Here the shards are
shuffled, some of them at a time are a window, and the rows of a window are shuffled: all as functions of seed and place.
Each shard is then decoded once an epoch; by every process, since each has rows of every batch, but only its own are made.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidalle.data.encoded import find_token_shards, read_footer, read_token_shard

try:
    import grain
except ImportError as error:
    raise ImportError('reading = "grain" needs Grain: pip install grain') from error


class TokenShards:
    """The rows of a folder of token shards as Grain's random-access source: `{"caption": str, "codes": (L,) int32}`.

    Attributes:
        paths: the shards that have rows. firsts: number of the first row of each, and that of all rows at the end.
        listing: `{name: [rows, bytes]}`, by which a changed folder is recognised.
        code_length, n_embed: as `Encoded` has them, the same in all shards.

    Args:
        path: as `Encoded.load` takes it. keep: decoded shards in memory, at most.

    Raises:
        FileNotFoundError: there are no shards. ValueError: one is damaged, now or when it is read; or is of another kind.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *, keep: int = 16):
        footers = {each: read_footer(each) for each in find_token_shards(path)}
        counts = {each: rows for each, (rows, _) in footers.items()}
        self.paths = [each for each in footers if counts[each]]
        if not self.paths:
            raise ValueError(f"the shards at {path} have no rows; look into the report of `minidalle encode`")
        kinds = {(about["code_length"], about["n_embed"]) for rows, about in footers.values() if rows and about}
        if len(kinds) > 1:
            raise ValueError(
                f"{path}: shards differ in (code length, codebook size): {sorted(kinds)}; keep each kind in a folder of its own"
            )
        self.firsts = np.cumsum([0, *(counts[each] for each in self.paths)])
        self.listing = {each.name: [counts[each], each.stat().st_size] for each in self.paths}
        self._kept: dict[int, tuple[np.ndarray, list[str]]] = {}
        self._keep = keep
        first = read_token_shard(self.paths[0])
        self.code_length, self.n_embed = first.codes.shape[1], first.n_embed

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __getitem__(self, row: int) -> dict[str, Any]:
        shard = int(np.searchsorted(self.firsts, row, side="right")) - 1
        codes, captions = self.load(shard)
        place = row - self.firsts[shard]
        return {"caption": captions[place], "codes": codes[place]}

    def load(self, shard: int) -> tuple[np.ndarray, list[str]]:
        """Codes `(rows, L)` int32 and captions of one shard, from memory when it is there."""
        if shard not in self._kept:
            path, rows = self.paths[shard], int(self.firsts[shard + 1] - self.firsts[shard])
            read = read_token_shard(path)
            found, expected = (*read.codes.shape, read.n_embed), (rows, self.code_length, self.n_embed)
            if found != expected:
                raise ValueError(
                    f"{path} has (rows, code length, codebook size) {found}; expected {expected}: it was changed while "
                    "it was in use, or does not belong to the other shards; each kind needs a folder of its own"
                )
            while len(self._kept) >= self._keep:
                del self._kept[next(iter(self._kept))]
            self._kept[shard] = read.codes, read.captions
        return self._kept[shard]


class WindowShuffle(grain.MapDataset):
    """Rows of `TokenShards`, each once an epoch: shards in random order, rows in random order within `window` of them.

    shards: numbers of those to take; the others are left out. Each epoch has another order, when `.repeat()` follows.
    """

    def __init__(self, parent: grain.MapDataset, firsts: np.ndarray, shards: Sequence[int], *, window: int, seed: int):
        super().__init__(parent)
        self._firsts, self._shards, self._window, self._seed = firsts, np.asarray(shards), window, seed
        self._length = int((firsts[self._shards + 1] - firsts[self._shards]).sum())
        # Kept for the two epochs or windows that one batch can touch.
        self._epoch = functools.lru_cache(2)(self._epoch)
        self._rows = functools.lru_cache(2)(self._rows)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, self._length)
        begins = self._epoch(epoch)[1]
        window = int(np.searchsorted(begins, place, side="right")) - 1
        return self._parent[int(self._rows(epoch, window)[place - begins[window]])]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in this epoch's order, and the place at which each window begins."""
        shards = np.random.default_rng([self._seed, 3, epoch]).permutation(self._shards)
        ends = np.cumsum(self._firsts[shards + 1] - self._firsts[shards])
        return shards, np.concatenate([[0], ends[self._window - 1 : -1 : self._window]])

    def _rows(self, epoch: int, window: int) -> np.ndarray:
        shards = self._epoch(epoch)[0][window * self._window :][: self._window]
        rows = np.concatenate([np.arange(self._firsts[shard], self._firsts[shard + 1]) for shard in shards])
        return np.random.default_rng([self._seed, 3, epoch, 1 + window]).permutation(rows)


def read_batches(
    shards: TokenShards,
    batch_size: int,
    seed: int,
    *,
    window: int = 16,
    leave_out: Sequence[int] = (),
    parts: int = 1,
    mine: Sequence[int] = (0,),
) -> Callable[[int], dict[str, Any]]:
    """The batch of step 0, 1, … as a function of the step alone: `{"captions": list of str, "codes": (n, L) int32}`.

    window: shards whose rows are shuffled together; `shards` should keep as many. leave_out: shards not to train on.
    parts, mine: the batch is cut into equal consecutive parts, and this process has those; all together are the same
        batch for any number of parts.

    Raises ValueError when parts cannot be equal, or nothing is left to train on.
    """
    if batch_size < 1 or batch_size % parts:
        raise ValueError(f"batch_size is {batch_size}; expected a multiple of the {parts} parts that share it")
    if window < 1:
        raise ValueError(f"window is {window}; expected at least 1 shard")
    taken = [shard for shard in range(len(shards.paths)) if shard not in leave_out]
    if not taken:
        raise ValueError(f"{len(shards.paths)} shards less those held out leave none to train on; write smaller shards")
    source = grain.MapDataset.source(shards)
    rows = WindowShuffle(source, shards.firsts, taken, window=window, seed=seed).repeat()
    dataset = rows.batch(batch_size // parts, batch_fn=list)

    def batches(step: int) -> dict[str, Any]:
        found = [row for part in mine for row in dataset[step * parts + int(part)]]
        return {"captions": [row["caption"] for row in found], "codes": np.stack([row["codes"] for row in found])}

    return batches
