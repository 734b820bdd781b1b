"""What the [train] sections of all JAX models share, handed on to the optimizer and the loop."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from minidalle.training.loop import fit
from minidalle.training.optimizer import make_optimizer
from minidalle.training.step import LossFunction

OPTIMIZER = ("learning_rate", "steps", "warmup_steps", "weight_decay", "clip_norm")
INTERVALS = ("save_every", "log_every", "evaluate_every")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def fit_with(
    settings: Mapping[str, Any], loss_fn: LossFunction, model: nnx.Module, batches: Callable[[int], Any], **options: Any
) -> nnx.Module:
    """`fit` with the optimizer, the length and the intervals of a recipe's [train]; `options` are the rest of `fit`'s.

    settings: optimizer, ema_decay (0 for no average), all of `OPTIMIZER` and `INTERVALS`, and, where the recipe has them,
        accumulate and stop_at (a step before the schedule's end, 0 for the end).

    Raises what `make_optimizer` and `fit` raise.
    """
    schedule = {name: settings[name] for name in OPTIMIZER}
    return fit(
        loss_fn,
        model,
        make_optimizer(settings["optimizer"], **schedule, accumulate=settings.get("accumulate", 1)),
        batches,
        steps=settings.get("stop_at") or settings["steps"],
        ema_decay=settings["ema_decay"] or None,
        **{name: settings[name] for name in INTERVALS},
        **options,
    )


def compute_dtype(settings: Mapping[str, Any]) -> Any:
    """What is computed in, by the setting `precision`; ValueError when it is neither "float32" nor "bfloat16"."""
    if settings["precision"] not in DTYPES:
        raise ValueError(f'[train] precision is {settings["precision"]!r}; expected "float32" or "bfloat16"')
    return DTYPES[settings["precision"]]
