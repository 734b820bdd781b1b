import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig, loss
from minidalle.bart.blocks import drop
from minidalle.bart.model import shift_right

# Logits of the recorded model reach 12.8; two orders of summing float32 differ by about 1e-6 of that.
TOLERANCE = {"rtol": 1e-5, "atol": 1.5e-5}


def test_encoder_states_are_the_originals(original, recorded):
    for kind in ("", "_uncond"):
        states = original.encode(recorded["input_ids" + kind], recorded["attention_mask" + kind])
        expected = recorded["uncond_" * bool(kind) + "encoder_last_hidden_state"]
        np.testing.assert_allclose(states, expected, **TOLERANCE)


def test_hidden_states_are_the_originals_layer_by_layer(original, recorded_layers):
    ids, mask = recorded_layers["input_ids"], recorded_layers["attention_mask"]
    attention_mask = jnp.asarray(mask, bool)[:, None, None]
    x = original.encoder.embed(ids, jnp.arange(ids.shape[1]))
    structure, parameters = nnx.split(original.encoder.layers)
    np.testing.assert_allclose(x, recorded_layers["encoder_hidden_states"][0], **TOLERANCE)
    for layer, expected in enumerate(recorded_layers["encoder_hidden_states"][1:]):
        x = nnx.merge(structure, jax.tree.map(lambda p, layer=layer: p[layer], parameters))(x, attention_mask)
        np.testing.assert_allclose(x, expected, **TOLERANCE)
    inputs = recorded_layers["decoder_input_ids"]
    y = original.decoder.embed(inputs, jnp.arange(inputs.shape[1]))
    np.testing.assert_allclose(y, recorded_layers["decoder_hidden_states"][0], **TOLERANCE)
    states, causal = original.encoder.final_norm(x), jnp.tril(jnp.ones((inputs.shape[1],) * 2, bool))
    structure, parameters = nnx.split(original.decoder.layers)
    for layer, expected in enumerate(recorded_layers["decoder_hidden_states"][1:]):
        decoder_layer = nnx.merge(structure, jax.tree.map(lambda p, layer=layer: p[layer], parameters))
        y = decoder_layer(y, causal, states, attention_mask)
        np.testing.assert_allclose(y, expected, **TOLERANCE)


def test_logits_are_the_originals(original, recorded):
    logits = original(recorded["input_ids"], recorded["attention_mask"], recorded["labels"])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, recorded["logits"], **TOLERANCE)


def test_guided_logits_are_the_originals(original, recorded):
    inputs = shift_right(recorded["gen_topk1_cs10_sequences"][:, 1:], 64)

    def logits(kind):
        mask = recorded["attention_mask" + kind]
        return original.decode(original.encode(recorded["input_ids" + kind], mask), mask, inputs)

    guided = logits("_uncond") + 10 * (logits("") - logits("_uncond"))
    np.testing.assert_allclose(guided, recorded["gen_topk1_cs10_step_logits"], rtol=1e-5, atol=3e-4)


def test_unconditional_logits_are_the_originals(original, recorded):
    mask = recorded["attention_mask_uncond"]
    states = original.encode(recorded["input_ids_uncond"], mask)
    logits = original.decode(states, mask, recorded["decoder_input_ids"])
    np.testing.assert_allclose(logits, recorded["uncond_logits"], **TOLERANCE)


def test_a_beginning_of_the_picture_gives_the_same_logits(original, recorded):
    logits = original(recorded["input_ids"], recorded["attention_mask"], recorded["labels"][:, :5])
    np.testing.assert_allclose(logits, recorded["logits_prefix"], **TOLERANCE)


def test_half_precision_stays_within_the_originals_own_error(original, recorded):
    _, parameters = nnx.split(original)
    half = DalleBart(original.config, rngs=nnx.Rngs(0), dtype=jnp.float16)
    nnx.update(half, parameters)
    logits = half(recorded["input_ids"], recorded["attention_mask"], recorded["labels"])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, recorded["logits"], atol=5e-2)
    assert np.abs(logits - recorded["logits"]).max() > 1e-4, "nothing was computed in half precision"


def test_no_code_sees_itself_or_what_follows(make_tiny, tiny_batch):
    model, (text_ids, text_mask, codes) = make_tiny(), tiny_batch
    before = model(text_ids, text_mask, codes)
    changed = codes.copy()
    changed[:, 4] = (codes[:, 4] + 1) % 32
    after = model(text_ids, text_mask, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(axis=(1, 2)) > 1e-3).all()


def test_padding_is_never_read(make_tiny, tiny_batch):
    model, (text_ids, text_mask, codes) = make_tiny(), tiny_batch
    other = np.where(text_mask, text_ids, 33).astype(np.int32)
    np.testing.assert_array_equal(model(text_ids, text_mask, codes), model(other, text_mask, codes))


def test_remat_and_scan_change_nothing_but_cost(make_tiny, tiny_batch):
    def loss_and_gradients(model):
        structure, parameters = nnx.split(model)
        return jax.jit(jax.value_and_grad(lambda p: loss(nnx.merge(structure, p), *tiny_batch)))(parameters)

    sizes = {"encoder_layers": 1, "decoder_layers": 2}
    plain = loss_and_gradients(make_tiny(**sizes))
    for change in ({"gradient_checkpointing": True}, {"use_scan": False}):
        other = loss_and_gradients(make_tiny(**sizes, **change))
        for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_dropout_acts_only_with_a_key(make_tiny, tiny_batch, kind):
    model, without = make_tiny(**{kind: 0.2}), make_tiny()(*tiny_batch)
    first, again, second = (model(*tiny_batch, dropout_key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - without).max() > 1e-2
    assert np.abs(first - second).max() > 1e-2
    if kind == "dropout":
        np.testing.assert_array_equal(model(*tiny_batch), without)


def test_dropout_keeps_the_mean():
    dropped = drop(jnp.ones((200, 500)), 0.2, jax.random.key(0))
    np.testing.assert_allclose(dropped.mean(), 1, atol=0.01)
    np.testing.assert_allclose((dropped == 0).mean(), 0.2, atol=0.01)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"encoder_ffn_dim": 2730, "decoder_ffn_dim": 2730}, 437_833_712),
        (
            {
                "d_model": 2048,
                "encoder_layers": 24,
                "decoder_layers": 24,
                "encoder_attention_heads": 32,
                "decoder_attention_heads": 32,
                "encoder_vocab_size": 50272,
                "image_vocab_size": 16415,
                "decoder_start_token_id": 16384,
            },
            2_587_521_024,
        ),
    ],
    ids=["mini-1", "mega-1"],
)
def test_parameter_counts_of_the_published_models(sizes, count):
    model = nnx.eval_shape(lambda: DalleBart(DalleBartConfig(**sizes), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == count


def test_initial_weights_have_the_configured_spread_and_differ_by_layer():
    model = DalleBart(DalleBartConfig(d_model=64, encoder_layers=2, decoder_layers=2, init_std=0.05), rngs=nnx.Rngs(0))
    kernel = model.decoder.layers.feed_forward.gate.kernel[...]
    assert kernel.shape == (2, 64, 4096)
    np.testing.assert_allclose(kernel.std(axis=(1, 2)), 0.05, rtol=0.02)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01
    np.testing.assert_allclose(model.lm_head.kernel[...].std(), 0.05, rtol=0.02)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ids, mask, codes: (ids + 40, mask, codes), "text_ids must lie in"),
        (lambda ids, mask, codes: (ids - 50, mask, codes), "text_ids must lie in"),
        (lambda ids, mask, codes: (ids, mask, codes + 33), "codes must lie in"),
        (lambda ids, mask, codes: (ids, mask * 0, codes), "mask of zeros"),
        (lambda ids, mask, codes: (ids, mask[:, :4], codes), "text_ids and text_mask"),
        (lambda ids, mask, codes: (np.tile(ids, 2), np.tile(mask, 2), codes), "16 tokens; this model reads 8"),
        (lambda ids, mask, codes: (ids, mask, np.tile(codes, 2)), "image_length = 9"),
        (lambda ids, mask, codes: (ids, mask, codes.astype(np.float32)), "whole numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make_tiny, tiny_batch, spoil, message):
    with pytest.raises(ValueError, match=message):
        make_tiny()(*spoil(*tiny_batch))
