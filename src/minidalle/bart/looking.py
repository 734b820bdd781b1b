"""Where a DalleBart looks: the attention weights of every layer and head, which the model itself does not keep.

The model is run once more, layer by layer, and each attention is asked for its weights. A test holds that what goes
through here ends in the model's logits, whatever the arrangement of its blocks.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from minidalle.bart.blocks import Attention
from minidalle.bart.model import DalleBart, as_attention_mask, check_codes, check_text, shift_right
from minidalle.bart.stack import take


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Looks:
    """Attention weights, float32; the last axis sums to 1, with Sinkhorn attention nearly.

    Attributes:
        encoder: (layers, B, heads, T, T), each token of the caption on the tokens.
        decoder: (layers, B, heads, L, L), each position on what the decoder has read: entry 0 of the last axis is the
            start token, entry j the code at position j - 1.
        cross: (layers, B, heads, L, T), each position on the tokens of the caption.
        logits: (B, L, image_vocab_size + 1), the model's, computed on the way.
    """

    encoder: jax.Array
    decoder: jax.Array
    cross: jax.Array
    logits: jax.Array


def attention_weights(
    attention: Attention, x: jax.Array, mask: jax.Array, *, states: jax.Array | None = None
) -> jax.Array:
    """The weights (B, heads, Q, K) with which an ``Attention`` would mix its values (Vaswani et al. 2017, eq. 1).

    Args:
        attention: one layer's module.
        x: its input (B, Q, d_model), before the norm.
        mask: True where a query may look, broadcastable to (B, heads, Q, K).
        states: (B, K, d_model) for cross-attention, or None for self-attention.
    """
    hidden = attention.enter(x)
    keys, _ = attention.keys_and_values(hidden if states is None else states)
    return attention.weights(hidden, keys, mask)


def look(model: DalleBart, text_ids: jax.Array, text_mask: jax.Array, codes: jax.Array) -> Looks:
    """Every attention weight of the model while it scores these codes; arguments and errors as in the model's call.

    All of them are kept at once: layers · heads · L · (L + T) numbers for each row, so give it few rows.
    """
    check_text(model.config, text_ids, text_mask)
    check_codes(model.config, codes)
    return _look(*nnx.split(model), text_ids, text_mask, codes)


@functools.partial(jax.jit, static_argnums=0)
def _look(
    structure: nnx.GraphDef, parameters: nnx.State, text_ids: jax.Array, text_mask: jax.Array, codes: jax.Array
) -> Looks:
    model = nnx.merge(structure, parameters)
    text_mask = as_attention_mask(text_mask)

    encoder, x = [], model.encoder.embed(text_ids, jnp.arange(text_ids.shape[1]))
    for index in range(model.encoder.depth):
        layer = take(model.encoder.layers, index)
        encoder.append(attention_weights(layer.self_attention, x, text_mask))
        x = model.encoder.after_layer(index, layer(x, text_mask))

    length, states = codes.shape[1], x
    causal_mask = jnp.tril(jnp.ones((length, length), bool))
    inputs = shift_right(codes, model.config.decoder_start_token_id)
    decoder, cross, x = [], [], model.decoder.embed(inputs, jnp.arange(length))
    for index in range(model.decoder.depth):
        layer = take(model.decoder.layers, index)
        decoder.append(attention_weights(layer.self_attention, x, causal_mask))
        between = layer.self_attention(x, causal_mask)
        cross.append(attention_weights(layer.cross_attention, between, text_mask, states=states))
        x = model.decoder.after_layer(index, layer(x, causal_mask, states, text_mask))
    logits = (x @ model.head().astype(x.dtype)).astype(jnp.float32)
    return Looks(jnp.stack(encoder), jnp.stack(decoder), jnp.stack(cross), logits)
