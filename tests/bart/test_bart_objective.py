import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

from minidalle.bart import loss
from minidalle.bart.model import shift_right
from minidalle.bart.objective import blank_captions, corrupt_codes, cross_entropy, hide_tokens
from minidalle.hub.dallebart import native_name


@pytest.fixture(scope="module")
def loss_and_gradients(original, recorded):
    structure, parameters = nnx.split(original)
    batch = recorded["input_ids"], recorded["attention_mask"], recorded["labels"]
    value, gradients = jax.jit(jax.value_and_grad(lambda p: loss(nnx.merge(structure, p), *batch)))(parameters)
    return value, traverse_util.flatten_dict(nnx.to_pure_dict(gradients), sep=".")


def test_loss_is_the_originals(loss_and_gradients, recorded):
    np.testing.assert_allclose(loss_and_gradients[0], recorded["loss"], rtol=1e-5)


def test_gradients_are_the_originals(original, loss_and_gradients, recorded):
    names = [name for name in recorded if name.startswith("grad:")]
    assert len(names) > 20
    for name in names:
        found = loss_and_gradients[1][native_name(original.config, name.removeprefix("grad:"))]
        expected = recorded[name]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=name)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in loss_and_gradients[1].values()))
    np.testing.assert_allclose(norm, recorded["grad_global_norm"], rtol=1e-5)


def test_inputs_are_the_codes_one_place_later(recorded):
    np.testing.assert_array_equal(shift_right(recorded["labels"], 64), recorded["decoder_input_ids"])


def test_label_smoothing_is_a_cross_entropy_to_the_smoothed_target():
    logits = jax.random.normal(jax.random.key(0), (2, 5, 7))
    codes = jax.random.randint(jax.random.key(1), (2, 5), 0, 7)
    smoothed = optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(codes, 7), 0.1)).mean()
    np.testing.assert_allclose(cross_entropy(logits, codes, 0.1), smoothed, rtol=1e-6)
    assert not np.isclose(cross_entropy(logits, codes), smoothed)


def test_captions_are_blanked_at_the_given_rate():
    text_ids = jnp.arange(10_000 * 3).reshape(10_000, 3) + 5
    blank_ids, blank_mask = jnp.array([0, 2, 1]), jnp.array([1, 1, 0])
    ids, mask = blank_captions(jax.random.key(0), text_ids, jnp.ones_like(text_ids), blank_ids, blank_mask, 0.2)
    blank = (ids == blank_ids).all(axis=1)
    np.testing.assert_allclose(blank.mean(), 0.2, atol=0.015)
    np.testing.assert_array_equal(mask, np.where(blank[:, None], blank_mask, 1))
    np.testing.assert_array_equal(ids[~blank], text_ids[~blank])


def test_tokens_are_hidden_at_the_given_rate_and_special_ones_never():
    text_ids = jnp.tile(jnp.array([0, 5, 9, 2, 1]), (5000, 1))
    text_mask = jnp.tile(jnp.array([1, 1, 1, 1, 0]), (5000, 1))
    hidden = hide_tokens(jax.random.key(0), text_ids, text_mask, 0.25)
    np.testing.assert_allclose(hidden.mean(axis=0), [1, 0.75, 0.75, 1, 0], atol=0.02)
    np.testing.assert_array_equal(hidden[:, [0, 3, 4]], text_mask[:, [0, 3, 4]])


def test_codes_are_corrupted_at_the_given_rate_with_codes_of_the_book():
    codes = jnp.full((500, 64), 3)
    corrupted = corrupt_codes(jax.random.key(0), codes, 10, 0.3)
    np.testing.assert_allclose((corrupted != codes).mean(), 0.3 * 0.9, atol=0.01)
    drawn = np.asarray(corrupted)[np.asarray(corrupted != 3)]
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=10)[[0, 1, 2, 4, 5, 6, 7, 8, 9]] / drawn.size, 1 / 9, atol=0.015
    )
    np.testing.assert_array_equal(corrupt_codes(jax.random.key(0), codes, 10, 0.0), codes)


def test_without_a_key_nothing_is_spoiled(make_tiny, tiny_batch):
    model = make_tiny(dropout=0.5)
    spoilers = {"blank_ids": np.array([0, 2, 1, 1, 1, 1, 1, 1]), "blank_mask": np.array([1, 1, 0, 0, 0, 0, 0, 0])}
    clean = loss(model, *tiny_batch, blank_probability=0.5, hide_probability=0.5, code_corruption=0.5, **spoilers)
    np.testing.assert_array_equal(clean, loss(make_tiny(), *tiny_batch))


def test_blanking_everything_trains_the_unconditional_branch(make_tiny, tiny_batch):
    model, (text_ids, text_mask, codes) = make_tiny(), tiny_batch
    blank_ids, blank_mask = np.array([0, 2, 1, 1, 1, 1, 1, 1]), np.array([1, 1, 0, 0, 0, 0, 0, 0])
    blanked = loss(
        model,
        text_ids,
        text_mask,
        codes,
        key=jax.random.key(0),
        blank_ids=blank_ids,
        blank_mask=blank_mask,
        blank_probability=1.0,
    )
    rows = np.ones((4, 1), int)
    np.testing.assert_allclose(blanked, loss(model, rows * blank_ids, rows * blank_mask, codes), rtol=1e-6)


def test_corruption_spoils_the_input_and_never_the_target(make_tiny, tiny_batch):
    model, (text_ids, text_mask, codes) = make_tiny(), tiny_batch
    key = jax.random.key(5)
    found = loss(model, text_ids, text_mask, codes, key=key, code_corruption=0.5)
    inputs = corrupt_codes(jax.random.split(key, 4)[3], jnp.asarray(codes), 32, 0.5)
    assert (inputs != codes).any()
    np.testing.assert_allclose(found, cross_entropy(model(text_ids, text_mask, inputs), codes), rtol=1e-6)


def test_blanking_needs_the_blank_caption(make_tiny, tiny_batch):
    with pytest.raises(ValueError, match="blank_ids"):
        loss(make_tiny(), *tiny_batch, key=jax.random.key(0), blank_probability=0.1)
