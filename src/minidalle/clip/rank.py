"""What CLIP is good for: scoring, ranking, naming and finding pictures."""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image
from tqdm.auto import tqdm

from minidalle.clip.model import CLIP
from minidalle.clip.objective import normalize, temperature_scale
from minidalle.files import replacing

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class Encoder(Protocol):
    """What is needed of a tokenizer: `minidalle.text.Tokenizer` has it."""

    def encode(self, captions: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Captions to (text_ids, text_mask), both (B, length)."""


@dataclass(frozen=True)
class Found:
    """What a search gives: the best pictures with their scores, best first, and what could not be read and why."""

    matches: list[tuple[Path, float]]
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def embed_images(clip: CLIP, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Pictures (N, H, W, 3), bytes or floats in [0, 1], as features of length 1, (N, projection_dim) float32."""
    images = _pictures(images)
    return _in_batches(partial(_image_features, *nnx.split(clip)), [images], batch_size, clip.config.projection_dim)


def embed_texts(clip: CLIP, text_ids: np.ndarray, text_mask: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Tokenized captions (N, length) as features of length 1, (N, projection_dim) float32."""
    arrays = [np.asarray(text_ids, np.int32), np.asarray(text_mask, np.int32)]
    return _in_batches(partial(_text_features, *nnx.split(clip)), arrays, batch_size, clip.config.projection_dim)


def embed_captions(clip: CLIP, tokenizer: Encoder, captions: Sequence[str]) -> np.ndarray:
    """Captions as features of length 1, (N, projection_dim) float32, tokenized to the model's full length."""
    if isinstance(captions, str):
        raise TypeError(f"captions is one string, {captions[:40]!r}; give a list of strings")
    return embed_texts(clip, *tokenizer.encode(list(captions), clip.config.text_config.max_position_embeddings))


def score(clip: CLIP, images: np.ndarray, text_ids: np.ndarray, text_mask: np.ndarray) -> np.ndarray:
    """How well each picture matches each caption: cosine similarities (pictures, captions), in [−1, 1].

    images: (N, H, W, 3), bytes or floats in [0, 1]. text_ids, text_mask: (M, length).
    Raises ValueError for pictures of another form, and when the scores are not finite (broken weights).
    """
    scores = embed_images(clip, images) @ embed_texts(clip, text_ids, text_mask).T
    if not np.isfinite(scores).all():
        raise ValueError("CLIP's scores are not finite numbers; its weights are broken, load them again")
    return scores


def rank(clip: CLIP, tokenizer: Encoder, caption: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order the candidates for a caption: (order, scores), best first, so that `images[order]` is ranked.

    images: (N, H, W, 3), bytes or floats in [0, 1]. Both results are (N,); equal scores keep their order.
    """
    length = clip.config.text_config.max_position_embeddings
    scores = score(clip, images, *tokenizer.encode([caption], length))[:, 0]
    order = np.argsort(-scores, kind="stable")
    return order, scores[order]


def zero_shot(
    clip: CLIP, tokenizer: Encoder, images: np.ndarray, names: Sequence[str], template: str = "{}"
) -> np.ndarray:
    """Classify pictures by nothing but the names of the classes: probabilities (pictures, names), rows summing to 1.

    template: the caption around a name, such as "a photo of a {}" (Radford et al. 2021, section 3.1.4).
    Raises ValueError when there are no names, or no `{}` in the template.
    """
    if len(names) == 0 or "{}" not in template:
        raise ValueError(f"zero_shot needs one name or more and a template with {{}}, got {names!r} and {template!r}")
    texts = embed_captions(clip, tokenizer, [template.replace("{}", name) for name in names])
    logits = float(temperature_scale(clip.logit_scale[...])) * embed_images(clip, images) @ texts.T
    return np.asarray(jax.nn.softmax(logits, axis=-1))


def search(
    clip: CLIP,
    tokenizer: Encoder,
    query: str,
    folder: str | Path | Sequence[str | Path],
    n: int = 8,
    *,
    cache: str | Path | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Found:
    """Find the n pictures that match a query best, in a folder (and the folders in it) or in a list of files.

    cache: an `.npz` that keeps the features of pictures between searches; a picture is read again when it has changed
    on disk, and all are when the weights of `clip` have.
    What cannot be read as a picture is named in the result and stops nothing. Raises FileNotFoundError when there is no
    such folder, ValueError when there is not one picture file or n is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 or more pictures to find")
    files = picture_files(folder)
    stamps = [_stamp(path) for path in files]
    weights = _fingerprint(clip)
    known = _read_cache(cache, weights) if cache is not None else {}
    features = {path: known[stamp] for path, stamp in zip(files, stamps, strict=True) if stamp in known}
    missing = [path for path in files if path not in features]
    unreadable = []
    with tqdm(total=len(missing), disable=not progress, desc="reading pictures", unit="picture") as bar:
        for start in range(0, len(missing), batch_size):
            chunk = missing[start : start + batch_size]
            good, pictures = [], []
            for path in chunk:
                try:
                    pictures.append(read_picture(path, clip.config.vision_config.image_size))
                    good.append(path)
                except ValueError as error:
                    unreadable.append((path, str(error)))
            if good:
                features.update(zip(good, embed_images(clip, np.stack(pictures), batch_size=batch_size), strict=True))
            bar.update(len(chunk))
    if cache is not None and missing:
        _write_cache(cache, weights, {s: features[p] for p, s in zip(files, stamps, strict=True) if p in features})
    if not features:
        return Found([], unreadable)
    names = [path for path in files if path in features]
    scores = np.stack([features[path] for path in names]) @ embed_captions(clip, tokenizer, [query])[0]
    best = np.argsort(-scores, kind="stable")[:n]
    return Found([(names[i], float(scores[i])) for i in best], unreadable)


def picture_files(folder: str | Path | Sequence[str | Path]) -> list[Path]:
    """The picture files of a folder and the folders in it, by their suffix and in order; or the files given, as paths."""
    if not isinstance(folder, (str, os.PathLike)):
        files = [Path(path) for path in folder]
    else:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}; give a folder of pictures, or a list of files")
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise ValueError(f"no pictures in {folder}; looked for {', '.join(SUFFIXES)}")
    return files


def read_picture(path: Path, size: int) -> np.ndarray:
    """The middle square of a picture file as (size, size, 3) uint8; transparency becomes white.

    Raises ValueError, with the reason, for what is missing, broken, not a picture, or larger than Pillow's limit.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from 179 on; both are refused here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * size, 2 * size))  # lets JPEG decode at a fraction of its size
                picture = picture.convert("RGBA")
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(re.sub(r"\s*'?/.*", "", str(error)).strip() or type(error).__name__) from error
    ground = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(ground, picture).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return np.asarray(square)


def recall(
    image_features: np.ndarray, text_features: np.ndarray, right: np.ndarray, k: Sequence[int]
) -> dict[str, float]:
    """How often a picture's own caption is among its k nearest, `{"recall@1": …}`, and the mean of 1 / its rank.

    image_features: (N, D), text_features: (M, D), both of length 1. right: (N,), the index of each picture's caption.
    A caption that scores the same as the right one counts as before it.
    """
    scores = image_features @ text_features.T
    own = scores[np.arange(len(right)), right]
    ranks = (scores >= own[:, None]).sum(axis=1)  # 1 for the first
    found = {f"recall@{limit}": float((ranks <= limit).mean()) for limit in k}
    return {**found, "mean_reciprocal_rank": float((1 / ranks).mean())}


@partial(jax.jit, static_argnums=0)
def _image_features(graph: Any, state: Any, images: jax.Array) -> jax.Array:
    return normalize(nnx.merge(graph, state).encode_image(images.astype(jnp.float32) / 255))


@partial(jax.jit, static_argnums=0)
def _text_features(graph: Any, state: Any, text_ids: jax.Array, text_mask: jax.Array) -> jax.Array:
    return normalize(nnx.merge(graph, state).encode_text(text_ids, text_mask))


def _in_batches(features: Any, arrays: list[np.ndarray], batch_size: int, width: int) -> np.ndarray:
    """Features in batches of one size, the last one filled up, so that one compiled function serves them all."""
    count = len(arrays[0])
    batch_size = min(batch_size, 1 << max(count - 1, 0).bit_length())
    results = [np.zeros((0, width), np.float32)]
    for start in range(0, count, batch_size):
        chunk = [array[start : start + batch_size] for array in arrays]
        filled = [np.concatenate([a, np.repeat(a[-1:], batch_size - len(a), axis=0)]) for a in chunk]
        results.append(np.asarray(features(*filled))[: len(chunk[0])])
    return np.concatenate(results)


def _pictures(images: Any) -> np.ndarray:
    """Pictures as bytes (N, H, W, 3): a quarter of the memory, and one compiled function for both kinds."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have shape {images.shape}; expected (number, height, width, 3)")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) or (images.size and not np.isfinite(images).all()):
        raise ValueError(f"images are {images.dtype} or hold NaN; expected bytes, or finite floats in [0, 1]")
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"


def _fingerprint(clip: CLIP) -> str:
    """A word for these weights: features of other weights are worth nothing."""
    sums = [float(jnp.sum(jnp.abs(leaf.astype(jnp.float32)))) for leaf in jax.tree.leaves(nnx.state(clip, nnx.Param))]
    return f"{clip.config!r}|{sums!r}"


def _read_cache(cache: str | Path, weights: str) -> dict[str, np.ndarray]:
    try:
        with np.load(cache, allow_pickle=False) as saved:
            if str(saved["weights"]) != weights:
                return {}
            return dict(zip(saved["stamps"].tolist(), saved["features"], strict=True))
    except FileNotFoundError:
        return {}
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        warnings.warn(f"the search cache {cache} cannot be read ({error}) and is made anew", stacklevel=3)
        return {}


def _write_cache(cache: str | Path, weights: str, features: dict[str, np.ndarray]) -> None:
    with replacing(cache) as temporary, temporary.open("wb") as file:
        np.savez(file, weights=weights, stamps=list(features), features=np.array(list(features.values())))
