"""Optimizers: AdamW, Adafactor and Muon, each with warmup, a cosine decay and clipped gradients.

Layers here are stacked, layer axis first, so the number of axes alone does not tell a matrix from a bias: names do.
Parameters called `…bias…` or `…scale…` are vectors and are never decayed; whatever else has two axes or more is decayed.
"""

from typing import Any

import jax
import optax

from minidalle.training.tree import path_name

OPTIMIZERS = ("adamw", "adafactor", "muon")


def learning_rate_schedule(peak: float, steps: int, warmup_steps: int, final_fraction: float = 0.0) -> optax.Schedule:
    """Linear warmup from 0 to `peak` over `warmup_steps`, then half a cosine down to `final_fraction · peak` at `steps`."""
    if steps < 1 or not 0 <= warmup_steps <= steps:
        raise ValueError(f"warmup_steps is {warmup_steps} and steps is {steps}; expected 0 <= warmup_steps <= steps")
    if warmup_steps == steps:
        return optax.linear_schedule(0.0, peak, steps)
    cosine = optax.cosine_decay_schedule(peak, steps - warmup_steps, alpha=final_fraction)
    if warmup_steps == 0:
        return cosine
    # One step more than nothing at step 0: a first update of size zero would be a wasted batch.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, cosine], [warmup_steps])


def make_optimizer(
    name: str,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    accumulate: int = 1,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    final_fraction: float = 0.0,
) -> optax.GradientTransformation:
    """An optax optimizer: clipped gradients, the named rule, decay of matrices only, warmup and cosine.

    name: "adamw" (Loshchilov & Hutter 2019), "adafactor" (Shazeer & Stern 2018, factored second moments), or "muon"
        (Jordan et al. 2024: orthogonalised momentum for the matrices inside layers, AdamW for everything else; its
        updates are scaled to AdamW's size, so that one learning rate serves both).
    learning_rate: the peak. steps, warmup_steps: counted in batches, as `fit` counts them.
    weight_decay: decoupled, multiplied by the learning rate. clip_norm: largest global gradient norm, None for no limit.
    accumulate: gradients of so many batches are averaged into one update.

    Raises ValueError for an unknown name or a number out of range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; expected one of {', '.join(OPTIMIZERS)}")
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; expected 1 or more batches for an update")
    if learning_rate <= 0 or weight_decay < 0 or (clip_norm is not None and clip_norm <= 0):
        raise ValueError(
            f"learning_rate {learning_rate}, weight_decay {weight_decay}, clip_norm {clip_norm}: "
            "expected a positive learning_rate, a weight_decay of 0 or more, and a positive clip_norm or None"
        )
    schedule = learning_rate_schedule(
        learning_rate, max(steps // accumulate, 1), warmup_steps // accumulate, final_fraction
    )
    if name == "adamw":
        rule = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=is_matrix)
    elif name == "adafactor":
        rule = optax.adafactor(schedule, multiply_by_parameter_scale=False, momentum=b1, clipping_threshold=1.0)
    else:
        rule = optax.contrib.muon(
            schedule,
            adam_b1=b1,
            adam_b2=b2,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=muon_dimensions,
        )
    if name != "adamw":
        # optax's own decay leaves the learning rate out in adafactor and takes in biases in muon's AdamW half.
        rule = optax.chain(rule, decay_with_schedule(schedule, weight_decay))
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    optimizer = optax.chain(*parts, rule)
    return optimizer if accumulate == 1 else optax.MultiSteps(optimizer, accumulate).gradient_transformation()


def is_matrix(parameters: Any) -> Any:
    """A tree of booleans: True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _decays(path_name(path), leaf), parameters)


def muon_dimensions(parameters: Any) -> Any:
    """A tree that says which axes Muon takes as the matrix: the last two of kernels, None for what AdamW keeps.

    Embeddings, positions and output heads are left to AdamW, as Muon's authors advise.
    """

    def dimensions(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        outer = any(word in name for word in ("embed", "position", "head", "projection"))
        if outer or not _decays(name, leaf) or leaf.ndim > 3:
            return None
        return optax.contrib.MuonDimensionNumbers(reduction_axis=leaf.ndim - 2, output_axis=leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, parameters)


def decay_with_schedule(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Add `− learning rate · weight_decay · parameter` to updates that already carry the learning rate and its sign."""

    def update(updates: Any, state: optax.ScaleByScheduleState, params: Any) -> tuple[Any, optax.ScaleByScheduleState]:
        rate = schedule(state.count) * weight_decay
        decayed = jax.tree.map(lambda u, p, matrix: u - rate * p if matrix else u, updates, params, is_matrix(params))
        return decayed, optax.ScaleByScheduleState(count=state.count + 1)

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jax.numpy.zeros([], jax.numpy.int32))

    return optax.GradientTransformation(init, update)


def _decays(name: str, leaf: Any) -> bool:
    last = name.rsplit(".", 1)[-1]
    return leaf.ndim >= 2 and "bias" not in last and "scale" not in last
