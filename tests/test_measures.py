"""The measures, against SciPy, scikit-image, and cases whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import comb
from scipy.stats import binomtest
from skimage.metrics import peak_signal_noise_ratio

from minidalle.measures import best_of_n, bootstrap, frechet_distance, kernel_distance, psnr, share


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (240, 240), (101, 240)])
def test_shares_have_wilsons_interval(hits, n):
    result = share([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert result["share"] == hits / n and result["n"] == n
    assert result["low"] == pytest.approx(expected.low, abs=1e-4)
    assert result["high"] == pytest.approx(expected.high, abs=1e-4)


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(0).normal(5, 2, 400)
    result = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert result["mean"] == pytest.approx(values.mean()) and result["n"] == 400
    assert result["low"] == pytest.approx(values.mean() - half, abs=0.02)
    assert result["high"] == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap(values) == result
    with pytest.raises(ValueError, match="shape"):
        bootstrap(np.zeros((2, 2)))


@pytest.mark.parametrize("rows", [200, 12], ids=["enough rows", "fewer rows than features"])
def test_the_frechet_distance_is_that_of_scipys_square_root(rows):
    generator = np.random.default_rng(0)
    a = generator.normal(size=(200, 16)) @ generator.normal(size=(16, 16))
    b = generator.normal(1, 2, (rows, 16))
    S, T = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(S + T - 2 * sqrtm(S @ T).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_on_a_line_is_that_of_mean_and_deviation():
    a, b = np.random.default_rng(0).normal([[0], [3]], [[1], [2]], (2, 50))[..., None]
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_the_kernel_distance_is_the_mean_over_pairs():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(5, 3)), generator.normal(1, 1, (7, 3))
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    inside = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    expected = sum(inside) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_only_the_frechet_distance_is_biased_at_few_rows():
    """Standard normals in d dimensions, n rows each: about d (d + 5) / 2n instead of 0."""
    generator, d, n = np.random.default_rng(0), 8, 200
    pairs = [generator.normal(size=(2, n, d)) for _ in range(200)]
    found = np.array([(frechet_distance(*pair), kernel_distance(*pair)) for pair in pairs])
    error = found.std(0) / 200**0.5
    assert found[:, 0].mean() == pytest.approx(d * (d + 5) / 2 / n, rel=0.1)
    assert abs(found[:, 1].mean()) < 4 * error[1]


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_that_do_not_fit_are_refused(distance):
    for other in (np.zeros((4, 5)), np.zeros((1, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match="two sets"):
            distance(np.zeros((4, 3)), other)
    with pytest.raises(ValueError, match="finite"):
        distance(np.zeros((4, 3)), np.full((4, 3), np.nan))


@pytest.mark.parametrize("ties", [False, True])
def test_the_best_of_n_is_the_mean_over_all_subsets(ties):
    generator = np.random.default_rng(0)
    scores, values = generator.normal(size=(2, 3, 7))
    scores = scores.round() if ties else scores
    for row, (own, worth) in enumerate(zip(scores, values, strict=True)):
        for n in range(1, 8):
            # Subsets list their members in the order of drawing, and argmax takes the first of equal ones.
            subsets = [list(some) for some in combinations(range(7), n)]
            expected = np.mean([worth[some][own[some].argmax()] for some in subsets])
            assert best_of_n(scores, values)[row, n - 1] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(best_of_n(scores)[:, [0, -1]], np.stack([scores.mean(1), scores.max(1)], 1))


def test_a_judge_as_the_ranker_gives_the_chance_that_any_of_n_is_right():
    right = np.arange(64) < 5  # 1 − C(N − c, n) / C(N, n), as pass@k of Chen et al. 2021
    n = np.arange(1, 65)
    np.testing.assert_allclose(best_of_n(right), 1 - comb(64 - 5, n) / comb(64, n), atol=1e-9)


@pytest.mark.parametrize(
    ("scores", "values", "message"),
    [([], None, "one candidate or more"), ([0.1, np.nan], None, "finite"), ([0.1, 0.2], [1.0], "one value for each")],
)
def test_candidates_that_cannot_be_ranked_are_named(scores, values, message):
    with pytest.raises(ValueError, match=message):
        best_of_n(scores, values)


def test_psnr_is_scikit_images():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    expected = [peak_signal_noise_ratio(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-9)
    assert psnr(a, a).tolist() == [100, 100, 100]
