"""The judge of the model card, on emoji whose verdict is known."""

import numpy as np

from minidalle.data import emoji
from minidalle.evaluate import judge, nearest_emoji, retrieval


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
    result = retrieval(pipe, np.arange(0, 3655, 200))
    assert 0 <= result["recall_at_1"]["share"] <= result["recall_at_5"]["share"] < 0.3
    assert result["captions"] == 3655
