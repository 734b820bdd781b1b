"""How long a call takes, measured so that contestants can be compared: in turns, after their first call, until done."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import torch


@dataclass(frozen=True)
class Timing:
    """What a contestant took, in seconds."""

    first: float  # the first call, with all that is traced and compiled in it
    calls: tuple[float, ...]  # one later call, once for each repeat

    @property
    def median(self) -> float:
        return statistics.median(self.calls)

    def __str__(self) -> str:
        low, middle, high = (_milliseconds(value) for value in (min(self.calls), self.median, max(self.calls)))
        return f"{middle:>5} ms  ({low} to {high}), the first call {self.first * 1e3:,.0f} ms"


def race(
    contestants: Mapping[str, Callable[[], object]], *, repeats: int = 7, least: float = 0.02, rest: float = 0.02
) -> dict[str, Timing]:
    """Time several ways of computing the same, taking turns, so that a slow moment of the machine falls on all alike.

    Args:
        contestants: name → a call without arguments, which returns what it computed.
        repeats: how often each is timed after its first call; who begins changes from repeat to repeat.
        least: seconds; a short call is made as often as fits into them, and the mean of these calls counts.
        rest: seconds of sleep before each timing: the threads of the one before may still be waiting for work, awake.

    Returns:
        name → `Timing`. Calls are waited for: `jax.block_until_ready`, and `torch.cuda.synchronize` where CUDA is in use.

    Raises:
        ValueError: there is nobody to time, or `repeats` is below 1.
    """
    if not contestants or repeats < 1:
        raise ValueError(f"race got {len(contestants)} contestants and repeats={repeats}; give at least one of each")
    first = {name: _seconds(call, 1) for name, call in contestants.items()}
    often = {name: max(1, int(least / max(_seconds(call, 1), 1e-9))) for name, call in contestants.items()}
    calls: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for repeat in range(repeats):
        start = repeat % len(names)
        for name in names[start:] + names[:start]:
            time.sleep(rest)
            calls[name].append(_seconds(contestants[name], often[name]))
    return {name: Timing(first[name], tuple(calls[name])) for name in names}


def _seconds(call: Callable[[], object], often: int) -> float:
    """Seconds of one call, as the mean of `often` calls that are all waited for."""
    start = time.perf_counter()
    for _ in range(often):
        result = call()
    jax.block_until_ready(result)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / often


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.0995 else f"{seconds * 1e3:.2g}"
