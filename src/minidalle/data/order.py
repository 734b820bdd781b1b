"""Which rows make up the batch of a step: a function of the seed and the step alone, so a run can go on at any step.

All rows come once in each epoch, each epoch in another order. NumPy's permutation is that order: 8 bytes a row, made anew
once an epoch. Grain would keep no such list, and start processes that read; `fit` reads ahead in a thread of its own, and
what it trains on, ids and codes, needs no decoding. For shards that do not fit into memory: `minidalle.data.token_shards`.
"""

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Order:
    """The order of `count` rows, in batches of `batch_size` over all processes.

    A batch that begins in one epoch may end in the next: none is left incomplete, no row is left out.
    Raises ValueError when there are no rows, or none in a batch.
    """

    count: int
    batch_size: int
    seed: tuple[int, ...]

    def __post_init__(self):
        if self.count < 1:
            raise ValueError("there is nothing to put in order: no rows")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def rows(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """The rows of step 0, 1, …, `(batch_size / parts,)` int64: the `part`-th of equal consecutive parts.

        Parts put together are the whole batch, however many there are. Raises ValueError when they cannot be equal.
        """
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size is {self.batch_size}, which {parts} processes cannot share alike; give a multiple, or start "
                "another number of processes"
            )
        share = self.batch_size // parts
        places = step * self.batch_size + part * share + np.arange(share)
        rows = np.empty(share, np.int64)
        for epoch in np.unique(places // self.count):
            here = places // self.count == epoch
            rows[here] = _permutation(self.count, (*self.seed, int(epoch)))[places[here] % self.count]
        return rows


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)
