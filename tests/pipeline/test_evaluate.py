"""The measures of the model card, against SciPy, scikit-image, and cases whose answer is known."""

import numpy as np
import pytest
from scipy.stats import binomtest
from skimage.metrics import peak_signal_noise_ratio

from minidalle.data import emoji
from minidalle.evaluate import judge, nearest_emoji, psnr, share
from minidalle.evaluate import retrieval as measure_retrieval


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (240, 240), (101, 240)])
def test_shares_have_wilsons_interval(hits, n):
    result = share([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert result["share"] == hits / n and result["n"] == n
    assert result["low"] == pytest.approx(expected.low, abs=1e-4)
    assert result["high"] == pytest.approx(expected.high, abs=1e-4)


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
