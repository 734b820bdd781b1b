"""Names for the leaves of a parameter tree, so that optimizer, checkpoint and export all speak of the same thing."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as a dotted name, `text.layers.query.kernel`, without the `.value` that Variables add."""
    parts = []
    for entry in path:
        for attribute in ("key", "name", "idx"):
            if hasattr(entry, attribute):
                parts.append(str(getattr(entry, attribute)))
                break
    if parts and parts[-1] == "value":
        parts.pop()
    return ".".join(parts)


def flatten_names(tree: Any) -> tuple[dict[str, Any], Any]:
    """A tree as `{dotted name: leaf}`, in the order of its leaves, and the treedef that `jax.tree.unflatten` takes back."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {path_name(path): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two leaves of this tree have the same dotted name; rename one of the attributes")
    return named, structure


def flatten_parameters(model: nnx.Module) -> dict[str, jax.Array]:
    """Every `nnx.Param` of a model as `{dotted name: array}`."""
    return flatten_names(nnx.state(model, nnx.Param))[0]


def load_parameters(model: nnx.Module, arrays: dict[str, Any]) -> None:
    """Put `{dotted name: array}` into a model in place, each array cast to the type the parameter has.

    Raises ValueError naming what is missing, what is left over, and what has another shape, before anything is changed.
    """
    current, structure = flatten_names(nnx.state(model, nnx.Param))
    _check_fit(current, arrays)
    cast = [jax.numpy.asarray(np.asarray(arrays[name]), dtype=p.dtype) for name, p in current.items()]
    nnx.update(model, jax.tree.unflatten(structure, cast))


def build_filled(build: Callable[[], nnx.Module], arrays: dict[str, Any]) -> nnx.Module:
    """The model that `build` makes with these parameters, `{dotted name: array}`, never initialised with others.

    Arrays may be what `np.asarray` makes one of; they go to the device one at a time, cast to the parameter's type.
    Raises ValueError as `load_parameters` does, and for a weight that is NaN or infinite.
    """
    structure, state = nnx.split(nnx.eval_shape(build))
    wanted, tree = flatten_names(state)
    _check_fit(wanted, arrays)
    leaves = []
    for name, parameter in wanted.items():
        array = np.asarray(arrays[name])
        if not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise ValueError(f"weight {name} holds NaN or infinity; the checkpoint is damaged or its training diverged")
        leaves.append(jax.numpy.asarray(array, dtype=parameter.dtype))
    return nnx.merge(structure, jax.tree.unflatten(tree, leaves))


def _check_fit(wanted: dict[str, Any], arrays: dict[str, Any]) -> None:
    missing, extra = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or extra:
        raise ValueError(
            f"these weights do not belong to this model: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} unknown {extra[:5]}; is the config the one they were saved with?"
        )
    for name, parameter in wanted.items():
        if tuple(arrays[name].shape) != tuple(parameter.shape):
            raise ValueError(
                f"weight {name} has shape {tuple(arrays[name].shape)} but the model expects {tuple(parameter.shape)}; "
                "is the config the one it was saved with?"
            )
