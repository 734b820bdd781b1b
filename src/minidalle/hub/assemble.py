"""The parts of a pipeline, found and loaded together: a folder of minidalle's own, or an original DalleBart with its friends."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ..bart.config import DalleBartConfig
from ..clip.model import CLIP
from ..text import Tokenizer
from ..text.originals import CaptionNormalizer, CLIPTokenizer, load_tokenizer
from ..vqgan.port import VQGANTwin
from . import native
from .clip import load_clip
from .dallebart import load_dallebart
from .download import HUB_NAME, local_path
from .folders import SHIPPED, find_checkpoint, shipped_names
from .min_dalle import find_files, load_min_dalle
from .recognise import ENCODERS, check_age, read_object, recognise
from .stored import stored_msgpack
from .vqgan import load_vqgan

AUTO = "auto"
ORIGINAL_VQGAN = "dalle-mini/vqgan_imagenet_f16_16384"  # whose codes mini and mega were trained on
ORIGINAL_CLIP = "openai/clip-vit-base-patch32"  # which ranked in the original's notebook
ORIGINAL_SAMPLING = {"guidance": 10.0, "temperature": 1.0}
DTYPES = ("float32", "bfloat16", "float16")


def load_parts(
    name: str | Path, *, vqgan: str | Path = AUTO, clip: str | Path | None = AUTO, dtype: str = "float32"
) -> dict[str, Any]:
    """All that `Pipeline` is made of, by its argument's names; `sampling` as plain numbers.

    Arguments and errors are those of `Pipeline.load`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    types = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    found = find_model(name)
    if is_min_dalle(found):
        return _load_min_dalle(found, vqgan, clip, types)
    if is_original(found):
        return _load_original(found, vqgan, clip, types)
    needed = ["bart", "tokenizer.json"] if vqgan != AUTO else ["vqgan", "bart", "tokenizer.json"]
    if missing := [part for part in needed if not (found / part).exists()]:
        raise FileNotFoundError(f"{found} is not a whole pipeline: it lacks {', '.join(missing)}")
    judge, clip_tokenizer = _judge(clip, found if (found / "clip").is_dir() else None, types)
    return {
        "tokenizer": Tokenizer.load(found),
        "bart": native.load_bart(found, **types),
        "vqgan": load_any_vqgan(found if vqgan == AUTO else vqgan),
        "clip": judge,
        "clip_tokenizer": clip_tokenizer,
        "sampling": native.read_sampling(found),
    }


def _load_original(folder: Path, vqgan: str | Path, clip: str | Path | None, types: dict[str, Any]) -> dict[str, Any]:
    config = DalleBartConfig.from_file(folder / "config.json")
    tokenizer = load_tokenizer(folder)  # and what else may be amiss, before a gigabyte is read
    normalize = CaptionNormalizer(folder) if config.normalize_text else None
    judge, clip_tokenizer = _judge(clip, ORIGINAL_CLIP, types)
    return {
        "tokenizer": tokenizer,
        "normalize": normalize,
        "vqgan": load_any_vqgan(ORIGINAL_VQGAN if vqgan == AUTO else vqgan),
        "clip": judge,
        "clip_tokenizer": clip_tokenizer,
        "bart": load_dallebart(folder, **types),
        "sampling": ORIGINAL_SAMPLING | native.read_sampling(folder),
    }


def _load_min_dalle(path: Path, vqgan: str | Path, clip: str | Path | None, types: dict[str, Any]) -> dict[str, Any]:
    """The parts beside min-dalle's files; captions are normalized as DALL·E mini was trained, not in min-dalle's shorter way."""
    encoder = find_files(path)["encoder"]
    folder = encoder.parent
    tokenizer = load_tokenizer(folder, "_mini" if encoder.name == ENCODERS["mini"] else "")
    vqgan = _detoker(folder) if vqgan == AUTO else vqgan
    judge, clip_tokenizer = _judge(clip, ORIGINAL_CLIP, types)
    bart = load_min_dalle(encoder, **types)
    return {
        "tokenizer": tokenizer,
        "normalize": CaptionNormalizer(folder) if bart.config.normalize_text else None,
        "vqgan": load_any_vqgan(vqgan),
        "clip": judge,
        "clip_tokenizer": clip_tokenizer,
        "bart": bart,
        "sampling": ORIGINAL_SAMPLING | native.read_sampling(folder),
    }


def _detoker(folder: Path) -> Path:
    """The `detoker.pt` beside a DalleBart, or where min-dalle itself puts it, in a folder `vqgan` beside the folder."""
    places = [folder / "detoker.pt", folder.parent / "vqgan" / "detoker.pt"]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{places[0]} is missing, which draws the pictures of min-dalle's files (nor is there {places[1]}); copy it "
        f"there, or choose another VQGAN such as {ORIGINAL_VQGAN} (vqgan=…, --vqgan)"
    )


def _judge(clip: str | Path | None, own: str | Path | None, types: dict[str, Any]) -> tuple[Any, Any]:
    clip = own if clip == AUTO else clip
    return load_judge(clip, **types) if clip is not None else (None, None)


def find_model(name: str | Path, *, cached_only: bool = False) -> Path:
    """The folder of a shipped checkpoint, of a path, or of a pipeline on the Hub; of min-dalle's the encoder's file, if named.

    Raises as `find_checkpoint` and `local_path` do, and ValueError for another file.
    """
    if isinstance(name, str) and HUB_NAME.fullmatch(name) and not Path(name).exists():
        return local_path(name, "pipeline", cached_only=cached_only)
    path = Path(name)
    if is_min_dalle(path):
        return path
    if path.is_file():
        raise ValueError(
            f"{path} is {recognise(path)} alone; give a DalleBart's folder, and such a file as vqgan=… (--vqgan)"
        )
    return find_checkpoint(name)


def is_min_dalle(path: Path) -> bool:
    """Whether a path leads to min-dalle's files: a folder, or the encoder's file in it."""
    if path.is_file():
        return path.suffix == ".pt" and path.name.startswith("encoder")
    return any((path / name).is_file() for name in ENCODERS.values())


def is_original(folder: Path) -> bool:
    """Whether a folder holds an original DalleBart, by its `config.json`.

    Raises ValueError when it holds another single network, or a broken `config.json`.
    """
    file = folder / "config.json"
    if not file.is_file():
        return False
    config = read_object(file)
    kind = config.get("kind") or config.get("model_type") or "VQGAN, by its looks"
    if kind == "dallebart":
        return True
    if (folder / "flax_model.msgpack").is_file():
        check_age(folder / "flax_model.msgpack", stored_msgpack(folder / "flax_model.msgpack"))
    raise ValueError(f"{folder} holds one network alone ({kind}); give the folder of a DalleBart or a whole pipeline")


def load_any_vqgan(name: str | Path, **types: Any) -> VQGANTwin:
    """The VQGAN of a shipped name, of one of our folders, or of an original (path or Hub name); raises as the loaders do.

    `types` are `dtype` and `param_dtype`.
    """
    folder = SHIPPED / name if name in shipped_names() else local_path(name, "vqgan")
    return native.load_vqgan(folder, **types) if _is_ours(folder, "vqgan") else load_vqgan(folder, **types)


def load_judge(name: str | Path, **types: Any) -> tuple[CLIP, Tokenizer]:
    """A CLIP and its tokenizer: of a shipped name, of one of our pipelines' folders, or of a Hugging Face CLIP.

    `types` are `dtype` and `param_dtype`. Raises as the loaders do, and ValueError when the tokenizer has ids that the
    CLIP does not know.
    """
    folder = SHIPPED / name if name in shipped_names() else local_path(name, "clip")
    if _is_ours(find_checkpoint(folder), "clip"):
        return native.load_clip(folder, **types), Tokenizer.load(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no CLIP; expected a folder named clip, or a CLIP's config.json")
    clip = load_clip(folder, **types)
    tokenizer = CLIPTokenizer.load(folder)
    if tokenizer.vocab_size > clip.config.text_config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens but this CLIP reads "
            f"{clip.config.text_config.vocab_size}; take both from one place"
        )
    return clip, tokenizer


def _is_ours(folder: Path, part: str) -> bool:
    """Whether a folder is a pipeline of ours with this part, or such a part itself."""
    config = folder / "config.json"
    return (folder / part).is_dir() or (config.is_file() and read_object(config).get("kind") == part)
