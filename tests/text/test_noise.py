"""The five corruptions change what the paper says they change, as often as it says, and nothing else."""

from functools import partial

import numpy as np
import pytest

from minidalle.text import noise

MASK = 4
STOP = 9
TEXT = list(range(10, 60))
CORRUPTIONS = {
    "masking": partial(noise.mask_tokens, probability=0.3, mask_id=MASK),
    "deletion": partial(noise.delete_tokens, probability=0.3),
    "infilling": partial(noise.infill_text, probability=0.3, mask_id=MASK),
    "permutation": partial(noise.permute_sentences, end_ids=[20, 31, 47]),
    "rotation": noise.rotate_document,
}


def seeded(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_seed_decides_everything_and_the_text_is_left_alone(name):
    corrupt, text = CORRUPTIONS[name], np.array(TEXT)
    first = corrupt(text, random=seeded(1))
    assert first.dtype == np.int32 and first.ndim == 1
    np.testing.assert_array_equal(first, corrupt(TEXT, random=seeded(1)))
    assert any(corrupt(TEXT, random=seeded(seed)).tolist() != first.tolist() for seed in range(2, 6))
    assert text.tolist() == TEXT


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_empty_text_stays_empty(name):
    assert CORRUPTIONS[name]([], random=seeded(0)).tolist() == []


def test_masking_replaces_in_place_at_its_rate():
    text = np.arange(10, 20_010)
    masked = noise.mask_tokens(text, 0.3, MASK, seeded(0))
    hidden = masked == MASK
    np.testing.assert_array_equal(masked[~hidden], text[~hidden])
    assert hidden.mean() == pytest.approx(0.3, abs=0.015)


def test_deletion_keeps_the_order_and_drops_at_its_rate():
    kept = noise.delete_tokens(np.arange(20_000), 0.3, seeded(0))
    assert (np.diff(kept) > 0).all()
    assert 1 - kept.size / 20_000 == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("corrupt", [noise.mask_tokens, noise.delete_tokens, noise.infill_text])
def test_nothing_and_everything(corrupt):
    arguments = {} if corrupt is noise.delete_tokens else {"mask_id": MASK}
    assert corrupt(TEXT, 0.0, random=seeded(0), **arguments).tolist() == TEXT
    assert set(corrupt(TEXT, 1.0, random=seeded(0), **arguments).tolist()) <= {MASK}


def test_infilling_hides_exactly_its_share_and_keeps_the_order_of_the_rest():
    for seed in range(200):
        kept = [token for token in noise.infill_text(TEXT, 0.3, MASK, seeded(seed)).tolist() if token != MASK]
        assert len(kept) == 35
        assert kept == sorted(kept)


def test_infilling_spans_are_poisson_and_each_is_one_mask():
    text = np.arange(10, 200_010)
    filled = noise.infill_text(text, 0.3, MASK, seeded(0))
    masks = (filled == MASK).sum()
    assert 60_000 / masks == pytest.approx(3.0, abs=0.06), "hidden tokens per mask"
    # Without the insertions the gaps between kept neighbours are the spans themselves: a Poisson(3) that is not 0.
    kept = filled[filled != MASK]
    spans = np.diff(kept)[np.diff(kept) > 1] - 1
    for length in range(1, 8):
        factorial = float(np.prod(np.arange(1, length + 1)))
        expected = 3.0**length * np.exp(-3.0) / factorial / (1 - np.exp(-3.0))
        assert (spans == length).mean() == pytest.approx(expected, abs=0.012), length
    assert masks - spans.size == pytest.approx(masks * np.exp(-3.0), rel=0.1), "insertions, of length 0"


def test_infilling_can_insert_a_mask_where_nothing_is_missing():
    lengths = {len(noise.infill_text([7, 8, 9], 0.34, MASK, seeded(seed), mean_span=0.2)) for seed in range(50)}
    assert max(lengths) > 3


def test_permutation_moves_whole_sentences():
    text = [11, 12, STOP, 21, STOP, 31, 32, 33, STOP, 41]
    seen = {tuple(noise.permute_sentences(text, [STOP], seeded(seed)).tolist()) for seed in range(300)}
    sentences = [(11, 12, STOP), (21, STOP), (31, 32, 33, STOP), (41,)]
    assert len(seen) == 24, "all orders of four sentences"
    for permuted in seen:
        assert sorted(permuted) == sorted(text)
        where = {sentence: "".join(map(chr, permuted)).find("".join(map(chr, sentence))) for sentence in sentences}
        assert min(where.values()) >= 0


def test_a_text_without_a_full_stop_is_one_sentence():
    assert noise.permute_sentences(TEXT, [STOP], seeded(0)).tolist() == TEXT


def test_rotation_starts_at_any_token_and_keeps_the_circle():
    starts = {noise.rotate_document([5, 6, 7, 8], seeded(seed))[0] for seed in range(60)}
    assert starts == {5, 6, 7, 8}
    rotated = noise.rotate_document(TEXT, seeded(3)).tolist()
    place = rotated.index(TEXT[0])
    assert rotated[place:] + rotated[:place] == TEXT


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.mask_tokens(TEXT, 1.5, MASK, seeded(0)), "probability is 1.5"),
        (lambda: noise.delete_tokens(TEXT, float("nan"), seeded(0)), "probability is nan"),
        (lambda: noise.infill_text(TEXT, 0.3, MASK, seeded(0), mean_span=0), "mean_span is 0"),
        (lambda: noise.rotate_document([[1, 2], [3, 4]], seeded(0)), r"shape \(2, 2\)"),
        (lambda: noise.delete_tokens([0.5, 1.5], 0.3, seeded(0)), "float64"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
