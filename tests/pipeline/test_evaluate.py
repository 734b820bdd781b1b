"""The measures of the model card, against SciPy, scikit-image, and cases whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from scipy.special import comb
from scipy.stats import binomtest
from skimage.metrics import peak_signal_noise_ratio

from minidalle.data import emoji
from minidalle.evaluate import best_of_n, judge, nearest_emoji, psnr, share
from minidalle.evaluate import retrieval as measure_retrieval


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (240, 240), (101, 240)])
def test_shares_have_wilsons_interval(hits, n):
    result = share([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert result["share"] == hits / n and result["n"] == n
    assert result["low"] == pytest.approx(expected.low, abs=1e-4)
    assert result["high"] == pytest.approx(expected.high, abs=1e-4)


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


def test_every_real_emoji_is_its_own_nearest():
    data = emoji.load()
    rows = np.arange(0, len(data), 13)
    assert all(
        (data.images[a] == data.images[b]).all() for a, b in zip(nearest_emoji(data.images[rows]), rows, strict=True)
    )


def test_a_noisy_emoji_is_still_recognised():
    data = emoji.load()
    rows = data.split("test")[:40]
    noisy = data.images[rows] + np.random.default_rng(0).normal(0, 12, (40, 64, 64, 3))
    assert (nearest_emoji(noisy.clip(0, 255).astype(np.uint8)) == rows).mean() > 0.9


def test_the_judge_tells_role_from_tone():
    data = emoji.load()
    index = data.captions.index
    wanted = np.array([index("woman firefighter: medium skin tone")] * 3)
    drawn = [
        "woman firefighter: medium skin tone",
        "woman firefighter: dark skin tone",
        "man astronaut: medium skin tone",
    ]
    verdict = judge(data.images[[index(caption) for caption in drawn]], wanted)
    assert verdict["exact"].tolist() == [True, False, False]
    assert verdict["role"].tolist() == [True, True, False]
    assert verdict["tone"].tolist() == [True, False, True]


def test_hair_belongs_to_the_role():
    data = emoji.load()
    wanted = np.array([data.captions.index("woman: dark skin tone, red hair")])
    other = data.images[[data.captions.index("woman: dark skin tone, curly hair")]]
    verdict = judge(other, wanted)
    assert not verdict["role"][0] and verdict["tone"][0]


def test_retrieval_counts_ties_against_the_model(pipe):
    """A CLIP of random weights finds next to nothing among 3,655 captions, and no share leaves [0, 1]."""
    result = measure_retrieval(pipe, np.arange(0, 3655, 200))
    assert 0 <= result["recall_at_1"]["share"] <= result["recall_at_5"]["share"] < 0.3
    assert result["captions"] == 3655
