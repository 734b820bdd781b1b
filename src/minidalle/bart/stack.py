"""The encoder and the decoder of a BART: embeddings, a stack of layers, and norms between and behind them.

All layers of a stack live in one module whose parameters carry a leading layer axis, as in the original checkpoints,
and training scans over that axis: one layer is compiled, whatever the depth.

After dalle-mini 0.1.5, ``model/modeling.py``.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from minidalle.bart.blocks import (
    Attention,
    FeedForward,
    StackName,
    apply_norm,
    drop,
    initial_normal,
    make_norm,
    split_key,
)
from minidalle.bart.config import SWIN_PERIOD, DalleBartConfig
from minidalle.training.placement import by_rows


class EncoderLayer(nnx.Module):
    """Self-attention over the caption, then the feed-forward block."""

    def __init__(self, config: DalleBartConfig, **common):
        self.self_attention = Attention(config, "encoder", **common)
        self.feed_forward = FeedForward(config, "encoder", **common)

    def __call__(self, x: jax.Array, text_mask: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        attention_key, hidden_key = split_key(key, 2)
        x = self.self_attention(x, text_mask, key=attention_key)
        return self.feed_forward(x, key=hidden_key)


class DecoderLayer(nnx.Module):
    """Causal self-attention over the codes, cross-attention to the caption, then the feed-forward block."""

    def __init__(self, config: DalleBartConfig, **common):
        self.self_attention = Attention(config, "decoder", **common)
        self.cross_attention = Attention(config, "cross", **common)
        self.feed_forward = FeedForward(config, "decoder", **common)

    def __call__(
        self,
        x: jax.Array,
        causal_mask: jax.Array,
        states: jax.Array,
        text_mask: jax.Array,
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        self_key, cross_key, hidden_key = split_key(key, 3)
        x = self.self_attention(x, causal_mask, key=self_key)
        x = self.cross_attention(x, text_mask, states=states, key=cross_key)
        return self.feed_forward(x, key=hidden_key)


class Stack(nnx.Module):
    """Token and position embeddings, a norm, the layers on one leading axis, and a last norm.

    Args:
        config: of the whole network.
        name: "encoder" or "decoder".
        rows: of the token table.
        positions: of the position table.
        embed_tokens: a token table that is shared with others, instead of one of its own.
        offset: rows of the position table that come before the first position.
    """

    def __init__(
        self,
        config: DalleBartConfig,
        name: StackName,
        rows: int,
        positions: int,
        *,
        rngs: nnx.Rngs,
        embed_tokens: nnx.Embed | None = None,
        offset: int = 0,
        **common,
    ):
        encodes = name == "encoder"
        layer = EncoderLayer if encodes else DecoderLayer
        depth = config.encoder_layers if encodes else config.decoder_layers
        size, initial = config.d_model, initial_normal(config.init_std)
        self.config, self.depth, self.offset = config, depth, offset
        self.embed_tokens = embed_tokens or nnx.Embed(rows, size, embedding_init=initial, rngs=rngs, **common)
        if config.use_absolute_position_embeddings:
            self.embed_positions = nnx.Embed(positions + offset, size, embedding_init=initial, rngs=rngs, **common)
        self.embedding_norm = make_norm(config, size, before_dense=False, rngs=rngs, **common)
        self.layers = make_stacked(lambda rngs: layer(config, rngs=rngs, **common), depth, rngs)
        # The layers between two norms of Swin v2 (Liu et al. 2022, section 3.6), otherwise all of them.
        self.period = SWIN_PERIOD if config.ln_positions == "swinv2" else depth
        self.between_norms = make_stacked(
            lambda rngs: make_norm(config, size, before_dense=False, rngs=rngs, **common),
            (depth - 1) // self.period,
            rngs,
        )
        # After a sum that is normed there is nothing left for a last norm to do.
        last = config.use_final_ln_encoder if encodes else config.use_final_ln_decoder
        last = last and config.ln_positions != "postln"
        self.final_norm = make_norm(config, size, before_dense=True, rngs=rngs, **common) if last else None

    def embed(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Normed embeddings (B, L, d_model) of ids (B, L) at positions (L,)."""
        scale = self.config.d_model**0.5 if self.config.scale_embedding else 1.0
        x = self.embed_tokens(ids) * scale
        if self.config.use_absolute_position_embeddings:
            x = x + self.embed_positions(positions + self.offset)
        return self.embedding_norm(x)

    def __call__(self, ids: jax.Array, *layer_inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Final states (B, L, d_model) of ids (B, L); ``layer_inputs`` go to every layer."""
        embedding_key, layers_key = split_key(key, 2)
        x = drop(by_rows(self.embed(ids, jnp.arange(ids.shape[1]))), self.config.dropout, embedding_key)
        structure, parameters = nnx.split(self.layers)
        keys = None if layers_key is None else jax.random.split(layers_key, self.depth)

        def apply_layer(x: jax.Array, scanned: tuple) -> tuple[jax.Array, None]:
            layer_parameters, layer_key = scanned
            return by_rows(nnx.merge(structure, layer_parameters)(x, *layer_inputs, key=layer_key)), None

        if self.config.gradient_checkpointing:
            # Inside a scan the recomputation cannot be merged with the forward pass, so the guard against it may go.
            apply_layer = jax.checkpoint(apply_layer, prevent_cse=not self.config.use_scan)
        for first in range(0, self.depth, self.period):
            last = min(first + self.period, self.depth)
            scanned = jax.tree.map(lambda p: p[first:last], (parameters, keys))  # noqa: B023 - called here and now
            x, _ = jax.lax.scan(apply_layer, x, scanned, unroll=1 if self.config.use_scan else last - first)
            x = self.after_layer(last - 1, x)
        return x

    def after_layer(self, layer: int, x: jax.Array) -> jax.Array:
        """The stream x (B, L, d_model) behind a layer: normed where the arrangement has it between layers, or at the end."""
        if layer == self.depth - 1:
            return apply_norm(self.final_norm, x)
        place, rest = divmod(layer + 1, self.period)
        return x if rest else take(self.between_norms, place - 1)(x)


def make_stacked(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module | None:
    """``count`` modules as one whose parameters have a leading axis, each initialised by itself; None when there are none."""
    if count == 0:
        return None
    return nnx.split_rngs(splits=count)(nnx.vmap(make, in_axes=(0,), out_axes=0))(rngs)


def take(stacked: nnx.Module, index: int) -> nnx.Module:
    """One of the modules that ``make_stacked`` made."""
    structure, parameters = nnx.split(stacked)
    return nnx.merge(structure, jax.tree.map(lambda p: p[index], parameters))


@functools.partial(jax.jit, static_argnums=0)
def run_stack(
    structure: nnx.GraphDef, parameters: nnx.State, ids: jax.Array, layer_inputs: tuple, key: jax.Array | None
) -> jax.Array:
    """The stack's call, compiled once for each shape: called bare, the scan would be compiled anew every time."""
    return nnx.merge(structure, parameters)(ids, *layer_inputs, key=key)
