import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minidalle.bart import candidate_keys, sample, stream
from minidalle.bart.sampling import Settings, _advance, check_settings, draw, guide, keep_top_k, keep_top_p, warp
from tools.parity_networks import original_settings

FIXTURE = Path(__file__).parents[1] / "fixtures" / "dallebart_sampling"
KEY = jax.random.key(7)
TOP_K, TOP_P, DRAW = jax.jit(keep_top_k), jax.jit(keep_top_p), jax.jit(draw)
BLANK = np.array([[0, 2, 1, 1, 1, 1, 1, 1]]), np.array([[1, 1, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def prompts(recorded):
    names = "input_ids", "attention_mask", "input_ids_uncond", "attention_mask_uncond"
    return tuple(recorded[name] for name in names)


@pytest.fixture(scope="module")
def tiny(make_tiny):
    return make_tiny()


@pytest.fixture(scope="module")
def captions(tiny_batch):
    return (*tiny_batch[:2], *BLANK)


def slow_logits(model, text_ids, text_mask, codes, position):
    """Logits at one position by the full forward pass, no cache; codes after it do not matter."""
    return model(text_ids, text_mask, codes)[:, position]


# The filters, each alone


def recorded_settings():
    config = json.loads((FIXTURE / "meta.json").read_text())["config"]
    return [(number, setting, original_settings(setting, config)) for number, setting in enumerate(config["settings"])]


@pytest.mark.parametrize(("number", "setting", "ours"), recorded_settings())
def test_codes_are_drawn_with_the_originals_probabilities(number, setting, ours):
    """`test_parity` has the same logits after each filter; here they go through the settings and the draw of a step."""
    recorded, draws = np.load(FIXTURE / "io.npz"), 20_000
    rows, vocabulary = recorded["logits_cond"].shape
    ours |= {"top_k": ours["top_k"] and min(ours["top_k"], vocabulary)}  # more than there are is refused here
    settings = check_settings(setting["condition_scale"], codebook_size=vocabulary, **ours)
    guided = guide(recorded["logits_cond"], recorded["logits_uncond"], settings.guidance)
    for row in range(rows):
        codes = DRAW(jax.random.split(jax.random.key(row), draws), jnp.tile(guided[row], (draws, 1)), settings)
        found, expected = np.bincount(codes, minlength=vocabulary) / draws, recorded[f"s{number}:probs"][row]
        assert not found[expected == 0].any(), "a code was drawn that the original removes"
        # Five standard deviations of a share, and of a count of one.
        np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt((expected + 1 / draws) / draws))


def survivors(filtered):
    return np.flatnonzero(np.isfinite(filtered)).tolist()


def test_exactly_k_survive_and_ties_go_to_the_lower_index():
    logits = jnp.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0, -1.0])
    expected = {1: [1], 2: [1, 3], 3: [1, 2, 3], 4: [1, 2, 3, 4], 5: [1, 2, 3, 4, 5], 7: list(range(7))}
    for k, indices in expected.items():
        assert survivors(TOP_K(logits, k)) == indices
    assert survivors(TOP_K(jnp.zeros(7), 4)) == [0, 1, 2, 3]
    assert survivors(TOP_K(jnp.array([-0.0, 0.0, -0.0, -1.0, 0.0, -0.0, -2.0]), 2)) == [0, 1]
    assert survivors(TOP_K(-jnp.array([3.0, 1.0, 2.0, 9.0, 9.0, 9.0, 8.0]), 2)) == [1, 2]


def test_top_k_agrees_with_jax_on_many_random_rows():
    logits = jnp.round(jax.random.normal(KEY, (50, 300)) * 10) / 2
    for k in (1, 17, 299, 300):
        found = jnp.sort(jnp.where(jnp.isfinite(TOP_K(logits, k)), jnp.arange(300), 300), axis=1)[:, :k]
        np.testing.assert_array_equal(found, jnp.sort(jax.lax.top_k(logits, k)[1], axis=1))


def test_the_nucleus_is_the_fewest_that_reach_p():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    for p, indices in {0.01: [1], 0.39: [1], 0.41: [1, 3], 0.69: [1, 3], 0.71: [1, 2, 3], 1.0: [0, 1, 2, 3]}.items():
        assert survivors(TOP_P(logits, p)) == indices
    assert survivors(TOP_P(jnp.zeros(4), 0.5)) == [0, 1]
    assert survivors(TOP_P(jnp.array([200.0, 0.0, -200.0, 1.0]), 1.0)) == [0, 1, 2, 3]


def test_survivors_keep_their_logits_and_removed_ones_stay_removed():
    logits = jnp.array([0.5, -jnp.inf, 2.0, 1.0])
    np.testing.assert_array_equal(TOP_P(TOP_K(logits, 2), 1.0), [-jnp.inf, -jnp.inf, 2.0, 1.0])


def test_draws_follow_the_softmax():
    logits = jnp.array([0.0, 1.0, 2.0, -1.0])
    keys = jax.random.split(KEY, 20_000)
    settings = check_settings(1.0, 0.5, None, None, 4)
    codes = DRAW(keys, jnp.tile(logits, (len(keys), 1)), settings)
    np.testing.assert_allclose(np.bincount(codes, minlength=4) / len(keys), jax.nn.softmax(logits / 0.5), atol=0.01)


def test_filters_come_after_the_temperature():
    # At temperature 1 the first alone holds 0.6 and is the nucleus; at temperature 10 all are about even.
    logits = jnp.tile(jnp.log(jnp.array([0.6, 0.2, 0.2])), (300, 1))
    keys = jax.random.split(KEY, 300)
    cold, hot = (DRAW(keys, logits, check_settings(1.0, t, None, 0.5, 3)) for t in (1.0, 10.0))
    assert set(np.asarray(cold)) == {0}
    assert set(np.asarray(hot)) == {0, 1}


def test_what_is_drawn_from_can_be_looked_at():
    logits = jnp.array([1.0, 3.0, 2.0, 0.0])
    settings = check_settings(1.0, 0.5, 3, 0.9, 4)
    np.testing.assert_array_equal(warp(logits, settings), TOP_P(TOP_K(logits / 0.5, 3), 0.9))
    assert np.flatnonzero(np.isfinite(warp(logits, check_settings(1.0, 0, None, None, 4)))).tolist() == [1], "greedy"


# Whole pictures


def test_of_one_likeliest_code_chance_takes_that_one(original, prompts):
    likeliest = sample(original, *prompts, key=KEY, guidance=3, temperature=0)
    assert likeliest.dtype == jnp.int32
    np.testing.assert_array_equal(sample(original, *prompts, key=KEY, guidance=3, top_k=1), likeliest)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_steps_draw_what_full_passes_draw(tiny, captions, guidance):
    text_ids, text_mask, blank_ids, blank_mask = captions
    found = sample(tiny, *captions, key=KEY, guidance=guidance, temperature=0.8, top_k=12, top_p=0.9)
    row_keys = candidate_keys(KEY, [0, 0, 0, 0])  # four different captions
    settings = check_settings(guidance, 0.8, 12, 0.9, 32)
    codes = np.zeros((4, 9), np.int32)
    rows = np.ones((4, 1), np.int32)
    for position in range(9):
        logits = slow_logits(tiny, text_ids, text_mask, codes, position)[:, :32]
        uncond = slow_logits(tiny, rows * blank_ids, rows * blank_mask, codes, position)[:, :32]
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, position)
        codes[:, position] = DRAW(step_keys, guide(logits, uncond, guidance), settings)
    np.testing.assert_array_equal(found, codes)


def test_the_first_code_follows_the_models_own_probabilities(make_tiny, captions):
    model = make_tiny(image_length=1)
    ids, mask = (np.tile(array[:1], (8000, 1)) for array in captions[:2])
    codes = np.asarray(sample(model, ids, mask, *BLANK, key=KEY))[:, 0]
    logits = model(captions[0][:1], captions[1][:1], np.zeros((1, 1), np.int32))[0, 0, :32]
    np.testing.assert_allclose(np.bincount(codes, minlength=32) / 8000, jax.nn.softmax(logits), atol=0.015)


def test_a_stream_ends_where_sampling_does(tiny, captions):
    settings = {"key": KEY, "guidance": 2.0, "temperature": 0.9, "top_k": 20}
    whole = np.asarray(sample(tiny, *captions, **settings))
    steps = list(stream(tiny, *captions, every=4, **settings))
    assert [step for step, _ in steps] == [4, 8, 9]
    for step, codes in steps:
        np.testing.assert_array_equal(codes, whole[:, :step])


def test_a_seed_decides_everything(tiny, captions):
    first, again, other = (np.asarray(sample(tiny, *captions, key=jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    np.testing.assert_array_equal(first, sample(tiny, *captions, key=jax.random.PRNGKey(0)))


def test_a_picture_does_not_depend_on_the_others_in_its_batch(tiny, captions):
    text_ids, text_mask, *blank = captions
    together = np.asarray(sample(tiny, *captions, key=KEY, guidance=2.0))
    for row in range(4):
        alone = sample(tiny, text_ids[row : row + 1], text_mask[row : row + 1], *blank, key=KEY, guidance=2.0)
        np.testing.assert_array_equal(alone[0], together[row])


def test_candidates_of_one_caption_differ_and_can_be_drawn_in_parts(tiny, captions):
    ids, mask = (np.repeat(array[:2], 3, axis=0) for array in captions[:2])
    codes = np.asarray(sample(tiny, ids, mask, *BLANK, key=KEY))
    assert len(np.unique(codes, axis=0)) == 6
    last_two = sample(tiny, ids[1:3], mask[1:3], *BLANK, key=candidate_keys(KEY, [1, 2]))
    np.testing.assert_array_equal(last_two, codes[1:3])


def test_guidance_1_never_reads_the_blank_caption(tiny, captions):
    expected = sample(tiny, *captions, key=KEY)
    np.testing.assert_array_equal(sample(tiny, *captions[:2], None, None, key=KEY), expected)


def test_guidance_0_forgets_the_caption(tiny, captions):
    unguided = sample(tiny, *BLANK, *BLANK, key=KEY)
    np.testing.assert_array_equal(sample(tiny, *captions, key=KEY, guidance=0.0), np.tile(unguided, (4, 1)))


def test_a_given_beginning_is_kept_and_continued(tiny, captions):
    whole = np.asarray(sample(tiny, *captions, key=KEY, guidance=2.0))
    completed = sample(tiny, *captions, key=KEY, guidance=2.0, prefix_codes=whole[:, :5])
    np.testing.assert_array_equal(completed, whole)
    other = np.asarray(sample(tiny, *captions, key=KEY, prefix_codes=np.array([3, 1, 4])))
    np.testing.assert_array_equal(other[:, :3], np.tile([3, 1, 4], (4, 1)))
    np.testing.assert_array_equal(sample(tiny, *captions, key=KEY, prefix_codes=whole), whole)
    steps = [step for step, _ in stream(tiny, *captions, key=KEY, prefix_codes=whole[:, :5], every=3)]
    assert steps == [8, 9]


def test_only_real_codes_are_drawn(make_tiny, captions):
    model = make_tiny(image_vocab_size=32, decoder_start_token_id=20)  # as in mega, padded beyond the start token
    ids, mask = (np.tile(array, (25, 1)) for array in captions[:2])
    codes = np.asarray(sample(model, ids, mask, *BLANK, key=KEY, temperature=5.0))
    assert set(codes.ravel()) == set(range(20))
    codes = np.asarray(sample(model, ids, mask, *BLANK, key=KEY, temperature=5.0, codebook_size=10))
    assert set(codes.ravel()) == set(range(10))


def test_turning_the_knobs_compiles_nothing_anew(tiny, captions):
    sample(tiny, *captions, key=KEY, guidance=2.0, temperature=1.0, top_k=5, top_p=0.5)
    before = _advance._cache_size()
    sample(tiny, *captions, key=jax.random.key(1), guidance=7.0, temperature=0.3, top_k=9, top_p=0.9)
    list(stream(tiny, *captions, key=KEY, guidance=3.0, temperature=0.3, top_k=9, top_p=0.9, every=2))
    assert _advance._cache_size() == before


def test_half_precision_draws_real_pictures(make_tiny, captions):
    exact = np.asarray(sample(make_tiny(), *captions, key=KEY, temperature=0))
    half = np.asarray(sample(make_tiny(dtype=jnp.bfloat16), *captions, key=KEY, temperature=0))
    assert (exact[:, 0] == half[:, 0]).all()
    assert (exact == half).mean() > 0.6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 .* got -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"guidance": float("inf")}, "guidance"),
        ({"top_k": 0}, "top_k must .* None, got 0"),
        ({"top_k": 33}, r"top_k must be a whole number in \[1, 32 codes\]"),
        ({"top_k": 20, "codebook_size": 10}, "10 codes"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"prefix_codes": np.array([32])}, "prefix_codes must lie in"),
        ({"prefix_codes": np.zeros(10, np.int32)}, "at most 9"),
        ({"prefix_codes": np.zeros((2, 3), np.int32)}, r"\(4, at most 9\)"),
        ({"key": jax.random.split(KEY, 3)}, "one key or 4"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, captions, settings, message):
    with pytest.raises(ValueError, match=message):
        sample(tiny, *captions, **({"key": KEY} | settings))


def test_captions_that_do_not_fit_are_refused(tiny, captions):
    text_ids, text_mask, *blank = captions
    with pytest.raises(ValueError, match="no captions"):
        sample(tiny, text_ids[:0], text_mask[:0], *blank, key=KEY)
    with pytest.raises(ValueError, match="text_ids must lie in"):
        sample(tiny, text_ids + 100, text_mask, *blank, key=KEY)
    with pytest.raises(ValueError, match="uncond_ids must be"):
        sample(tiny, text_ids, text_mask, np.tile(blank[0], (3, 1)), np.tile(blank[1], (3, 1)), key=KEY, guidance=2.0)
    with pytest.raises(ValueError, match="every"):
        stream(tiny, *captions, key=KEY, every=0)


def test_weights_that_are_not_numbers_are_reported(make_tiny, captions):
    model = make_tiny(seed=1)
    model.lm_head.kernel[...] = model.lm_head.kernel[...].at[3, 4].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(model, *captions, key=KEY)


def test_settings_are_values_not_constants():
    assert all(isinstance(value, jax.Array) for value in check_settings(2.0, 1.0, 5, 0.5, 32))
    assert check_settings(2.0, 0, None, None, 32) == Settings(jnp.float32(2.0), None, None, None)
