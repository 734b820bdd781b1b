"""BART itself (Lewis et al. 2020): reads a damaged text and writes the whole one, in one vocabulary.

Its blocks are those of DalleBart, in the arrangement of 2019: a norm after each sum, biases everywhere, plain feed-forward
blocks. One table of tokens serves both stacks and the logits.

After transformers' `models/bart/modeling_bart.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.config import DalleBartConfig
from minidalle.bart.model import EncoderDecoder, shift_right
from minidalle.bart.stack import Stack

POSITION_OFFSET = 2  # rows of BART's position tables before the first position: they stood for padding in fairseq


@dataclasses.dataclass(frozen=True)
class BartConfig:
    """Sizes of a BART, named as in its original ``config.json``; defaults are transformers', those of bart-large.

    Raises:
        ValueError: a size or rate is outside its range, see `DalleBartConfig`, or a start token is outside the vocabulary.
    """

    vocab_size: int = 50265
    max_position_embeddings: int = 1024  # tokens a text
    d_model: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int = 2

    def __post_init__(self) -> None:
        self.blocks()

    def blocks(self) -> DalleBartConfig:
        """The same network in the words of DalleBart: what its blocks are built from."""
        shared = {field.name for field in dataclasses.fields(DalleBartConfig)} & dataclasses.asdict(self).keys()
        return DalleBartConfig(
            **{name: getattr(self, name) for name in shared},
            encoder_vocab_size=self.vocab_size,
            image_vocab_size=self.vocab_size - 1,  # DalleBart counts one row more, for its start token
            max_text_length=self.max_position_embeddings,
            image_length=self.max_position_embeddings,
            ln_positions="postln",
            use_glu=False,
            use_bias=True,
            tie_word_embeddings=True,
            gradient_checkpointing=False,  # what recomputing saves in memory costs a third of the time
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BartConfig":
        """A configuration from a parsed ``config.json``; keys that say nothing of the network are dropped.

        Raises:
            ValueError: it is another model's, its tables are not tied, or a value is refused.
        """
        if values.get("model_type", "bart") != "bart":
            raise ValueError(f"this config is of model_type {values['model_type']!r}; BART expects 'bart'")
        if not values.get("tie_word_embeddings", True):
            raise ValueError("tie_word_embeddings must be true: BART's one table serves both stacks and the logits")
        fields = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in fields})

    def to_dict(self) -> dict[str, Any]:
        """All fields with ``model_type``, ready for ``config.json``."""
        return {"model_type": "bart", **dataclasses.asdict(self)}


class Constant(nnx.Variable):
    """What is saved with a model and not trained."""


class Bart(EncoderDecoder):
    """Scores of each token of a text, given a damaged one and the tokens before it.

    Args:
        config: sizes.
        rngs: randomness for the initial weights (stream ``params``).
        dtype: what is computed in; norms and softmax use float32 inside, logits are float32 always.
        param_dtype: what weights are stored in.
    """

    def __init__(
        self, config: BartConfig, *, rngs: nnx.Rngs, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32
    ):
        self.config, self.blocks, self.dtype = config, config.blocks(), dtype
        common = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        rows, positions, offset = config.vocab_size, config.max_position_embeddings, POSITION_OFFSET
        self.decoder = Stack(self.blocks, "decoder", rows, positions, offset=offset, **common)
        table = self.decoder.embed_tokens
        self.encoder = Stack(self.blocks, "encoder", rows, positions, offset=offset, embed_tokens=table, **common)
        self.final_logits_bias = Constant(jnp.zeros((1, config.vocab_size), param_dtype))

    def __call__(
        self, text_ids: jax.Array, text_mask: jax.Array, targets: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of every target token, each seeing the damaged text and the targets before it.

        Args:
            text_ids, text_mask: (B, T) the damaged text, and 1 where a token stands.
            targets: (B, L) the whole text, padded with any token; the decoder reads it shifted behind the start token.
            dropout_key: randomness for dropout, or None for none.

        Returns:
            (B, L, vocab_size), float32.

        Raises:
            ValueError: a text is longer than ``max_position_embeddings``, an id is outside the vocabulary, or a mask row is
                all zero. Inside ``jax.jit`` values cannot be looked at.
        """
        return self.forward(text_ids, text_mask, targets, dropout_key)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits (B, L, vocab_size), float32, of the decoder's states (B, L, d_model)."""
        scores = self.decoder.embed_tokens.attend(hidden).astype(jnp.float32)
        return scores + self.final_logits_bias[...].astype(jnp.float32)


def denoising_loss(
    model: Bart,
    text_ids: jax.Array,
    text_mask: jax.Array,
    targets: jax.Array,
    target_mask: jax.Array,
    *,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Mean cross entropy in nats of the whole text's tokens, padding left out (Lewis et al. 2020, section 2).

    Args:
        model: the BART.
        text_ids, text_mask: (B, T) the damaged text.
        targets, target_mask: (B, L) the whole text; where the mask is 0, the target does not count.
        dropout_key: randomness for dropout, or None.

    Returns:
        A scalar.
    """
    logits = model(text_ids, text_mask, targets, dropout_key=dropout_key)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (losses * target_mask).sum() / jnp.maximum(target_mask.sum(), 1)


def repair(model: Bart, text_ids: jax.Array, text_mask: jax.Array, length: int) -> jax.Array:
    """The text that the model writes for a damaged one when it takes the likeliest token each time (greedy search).

    Every step computes all positions anew, which costs little for captions; a cache as in `minidalle.bart.sampling` would
    compute one.

    Args:
        model: the BART.
        text_ids, text_mask: (B, T) the damaged texts.
        length: how many tokens are written at most.

    Returns:
        (B, length) int32: the text with its `bos_token_id` and `eos_token_id` as in training, then `pad_token_id`.

    Raises:
        ValueError: `length` is not between 1 and ``max_position_embeddings``; or as in the model's call.
    """
    if not 1 <= length <= model.config.max_position_embeddings:
        raise ValueError(
            f"length is {length}; this model writes 1 to max_position_embeddings = "
            f"{model.config.max_position_embeddings} tokens"
        )
    return _write(*nnx.split(model), model.encode(text_ids, text_mask), text_mask, length)


@functools.partial(jax.jit, static_argnames=("structure", "length"))
def _write(
    structure: nnx.GraphDef, parameters: nnx.State, states: jax.Array, text_mask: jax.Array, length: int
) -> jax.Array:
    model = nnx.merge(structure, parameters)
    config = model.config

    def write(position: jax.Array, written: jax.Array) -> jax.Array:
        inputs = shift_right(written, config.decoder_start_token_id)
        best = model.decode(states, text_mask, inputs)[:, position].argmax(axis=-1)
        ended = (written == config.eos_token_id).any(axis=1)
        return written.at[:, position].set(jnp.where(ended, config.pad_token_id, best))

    empty = jnp.full((len(states), length), config.pad_token_id, jnp.int32)
    return jax.lax.fori_loop(0, length, write, empty)
