"""Names for the leaves of a parameter tree, so that optimizer, checkpoint and export all speak of the same thing."""

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
    state = nnx.state(model, nnx.Param)
    current, structure = flatten_names(state)
    missing, extra = sorted(current.keys() - arrays.keys()), sorted(arrays.keys() - current.keys())
    if missing or extra:
        raise ValueError(
            f"these weights do not belong to this model: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} unknown {extra[:5]}; is the config the one they were saved with?"
        )
    for name, parameter in current.items():
        if tuple(arrays[name].shape) != tuple(parameter.shape):
            raise ValueError(
                f"weight {name} has shape {tuple(arrays[name].shape)} but the model expects {tuple(parameter.shape)}; "
                "is the config the one it was saved with?"
            )
    cast = [jax.numpy.asarray(np.asarray(arrays[name]), dtype=p.dtype) for name, p in current.items()]
    nnx.update(model, jax.tree.unflatten(structure, cast))
