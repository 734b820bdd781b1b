"""CLIP's objective: in a batch of pairs, each picture must find its caption and each caption its picture."""

import jax
import jax.numpy as jnp

LARGEST_SCALE = 100.0


def normalize(features: jax.Array) -> jax.Array:
    """Features (…, D) at length 1, in float32; a zero vector stays zero."""
    features = features.astype(jnp.float32)
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-8)


def temperature_scale(logit_scale: jax.Array) -> jax.Array:
    """The factor on cosine similarities, exp(logit_scale), at most 100 (Radford et al. 2021, section 2.5)."""
    return jnp.minimum(jnp.exp(jnp.asarray(logit_scale, jnp.float32)), LARGEST_SCALE)


def contrastive_loss(
    image_features: jax.Array, text_features: jax.Array, logit_scale: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Symmetric cross entropy over the similarities of all pictures to all captions of a batch.

    image_features, text_features: (B, D), pair by pair, not normalised. logit_scale: the logarithm of the scale.
    Returns the loss in nats, log(B) for features that know nothing, and as metrics how often the right caption is
    first (`image_accuracy`), the right picture (`text_accuracy`), and the scale.
    """
    scale = temperature_scale(logit_scale)
    logits = scale * normalize(image_features) @ normalize(text_features).T  # (pictures, captions)
    right = jnp.arange(logits.shape[0])
    to_text = -jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    to_image = -jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    metrics = {
        "image_accuracy": jnp.mean(logits.argmax(axis=1) == right),
        "text_accuracy": jnp.mean(logits.argmax(axis=0) == right),
        "scale": scale,
    }
    return (to_text.mean() + to_image.mean()) / 2, metrics
