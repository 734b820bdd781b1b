"""The parts of a pipeline, found and loaded together: a folder of minidalle's own, or an original DalleBart with its friends."""

import json
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
    folder = find_model(name)
    if is_original(folder):
        return _load_original(folder, vqgan, clip, types)
    needed = ["bart", "tokenizer.json"] if vqgan != AUTO else ["vqgan", "bart", "tokenizer.json"]
    if missing := [part for part in needed if not (folder / part).exists()]:
        raise FileNotFoundError(f"{folder} is not a whole pipeline: it lacks {', '.join(missing)}")
    clip = clip if clip != AUTO else folder if (folder / "clip").is_dir() else None
    judge, clip_tokenizer = load_judge(clip) if clip is not None else (None, None)
    return {
        "tokenizer": Tokenizer.load(folder),
        "bart": native.load_bart(folder, **types),
        "vqgan": load_any_vqgan(folder if vqgan == AUTO else vqgan),
        "clip": judge,
        "clip_tokenizer": clip_tokenizer,
        "sampling": native.read_sampling(folder),
    }


def _load_original(folder: Path, vqgan: str | Path, clip: str | Path | None, types: dict[str, Any]) -> dict[str, Any]:
    config = DalleBartConfig.from_file(folder / "config.json")
    tokenizer = load_tokenizer(folder)  # and what else may be amiss, before a gigabyte is read
    normalize = CaptionNormalizer(folder) if config.normalize_text else None
    judge, clip_tokenizer = load_judge(ORIGINAL_CLIP if clip == AUTO else clip) if clip is not None else (None, None)
    return {
        "tokenizer": tokenizer,
        "normalize": normalize,
        "vqgan": load_any_vqgan(ORIGINAL_VQGAN if vqgan == AUTO else vqgan),
        "clip": judge,
        "clip_tokenizer": clip_tokenizer,
        "bart": load_dallebart(folder, **types),
        "sampling": ORIGINAL_SAMPLING | native.read_sampling(folder),
    }


def find_model(name: str | Path, *, cached_only: bool = False) -> Path:
    """The folder of a shipped checkpoint, of a path, or of a DalleBart on the Hub; raises as these do."""
    is_hub_name = isinstance(name, str) and HUB_NAME.fullmatch(name) and not Path(name).exists()
    return local_path(name, "dallebart", cached_only=cached_only) if is_hub_name else find_checkpoint(name)


def is_original(folder: Path) -> bool:
    """Whether a folder holds an original DalleBart, by its `config.json`.

    Raises ValueError when it holds another single network, or a broken `config.json`.
    """
    file = folder / "config.json"
    if not file.is_file():
        return False
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = config.get("kind") or config.get("model_type") or "VQGAN, by its looks"
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a JSON object ({error}); copy the checkpoint anew") from error
    if kind != "dallebart":
        raise ValueError(
            f"{folder} holds one network alone ({kind}); give the folder of a DalleBart or a whole pipeline"
        )
    return True


def load_any_vqgan(name: str | Path) -> VQGANTwin:
    """The VQGAN of a shipped name, of one of our folders, or of an original (path or Hub name); raises as the loaders do."""
    folder = SHIPPED / name if name in shipped_names() else Path(name)
    ours = (folder / "vqgan").is_dir() or (folder / "model.safetensors").is_file()
    return native.load_vqgan(folder) if ours else load_vqgan(name)


def load_judge(name: str | Path) -> tuple[CLIP, Tokenizer]:
    """A CLIP and its tokenizer: of a shipped name, of one of our pipelines' folders, or of a Hugging Face CLIP.

    Raises as the loaders do, and ValueError when the tokenizer has ids that the CLIP does not know.
    """
    folder = SHIPPED / name if name in shipped_names() else local_path(name, "clip")
    if (find_checkpoint(folder) / "clip").is_dir():
        return native.load_clip(folder), Tokenizer.load(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no CLIP; expected a folder named clip, or a CLIP's config.json")
    tokenizer, clip = CLIPTokenizer.load(folder), load_clip(folder)
    if tokenizer.vocab_size > clip.config.text_config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens but this CLIP reads "
            f"{clip.config.text_config.vocab_size}; take both from one place"
        )
    return clip, tokenizer
