"""From one format of checkpoint to any other that can hold the network: recognise, load, save."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from ..vqgan import port
from . import clip, dallebart, min_dalle, native, vqgan
from .files import describe
from .folders import find_checkpoint
from .info import PARTS
from .stored import stored_safetensors

NETWORKS = {"vqgan": "VQGAN", "bart": "DalleBart", "clip": "CLIP"}
SAVERS: dict[str, dict[str, Callable[[Any, Path], None]]] = {  # format: network: how it is written
    "minidalle": dict.fromkeys(NETWORKS, native.save),
    "dalle-mini": {"bart": dallebart.save_dallebart},
    "min-dalle": {"bart": min_dalle.save_min_dalle, "vqgan": min_dalle.save_detoker},
    "vqgan-jax": {"vqgan": vqgan.save_vqgan_jax},
    "taming": {"vqgan": vqgan.save_taming},
    "huggingface": {"clip": clip.save_clip},
}
TEXT_FILES = "tokenizer.json tokenizer_config.json special_tokens_map.json vocab.json merges.txt enwiki-words-frequency.txt".split()
TAMING = (".ckpt", ".pt", ".pth")


class Kind(NamedTuple):
    """What a checkpoint is: one of the formats in `SAVERS`, one of `NETWORKS`."""

    format: str
    network: str

    def __str__(self) -> str:
        return f"a {NETWORKS[self.network]} in the format {self.format}"


def recognise(path: str | Path) -> Kind:
    """What lies at a path, told by file names and `config.json`; no weights are read.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is no checkpoint of one network that is known here; says what was found and what to give.
    """
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a checkpoint's folder or file")
    if path.suffix in TAMING:
        if path.name.startswith("encoder"):
            return Kind("min-dalle", "bart")
        if path.name.startswith("decoder"):
            raise ValueError(f"{path} is half of a DalleBart of min-dalle; give its folder {path.parent}")
        return Kind("min-dalle" if path.name.startswith("detoker") else "taming", "vqgan")
    if (path.parent / "config.json").is_file():
        raise ValueError(f"{path} is one file of a checkpoint; give its folder {path.parent}")
    raise ValueError(
        f"{path} is no checkpoint known here ({describe(path)}); give a folder with config.json, or a PyTorch file that "
        f"ends in {', '.join(TAMING)}"
    )


def _kind_of_folder(folder: Path) -> Kind:
    names = {entry.name for entry in folder.iterdir()}
    if names & {"encoder.pt", "encoder_mini.pt"}:
        return Kind("min-dalle", "bart")
    if "detoker.pt" in names:
        return Kind("min-dalle", "vqgan")
    if "config.json" not in names:
        inside = [str(folder / part) for part in PARTS if part in names]
        hint = f"it is a whole pipeline, give one of {', '.join(inside)}" if inside else f"found {sorted(names)[:8]}"
        raise ValueError(f"{folder} is no checkpoint of one network: it has no config.json; {hint}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not valid JSON ({error}); copy or download it again") from error
    config = config if isinstance(config, dict) else {}
    if config.get("kind") in NETWORKS:
        return Kind("minidalle", config["kind"])
    if config.get("model_type") == "dallebart":
        return Kind("dalle-mini", "bart")
    if config.get("model_type") == "clip":
        return Kind("huggingface", "clip")
    if "ch_mult" in config:
        return Kind("vqgan-jax", "vqgan")
    found = config.get("model_type") or config.get("architectures") or "nothing known"
    raise ValueError(f"{folder / 'config.json'} describes {found!r}; expected a {', a '.join(NETWORKS.values())}")


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
        return min_dalle.load_min_dalle(path, heads=heads) if bart else min_dalle.load_detoker(path)
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
