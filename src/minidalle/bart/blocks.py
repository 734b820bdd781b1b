"""The residual branches of a BART: attention and feed-forward, in every arrangement that the original knows.

What each of the switches that tell one BART from another means stands here, beside the line that obeys it:

- where the norms stand (`ATTENTION_NORMS`, `FEED_FORWARD_NORMS`): NormFormer's for DALL·E mini (Shleifer et al. 2021), after
  each sum for BART itself (Lewis et al. 2020);
- gated feed-forward blocks (GEGLU, Shazeer 2020) with the exact gelu, or plain ones;
- biases in dense layers or not; no scale in a norm that feeds straight into one, since the dense layer can learn it;
- what else was tried: cosine attention and relative positions (Liu et al. 2022, Swin v2), Sinkhorn attention (Sander et al.
  2022), DeepNet's gains (Wang et al. 2022a), sub-layer norms (Wang et al. 2022b), a factor for each head (NormFormer).

After dalle-mini 0.1.5, ``model/modeling.py``.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from minidalle.bart.config import DalleBartConfig

EPSILON = 1e-5  # of every norm; Flax's own default is 1e-6
# Where an arrangement has norms: at the branch's entry, in its middle (before its last dense layer), at its exit, or after
# the sum with the stream; see `attention_norms` for what differs between the attentions.
ATTENTION_NORMS = {
    "normformer": ("pre", "post"),
    "cogview": ("pre", "post"),
    "preln": ("pre",),
    "subln": ("pre", "middle"),
    "swinv2": ("post",),
    "postln": ("sum",),
}
FEED_FORWARD_NORMS = {
    "normformer": ("pre", "middle"),
    "cogview": ("pre", "post"),
    "preln": ("pre",),
    "subln": ("pre", "middle"),
    "swinv2": ("post",),
    "postln": ("sum",),
}
LOWEST = jnp.finfo(jnp.float32).min  # instead of -inf: a row that may look nowhere then averages, where -inf gives NaN

StackName = Literal["encoder", "decoder"]
AttentionKind = Literal["encoder", "decoder", "cross"]


def make_norm(config: DalleBartConfig, features: int, *, before_dense: bool, **common) -> nnx.Module:
    """The configured norm over the last axis; without a scale where a dense layer follows, which can learn it."""
    use_scale = config.force_ln_scale or not before_dense
    if config.ln_type == "rmsnorm":
        return nnx.RMSNorm(features, epsilon=EPSILON, use_scale=use_scale, **common)
    return nnx.LayerNorm(features, epsilon=EPSILON, use_scale=use_scale, **common)


def make_dense(config: DalleBartConfig, inputs: int, outputs: int, gain: float = 1.0, **common) -> nnx.Linear:
    """A dense layer with ``gain`` times the configured initial spread; biased only if the configuration says so."""
    initial = initial_normal(gain * config.init_std)
    return nnx.Linear(inputs, outputs, use_bias=config.use_bias, kernel_init=initial, **common)


@functools.cache
def initial_normal(deviation: float) -> Callable:
    """One initializer object for each spread, so that two equal models share their compiled functions."""
    return nnx.initializers.normal(deviation)


def stream_gain(config: DalleBartConfig, stack: StackName) -> float:
    """What the stream is multiplied by before a branch is added: DeepNet's α (Wang et al. 2022a, fig. 2), otherwise 1."""
    if not config.use_deepnet_scaling:
        return 1.0
    if stack == "encoder":
        return 0.81 * (config.encoder_layers**4 * config.decoder_layers) ** (1 / 16)
    return (3 * config.decoder_layers) ** 0.25


def initial_gain(config: DalleBartConfig, stack: StackName) -> float:
    """What the spread of a branch's initial weights is multiplied by: DeepNet's β, or the γ of sub-layer norms.

    Wang et al. 2022a, fig. 2; Wang et al. 2022b, fig. 2.
    """
    encoder_layers, decoder_layers = config.encoder_layers, config.decoder_layers
    if config.use_deepnet_scaling and stack == "encoder":
        return 0.87 * (encoder_layers**4 * decoder_layers) ** (-1 / 16)
    if config.use_deepnet_scaling:
        return (12 * decoder_layers) ** -0.25
    if config.use_subln_init and stack == "encoder":
        return math.sqrt(math.log(3 * decoder_layers) * math.log(2 * encoder_layers) / 3)
    if config.use_subln_init:
        return math.sqrt(math.log(3 * decoder_layers))
    return 1.0


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


class Branch(nnx.Module):
    """What every residual branch has: norms where its arrangement puts them, and its place in the sum.

    Args:
        config: of the whole network.
        places: of "pre", "middle", "post" and "sum", where this branch has norms.
        stack: which stack it belongs to.
        middle_size: features of the middle norm.
        scale_middle: whether that norm has a scale.
    """

    def __init__(
        self,
        config: DalleBartConfig,
        places: tuple[str, ...],
        stack: StackName,
        middle_size: int,
        *,
        scale_middle: bool,
        **common,
    ):
        def norm(place: str, size: int, before_dense: bool) -> nnx.Module | None:
            return make_norm(config, size, before_dense=before_dense, **common) if place in places else None

        self.config, self.gain = config, stream_gain(config, stack)
        self.pre_norm = norm("pre", config.d_model, True)
        self.middle_norm = norm("middle", middle_size, not scale_middle)
        self.post_norm = norm("post", config.d_model, False)
        self.sum_norm = norm("sum", config.d_model, False)

    def enter(self, x: jax.Array) -> jax.Array:
        """What the branch works on, of the stream x (B, L, d_model)."""
        return apply_norm(self.pre_norm, x)

    def join(self, x: jax.Array, output: jax.Array) -> jax.Array:
        """The stream x with the branch's output, both (B, L, d_model), added to it."""
        return apply_norm(self.sum_norm, (x if self.gain == 1 else x * self.gain) + output)


def apply_norm(norm: nnx.Module | None, x: jax.Array) -> jax.Array:
    """The normed x, or x itself where the arrangement has no norm."""
    return x if norm is None else norm(x)


def attention_norms(config: DalleBartConfig, kind: AttentionKind) -> tuple[str, ...]:
    """Where one of the three attentions has norms: "subln" leaves out some of them in the decoder, as the original does."""
    places = ATTENTION_NORMS[config.ln_positions]
    if config.ln_positions != "subln" or kind == "encoder":
        return places
    return ("middle",) if kind == "decoder" else ()


class Attention(Branch):
    """Multi-head attention as a residual branch.

    Self-attention reads its keys and values from its own normed input, cross-attention from ``states``.

    Args:
        config: of the whole network.
        kind: "encoder" or "decoder" for the self-attention of a stack, "cross" for the decoder's look at the caption.
    """

    def __init__(self, config: DalleBartConfig, kind: AttentionKind, **common):
        size, stack = config.d_model, "encoder" if kind == "encoder" else "decoder"
        super().__init__(config, attention_norms(config, kind), stack, size, scale_middle=True, **common)
        self.heads = config.encoder_attention_heads if kind == "encoder" else config.decoder_attention_heads
        self.sinkhorn_iters = config.sinkhorn_iters if kind == "encoder" else 1
        # The gain of sub-layer norms is for layers behind such a norm, which cross-attention lacks.
        gain = 1.0 if kind == "cross" and not config.use_deepnet_scaling else initial_gain(config, stack)
        self.query = make_dense(config, size, size, **common)
        self.key = make_dense(config, size, size, **common)
        self.value = make_dense(config, size, size, gain, **common)
        self.output = make_dense(config, size, size, gain, **common)
        if config.use_head_scale:
            self.head_scale = nnx.Param(jnp.ones((self.heads, 1), common["param_dtype"]))
        if config.use_swin_position_embeddings:
            queries = config.max_text_length if kind == "encoder" else config.image_length
            keys = config.image_length if kind == "decoder" else config.max_text_length
            initial = initial_normal(config.init_std)
            self.position_bias = nnx.Embed(queries, keys * self.heads, embedding_init=initial, **common)

    def __call__(
        self, x: jax.Array, mask: jax.Array, *, states: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """The stream ``x`` (B, Q, d_model) with this branch added; arguments as in ``attend``."""
        hidden = self.enter(x)
        keys, values = self.keys_and_values(hidden if states is None else states)
        return self.join(x, self.attend(hidden, keys, values, mask, key=key))

    def keys_and_values(self, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values, each (B, heads, K, head size), of states (B, K, d_model)."""
        return self._split_heads(self.key(states)), self._split_heads(self.value(states))

    def attend(
        self,
        hidden: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: jax.Array,
        *,
        position: int | jax.Array = 0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The branch's output: attention of normed inputs to given keys and values.

        Args:
            hidden: normed inputs (B, Q, d_model).
            keys, values: (B, heads, K, head size).
            mask: True where a query may look, broadcastable to (B, heads, Q, K).
            position: where the first query stands.
            key: randomness for dropout, or None.

        Returns:
            (B, Q, d_model).
        """
        weight_key, output_key = split_key(key, 2)
        weights = self.weights(hidden, keys, mask, position=position).astype(values.dtype)
        # One pattern for all rows and heads, as in the original.
        weights = drop(weights, self.config.attention_dropout, weight_key, broadcast=(0, 1))
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, values)
        if self.config.use_head_scale:
            mixed = mixed * self.head_scale[...][:, None].astype(mixed.dtype)
        mixed = self.output(apply_norm(self.middle_norm, mixed.swapaxes(1, 2).reshape(hidden.shape)))
        return drop(apply_norm(self.post_norm, mixed), self.config.dropout, output_key)

    def weights(
        self, hidden: jax.Array, keys: jax.Array, mask: jax.Array, *, position: int | jax.Array = 0
    ) -> jax.Array:
        """How much each query looks at each key, (B, heads, Q, K) float32; arguments as in ``attend``."""
        queries = self._split_heads(self.query(hidden))
        if self.config.use_cosine_attention:
            queries, keys = of_unit_length(queries), of_unit_length(keys)
            scale = jnp.asarray(self.config.tau_init, queries.dtype)
        else:
            scale = jnp.sqrt(queries.shape[-1]).astype(queries.dtype)
        scores = jnp.einsum("bhqd,bhkd->bhqk", queries, keys) / scale
        if self.config.use_swin_position_embeddings:
            scores = scores + self._bias_of_positions(position, *scores.shape[-2:]).astype(scores.dtype)
        scores = jnp.where(mask, scores.astype(jnp.float32), LOWEST)
        return jax.nn.softmax(scores) if self.sinkhorn_iters == 1 else sinkhorn(scores, mask, self.sinkhorn_iters)

    def _bias_of_positions(self, position: int | jax.Array, queries: int, keys: int) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(self.position_bias.embedding[...], position, queries)
        return rows.reshape(queries, -1, self.heads)[:, :keys].transpose(2, 0, 1)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        batch, length, size = x.shape
        return x.reshape(batch, length, self.heads, size // self.heads).swapaxes(1, 2)


def of_unit_length(x: jax.Array) -> jax.Array:
    """Vectors along the last axis, scaled to length 1."""
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-8)


def sinkhorn(scores: jax.Array, mask: jax.Array, iterations: int) -> jax.Array:
    """Attention weights (B, heads, Q, K) whose rows, then columns, then rows again are made to sum to 1 (Sander et al. 2022)."""
    for iteration in range(iterations):
        scores = scores - jax.nn.logsumexp(scores, axis=-2 if iteration % 2 else -1, keepdims=True)
        scores = jnp.where(mask, scores, LOWEST)
    return jnp.exp(scores)


class FeedForward(Branch):
    """A residual branch that works on each position alone: a (gated) hidden layer and a dense layer behind it."""

    def __init__(self, config: DalleBartConfig, stack: StackName, **common):
        size = config.d_model
        hidden_size = config.encoder_ffn_dim if stack == "encoder" else config.decoder_ffn_dim
        places = FEED_FORWARD_NORMS[config.ln_positions]
        super().__init__(config, places, stack, hidden_size, scale_middle=False, **common)
        gain = initial_gain(config, stack)
        self.gate = make_dense(config, size, hidden_size, gain, **common)
        if config.use_glu:
            self.value = make_dense(config, size, hidden_size, gain, **common)
        self.output = make_dense(config, hidden_size, size, gain, **common)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The stream ``x`` (B, L, d_model) with this branch added."""
        hidden_key, output_key = split_key(key, 2)
        entered = self.enter(x)
        hidden = activate(self.config.activation_function, self.gate(entered))
        if self.config.use_glu:
            hidden = hidden * self.value(entered)
        hidden = drop(apply_norm(self.middle_norm, hidden), self.config.activation_dropout, hidden_key)
        output = apply_norm(self.post_norm, self.output(hidden))
        return self.join(x, drop(output, self.config.dropout, output_key))


def activate(name: str, x: jax.Array) -> jax.Array:
    """The activation that transformers 4 knows by this name, or dalle-mini's "smelu"."""
    if name in ("gelu", "gelu_new"):
        return jax.nn.gelu(x, approximate=name == "gelu_new")
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return {"relu": jax.nn.relu, "silu": jax.nn.silu, "swish": jax.nn.silu, "smelu": smelu}[name](x)


@jax.custom_jvp
def smelu(x: jax.Array) -> jax.Array:
    """dalle-mini's own smooth relu, as its weights were trained: 1/4 below -1, and a derivative of 1 nearly everywhere.

    The paper's (Shamir et al. 2022) is 0 there, and its derivative is that of the function.
    """
    return jnp.where(x >= 1, x, jnp.square(jnp.where(x <= -1, 0, x) + 1) / 4)


@smelu.defjvp
def _smelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return smelu(x), jnp.where(x == -1, 0, jnp.where(x == 1, 1, tangent)).astype(tangent.dtype)
