"""Attention weights computed beside the model are the model's."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from minidalle.bart import attention_weights, look
from minidalle.bart.model import as_attention_mask, shift_right
from minidalle.bart.stack import take

ARRANGEMENTS = {
    "normformer": {},
    "preln": {"ln_positions": "preln", "use_bias": True, "use_head_scale": True, "ln_type": "rmsnorm"},
    "postln": {"ln_positions": "postln", "use_deepnet_scaling": True, "tie_word_embeddings": True},
    "swinv2": {
        "ln_positions": "swinv2",
        "use_scan": False,
        "use_cosine_attention": True,
        "use_swin_position_embeddings": True,
        "decoder_layers": 7,
    },
    "sinkhorn": {"ln_positions": "subln", "sinkhorn_iters": 3},
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_what_was_looked_through_ends_in_the_models_logits(make_tiny, tiny_batch, arrangement):
    model = make_tiny(**ARRANGEMENTS[arrangement])
    np.testing.assert_allclose(look(model, *tiny_batch).logits, model(*tiny_batch), rtol=1e-5, atol=1e-5)


def test_weights_times_values_are_what_attention_mixes(make_tiny, tiny_batch):
    model = make_tiny()
    text_ids, text_mask, codes = tiny_batch
    states = model.encode(text_ids, text_mask)
    x = model.decoder.embed(shift_right(codes, 32), jnp.arange(codes.shape[1]))
    module, mask = take(model.decoder.layers, 0).cross_attention, as_attention_mask(text_mask)
    weights = attention_weights(module, x, mask, states=states)
    mixed = weights @ module.keys_and_values(states)[1]
    change = module.post_norm(module.output(mixed.swapaxes(1, 2).reshape(x.shape)))
    np.testing.assert_allclose(x + change, module(x, mask, states=states), rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_pytorchs_multi_head_attention(make_tiny, tiny_batch):
    model = make_tiny()
    text_ids, text_mask, _ = tiny_batch
    layer = take(model.encoder.layers, 0).self_attention
    x = model.encoder.embed(text_ids, jnp.arange(text_ids.shape[1]))
    theirs = torch.nn.MultiheadAttention(16, 2, bias=False, batch_first=True)
    kernels = [np.asarray(getattr(layer, name).kernel[...]).T for name in ("query", "key", "value")]
    theirs.in_proj_weight.data = torch.tensor(np.concatenate(kernels))
    hidden = torch.tensor(np.asarray(layer.pre_norm(x)))
    hide = torch.tensor(text_mask == 0)
    _, expected = theirs(hidden, hidden, hidden, key_padding_mask=hide, average_attn_weights=False)
    ours = attention_weights(layer, x, as_attention_mask(text_mask))
    np.testing.assert_allclose(ours, expected.detach(), rtol=1e-5, atol=1e-6)


def test_nobody_looks_at_padding_or_ahead(make_tiny, tiny_batch):
    looks = look(make_tiny(), *tiny_batch)
    assert looks.encoder.shape == (2, 4, 2, 8, 8)
    assert looks.decoder.shape == (3, 4, 2, 9, 9)
    assert looks.cross.shape == (3, 4, 2, 9, 8)
    padded = np.asarray(tiny_batch[1]) == 0
    for weights in (looks.encoder, looks.cross):
        assert (np.asarray(weights).max(axis=(0, 2, 3))[padded] == 0).all()
    assert (np.triu(np.asarray(looks.decoder), 1) == 0).all()
    for weights in (looks.encoder, looks.decoder, looks.cross):
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_errors_are_those_of_the_model(make_tiny, tiny_batch):
    text_ids, text_mask, codes = tiny_batch
    with pytest.raises(ValueError, match="zeros only"):
        look(make_tiny(), text_ids, 0 * text_mask, codes)
    with pytest.raises(ValueError, match="codes must lie"):
        look(make_tiny(), text_ids, text_mask, codes + 99)
