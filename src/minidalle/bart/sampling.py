"""Drawing pictures, code by code, in one compiled loop that never leaves the device.

- The encoder, and each layer's keys and values of the caption, are computed once for every distinct caption.
- Each layer has its own weights and its own cache, and the layers are written out one after the other: a scan over
  depth would copy every layer's slice of the weights and of the cache again at each step.
- A cache holds room for the whole picture from the start and is updated in place.
- Conditional and unconditional rows run in one batch; with guidance 1 there are no unconditional ones.
- Guidance, temperature, k and p are values that the compiled loop reads, so that turning them compiles nothing anew.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from minidalle.bart.devices import head_sharding, row_sharding
from minidalle.bart.model import DalleBart, as_attention_mask, check_range, check_text
from minidalle.bart.stack import DecoderLayer
from minidalle.bart.turned import Rounded, expect_turned, multiply_turned, turn, turn_kernels


class Settings(NamedTuple):
    """How a code is drawn from logits; arrays, or None where the filter is off."""

    guidance: jax.Array
    temperature: jax.Array | None  # None: the likeliest code
    top_k: jax.Array | None
    top_p: jax.Array | None


class Prompt(NamedTuple):
    """What stays the same through all steps; rows R are the B pictures, then with guidance their B unconditional twins."""

    layers: tuple[nnx.State, ...]  # each decoder layer's weights, its matrices turned
    head: jax.Array | Rounded  # (codebook, d_model): the output layer's columns of real codes, turned
    cross: tuple[
        tuple[jax.Array, jax.Array], ...
    ]  # each layer's keys and values of the caption, (R, heads, T, head size)
    text_mask: jax.Array  # (R, 1, 1, T)
    row_keys: jax.Array  # (B,) randomness of each picture
    prefix_length: jax.Array  # codes given beforehand


class Progress(NamedTuple):
    """What a step changes."""

    codes: jax.Array  # (B, L) int32, filled from the left
    caches: tuple[tuple[jax.Array, jax.Array], ...]  # each layer's keys and values so far, (R, heads, L, head size)
    finite: jax.Array  # (B,) whether all logits so far were finite


def sample(
    model: DalleBart,
    text_ids: jax.Array,
    text_mask: jax.Array,
    uncond_ids: jax.Array,
    uncond_mask: jax.Array,
    *,
    key: jax.Array,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prefix_codes: jax.Array | None = None,
    codebook_size: int | None = None,
    int8: bool = False,
) -> jax.Array:
    """Draw one picture's codes for every row of captions.

    Several candidates for a caption are several equal rows. A picture depends on the key, on its caption and on which of
    the equal rows it is, and not on the other captions in the batch.

    Args:
        model: any DalleBart.
        text_ids, text_mask: (B, T) captions.
        uncond_ids, uncond_mask: (B, T) or (1, T), the tokenized empty caption; not read when guidance is 1.
        key: one key; or (B,) keys, one for each picture, as ``candidate_keys`` makes them.
        guidance: scale s in ``uncond + s * (cond - uncond)``; 1 is none.
        temperature: logits are divided by it; 0 takes the likeliest code.
        top_k: draw only from the k likeliest codes; None from all.
        top_p: draw only from the likeliest codes that together reach this probability; None from all.
        prefix_codes: (P,) or (B, P), the picture's first codes, to be completed.
        codebook_size: codes that the picture decoder knows; None for all that the model knows.
        int8: multiply in 8 bits what a step multiplies with its matrices (``turned``): faster for few pictures on a CPU that
            has instructions for it, and not the same pictures; ``benchmarks/rounding.py`` counts how many codes differ.

    Returns:
        (B, image_length) codes, int32.

    Raises:
        ValueError: a setting is out of its range or an input does not fit the model.
        FloatingPointError: the model's logits are not finite, so that no code can be drawn.

    The order temperature, top-k, top-p is the original's (transformers' Flax warpers); the original draws from all
    logits, also from those that are no codes.
    """
    steps = stream(
        model,
        text_ids,
        text_mask,
        uncond_ids,
        uncond_mask,
        key=key,
        guidance=guidance,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        prefix_codes=prefix_codes,
        codebook_size=codebook_size,
        int8=int8,
        every=model.config.image_length,
    )
    *_, (_, codes) = steps
    return codes


def stream(
    model: DalleBart,
    text_ids: jax.Array,
    text_mask: jax.Array,
    uncond_ids: jax.Array,
    uncond_mask: jax.Array,
    *,
    key: jax.Array,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    prefix_codes: jax.Array | None = None,
    codebook_size: int | None = None,
    int8: bool = False,
    every: int = 8,
) -> Iterator[tuple[int, jax.Array]]:
    """The same pictures as ``sample`` with the same arguments, shown while they are drawn.

    Args:
        every: codes between two looks; the other arguments and errors are those of ``sample``.

    Returns:
        An iterator of ``(step, codes)`` with the first ``step`` codes of each picture, (B, step); the last has all.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    length = model.config.image_length
    known = model.config.codebook_size
    codebook = known if codebook_size is None else min(codebook_size, known)
    if codebook < 1:
        raise ValueError(f"codebook_size must be at least 1, got {codebook_size}")
    settings = check_settings(guidance, temperature, top_k, top_p, codebook)
    guided = guidance != 1

    text_ids, text_mask = np.asarray(text_ids), np.asarray(text_mask)
    check_text(model.config, text_ids, text_mask)
    pictures = text_ids.shape[0]
    if pictures == 0:
        raise ValueError("there are no captions to draw; give at least one row of text_ids")
    row_keys = _row_keys(key, text_ids, text_mask)
    prefix = _check_prefix(prefix_codes, pictures, length, codebook)
    if guided:
        uncond_ids, uncond_mask = np.asarray(uncond_ids), np.asarray(uncond_mask)
        check_text(model.config, uncond_ids, uncond_mask)
        if uncond_ids.shape not in (text_ids.shape, (1, text_ids.shape[1])):
            raise ValueError(f"uncond_ids must be {text_ids.shape} or one such row, got {uncond_ids.shape}")
        text_ids = np.concatenate([text_ids, np.broadcast_to(uncond_ids, text_ids.shape)])
        text_mask = np.concatenate([text_mask, np.broadcast_to(uncond_mask, text_mask.shape)])

    structure, parameters = nnx.split(model)
    sharding = row_sharding(parameters, pictures)
    captions, rows = _distinct(text_ids, text_mask)
    rows, row_keys = jax.device_put((rows, row_keys), sharding)
    prompt = _read_captions(
        structure,
        parameters,
        text_ids[captions],
        text_mask[captions],
        rows,
        row_keys,
        prefix.shape[1],
        codebook,
        bool(int8),
    )
    codes = jnp.zeros((pictures, length), jnp.int32).at[:, : prefix.shape[1]].set(prefix)
    progress = _start(model, jax.device_put(codes, sharding), len(rows), sharding)

    def steps(progress: Progress) -> Iterator[tuple[int, jax.Array]]:
        looks = [*range(prefix.shape[1] + every, length, every), length]
        for first, last in zip([0, *looks], looks, strict=False):
            progress = _advance(structure, parameters, prompt, progress, first, last, settings)
            if not np.asarray(progress.finite).all():
                raise FloatingPointError(
                    "the model's logits are not finite, so no code can be drawn: its weights hold NaN or infinity, or "
                    "float16 overflowed; load the weights again, or compute in float32 or bfloat16"
                )
            # Cut in NumPy: JAX would compile a cut of its own for every length. Whole ones stay on their devices.
            yield last, progress.codes if last == length else jnp.asarray(np.asarray(progress.codes)[:, :last])

    return steps(progress)


def candidate_keys(key: jax.Array, candidates: jax.Array) -> jax.Array:
    """The keys that ``sample`` gives to a caption's candidates of these numbers, to draw them in several batches."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(candidates))


def guide(conditional: jax.Array, unconditional: jax.Array, guidance: float | jax.Array) -> jax.Array:
    """Logits pushed from what any caption would give towards what this one gives (Ho and Salimans 2022, eq. 6).

    The original's ``condition_scale``; 0 forgets the caption, 1 changes nothing.
    """
    return unconditional + guidance * (conditional - unconditional)


def keep_top_k(logits: jax.Array, k: int | jax.Array) -> jax.Array:
    """Logits (..., V) with all but the k largest at -inf; exactly k survive, ties going to the lower index."""
    return _keep_largest(logits, jnp.ones_like(logits), jnp.asarray(k, jnp.float32))


def keep_top_p(logits: jax.Array, p: float | jax.Array) -> jax.Array:
    """Logits (..., V) with all but the nucleus at -inf: the fewest likeliest that reach probability p together.

    Holtzman et al. 2020; the likeliest always stays, ties go to the lower index, and p = 1 keeps everything.
    """
    # Rounded probabilities may reach 1 before the last one is counted.
    target = jnp.where(jnp.asarray(p) >= 1, jnp.inf, jnp.asarray(p, jnp.float32))
    return _keep_largest(logits, jax.nn.softmax(logits), target)


@jax.jit  # so that a call from outside a compiled function does not compile the loop anew
def _keep_largest(logits: jax.Array, weights: jax.Array, target: jax.Array) -> jax.Array:
    """Logits, from the largest down, until their weights have reached the target; -inf after that.

    The smallest one kept is found bit by bit: floats, read as integers, keep their order. On a CPU that takes a
    fifteenth of the time of sorting 16,384 logits, and unlike ``lax.top_k`` it needs no k at compile time.
    """
    logits = jnp.where(logits == 0, 0.0, logits)  # -0.0 equals 0.0 but its bits do not
    bits = jax.lax.bitcast_convert_type(logits.astype(jnp.float32), jnp.uint32)
    order = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))

    def try_bit(place: jax.Array, lowest: jax.Array) -> jax.Array:
        higher = lowest | (jnp.uint32(1 << 31) >> place.astype(jnp.uint32))
        reached = jnp.where(order >= higher, weights, 0).sum(-1, keepdims=True) >= target
        return jnp.where(reached, higher, lowest)

    lowest = jax.lax.fori_loop(0, 32, try_bit, jnp.zeros_like(order[..., :1]))
    above, tied = order > lowest, order == lowest
    weight_above = jnp.where(above, weights, 0).sum(-1, keepdims=True)
    tied_weights = jnp.where(tied, weights, 0)
    weight_before = weight_above + jnp.cumsum(tied_weights, axis=-1) - tied_weights
    return jnp.where(above | (tied & (weight_before < target)), logits, -jnp.inf)


def warp(logits: jax.Array, settings: Settings) -> jax.Array:
    """Logits (..., V) as a code is drawn from them: temperature, then top-k, then top-p; what is ruled out is -inf.

    The order is the original's. Without a temperature the likeliest alone is left.
    """
    if settings.temperature is None:
        return keep_top_k(logits, 1)
    logits = logits / settings.temperature
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    return logits


def draw(row_keys: jax.Array, logits: jax.Array, settings: Settings) -> jax.Array:
    """One code for each row of logits (B, V), int32, by chance from what ``warp`` leaves of them."""
    if settings.temperature is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(row_keys, warp(logits, settings)).astype(jnp.int32)


def check_settings(
    guidance: float, temperature: float, top_k: int | None, top_p: float | None, codebook_size: int
) -> Settings:
    """Settings as arrays.

    Raises:
        ValueError: guidance is not finite, temperature negative, k outside [1, codebook_size], or p outside (0, 1].
    """
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be a finite number, got {guidance}; 1 is none, 3 to 10 is usual")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be 0 (always the likeliest code) or more, got {temperature}")
    if top_k is not None and (top_k != int(top_k) or not 1 <= top_k <= codebook_size):
        raise ValueError(f"top_k must be a whole number in [1, {codebook_size} codes] or None, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1] or be None, got {top_p}")
    return Settings(
        guidance=jnp.float32(guidance),
        temperature=None if temperature == 0 else jnp.float32(temperature),
        top_k=None if top_k is None else jnp.int32(top_k),
        top_p=None if top_p is None else jnp.float32(top_p),
    )


def _row_keys(key: jax.Array, text_ids: np.ndarray, text_mask: np.ndarray) -> jax.Array:
    """One key for each picture: the given ones, or the given one with the picture's number among equal captions."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 1 and key.shape[0] == text_ids.shape[0]:
        return key
    if key.ndim:
        raise ValueError(f"key must be one key or {text_ids.shape[0]}, one for each caption; got {key.shape}")
    seen: dict[int, int] = {}
    numbers = []
    for caption in _distinct(text_ids, text_mask)[1]:
        numbers.append(seen.get(caption, 0))
        seen[caption] = numbers[-1] + 1
    return candidate_keys(key, np.array(numbers))


def _distinct(text_ids: np.ndarray, text_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct caption first stands, and for every row which of them it is."""
    together = np.concatenate([text_ids, text_mask], axis=1)
    _, first, rows = np.unique(together, axis=0, return_index=True, return_inverse=True)
    return first, rows.reshape(-1).astype(np.int32)


def _check_prefix(prefix_codes: jax.Array | None, pictures: int, length: int, codebook: int) -> np.ndarray:
    if prefix_codes is None:
        return np.zeros((pictures, 0), np.int32)
    prefix = np.asarray(prefix_codes)
    if prefix.ndim == 1:
        prefix = np.broadcast_to(prefix, (pictures, prefix.size))
    if prefix.ndim != 2 or prefix.shape[0] != pictures or prefix.shape[1] > length:
        raise ValueError(f"prefix_codes must be ({pictures}, at most {length}) or one such row, got {prefix.shape}")
    check_range("prefix_codes", prefix, codebook, "codebook_size")
    return prefix


@functools.partial(jax.jit, static_argnames=("structure", "codebook", "int8"))
def _read_captions(
    structure: nnx.GraphDef,
    parameters: nnx.State,
    text_ids: jax.Array,
    text_mask: jax.Array,
    rows: jax.Array,
    row_keys: jax.Array,
    prefix_length: jax.Array,
    codebook: int,
    int8: bool = False,
) -> Prompt:
    """All that is computed once: distinct captions (U, T) read and spread to rows (R,), layers taken apart and rounded."""
    model = nnx.merge(structure, parameters)
    states = model.encode(text_ids, text_mask)
    layer_structure, stacked = nnx.split(model.decoder.layers)

    def layer_weights(layer: int) -> nnx.State:
        # Matrices in the type that is computed with, so that no step has to convert them.
        return jax.tree.map(lambda p: p[layer].astype(model.dtype) if p.ndim > 2 else p[layer], stacked)

    layers = tuple(layer_weights(layer) for layer in range(model.config.decoder_layers))
    cross = [nnx.merge(layer_structure, weights).cross_attention.keys_and_values(states) for weights in layers]
    return Prompt(
        layers=tuple(turn_kernels(weights, int8=int8) for weights in layers),
        head=turn(model.head()[:, :codebook].astype(model.dtype), int8=int8),
        cross=tuple((keys[rows], values[rows]) for keys, values in cross),
        text_mask=as_attention_mask(text_mask)[rows],
        row_keys=row_keys,
        prefix_length=prefix_length,
    )


def _start(model: DalleBart, codes: jax.Array, rows: int, sharding: NamedSharding | None) -> Progress:
    config = model.config
    heads = config.decoder_attention_heads
    shape = (rows, heads, config.image_length, config.d_model // heads)
    zeros = functools.partial(jnp.zeros, shape, model.dtype, device=head_sharding(sharding, heads))
    caches = tuple((zeros(), zeros()) for _ in range(config.decoder_layers))
    return Progress(codes, caches, jnp.ones(codes.shape[0], bool, device=sharding))


@functools.partial(jax.jit, static_argnames="structure", donate_argnames="progress")
def _advance(
    structure: nnx.GraphDef,
    parameters: nnx.State,
    prompt: Prompt,
    progress: Progress,
    first: jax.Array,
    last: jax.Array,
    settings: Settings,
) -> Progress:
    """Draw the codes at positions first ≤ position < last."""
    model = nnx.merge(structure, parameters)
    layer_structure, _ = nnx.split(model.decoder.layers)
    layers = [expect_turned(nnx.merge(layer_structure, weights)) for weights in prompt.layers]
    pictures, length = progress.codes.shape
    twins = prompt.text_mask.shape[0] // pictures  # 2 with guidance

    def step(position: jax.Array, progress: Progress) -> Progress:
        before = jax.lax.dynamic_index_in_dim(progress.codes, jnp.maximum(position - 1, 0), axis=1)
        inputs = jnp.where(position == 0, model.config.decoder_start_token_id, before)
        x = model.decoder.embed(jnp.tile(inputs, (twins, 1)), position[None])  # (R, 1, d_model)
        caches = []
        for number, (layer, cache, cross) in enumerate(zip(layers, progress.caches, prompt.cross, strict=True)):
            x, cache = _step_layer(layer, x, cache, cross, position, prompt.text_mask)
            x = model.decoder.after_layer(number, x)
            caches.append(cache)
        logits = multiply_turned(x[:, 0], prompt.head).astype(jnp.float32)
        if twins == 2:
            logits = guide(logits[:pictures], logits[pictures:], settings.guidance)
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(prompt.row_keys, position)
        given = jax.lax.dynamic_index_in_dim(progress.codes, position, axis=1, keepdims=False)
        code = jnp.where(position < prompt.prefix_length, given, draw(step_keys, logits, settings))
        codes = jax.lax.dynamic_update_slice_in_dim(progress.codes, code[:, None], position, axis=1)
        return Progress(codes, tuple(caches), progress.finite & jnp.isfinite(logits).all(axis=1))

    return jax.lax.fori_loop(first, last, step, progress)


def _step_layer(
    layer: DecoderLayer,
    x: jax.Array,
    cache: tuple[jax.Array, jax.Array],
    cross: tuple[jax.Array, jax.Array],
    position: jax.Array,
    text_mask: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The decoder layer at one position: ``DecoderLayer`` with keys and values remembered instead of computed."""
    attention, reading = layer.self_attention, layer.cross_attention
    hidden = attention.enter(x)
    keys, values = (
        jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=2)
        for old, new in zip(cache, attention.keys_and_values(hidden), strict=True)
    )
    seen = jnp.arange(keys.shape[2]) <= position
    x = attention.join(x, attention.attend(hidden, keys, values, seen, position=position))
    x = reading.join(x, reading.attend(reading.enter(x), *cross, text_mask, position=position))
    return layer.feed_forward(x), (keys, values)
