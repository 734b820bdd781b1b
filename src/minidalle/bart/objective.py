"""What DalleBart is trained for: guess each code of the picture from the caption and the codes before it.

Pure functions of arrays and keys. Three of them spoil the input on purpose: blank captions teach the unconditional
branch that guidance needs, wrong codes before the present one make the model look at the caption again, and hidden
words keep it from knowing a caption by any one of them.
"""

import jax
import jax.numpy as jnp
import optax

from minidalle.bart.model import DalleBart


def cross_entropy(logits: jax.Array, codes: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Mean cross entropy in nats over all positions; the original's loss, which has no mask and no smoothing.

    Args:
        logits: (B, L, V) scores.
        codes: (B, L) the right answers.
        label_smoothing: this share of the target is spread evenly over all V entries (Szegedy et al. 2016).

    Returns:
        A scalar.
    """
    right = optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean()
    if label_smoothing == 0:
        return right
    even = -jax.nn.log_softmax(logits).mean()
    return (1 - label_smoothing) * right + label_smoothing * even


def blank_captions(
    key: jax.Array,
    text_ids: jax.Array,
    text_mask: jax.Array,
    blank_ids: jax.Array,
    blank_mask: jax.Array,
    probability: float,
) -> tuple[jax.Array, jax.Array]:
    """Replace whole captions by the empty one, for classifier-free guidance (Ho and Salimans 2022).

    Args:
        key: randomness.
        text_ids, text_mask: (B, T).
        blank_ids, blank_mask: (T,) or (1, T), the tokenized empty caption.
        probability: share of rows replaced; each row is drawn by itself.

    Returns:
        The new ids and mask, (B, T) each.
    """
    blank = jax.random.bernoulli(key, probability, (text_ids.shape[0], 1))
    return jnp.where(blank, blank_ids, text_ids), jnp.where(blank, blank_mask, text_mask)


def corrupt_codes(key: jax.Array, codes: jax.Array, codebook_size: int, probability: float) -> jax.Array:
    """Replace single codes by random ones, as ``pkeep`` does in taming-transformers (``cond_transformer.py``).

    Args:
        key: randomness.
        codes: (B, L).
        codebook_size: the random codes are drawn evenly from [0, codebook_size).
        probability: share of codes drawn anew (1 - pkeep); one of them may fall on the old code again.

    Returns:
        (B, L) codes. Only the decoder's input is spoiled so; the target stays.
    """
    where_key, what_key = jax.random.split(key)
    random_codes = jax.random.randint(what_key, codes.shape, 0, codebook_size, codes.dtype)
    return jnp.where(jax.random.bernoulli(where_key, probability, codes.shape), random_codes, codes)


def hide_tokens(
    key: jax.Array, text_ids: jax.Array, text_mask: jax.Array, probability: float, first_word_id: int = 3
) -> jax.Array:
    """Take single tokens of a caption out of sight, so that the model learns what each word brings by itself.

    Args:
        key: randomness.
        text_ids, text_mask: (B, T).
        probability: share of tokens hidden, each drawn by itself.
        first_word_id: ids below it (``<s>``, ``<pad>``, ``</s>``) are never hidden.

    Returns:
        The new mask, (B, T).
    """
    hidden = jax.random.bernoulli(key, probability, text_mask.shape) & (text_ids >= first_word_id)
    return jnp.where(hidden, 0, text_mask)


def loss(
    model: DalleBart,
    text_ids: jax.Array,
    text_mask: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    blank_ids: jax.Array | None = None,
    blank_mask: jax.Array | None = None,
    blank_probability: float = 0.0,
    hide_probability: float = 0.0,
    code_corruption: float = 0.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """The training loss, or with ``key=None`` the evaluation loss: nothing dropped, blanked, hidden or corrupted.

    Args:
        model: any DalleBart.
        text_ids, text_mask: (B, T).
        codes: (B, L), the pictures.
        key: randomness for dropout, blanking, hiding and corruption.
        blank_ids, blank_mask: the tokenized empty caption; needed when ``blank_probability`` is above 0.
        blank_probability, hide_probability, code_corruption, label_smoothing: see the functions above.

    Returns:
        A scalar in nats for each code.

    Raises:
        ValueError: blanking is asked for without a blank caption.
    """
    inputs, dropout_key = codes, None
    if key is not None:
        dropout_key, blank_key, hide_key, corruption_key = jax.random.split(key, 4)
        if hide_probability > 0:
            text_mask = hide_tokens(hide_key, text_ids, text_mask, hide_probability)
        if blank_probability > 0:
            if blank_ids is None or blank_mask is None:
                raise ValueError("blank_probability is above 0, so the tokenized empty caption is needed: blank_ids")
            text_ids, text_mask = blank_captions(
                blank_key, text_ids, text_mask, blank_ids, blank_mask, blank_probability
            )
        if code_corruption > 0:
            inputs = corrupt_codes(corruption_key, codes, model.config.codebook_size, code_corruption)
    logits = model(text_ids, text_mask, inputs, dropout_key=dropout_key)
    return cross_entropy(logits, codes, label_smoothing)
