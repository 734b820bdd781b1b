"""Files of weights: written whole or not at all, and read without running anything that is in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from flax import serialization, traverse_util

from minidalle import files
from minidalle.files import replacing

STARTS = {
    b"PK\x03\x04": "a ZIP archive, as PyTorch writes",
    b"version https://git-lfs": "a Git LFS pointer instead of the weights; run `git lfs pull`",
    b"<": "a page of HTML or XML",
    b"{": "JSON",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}


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


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file by name, without running any code in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, of another kind, or holds anything else than tensors; says what it looks like.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds other Python objects than tensors ({describe(file)}). Reading them could run any code, so it "
            "is not opened; take a file that holds the weights alone"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{file} is damaged or cut off ({describe(file)}); copy or download it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{file} holds no plain state dict; expected tensors by name, got a {type(state).__name__}")
    return state


def describe(file: Path) -> str:
    """What a file looks like by its size and first bytes, for error messages."""
    with file.open("rb") as opened:
        start = opened.read(32)
    kind = next((kind for magic, kind in STARTS.items() if start.startswith(magic)), "of no known kind")
    return f"{file.stat().st_size:,} bytes, {kind}" if start else "an empty file"


def to_numpy(value: jax.Array | np.ndarray) -> np.ndarray:
    """An array on the host, contiguous; bfloat16, which NumPy and most formats lack, is widened to float32 exactly."""
    array = np.asarray(value)
    return np.array(array, np.float32 if array.dtype.name == "bfloat16" else array.dtype, order="C", copy=None)
