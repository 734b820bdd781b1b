"""Every number of a model card, computed again: `minidalle evaluate emoji`.

Reconstruction (PSNR, SSIM, codebook use), generation (is the nearest real emoji the one that the caption names?) on
captions seen in training and on combinations never seen, and CLIP's retrieval.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from tqdm.auto import tqdm

from .clip.rank import embed_captions, embed_images
from .data import emoji
from .measures import psnr, share
from .pipeline import Pipeline
from .vqgan.quantize import perplexity


def nearest_emoji(images: np.ndarray, data: emoji.EmojiData | None = None) -> np.ndarray:
    """Return the index of the real emoji nearest to each uint8 picture `(n, 64, 64, 3)` in mean squared pixel distance."""
    data = data or emoji.load()
    real = data.images.reshape(len(data), -1).astype(np.float32) / 255
    given = np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255
    return ((real**2).sum(1) - 2 * given @ real.T).argmin(1)


def reconstruction(pipe: Pipeline, rows: np.ndarray) -> dict[str, float]:
    """Measure what is left of pictures after encoding and decoding, and how much of the codebook they use."""
    images = emoji.load().images[rows]
    codes, decoded = [], []
    for start in range(0, len(images), 64):
        codes.append(pipe.encode(images[start : start + 64]))
        decoded.append(pipe.decode(codes[-1]))
    codes, decoded = np.concatenate(codes), np.concatenate(decoded)
    similarity = [structural_similarity(a, b, channel_axis=2) for a, b in zip(images, decoded, strict=True)]
    n_embed = pipe.vqgan.config.n_embed
    return {
        "pictures": len(rows),
        "psnr_db": float(psnr(images, decoded).mean()),
        "ssim": float(np.mean(similarity)),
        "codes_used": len(np.unique(codes)) / n_embed,
        "perplexity": float(perplexity(torch.from_numpy(codes.astype(np.int64)), n_embed)),
    }


def judge(images: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Tell for each picture whether its nearest real emoji has the wanted picture, role, and skin tones.

    Args:
        images: `(n, 64, 64, 3)` uint8.
        wanted: `(n,)` index of the emoji that the caption names.

    Returns:
        Arrays `(n,)` of bool: "exact" (that very picture, under whichever of its names), "role" (role and hair), "tone".
    """
    data = emoji.load()
    found = nearest_emoji(images, data)
    pairs = [(data.parts[a], data.parts[b]) for a, b in zip(found, wanted, strict=True)]
    return {
        "exact": np.array([(data.images[a] == data.images[b]).all() for a, b in zip(found, wanted, strict=True)]),
        "role": np.array([a.role == b.role and a.hair == b.hair for a, b in pairs]),
        "tone": np.array([a.tones == b.tones for a, b in pairs]),
    }


def generation(
    pipe: Pipeline, rows: np.ndarray, n: int, seed: int = 0, progress: bool = True, **settings
) -> dict[str, Any]:
    """Draw `n` pictures for each caption and judge the first one drawn and the one that CLIP ranks first."""
    defaults = {**dataclasses.asdict(pipe.sampling), "top_k": None, "top_p": None}
    data, settings = emoji.load(), {**defaults, **settings}
    first, best = [], []
    for start in tqdm(range(0, len(rows), 32), disable=not progress, desc="generating", unit="batch"):
        captions = [data.captions[row] for row in rows[start : start + 32]]
        for found in pipe.generate(captions, n, seed=seed, rank=n > 1, **settings):
            first.append(found.images[int(np.flatnonzero(found.order == 0)[0])])
            best.append(found.images[0])
    result: dict[str, Any] = {"captions": len(rows), "candidates": n, "seed": seed, **settings}
    for name, images in (("first", first), ("best", best))[: 2 if n > 1 else 1]:
        judged = judge(np.stack(images), rows)
        judged["role_and_tone"] = judged["role"] & judged["tone"]
        result[name] = {key: share(hits) for key, hits in judged.items()}
    return result


def retrieval(pipe: Pipeline, rows: np.ndarray) -> dict[str, Any]:
    """Measure how often a picture's own caption is CLIP's first, or among its first five, of all 3,655 captions."""
    data = emoji.load()
    pictures = embed_images(pipe.clip, data.images[rows])
    similarity = pictures @ embed_captions(pipe.clip, pipe.clip_tokenizer, data.captions).T
    ranks = (similarity >= similarity[np.arange(len(rows)), rows][:, None]).sum(1)
    return {"recall_at_1": share(ranks <= 1), "recall_at_5": share(ranks <= 5), "captions": len(data)}


def evaluate_emoji(
    pipe: Pipeline, seen: int | None = None, seed: int = 0, progress: bool = True, **settings
) -> dict[str, Any]:
    """Compute all numbers of the emoji card.

    Args:
        pipe: the pipeline to judge.
        seen: how many of the training captions are drawn, chosen by `seed`; None takes all.
        seed: of the choice and of all draws.
        settings: sampling settings other than the pipeline's own.
    """
    data = emoji.load()
    train, test = data.split("train"), data.split("test")
    chosen = np.sort(np.random.default_rng(seed).permutation(train)[:seen])
    return {
        "reconstruction": {"unseen": reconstruction(pipe, test), "all": reconstruction(pipe, data.split("all"))},
        "seen_captions": generation(pipe, chosen, 1, seed, progress, **settings),
        "held_out_combinations": generation(pipe, test, 8, seed, progress, **settings),
        "retrieval_unseen": retrieval(pipe, test),
    }
