"""What CLIP's and BART's folders of transformers have in common: three kinds of weight files, and layers by number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import read_state, tensor_to_numpy
from .stored import Derived, stacked, stored_msgpack, stored_safetensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")  # the first that is there counts


def find_weights(folder: Path) -> Path:
    """The file of weights in a folder, the first of `WEIGHTS` that is there; FileNotFoundError where there is none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no weights in {folder}; expected {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")


def read_weights(file: Path) -> dict[str, Any]:
    """The arrays of a file by name, left in it until they are used; names in Flax's file have slashes, in the others dots.

    Raises ValueError when it is damaged or holds other things than weights.
    """
    if file.suffix == ".safetensors":
        return stored_safetensors(file)
    if file.suffix == ".msgpack":
        return stored_msgpack(file)
    return {name: tensor_to_numpy(tensor) for name, tensor in read_state(file).items()}


def stack_numbered(layers: Mapping[str, Mapping[int, Any]]) -> dict[str, Derived]:
    """Each weight's layers, by number, as one array with the layer axis first; ValueError where they are incomplete."""
    for name, by_number in layers.items():
        if sorted(by_number) != list(range(len(by_number))):
            raise ValueError(f"layers {sorted(by_number)} of {name} do not count up from 0; the file is incomplete")
        if len({tuple(array.shape) for array in by_number.values()}) > 1:
            raise ValueError(f"the layers of {name} have several shapes; the file is damaged")
    return {name: stacked([by_number[index] for index in range(len(by_number))]) for name, by_number in layers.items()}
