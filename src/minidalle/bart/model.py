"""DalleBart in Flax NNX: a BART that reads a caption and writes the codes of a picture.

What differs from the BART of Lewis et al. 2020:

- two vocabularies, hence two token tables and an output layer tied to neither: text goes in, image codes come out;
- NormFormer (Shleifer et al. 2021): a norm before *and* after each attention, and one in the middle of the feed-forward;
- gated feed-forward blocks (GEGLU, Shazeer 2020) with the exact gelu;
- no biases in dense layers, and no scale in a norm that feeds straight into one: the dense layer can learn it;
- positions count from 0 (BART starts at 2).

All layers of a stack live in one module whose parameters carry a leading layer axis, as in the original checkpoints,
and training scans over that axis: one layer is compiled, whatever the depth.

After dalle-mini 0.1.5, ``model/modeling.py``.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.config import DalleBartConfig

EPSILON = 1e-5  # of every norm; Flax's own default is 1e-6


def make_norm(config: DalleBartConfig, features: int, *, before_dense: bool, **common) -> nnx.Module:
    """The configured norm over the last axis; without a scale where a dense layer follows, which can learn it."""
    use_scale = config.force_ln_scale or not before_dense
    if config.ln_type == "rmsnorm":
        return nnx.RMSNorm(features, epsilon=EPSILON, use_scale=use_scale, **common)
    return nnx.LayerNorm(features, epsilon=EPSILON, use_scale=use_scale, **common)


def make_dense(config: DalleBartConfig, inputs: int, outputs: int, **common) -> nnx.Linear:
    """A dense layer with the configured initial spread; biased only if the configuration says so."""
    return nnx.Linear(inputs, outputs, use_bias=config.use_bias, kernel_init=initial_normal(config.init_std), **common)


@functools.cache
def initial_normal(deviation: float) -> Callable:
    """One initializer object for each spread, so that two equal models share their compiled functions."""
    return nnx.initializers.normal(deviation)


def drop(x: jax.Array, rate: float, key: jax.Array | None, broadcast: tuple[int, ...] = ()) -> jax.Array:
    """Dropout: zeros at ``rate``, the rest scaled up; without a key nothing happens.

    Args:
        x: any shape.
        rate: probability of a zero, in [0, 1).
        key: randomness, or None at inference.
        broadcast: axes along which one draw is shared.
    """
    if key is None or rate == 0:
        return x
    shape = tuple(1 if axis in broadcast else size for axis, size in enumerate(x.shape))
    return jnp.where(jax.random.bernoulli(key, 1 - rate, shape), x / (1 - rate), jnp.zeros_like(x))


def split_key(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """``count`` keys from one, or as many times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


class Attention(nnx.Module):
    """One residual branch of attention: norm, multi-head attention, norm.

    Self-attention reads its keys and values from its own normed input, cross-attention from ``states``.
    """

    def __init__(self, config: DalleBartConfig, heads: int, **common):
        self.config, self.heads = config, heads
        size = config.d_model
        self.pre_norm = make_norm(config, size, before_dense=True, **common)
        self.query = make_dense(config, size, size, **common)
        self.key = make_dense(config, size, size, **common)
        self.value = make_dense(config, size, size, **common)
        self.output = make_dense(config, size, size, **common)
        if config.use_head_scale:
            self.head_scale = nnx.Param(jnp.ones((heads, 1), common["param_dtype"]))
        if config.ln_positions == "normformer":
            self.post_norm = make_norm(config, size, before_dense=False, **common)

    def __call__(
        self, x: jax.Array, mask: jax.Array, *, states: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """The branch's output for ``x`` (B, Q, d_model), to be added to it; arguments as in ``attend``."""
        hidden = self.pre_norm(x)
        keys, values = self.keys_and_values(hidden if states is None else states)
        return self.attend(hidden, keys, values, mask, key)

    def keys_and_values(self, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values, each (B, heads, K, head size), of states (B, K, d_model)."""
        return self._split_heads(self.key(states)), self._split_heads(self.value(states))

    def attend(
        self, hidden: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Attention of normed inputs to given keys and values.

        Args:
            hidden: normed inputs (B, Q, d_model).
            keys, values: (B, heads, K, head size).
            mask: True where a query may look, broadcastable to (B, heads, Q, K).
            key: randomness for dropout, or None.

        Returns:
            (B, Q, d_model).
        """
        weight_key, output_key = split_key(key, 2)
        queries = self._split_heads(self.query(hidden))
        scores = jnp.einsum("bhqd,bhkd->bhqk", queries, keys) / jnp.sqrt(queries.shape[-1]).astype(queries.dtype)
        # The lowest finite number instead of -inf: a row that may look nowhere then averages, where -inf gives NaN.
        scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(values.dtype)
        # One pattern for all rows and heads, as in the original.
        weights = drop(weights, self.config.attention_dropout, weight_key, broadcast=(0, 1))
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, values)
        if self.config.use_head_scale:
            mixed = mixed * self.head_scale[...][:, None].astype(mixed.dtype)
        mixed = self.output(mixed.swapaxes(1, 2).reshape(hidden.shape))
        if self.config.ln_positions == "normformer":
            mixed = self.post_norm(mixed)
        return drop(mixed, self.config.dropout, output_key)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        batch, length, size = x.shape
        return x.reshape(batch, length, self.heads, size // self.heads).swapaxes(1, 2)


class FeedForward(nnx.Module):
    """One residual branch that works on each position alone: norm, (gated) hidden layer, norm, dense."""

    def __init__(self, config: DalleBartConfig, hidden_size: int, **common):
        self.config = config
        size = config.d_model
        self.pre_norm = make_norm(config, size, before_dense=True, **common)
        self.gate = make_dense(config, size, hidden_size, **common)
        if config.use_glu:
            self.value = make_dense(config, size, hidden_size, **common)
        if config.ln_positions == "normformer":
            self.middle_norm = make_norm(config, hidden_size, before_dense=True, **common)
        self.output = make_dense(config, hidden_size, size, **common)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The branch's output for ``x`` (B, L, d_model), to be added to it."""
        hidden_key, output_key = split_key(key, 2)
        x = self.pre_norm(x)
        hidden = activate(self.config.activation_function, self.gate(x))
        if self.config.use_glu:
            hidden = hidden * self.value(x)
        if self.config.ln_positions == "normformer":
            hidden = self.middle_norm(hidden)
        hidden = drop(hidden, self.config.activation_dropout, hidden_key)
        return drop(self.output(hidden), self.config.dropout, output_key)


def activate(name: str, x: jax.Array) -> jax.Array:
    """The activation that transformers knows by this name."""
    if name in ("gelu", "gelu_new"):
        return jax.nn.gelu(x, approximate=name == "gelu_new")
    return {"relu": jax.nn.relu, "silu": jax.nn.silu}[name](x)


class EncoderLayer(nnx.Module):
    """Self-attention over the caption, then the feed-forward block."""

    def __init__(self, config: DalleBartConfig, **common):
        self.self_attention = Attention(config, config.encoder_attention_heads, **common)
        self.feed_forward = FeedForward(config, config.encoder_ffn_dim, **common)

    def __call__(self, x: jax.Array, text_mask: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        attention_key, hidden_key = split_key(key, 2)
        x = x + self.self_attention(x, text_mask, key=attention_key)
        return x + self.feed_forward(x, key=hidden_key)


class DecoderLayer(nnx.Module):
    """Causal self-attention over the codes, cross-attention to the caption, then the feed-forward block."""

    def __init__(self, config: DalleBartConfig, **common):
        self.self_attention = Attention(config, config.decoder_attention_heads, **common)
        self.cross_attention = Attention(config, config.decoder_attention_heads, **common)
        self.feed_forward = FeedForward(config, config.decoder_ffn_dim, **common)

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
        x = x + self.self_attention(x, causal_mask, key=self_key)
        x = x + self.cross_attention(x, text_mask, states=states, key=cross_key)
        return x + self.feed_forward(x, key=hidden_key)


class Stack(nnx.Module):
    """Token and position embeddings, a norm, the layers on one leading axis, and a last norm."""

    def __init__(
        self, config: DalleBartConfig, layer: type, depth: int, rows: int, positions: int, *, rngs: nnx.Rngs, **common
    ):
        self.config, self.depth = config, depth
        size, initial = config.d_model, initial_normal(config.init_std)
        self.embed_tokens = nnx.Embed(rows, size, embedding_init=initial, rngs=rngs, **common)
        self.embed_positions = nnx.Embed(positions, size, embedding_init=initial, rngs=rngs, **common)
        self.embedding_norm = make_norm(config, size, before_dense=False, rngs=rngs, **common)

        @nnx.split_rngs(splits=depth)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make_layers(rngs: nnx.Rngs) -> nnx.Module:
            return layer(config, rngs=rngs, **common)

        self.layers = make_layers(rngs)
        self.final_norm = make_norm(config, size, before_dense=True, rngs=rngs, **common)

    def embed(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Normed embeddings (B, L, d_model) of ids (B, L) at positions (L,)."""
        scale = self.config.d_model**0.5 if self.config.scale_embedding else 1.0
        return self.embedding_norm(self.embed_tokens(ids) * scale + self.embed_positions(positions))

    def __call__(self, ids: jax.Array, *layer_inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Final states (B, L, d_model) of ids (B, L); ``layer_inputs`` go to every layer."""
        embedding_key, layers_key = split_key(key, 2)
        x = drop(self.embed(ids, jnp.arange(ids.shape[1])), self.config.dropout, embedding_key)
        structure, parameters = nnx.split(self.layers)
        keys = None if layers_key is None else jax.random.split(layers_key, self.depth)

        def apply_layer(x: jax.Array, scanned: tuple) -> tuple[jax.Array, None]:
            layer_parameters, layer_key = scanned
            return nnx.merge(structure, layer_parameters)(x, *layer_inputs, key=layer_key), None

        if self.config.gradient_checkpointing:
            # Inside a scan the recomputation cannot be merged with the forward pass, so the guard against it may go.
            apply_layer = jax.checkpoint(apply_layer, prevent_cse=not self.config.use_scan)
        unroll = 1 if self.config.use_scan else self.depth
        x, _ = jax.lax.scan(apply_layer, x, (parameters, keys), unroll=unroll)
        return self.final_norm(x)


@functools.partial(jax.jit, static_argnums=0)
def run_stack(
    structure: nnx.GraphDef, parameters: nnx.State, ids: jax.Array, layer_inputs: tuple, key: jax.Array | None
) -> jax.Array:
    """The stack's call, compiled once for each shape: called bare, the scan would be compiled anew every time."""
    return nnx.merge(structure, parameters)(ids, *layer_inputs, key=key)


class DalleBart(nnx.Module):
    """Scores of each image code, given a caption and the codes before it.

    Args:
        config: sizes and switches.
        rngs: randomness for the initial weights (stream ``params``).
        dtype: what is computed in; norms and softmax use float32 inside, logits are float32 always.
        param_dtype: what weights are stored in.
    """

    def __init__(
        self, config: DalleBartConfig, *, rngs: nnx.Rngs, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32
    ):
        self.config, self.dtype = config, dtype
        common = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        rows = config.image_vocab_size + 1  # the start token stands after the codes
        self.encoder = Stack(
            config, EncoderLayer, config.encoder_layers, config.encoder_vocab_size, config.max_text_length, **common
        )
        self.decoder = Stack(config, DecoderLayer, config.decoder_layers, rows, config.image_length, **common)
        self.lm_head = nnx.Linear(
            config.d_model, rows, use_bias=False, kernel_init=initial_normal(config.init_std), **common
        )

    def __call__(
        self, text_ids: jax.Array, text_mask: jax.Array, codes: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of every code, each seeing the caption and the codes before it.

        Args:
            text_ids: (B, T) tokens, T at most ``max_text_length``.
            text_mask: (B, T), 1 where a token stands.
            codes: (B, L) codes, L at most ``image_length``; the decoder reads them shifted behind the start token.
            dropout_key: randomness for dropout, or None for none.

        Returns:
            (B, L, image_vocab_size + 1), float32.

        Raises:
            ValueError: a length is beyond its table, an id is outside its table, a mask row is all zero, or shapes do
                not fit. Inside ``jax.jit`` values cannot be looked at: there an id outside its table gives NaN.
        """
        encoder_key, decoder_key = split_key(dropout_key, 2)
        states = self.encode(text_ids, text_mask, dropout_key=encoder_key)
        inputs = shift_right(codes, self.config.decoder_start_token_id)
        return self.decode(states, text_mask, inputs, dropout_key=decoder_key)

    def encode(self, text_ids: jax.Array, text_mask: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Encoder states (B, T, d_model) of captions; arguments and errors as in the call."""
        check_text(self.config, text_ids, text_mask)
        return run_stack(*nnx.split(self.encoder), text_ids, (as_attention_mask(text_mask),), dropout_key)

    def decode(
        self, states: jax.Array, text_mask: jax.Array, inputs: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits (B, L, image_vocab_size + 1), float32, for decoder inputs (B, L) that begin with the start token.

        Args:
            states: (B, T, d_model) from ``encode``.
            text_mask: (B, T).
            inputs: (B, L), already shifted: entry l is what stands *before* the code that logits l score.
            dropout_key: randomness for dropout, or None.
        """
        check_codes(self.config, inputs)
        length = inputs.shape[1]
        causal_mask = jnp.tril(jnp.ones((length, length), bool))
        layer_inputs = causal_mask, states, as_attention_mask(text_mask)
        hidden = run_stack(*nnx.split(self.decoder), inputs, layer_inputs, dropout_key)
        return self.lm_head(hidden).astype(jnp.float32)


def as_attention_mask(text_mask: jax.Array) -> jax.Array:
    """(B, T) of ones and zeros as (B, 1, 1, T) of booleans: every head and query looks at the same tokens."""
    return jnp.asarray(text_mask, bool)[:, None, None, :]


def shift_right(codes: jax.Array, start: int) -> jax.Array:
    """Codes (B, L) behind the start token, the last one dropped: what the decoder has seen at each position."""
    codes = jnp.asarray(codes)
    return jnp.concatenate([jnp.full_like(codes[:, :1], start), codes[:, :-1]], axis=1)


def check_text(config: DalleBartConfig, text_ids: jax.Array, text_mask: jax.Array) -> None:
    """Refuse captions that the encoder's tables cannot hold; values are looked at only outside ``jax.jit``."""
    if text_ids.ndim != 2 or text_ids.shape != text_mask.shape:
        raise ValueError(
            f"text_ids and text_mask must both be (batch, length), got {text_ids.shape} and {text_mask.shape}"
        )
    if text_ids.shape[1] > config.max_text_length:
        raise ValueError(f"captions have {text_ids.shape[1]} tokens; this model reads {config.max_text_length}")
    check_range("text_ids", text_ids, config.encoder_vocab_size, "encoder_vocab_size")
    if not isinstance(text_mask, jax.core.Tracer):
        empty = np.flatnonzero(~np.asarray(text_mask, bool).any(axis=1))
        if empty.size:
            raise ValueError(
                f"caption {empty[0]} has a mask of zeros only; the empty caption is '<s></s>' with mask 1, 1, 0, ..."
            )


def check_codes(config: DalleBartConfig, codes: jax.Array) -> None:
    """Refuse codes that the decoder's tables cannot hold; values are looked at only outside ``jax.jit``."""
    if codes.ndim != 2 or not 1 <= codes.shape[1] <= config.image_length:
        raise ValueError(f"codes must be (batch, 1 to image_length = {config.image_length}), got {codes.shape}")
    check_range("codes", codes, config.image_vocab_size + 1, "image_vocab_size + 1")


def check_range(name: str, ids: jax.Array, size: int, table: str) -> None:
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} must be whole numbers, got {ids.dtype}")
    if isinstance(ids, jax.core.Tracer) or ids.size == 0:
        return
    lowest, highest = int(np.min(ids)), int(np.max(ids))
    if lowest < 0 or highest >= size:
        raise ValueError(f"{name} must lie in [0, {table} = {size}), got values from {lowest} to {highest}")
