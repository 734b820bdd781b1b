"""Files of weights: written whole or not at all, and read without running anything that is in them."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import serialization, traverse_util

from minidalle import files
from minidalle.files import replacing

from .looks import OF_TORCH, describe, look


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object as JSON, keys sorted, as the originals' `config.json` are."""
    files.write_json(path, values, sort_keys=True)


def write_msgpack(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write `{name/with/slashes: array}` as the nested tree that Flax saves."""
    tree = traverse_util.unflatten_dict({name: to_numpy(arrays[name]) for name in sorted(arrays)}, sep="/")
    with replacing(path) as temporary:
        temporary.write_bytes(serialization.msgpack_serialize(tree, in_place=True))


def write_torch(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors as `torch.save` does."""
    with replacing(path) as temporary:
        torch.save(values, temporary)


def read_torch(file: Path, *, shapes_only: bool = False) -> Any:
    """What `torch.save` put into a file, without running any code in it; tensors stay in the file until they are used.

    Args:
        file: of today's format, or of the older one that is no archive, which is read at once.
        shapes_only: tensors without values, on PyTorch's "meta" device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, of another kind, or holds Python objects that could run code; says what it looks like.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    if look(file) not in OF_TORCH:
        raise ValueError(f"{file} is no file of PyTorch ({describe(file)}); copy or download it again")
    try:
        device = "meta" if shapes_only else "cpu"
        return torch.load(file, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds other Python objects than tensors ({describe(file)}). Reading them could run any code, so it "
            "is not opened; take a file that holds the weights alone"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{file} is damaged or cut off ({describe(file)}); copy or download it again") from error


def read_state(file: Path, *, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a plain state dict by name; arguments and errors as `read_torch`, ValueError for anything else too."""
    state = read_torch(file, shapes_only=shapes_only)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{file} holds no plain state dict; expected tensors by name, got a {type(state).__name__}")
    return state


def tensor_to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values as NumPy sees them, in place; one without values as an array of that shape that takes no memory."""
    if tensor.is_meta:
        like = torch.empty(0, dtype=tensor.dtype)
        return np.broadcast_to(np.zeros((), tensor_to_numpy(like).dtype), tuple(tensor.shape))
    if tensor.dtype == torch.bfloat16:  # NumPy has none; JAX brings one
        return tensor.detach().view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.detach().numpy()


def to_numpy(value: jax.Array | np.ndarray) -> np.ndarray:
    """An array on the host, contiguous; bfloat16, which NumPy and most formats lack, is widened to float32 exactly."""
    array = np.asarray(value)
    return np.array(array, np.float32 if array.dtype.name == "bfloat16" else array.dtype, order="C", copy=None)
