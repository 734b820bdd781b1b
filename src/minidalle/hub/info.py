"""What a checkpoint is, without loading it: configs, and the headers of the weight files."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .download import HUB_NAME, WEIGHTS, local_path
from .folders import find_checkpoint
from .recognise import ENCODERS, PARTS, TAMING, read_object
from .stored import SAFETENSORS_TYPES, stored_msgpack, stored_safetensors

SHORT_NAMES = {name: short for short, name in SAFETENSORS_TYPES.items()}
INDEX_ONLY = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")  # counters, no parameters


def describe(name: str | Path) -> dict[str, dict[str, Any]]:
    """Return config, parameter count, bytes and number types of every network in a checkpoint, by its part's name.

    Args:
        name: a shipped name, a folder of our own or of an original, a file of taming-transformers or min-dalle, or the
            name of an original in the Hub's cache. A folder with min-dalle's mini and mega has parts named so.

    Raises:
        FileNotFoundError: there is no such checkpoint, or none of its parts.
        ValueError: a file is damaged.
    """
    path = _find(name)
    if path.is_file():
        return dict([_describe_file(path)])
    folders = {part: path / part for part in PARTS if (path / part / "config.json").is_file()}
    if folders:
        return {part: _describe(folder)[1] for part, folder in folders.items()}
    if found := _describe_min_dalle(path):
        return found
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} holds no checkpoint; expected a config.json, or folders {', '.join(PARTS)}")
    return dict([_describe(path)])


def _find(name: str | Path) -> Path:
    """The path of a checkpoint; a Hub name is looked up in the cache, whatever kind of checkpoint it is."""
    if Path(name).suffix in TAMING and Path(name).is_file():
        return Path(name)
    if not isinstance(name, str) or Path(name).exists() or not HUB_NAME.fullmatch(name):
        return find_checkpoint(name)
    problem = None
    for kind in WEIGHTS:
        try:
            return local_path(name, kind, cached_only=True)
        except FileNotFoundError as error:
            problem = error
    raise problem


def _describe(folder: Path) -> tuple[str, dict[str, Any]]:
    """Which part of a pipeline a folder holds, and what is to be said of it."""
    config = read_object(folder / "config.json")
    kind = config.get("kind") or {"dallebart": "bart"}.get(config.get("model_type"), config.get("model_type"))
    arrays = [array for name, array in _read_shapes(folder).items() if name not in INDEX_ONLY]
    return kind or "vqgan", _told(config, arrays)


def _describe_min_dalle(folder: Path) -> dict[str, dict[str, Any]]:
    """The parts that lie in a folder as min-dalle's files; {} where there are none."""
    encoders = {size: folder / name for size, name in ENCODERS.items() if (folder / name).is_file()}
    parts = {size if len(encoders) > 1 else "bart": _describe_file(file)[1] for size, file in encoders.items()}
    if (folder / "detoker.pt").is_file() and not (folder / "flax_model.msgpack").is_file():
        parts["vqgan"] = _describe_file(folder / "detoker.pt")[1]
    return parts


def _describe_file(file: Path) -> tuple[str, dict[str, Any]]:
    """The same for a file of PyTorch, whose weights show their sizes."""
    from . import detoker, min_dalle, vqgan  # PyTorch comes with them

    if file.name.startswith(("encoder", "decoder")):
        parameters = min_dalle.read_parameters(file, shapes_only=True)
        beside = min_dalle.config_file(file)
        config = read_object(beside) if beside.is_file() else min_dalle.sizes_of(parameters, file)
        return "bart", _told(config, parameters.values())
    of_min_dalle = file.name.startswith("detoker")
    state = (detoker.read_detoker if of_min_dalle else vqgan.read_taming)(file, shapes_only=True)
    config = (detoker.config_of_detoker if of_min_dalle else vqgan.config_of_weights)(state, file)
    return "vqgan", _told(config.to_dict(), state.values())


def _told(config: dict[str, Any], arrays: Iterable[Any]) -> dict[str, Any]:
    """What is said of a network; arrays have `shape` and `dtype`."""
    sizes = [(math.prod(array.shape), array) for array in arrays]
    return {
        "config": config,
        "parameters": sum(size for size, _ in sizes),
        "bytes": sum(size * array.dtype.itemsize for size, array in sizes),
        "types": sorted({_type_name(array) for _, array in sizes}),
    }


def _read_shapes(folder: Path) -> dict[str, Any]:
    """What has `shape` and `dtype` for each weight: from headers, and of the older PyTorch files without their storage."""
    if (folder / "model.safetensors").is_file():
        return stored_safetensors(folder / "model.safetensors")
    if (folder / "pytorch_model.bin").is_file():
        from .files import read_state

        return read_state(folder / "pytorch_model.bin", shapes_only=True)
    return stored_msgpack(folder / "flax_model.msgpack")


def _type_name(array: Any) -> str:
    name = getattr(array, "type_name", None) or str(array.dtype).removeprefix("torch.")
    return SHORT_NAMES.get(name, name)
