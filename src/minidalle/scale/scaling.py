"""Scaling laws: how the loss falls with parameters, data or compute, fitted to small runs and carried on with error bars.

One form serves all: L = E + A · N^−α for one quantity (Kaplan et al. 2020, with E = 0), L = E + A · N^−α + B · D^−β for
two (Hoffmann et al. 2022, section 3.3). E is the loss that no size removes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

STARTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)  # exponents that a fit is begun from
STEEPEST = 4.0  # the largest exponent that a fit may give


@dataclass(frozen=True)
class Law:
    """L = floor + Σ factor · (size / unit)^−exponent, one term for each quantity.

    Attributes:
        floor: E, in the unit of the losses.
        factors: A, B, …: what each term is worth at the size `unit`.
        exponents: α, β, ….
        units: the sizes at which the factors are given, the geometric means of those fitted to. At size 1, decades away
            from every run, a factor would be an extrapolation itself.
    """

    floor: float
    factors: tuple[float, ...]
    exponents: tuple[float, ...]
    units: tuple[float, ...]

    def __call__(self, *sizes: Any) -> np.ndarray:
        """The loss at sizes that broadcast against each other, one argument for each quantity."""
        if len(sizes) != len(self.exponents):
            raise ValueError(f"this law has {len(self.exponents)} quantities, got {len(sizes)}; give one size for each")
        terms = zip(sizes, self.factors, self.exponents, self.units)
        return self.floor + sum(factor * (np.asarray(size, float) / unit) ** -a for size, factor, a, unit in terms)


@dataclass(frozen=True)
class Fit:
    """A law with what it may be besides.

    Attributes:
        law: fitted to the runs.
        resampled: fitted to runs as they might have come out instead.
        residuals: (runs,) ln(loss) − ln(law), corrected for the parameters fitted.
    """

    law: Law
    resampled: tuple[Law, ...]
    residuals: np.ndarray

    def interval(self, value: Callable[[Law], Any], level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Low and high of a number, or an array of them, that follows from the law, as `lambda law: law.floor`.

        Percentiles of the resampled laws (Efron 1979). They know the scatter of runs; that the law itself may be wrong
        beyond them, no resampling knows.
        """
        return _percentiles([value(law) for law in self.resampled], level)

    def predict(self, *sizes: Any, level: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The loss of one new run at these sizes: the law's, and the low and high that hold it with probability `level`.

        To the doubt about the law comes the scatter of a single run, drawn from the residuals.
        """
        random = np.random.default_rng(seed)
        drawn = [law(*sizes) * np.exp(random.choice(self.residuals)) for law in self.resampled]
        return self.law(*sizes), *_percentiles(drawn, level)


def fit(losses: Any, *sizes: Any, floor: bool = True, tolerance: float = 0.02) -> Law:
    """The law nearest to the runs, by Huber's robust squares of ln(loss), as in Hoffmann et al. 2022.

    For given exponents the law is linear in all else, so the start is found by non-negative least squares over a grid of
    exponents; from there all parameters are fitted together.

    Args:
        losses: (runs,) above 0.
        sizes: for each quantity (parameters, data, compute) an array (runs,) above 0.
        floor: fit E; False sets it to 0.
        tolerance: a relative deviation beyond which a run counts linearly instead of squared.

    Raises:
        ValueError: shapes differ, a value is not above 0, or there are fewer different sizes than parameters.
    """
    losses, sizes = _checked(losses, sizes, floor)
    units = tuple(float(np.exp(np.log(size).mean())) for size in sizes)
    scaled = np.stack([np.log(size / unit) for size, unit in zip(sizes, units)])
    start = min(_linear(losses, scaled, exponents, floor) for exponents in product(STARTS, repeat=len(sizes)))[1]
    return _refined(losses, scaled, start, units, floor, tolerance)


def bootstrap(
    losses: Any, *sizes: Any, floor: bool = True, tolerance: float = 0.02, repeats: int = 300, seed: int = 0
) -> Fit:
    """`fit`, and the law's error bars: residuals are dealt anew to the fitted losses, and each deal is fitted.

    Residuals are widened by √(n / (n − p)) for n runs and p parameters, since a fit comes nearer to its own runs than the
    truth does. Runs are taken to scatter alike, in proportion to their loss.

    Args:
        losses, sizes, floor, tolerance: as for `fit`; several runs (seeds) of a size say what the scatter is.
        repeats: laws fitted.
        seed: of the dealing.

    Raises:
        ValueError: as `fit`, or there are no more runs than parameters.
    """
    law = fit(losses, *sizes, floor=floor, tolerance=tolerance)
    losses, sizes = _checked(losses, sizes, floor)
    runs, parameters = len(losses), _parameters(len(sizes), floor)
    if runs <= parameters:
        raise ValueError(f"{runs} runs leave no residuals for {parameters} parameters; give more runs, or floor=False")
    fitted = law(*sizes)
    residuals = np.log(losses / fitted)
    residuals = (residuals - residuals.mean()) * np.sqrt(runs / (runs - parameters))
    scaled = np.stack([np.log(size / unit) for size, unit in zip(sizes, law.units)])
    random = np.random.default_rng(seed)
    dealt = fitted * np.exp(random.choice(residuals, (repeats, runs)))
    resampled = tuple(_refined(each, scaled, law, law.units, floor, tolerance) for each in dealt)
    return Fit(law, resampled, residuals)


def best_split(law: Law, compute: Any, per: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Parameters N and data D with the lowest loss among those that cost this much, `compute = per · N · D`.

    Where the two terms fall alike along that curve, α A N^−α = β B D^−β (Hoffmann et al. 2022, equation 4).

    Args:
        law: of two quantities, N and D.
        compute: operations in all.
        per: operations for each parameter and each piece of data.

    Returns:
        N and D, as `compute` is shaped.
    """
    (a, b), (unit_n, unit_d) = law.exponents, law.units
    ratio = a * law.factors[0] / (b * law.factors[1])
    budget = np.asarray(compute, float) / (per * unit_n * unit_d)
    n = (ratio * budget**b) ** (1 / (a + b))
    return n * unit_n, budget / n * unit_d


def _checked(losses: Any, sizes: Sequence[Any], floor: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    losses, sizes = np.asarray(losses, float), [np.asarray(size, float) for size in sizes]
    if not sizes or losses.ndim != 1 or any(size.shape != losses.shape for size in sizes):
        raise ValueError(f"losses {losses.shape} and sizes {[size.shape for size in sizes]} must be rows of one length")
    if not all(np.isfinite(row).all() and (row > 0).all() for row in (losses, *sizes)):
        raise ValueError("losses and sizes must all be finite and above 0; leave out runs that diverged")
    places, needed = len(np.unique(np.stack(sizes), axis=1).T), _parameters(len(sizes), floor)
    if places < needed:
        raise ValueError(f"{places} different sizes cannot fix {needed} parameters; train more sizes, or floor=False")
    return losses, sizes


def _parameters(quantities: int, floor: bool) -> int:
    return 2 * quantities + bool(floor)


def _linear(losses: np.ndarray, scaled: np.ndarray, exponents: tuple[float, ...], floor: bool) -> tuple[float, Any]:
    """How far the best law with these exponents stays from the runs, and its parameters (floor, factors, exponents)."""
    columns = np.exp(-np.asarray(exponents)[:, None] * scaled)
    if floor:
        columns = np.concatenate([np.ones((1, len(losses))), columns])
    weights, distance = nnls((columns / losses).T, np.ones(len(losses)))
    low, factors = (weights[0], weights[1:]) if floor else (0.0, weights)
    return distance, (low, tuple(factors), exponents)


def _refined(
    losses: np.ndarray, scaled: np.ndarray, start: Any, units: tuple[float, ...], floor: bool, tolerance: float
) -> Law:
    """All parameters fitted together, from a law or from the parameters of one."""
    low, factors, exponents = (
        (start.floor, start.factors, start.exponents) if isinstance(start, Law) else start
    )  # fmt: skip
    count, logs, smallest = len(scaled), np.log(losses), 1e-6 * losses.min()

    def unpacked(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return (x[-1] if floor else 0.0), np.exp(x[:count]), x[count : 2 * count]

    def residuals(x: np.ndarray) -> np.ndarray:
        low, factors, exponents = unpacked(x)
        return np.log(low + (factors[:, None] * np.exp(-exponents[:, None] * scaled)).sum(0)) - logs

    def slopes(x: np.ndarray) -> np.ndarray:
        low, factors, exponents = unpacked(x)
        terms = factors[:, None] * np.exp(-exponents[:, None] * scaled)
        columns = np.concatenate([terms, -scaled * terms, np.ones((int(floor), len(losses)))])
        return (columns / (low + terms.sum(0))).T

    least = np.r_[np.full(count, -40.0), np.zeros(count), np.zeros(int(floor))]
    most = np.r_[np.full(count, 40.0), np.full(count, STEEPEST), np.full(int(floor), np.inf)]
    x = np.r_[np.log(np.maximum(factors, smallest)), exponents, [max(low, smallest)] * int(floor)]
    x = np.clip(x, least + 1e-9, most - 1e-9)
    found = least_squares(residuals, x, slopes, (least, most), loss="huber", f_scale=tolerance, x_scale="jac")
    low, factors, exponents = unpacked(found.x)
    return Law(float(low), tuple(map(float, factors)), tuple(map(float, exponents)), units)


def _percentiles(values: Sequence[Any], level: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    tail = 50 * (1 - level)
    low, high = np.percentile(np.asarray(values, float), [tail, 100 - tail], axis=0)
    return low, high
