"""From one format of checkpoint to any other that can hold the network: recognise, load, save."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from ..vqgan import port
from . import clip, dallebart, detoker, min_dalle, native, vqgan
from .folders import find_checkpoint
from .recognise import NETWORKS, PARTS, TAMING, Kind, recognise
from .stored import stored_safetensors

SAVERS: dict[str, dict[str, Callable[[Any, Path], None]]] = {  # format: network: how it is written
    "minidalle": dict.fromkeys(NETWORKS, native.save),
    "dalle-mini": {"bart": dallebart.save_dallebart},
    "min-dalle": {"bart": min_dalle.save_min_dalle, "vqgan": detoker.save_detoker},
    "vqgan-jax": {"vqgan": vqgan.save_vqgan_jax},
    "taming": {"vqgan": vqgan.save_taming},
    "huggingface": {"clip": clip.save_clip},
}
TEXT_FILES = "tokenizer.json tokenizer_config.json special_tokens_map.json vocab.json merges.txt enwiki-words-frequency.txt".split()


def convert(source: str | Path, target: str | Path, to: str, *, heads: int | None = None) -> Kind:
    """Write the network at `source` to `target` in another format, every weight exact; returns what the source was.

    A source in half precision stays so where its file says it once for all weights; otherwise it becomes float32.
    Tokenizer files beside a DalleBart or CLIP are copied.

    Args:
        source: a checkpoint's folder or file, a shipped name, or a whole pipeline with one part that `to` can hold.
        target: a folder that does not exist yet, or is empty; for "taming" a file that does not exist yet.
        to: one of `SAVERS`.
        heads: attention heads of min-dalle's files without `config.json`.

    Raises:
        FileNotFoundError, FileExistsError: there is no source; there is a target.
        ValueError: the source is damaged or of another kind than it says, or `to` cannot hold it; says what to do.
    """
    if to not in SAVERS:
        raise ValueError(f"unknown format {to!r}; choose one of {', '.join(SAVERS)}")
    path, target = _one_network(Path(source), to), Path(target)
    kind = recognise(path)
    if kind.network not in SAVERS[to]:
        others = [name for name, networks in SAVERS.items() if kind.network in networks and name != kind.format]
        raise ValueError(
            f"{path} is {kind}; {to} holds a {' or a '.join(NETWORKS[name] for name in SAVERS[to])}. It can become "
            f"{', '.join(others)}"
        )
    if to == "taming" and target.suffix not in TAMING:
        raise ValueError(f"{target} would be a single file in the format taming; give a name such as {target}.ckpt")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; give a new name, or remove it first")
    SAVERS[to][kind.network](load(path, heads=heads), target)
    if kind.network != "vqgan" and path.is_dir():
        for name in TEXT_FILES:  # a part of a whole pipeline has them one folder up
            places = [path / name] + ([path.parent / name] if path.name in PARTS else [])
            for place in filter(Path.is_file, places[:1] if places[0].is_file() else places):
                shutil.copyfile(place, target / name)
    return kind


def load(path: str | Path, *, heads: int | None = None) -> nnx.Module:
    """The network at a path, whatever its format; arguments and errors as for `convert`."""
    path, kind = Path(path), recognise(path)
    if kind.format == "minidalle":
        types = {array.dtype for array in stored_safetensors(path / "model.safetensors").values()}
        return _load_native(path, kind.network, jnp.float16 if types == {np.dtype(np.float16)} else jnp.float32)
    if kind.format == "min-dalle":
        bart = kind.network == "bart"
        return min_dalle.load_min_dalle(path, heads=heads) if bart else detoker.load_detoker(path)
    loaders = {"bart": dallebart.load_dallebart, "vqgan": vqgan.load_vqgan, "clip": clip.load_clip}
    return loaders[kind.network](path)


def _load_native(folder: Path, network: str, param_dtype: DTypeLike) -> nnx.Module:
    if network == "vqgan":
        return port.to_jax(native.load_torch_vqgan(folder), param_dtype=param_dtype)
    return {"bart": native.load_bart, "clip": native.load_clip}[network](folder, param_dtype=param_dtype)


def _one_network(source: Path, to: str) -> Path:
    """The source, or of a whole pipeline the one part that the format can hold."""
    path = source if source.exists() else find_checkpoint(str(source))
    fitting = [path / part for part in SAVERS[to] if (path / part / "config.json").is_file()]
    return fitting[0] if len(fitting) == 1 and not (path / "config.json").exists() else path
