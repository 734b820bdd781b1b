"""Laws that are known, seen through noise: the fit finds them, and its error bars hold the truth as often as they say."""

import numpy as np
import pytest

from minidalle.scale.scaling import Law, best_split, bootstrap, fit

TRUTH = Law(0.6, (0.5,), (0.4,), (1e4,))
SIZES = np.repeat([1e4, 2.5e4, 6e4, 1.6e5, 4e5], 3)
# What Hoffmann et al. 2022, equation 10, found for language
CHINCHILLA = Law(1.69, (406.4, 410.7), (0.34, 0.28), (1.0, 1.0))


def seen(law, *sizes, noise=0.0, seed=0):
    return law(*sizes) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(sizes[0])))


def grid():
    n, d = np.meshgrid(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 5))
    return n.ravel(), d.ravel()


@pytest.mark.parametrize("floor", [0.0, 0.6])
@pytest.mark.parametrize("exponent", [0.08, 0.4, 1.3])
def test_a_law_without_noise_comes_back(floor, exponent):
    truth = Law(floor, (0.5,), (exponent,), (1e4,))
    found = fit(truth(SIZES), SIZES, floor=floor > 0)
    assert found.floor == pytest.approx(floor, abs=1e-3)
    assert found.exponents == pytest.approx((exponent,), rel=1e-2)
    assert found(1e7) == pytest.approx(truth(1e7), rel=1e-3)


def test_a_law_of_two_quantities_comes_back():
    n, d = grid()
    found = fit(CHINCHILLA(n, d), n, d)
    assert found.exponents == pytest.approx(CHINCHILLA.exponents, rel=1e-2)
    assert found.floor == pytest.approx(1.69, rel=1e-2)
    assert found(1e11, 1e13) == pytest.approx(CHINCHILLA(1e11, 1e13), rel=1e-3)


def test_one_run_that_went_wrong_hardly_moves_the_law():
    losses = seen(TRUTH, SIZES, noise=0.003)
    spoiled = losses.copy()
    spoiled[7] *= 1.5
    robust = abs(fit(spoiled, SIZES)(6e4) - TRUTH(6e4))
    squares = abs(fit(spoiled, SIZES, tolerance=10.0)(6e4) - TRUTH(6e4))
    assert robust < 0.01 < squares / 3


def test_the_unit_of_sizes_and_losses_does_not_matter():
    losses = seen(TRUTH, SIZES, noise=0.01)
    nats, bits = fit(losses, SIZES), fit(losses / np.log(2), SIZES / 1e6)
    assert bits.exponents == pytest.approx(nats.exponents, rel=1e-3)
    assert bits(3.0) == pytest.approx(nats(3e6) / np.log(2), rel=1e-4)


def test_error_bars_hold_the_truth_about_as_often_as_they_say():
    """Of 30 intervals of 90 % each, 27 are to be expected; fewer than 21, or all 30 of all three, would be a wonder."""
    hits = {"exponent": 0, "law": 0, "run": 0}
    for seed in range(30):
        found = bootstrap(seen(TRUTH, SIZES, noise=0.01, seed=seed), SIZES, repeats=80)
        new = seen(TRUTH, [3e6], noise=0.01, seed=1000 + seed)[0]
        low, high = found.interval(lambda law: law.exponents[0])
        hits["exponent"] += low <= 0.4 <= high
        low, high = found.interval(lambda law: law(3e6))
        hits["law"] += low <= TRUTH(3e6) <= high
        _, low, high = found.predict(3e6)
        hits["run"] += low <= new <= high
    assert all(count >= 21 for count in hits.values()), hits
    assert min(hits.values()) < 30, hits


def test_error_bars_grow_with_the_distance_and_with_the_level():
    found = bootstrap(seen(TRUTH, SIZES, noise=0.01), SIZES, repeats=100)
    _, low, high = found.predict(np.array([1e5, 1e6, 1e8]))
    assert (np.diff(high - low) > 0).all()
    low_half, high_half = found.interval(lambda law: law(1e6), level=0.5)
    low_most, high_most = found.interval(lambda law: law(1e6), level=0.95)
    assert low_most < low_half < high_half < high_most


def test_the_best_split_is_better_than_its_neighbours():
    n, d = best_split(CHINCHILLA, 5.76e23)
    assert 6 * n * d == pytest.approx(5.76e23)
    neighbours = [CHINCHILLA(n * factor, d / factor) for factor in (0.8, 1.25)]
    assert CHINCHILLA(n, d) < min(neighbours)
    # Their appendix D.3 gives the exponents as β / (α + β) and its complement
    more = best_split(CHINCHILLA, 5.76e24)[0]
    assert np.log10(more / n) == pytest.approx(0.28 / 0.62)


@pytest.mark.parametrize(
    ("losses", "sizes", "words"),
    [
        ([1.0, 0.9], [1.0, 2.0], "2 different sizes cannot fix 3"),
        ([1.0, 0.9, float("nan")], [1.0, 2.0, 3.0], "diverged"),
        ([1.0, 0.9, 0.8], [1.0, 2.0, 0.0], "above 0"),
        ([1.0, 0.9, 0.8], [1.0, 2.0], "one length"),
    ],
)
def test_what_cannot_be_fitted_is_refused(losses, sizes, words):
    with pytest.raises(ValueError, match=words):
        fit(losses, sizes)


def test_no_error_bars_without_residuals():
    with pytest.raises(ValueError, match="no residuals"):
        bootstrap(TRUTH([1e4, 1e5, 1e6]), [1e4, 1e5, 1e6])
