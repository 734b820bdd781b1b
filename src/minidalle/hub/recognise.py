"""What kind of checkpoint lies at a path, told by file names and `config.json` alone; no weights are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .looks import describe

NETWORKS = {"vqgan": "VQGAN", "bart": "DalleBart", "clip": "CLIP"}
PARTS = tuple(NETWORKS)  # folders of a whole pipeline in minidalle's format
TAMING = (".ckpt", ".pt", ".pth")
ENCODERS = {"mega": "encoder.pt", "mini": "encoder_mini.pt"}  # of min-dalle: the file that stands for its DalleBart


class Kind(NamedTuple):
    """What a checkpoint is: one of the formats of `minidalle convert`, one of `NETWORKS`."""

    format: str
    network: str

    def __str__(self) -> str:
        return f"a {NETWORKS[self.network]} in the format {self.format}"


READERS = {
    Kind("dalle-mini", "bart"): "load_dallebart",
    Kind("min-dalle", "bart"): "load_min_dalle",
    Kind("min-dalle", "vqgan"): "load_vqgan",
    Kind("vqgan-jax", "vqgan"): "load_vqgan",
    Kind("taming", "vqgan"): "load_vqgan",
    Kind("huggingface", "clip"): "load_clip",
    **{Kind("minidalle", network): f"native.load_{network}" for network in NETWORKS},
}


def recognise(path: str | Path) -> Kind:
    """What lies at a path.

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
    if names & set(ENCODERS.values()):
        return Kind("min-dalle", "bart")
    if "detoker.pt" in names:
        return Kind("min-dalle", "vqgan")
    if "config.json" not in names:
        inside = [str(folder / part) for part in PARTS if part in names]
        hint = f"it is a whole pipeline, give one of {', '.join(inside)}" if inside else f"found {sorted(names)[:8]}"
        raise ValueError(f"{folder} is no checkpoint of one network: it has no config.json; {hint}")
    config = read_object(folder / "config.json")
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


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; {} for JSON of another kind. Raises ValueError for what is no JSON, saying what it looks like."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({describe(file)}: {error}); copy or download it again") from error
    return values if isinstance(values, dict) else {}


def check_kind(path: Path, *wanted: Kind) -> None:
    """Refuse what plainly is another checkpoint than a loader reads; for what cannot be told the loader has its own words.

    Raises:
        ValueError: `path` is of a known kind and of none of `wanted`; says what it is and what reads it.
    """
    inside = [part for part in PARTS if (path / part / "config.json").is_file()]
    if inside and not (path / "config.json").is_file():
        raise ValueError(f"{path} is a whole pipeline of minidalle; Pipeline.load reads it, or give {path / inside[0]}")
    try:
        found = recognise(path)
    except (OSError, ValueError):
        return
    if found not in wanted:
        raise ValueError(f"{path} is {found}; expected {wanted[0]}. minidalle.hub.{READERS[found]} reads it")


def check_age(file: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse the DalleBarts of 2021, which have other layers under the same file name.

    Args:
        file: their `flax_model.msgpack`, for the message.
        arrays: what has a `shape`, by names in the original's tree, joined with "/" or ".".

    Raises:
        ValueError: the decoder has the 257 or 259 positions of that time.
    """
    for name, array in arrays.items():
        if name.replace(".", "/").endswith("decoder/embed_positions/embedding") and array.shape[0] in (257, 259):
            raise ValueError(
                f"{file} is a DALL·E mini from before 2022: its decoder has {array.shape[0]} positions where later ones "
                "have 256, and BART's layers. Only the dalle-mini code of its time reads it; take dalle-mini/dalle-mini "
                "or dalle-mini/dalle-mega instead"
            )
