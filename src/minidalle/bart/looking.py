"""Where a DalleBart looks: the attention weights of every layer and head, which the model itself does not keep.

The weights are computed beside the model, from its own norms and projections, layer by layer. A test holds that what
goes through here ends in the model's logits.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from minidalle.bart.config import DalleBartConfig
from minidalle.bart.model import Attention, DalleBart, Stack, as_attention_mask, check_codes, check_text, shift_right

# Switches of the original that change the scores, and the values at which the formula here is the whole truth.
PLAIN = {"use_cosine_attention": False, "use_swin_position_embeddings": False, "use_alibi": False, "sinkhorn_iters": 1}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Looks:
    """Attention weights, float32; the last axis sums to 1.

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

    Raises:
        ValueError: the configuration has a switch that changes the scores beyond this formula.
    """
    _check_plain(attention.config)
    hidden = attention.pre_norm(x)
    keys, _ = attention.keys_and_values(hidden if states is None else states)
    batch, length, size = x.shape
    queries = attention.query(hidden).reshape(batch, length, attention.heads, size // attention.heads)
    scores = jnp.einsum("bqhd,bhkd->bhqk", queries, keys) / jnp.sqrt(size // attention.heads).astype(keys.dtype)
    return jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min))


def look(model: DalleBart, text_ids: jax.Array, text_mask: jax.Array, codes: jax.Array) -> Looks:
    """Every attention weight of the model while it scores these codes; arguments and errors as in the model's call.

    All of them are kept at once: layers · heads · L · (L + T) numbers for each row, so give it few rows.
    """
    _check_plain(model.config)
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
    for layer in _layers(model.encoder):
        encoder.append(attention_weights(layer.self_attention, x, text_mask))
        x = layer(x, text_mask)
    states = model.encoder.final_norm(x)

    length = codes.shape[1]
    causal_mask = jnp.tril(jnp.ones((length, length), bool))
    inputs = shift_right(codes, model.config.decoder_start_token_id)
    decoder, cross, x = [], [], model.decoder.embed(inputs, jnp.arange(length))
    for layer in _layers(model.decoder):
        decoder.append(attention_weights(layer.self_attention, x, causal_mask))
        between = x + layer.self_attention(x, causal_mask)
        cross.append(attention_weights(layer.cross_attention, between, text_mask, states=states))
        x = layer(x, causal_mask, states, text_mask)
    logits = model.lm_head(model.decoder.final_norm(x)).astype(jnp.float32)
    return Looks(jnp.stack(encoder), jnp.stack(decoder), jnp.stack(cross), logits)


def _layers(stack: Stack) -> list[nnx.Module]:
    """The stack's layers, taken apart."""
    structure, stacked = nnx.split(stack.layers)
    return [nnx.merge(structure, jax.tree.map(lambda p, i=i: p[i], stacked)) for i in range(stack.depth)]


def _check_plain(config: DalleBartConfig) -> None:
    for name, plain in PLAIN.items():
        if getattr(config, name) != plain:
            raise ValueError(
                f"this model has {name}={getattr(config, name)}, which changes its attention scores; "
                f"weights can be shown where it is {plain}"
            )
