"""DalleBart in Flax NNX: a BART that reads a caption and writes the codes of a picture.

What differs from the BART of Lewis et al. 2020, besides the arrangement of its blocks (`blocks.py`, `stack.py`):

- two vocabularies, hence two token tables and an output layer tied to neither: text goes in, image codes come out;
- positions count from 0 (BART starts at 2).

After dalle-mini 0.1.5, ``model/modeling.py``.
"""

from abc import abstractmethod

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.blocks import initial_normal, split_key
from minidalle.bart.config import DalleBartConfig
from minidalle.bart.stack import Stack, run_stack


class EncoderDecoder(nnx.Module):
    """What DalleBart and BART itself have in common: the way from a text through two stacks to logits.

    ``blocks`` is what ``encoder`` and ``decoder`` were built from.
    """

    blocks: DalleBartConfig
    encoder: Stack
    decoder: Stack

    def encode(self, text_ids: jax.Array, text_mask: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Encoder states (B, T, d_model) of texts; arguments and errors as in the call."""
        check_text(self.blocks, text_ids, text_mask)
        return run_stack(*nnx.split(self.encoder), text_ids, (as_attention_mask(text_mask),), dropout_key)

    def decode(
        self, states: jax.Array, text_mask: jax.Array, inputs: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits (B, L, rows of the decoder's table), float32, for inputs (B, L) that begin with the start token.

        Args:
            states: (B, T, d_model) from ``encode``.
            text_mask: (B, T).
            inputs: (B, L), already shifted: entry l is what stands *before* the token that logits l score.
            dropout_key: randomness for dropout, or None.
        """
        check_codes(self.blocks, inputs)
        length = inputs.shape[1]
        causal_mask = jnp.tril(jnp.ones((length, length), bool))
        layer_inputs = causal_mask, states, as_attention_mask(text_mask)
        return self.logits(run_stack(*nnx.split(self.decoder), inputs, layer_inputs, dropout_key))

    @abstractmethod
    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits (B, L, rows of the decoder's table), float32, of the decoder's states (B, L, d_model)."""

    def forward(
        self, text_ids: jax.Array, text_mask: jax.Array, targets: jax.Array, dropout_key: jax.Array | None
    ) -> jax.Array:
        """Logits of every target (B, L), each seeing the text and the targets before it."""
        encoder_key, decoder_key = split_key(dropout_key, 2)
        states = self.encode(text_ids, text_mask, dropout_key=encoder_key)
        inputs = shift_right(targets, self.blocks.decoder_start_token_id)
        return self.decode(states, text_mask, inputs, dropout_key=decoder_key)


class DalleBart(EncoderDecoder):
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
        self.config, self.blocks, self.dtype = config, config, dtype
        common = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        rows = config.image_vocab_size + 1  # the start token stands after the codes
        self.encoder = Stack(config, "encoder", config.encoder_vocab_size, config.max_text_length, **common)
        self.decoder = Stack(config, "decoder", rows, config.image_length, **common)
        initial = initial_normal(config.init_std)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else nnx.Linear(config.d_model, rows, use_bias=False, kernel_init=initial, **common)
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
        return self.forward(text_ids, text_mask, codes, dropout_key)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits (B, L, image_vocab_size + 1), float32, of the decoder's states (B, L, d_model)."""
        logits = self.decoder.embed_tokens.attend(hidden) if self.lm_head is None else self.lm_head(hidden)
        return logits.astype(jnp.float32)

    def head(self) -> jax.Array:
        """The matrix (d_model, image_vocab_size + 1) that turns states into logits."""
        return self.decoder.embed_tokens.embedding[...].T if self.lm_head is None else self.lm_head.kernel[...]


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
