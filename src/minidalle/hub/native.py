"""minidalle's own checkpoint format: a folder per network, `config.json` beside `model.safetensors`.

A whole pipeline is a folder with `vqgan/`, `bart/`, `clip/` (may be missing: then nothing is ranked), `tokenizer.json`,
`sampling.json` (may be missing: the guidance and temperature that serve this DalleBart best) and a model card. The shipped ones lie in `minidalle/checkpoints/`. VQGAN weights carry taming-transformers' names in
PyTorch's layout; DalleBart and CLIP weights the dotted paths of their NNX modules.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from ..bart.config import DalleBartConfig
from ..bart.model import DalleBart
from ..clip.config import CLIPConfig
from ..clip.model import CLIP
from ..training.export import read_config, save_arrays
from ..training.tree import build_filled, flatten_parameters
from ..vqgan import port
from ..vqgan.export import export, load_exported
from ..vqgan.model import VQGAN
from ..vqgan.twin import VQGANTwin
from .files import to_numpy
from .folders import find_checkpoint
from .recognise import Kind, check_kind
from .stored import stored_safetensors


def load_torch_vqgan(folder: str | Path) -> VQGAN:
    """Return the PyTorch VQGAN of a folder (or of a shipped checkpoint, by name), in evaluation mode and float32.

    Raises:
        ValueError: its config does not fit its weights, or one of the two is damaged.
    """
    return load_exported(_part(folder, "vqgan"))


def load_vqgan(folder: str | Path, **types) -> VQGANTwin:
    """Return the NNX VQGAN of a folder (or of a shipped checkpoint, by name); `types` are `dtype` and `param_dtype`.

    Raises as `load_torch_vqgan` does.
    """
    return port.to_jax(load_torch_vqgan(folder), **types)


def load_bart(folder: str | Path, **types) -> DalleBart:
    """Return the DalleBart of a folder (or of a shipped checkpoint, by name); `types` are `dtype` and `param_dtype`.

    Raises:
        ValueError: its config does not fit its weights, or one of the two is damaged.
    """
    return _load("bart", DalleBartConfig, DalleBart, folder, types)


def load_clip(folder: str | Path, **types) -> CLIP:
    """Return the CLIP of a folder (or of a shipped checkpoint, by name); `types` are `dtype` and `param_dtype`.

    Raises:
        ValueError: its config does not fit its weights, or one of the two is damaged.
    """
    return _load("clip", CLIPConfig, CLIP, folder, types)


def save(model: VQGANTwin | DalleBart | CLIP, folder: str | Path) -> None:
    """Write a network as `config.json` with `model.safetensors`; weights keep their type (bfloat16 becomes float32).

    Raises:
        ValueError: a weight is NaN or infinite, or a VQGAN lacks its encoder or compares directions only.
    """
    if isinstance(model, VQGANTwin):
        if model.normalize:
            raise ValueError("a VQGAN with a normalized codebook has no place in minidalle's format")
        export(port.to_torch(model), folder, half=model.param_dtype == np.float16)
        return
    kind = "bart" if isinstance(model, DalleBart) else "clip"
    arrays = {name: to_numpy(value) for name, value in flatten_parameters(model).items()}
    save_arrays(folder, kind, model.config.to_dict(), arrays, half=False)


def read_sampling(folder: str | Path) -> dict[str, float]:
    """Return what `sampling.json` of a pipeline's folder says of "guidance" and "temperature"; {} when there is none.

    Raises:
        ValueError: it is not JSON, or holds anything else than these two as finite numbers, 0 or more.
    """
    path = find_checkpoint(folder) / "sampling.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        numbers = {name: float(value) for name, value in found.items()}
        right = numbers.keys() <= {"guidance", "temperature"}
        right = right and all(math.isfinite(number) and number >= 0 for number in numbers.values())
    except (ValueError, TypeError, AttributeError):
        right = False
    if not right:
        raise ValueError(f'{path} is damaged; expected an object such as {{"guidance": 3.0, "temperature": 1.0}}')
    return numbers


def _part(folder: str | Path, kind: str) -> Path:
    """The folder of one network: the given one, or the part named `kind` inside a whole pipeline's."""
    found = find_checkpoint(folder)
    found = found / kind if (found / kind).is_dir() else found
    check_kind(found, Kind("minidalle", kind))
    return found


def _load(kind: str, configuration: type, network: type, folder: str | Path, types: Mapping[str, Any]) -> Any:
    folder = _part(folder, kind)
    config = configuration.from_dict(read_config(folder, kind))
    arrays = stored_safetensors(folder / "model.safetensors")
    try:
        return build_filled(lambda: network(config, rngs=nnx.Rngs(0), **types), arrays)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
