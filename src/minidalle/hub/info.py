"""What a checkpoint is, without loading it: configs, and the headers of the weight files."""

import json
import math
import struct
from pathlib import Path
from typing import Any

from .folders import find_checkpoint

PARTS = ("vqgan", "bart", "clip")


def describe(name: str | Path) -> dict[str, dict[str, Any]]:
    """Return config, parameter count, bytes and number types of every network in a checkpoint, by its part's name.

    Raises:
        FileNotFoundError: there is no such checkpoint, or none of its parts.
        ValueError: a file is damaged.
    """
    folder = find_checkpoint(name)
    folders = {part: folder / part for part in PARTS if (folder / part / "config.json").is_file()}
    if not folders and (folder / "config.json").is_file():
        folders = {folder.name: folder}
    if not folders:
        raise FileNotFoundError(f"{folder} holds no checkpoint; expected a config.json, or folders {', '.join(PARTS)}")
    return {part: _describe(path) for part, path in folders.items()}


def _describe(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / 'config.json'} is not valid JSON ({error}); copy the checkpoint anew") from error
    header = read_header(folder / "model.safetensors")
    return {
        "config": config,
        "parameters": sum(math.prod(entry["shape"]) for entry in header.values()),
        "bytes": sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()),
        "types": sorted({entry["dtype"] for entry in header.values()}),
    }


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return name → dtype, shape and offsets from the head of a safetensors file; the weights are not read.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or it is not a whole safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the checkpoint is not complete")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ValueError(f"{path} is truncated or no safetensors file; copy the checkpoint anew")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} has a damaged header; copy the checkpoint anew") from error
    if size != 8 + length + end:
        raise ValueError(
            f"{path} has {size} bytes where its header promises {8 + length + end}; copy the checkpoint anew"
        )
    return header
