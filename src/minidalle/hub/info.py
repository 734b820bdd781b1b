"""What a checkpoint is, without loading it: configs, and the headers of the weight files."""

import json
import math
from pathlib import Path
from typing import Any

from .download import HUB_NAME, WEIGHTS, local_path
from .folders import find_checkpoint
from .stored import SAFETENSORS_TYPES, stored_msgpack, stored_safetensors

PARTS = ("vqgan", "bart", "clip")
SHORT_NAMES = {name: short for short, name in SAFETENSORS_TYPES.items()}
INDEX_ONLY = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")  # counters, no parameters


def describe(name: str | Path) -> dict[str, dict[str, Any]]:
    """Return config, parameter count, bytes and number types of every network in a checkpoint, by its part's name.

    Args:
        name: a shipped name, a folder of our own or of an original, or the name of an original in the Hub's cache.

    Raises:
        FileNotFoundError: there is no such checkpoint, or none of its parts.
        ValueError: a file is damaged.
    """
    folder = _find(name)
    folders = {part: folder / part for part in PARTS if (folder / part / "config.json").is_file()}
    if folders:
        return {part: _describe(path)[1] for part, path in folders.items()}
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint; expected a config.json, or folders {', '.join(PARTS)}")
    return dict([_describe(folder)])


def _find(name: str | Path) -> Path:
    """The folder of a checkpoint; a Hub name is looked up in the cache, whatever kind of checkpoint it is."""
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
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf8"))
        kind = config.get("kind") or {"dallebart": "bart"}.get(config.get("model_type"), config.get("model_type"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}); copy the checkpoint anew") from error
    arrays = [array for name, array in _read_shapes(folder).items() if name not in INDEX_ONLY]
    return kind or "vqgan", {
        "config": config,
        "parameters": sum(math.prod(array.shape) for array in arrays),
        "bytes": sum(array.nbytes for array in arrays),
        "types": sorted({_type_name(array) for array in arrays}),
    }


def _read_shapes(folder: Path) -> dict[str, Any]:
    """What has `shape` and `nbytes` for each weight: from headers, and of the older PyTorch files without their storage."""
    if (folder / "flax_model.msgpack").is_file() and not (folder / "model.safetensors").is_file():
        return stored_msgpack(folder / "flax_model.msgpack")
    if (folder / "pytorch_model.bin").is_file() and not (folder / "model.safetensors").is_file():
        import torch

        try:
            return torch.load(folder / "pytorch_model.bin", map_location="meta", weights_only=True)
        except Exception as error:  # torch raises many kinds, all meaning an unreadable file
            raise ValueError(f"{folder / 'pytorch_model.bin'} cannot be read as weights ({error})") from error
    return stored_safetensors(folder / "model.safetensors")


def _type_name(array: Any) -> str:
    name = getattr(array, "type_name", None) or str(array.dtype).removeprefix("torch.")
    return SHORT_NAMES.get(name, name)
