"""Measures of how well a model does: from hits, from distances between pictures, and from sets of their features.

Shares come with the 95 % interval of Wilson (1927), since a few hundred captions leave a few points of doubt. The two
distances between sets of pictures, Fréchet's and the kernel's, compare features and need no pairs.
"""

import math
from collections.abc import Sequence

import numpy as np


def share(hits: Sequence[bool]) -> dict[str, float]:
    """Return the share of hits, in [0, 1], with the lower and upper end of its 95 % Wilson interval and the count."""
    n, z = len(hits), 1.96
    p = float(np.mean(hits))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"share": p, "low": centre - half, "high": centre + half, "n": n}


def bootstrap(values: np.ndarray, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Return the mean of values `(n,)` with the ends of its 95 % interval by drawing anew (Efron 1979), and the count.

    The interval is that of percentiles: `draws` times, n of the values are drawn with replacement and their mean taken.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"bootstrap takes values of shape (n,) with n at least 1, got {values.shape}")
    again = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[again].mean(1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def frechet_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Return the squared Fréchet distance between the normal distributions fitted to two sets of features.

    ‖m − m'‖² + tr(S + S' − 2 (S S')^½), with means m and covariances S; 0 for equal sets. On the 2,048 features of
    Inception-v3 it is the FID of Heusel et al. (2017). Few rows make it too large, so compare only what has equally many.

    Args:
        features, others: `(n, d)` and `(m, d)`, at least two rows each.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    features, others = _two_sets(features, others)
    S, T = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (features, others))
    values, vectors = np.linalg.eigh(S)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    # The eigenvalues of S T are those of the symmetric S^½ T S^½; rounding can leave the smallest just below 0.
    shared = np.sqrt(np.linalg.eigvalsh(root @ T @ root).clip(0)).sum()
    return float(((features.mean(0) - others.mean(0)) ** 2).sum() + np.trace(S) + np.trace(T) - 2 * shared)


def kernel_distance(features: np.ndarray, others: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of two sets of features under the kernel (x·y / d + 1)³, unbiased.

    The estimate of Gretton et al. (2012) leaves out each row's product with itself; its mean does not depend on how many
    rows there are, and it can fall below 0. On the features of Inception-v3 it is the KID of Bińkowski et al. (2018).

    Args:
        features, others: `(n, d)` and `(m, d)`, at least two rows each.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    features, others = _two_sets(features, others)
    n, m, d = len(features), len(others), features.shape[1]
    within, beside, between = ((x @ y.T / d + 1) for x, y in ((features,) * 2, (others,) * 2, (features, others)))
    within, beside, between = within * within * within, beside * beside * beside, between * between * between
    first = (within.sum() - np.trace(within)) / (n * (n - 1))
    second = (beside.sum() - np.trace(beside)) / (m * (m - 1))
    return float(first + second - 2 * between.mean())


def _two_sets(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, others = np.asarray(features, np.float64), np.asarray(others, np.float64)
    for x in (features, others):
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != features.shape[1]:
            raise ValueError(
                f"two sets of features, (n, d) and (m, d) with at least two rows each, were expected; "
                f"got {features.shape} and {others.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError("some features are not finite numbers; are the weights of the network loaded?")
    return features, others


def best_of_n(scores: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Return what the best-scored of n candidates is worth on average, for n = 1, …, N.

    The mean is over all subsets of n of the N candidates: the k-th smallest score is the best of C(k−1, n−1) of the
    C(N, n) subsets. For candidates drawn independently it is an unbiased estimate for a fresh draw of n.

    Args:
        scores: `(..., N)`, what the candidates are ranked by.
        values: `(..., N)`, what is averaged; by default the scores themselves. Where scores are equal, those of earlier
            candidates are preferred, as in `minidalle.clip.rank.rank`.

    Returns:
        `(..., N)` float64, entry n − 1 for n candidates. Entry 0 is the mean, the last one that of the best of all.

    Raises:
        ValueError: no candidates, scores that are not finite, or values of another shape.
    """
    scores = np.asarray(scores, np.float64)
    values = scores if values is None else np.asarray(values, np.float64)
    if scores.ndim == 0 or scores.shape[-1] == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores have shape {scores.shape}; expected (..., N) finite numbers of one candidate or more")
    if values.shape != scores.shape:
        raise ValueError(f"values have shape {values.shape} and scores {scores.shape}; give one value for each score")
    count = scores.shape[-1]
    # Sorted falling and then turned round: of equal scores the earlier candidate comes last, and wins.
    rising = np.argsort(-scores, axis=-1, kind="stable")[..., ::-1]
    wins = [[math.comb(k - 1, n - 1) / math.comb(count, n) for n in range(1, count + 1)] for k in range(1, count + 1)]
    return np.take_along_axis(values, rising, -1) @ np.array(wins)


def psnr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each pair of uint8 pictures `(n, H, W, 3)`, in decibels, at most 100."""
    error = (images.astype(np.float64) - others).reshape(len(images), -1)
    return 10 * np.log10(255**2 / np.maximum((error**2).mean(1), 255**2 * 1e-10))
