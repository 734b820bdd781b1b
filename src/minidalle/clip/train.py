"""Training CLIP from a recipe.

What matters for a ranker is told apart inside a batch, so half of each batch is chosen to be hard: the same figure in
several skin tones, and the same skin tone on several figures. And since what it ranks comes out of a VQGAN, some of the
pictures it learns from have been through one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm.auto import tqdm

from minidalle.clip.augment import augment, soften
from minidalle.clip.config import CLIPConfig
from minidalle.clip.model import CLIP
from minidalle.clip.objective import contrastive_loss
from minidalle.clip.rank import embed_images, embed_texts, recall
from minidalle.data import emoji
from minidalle.files import replacing, write_json
from minidalle.text import Tokenizer
from minidalle.training import compute_dtype, fit_with, flatten_parameters, section
from minidalle.training.export import save_arrays
from minidalle.training.placement import Placement
from minidalle.training.processes import leads

SHIPPED = "src/minidalle/checkpoints/emoji"
DATA = {
    "source": "emoji",
    "vqgan": "",  # folder of a VQGAN whose reconstructions are learned from too; "" for none
    "reconstructed": 0.3,  # share of them in a batch
    "tokenizer": f"{SHIPPED}/tokenizer.json",  # trained on the captions and put there when there is none
    "vocab_size": 1024,
}
MODEL = {"projection_dim": 128, "text_config": {}, "vision_config": {}}
TRAIN = {
    "steps": 3000,
    "batch_size": 128,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup_steps": 200,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "ema_decay": 0.998,
    "hard_share": 0.5,  # of a batch, in groups that are easily confused
    "augmentation": 1.0,  # strength, 0 for none
    "precision": "float32",  # or "bfloat16", what is computed in
    "save_every": 250,
    "log_every": 25,
    "evaluate_every": 250,
}
OUTPUT = {"path": f"{SHIPPED}/clip"}
VARIANTS, NEIGHBOURS = 6, 8  # members of a group of one figure, and of a group of one skin tone


def train(
    recipe: Mapping[str, Any],
    *,
    run_dir: str | Path,
    resume: bool = True,
    progress: bool = True,
    placement: Placement | None = None,
) -> CLIP:
    """Train the CLIP of a recipe, write it to `[output] path` in half precision, and return it.

    The run folder gets `log.jsonl`, `checkpoints/` and, at the end, `metrics.json` with recall on both held-out splits;
    `placement` says over which devices, None is one.
    Raises ValueError for a recipe with unknown keys, and whatever `minidalle.training.fit` raises.
    """
    if recipe.get("kind") != "clip":
        raise ValueError(f"this recipe is of kind {recipe.get('kind')!r}; expected clip")
    data_settings, settings = section(recipe, "data", DATA), section(recipe, "train", TRAIN)
    output = Path(section(recipe, "output", OUTPUT)["path"])
    if data_settings["source"] != "emoji":
        raise ValueError(f'[data] source is {data_settings["source"]!r}; expected "emoji"')
    data = emoji.load()
    captions = [data.captions[index] for index in data.split("train")]
    tokenizer = Tokenizer.load_or_train(data_settings["tokenizer"], captions, data_settings["vocab_size"])
    config = make_config(section(recipe, "model", MODEL), tokenizer)
    clip = CLIP(config, rngs=nnx.Rngs(recipe["seed"]), dtype=compute_dtype(settings))

    text_ids, text_mask = tokenizer.encode(data.captions, config.text_config.max_position_embeddings)
    # No caption is longer than this; behind the end token there is nothing to compute.
    length = int(text_mask.sum(axis=1).max())
    text_ids, text_mask = text_ids[:, :length], text_mask[:, :length]
    soft = reconstructions(data.images, data_settings["vqgan"], Path(run_dir), progress=progress)
    share = 0.0 if soft is None else data_settings["reconstructed"]
    soft = soften(data.images) if soft is None else soft

    def score(model: CLIP, split: str) -> dict[str, float]:
        return evaluate(model, data, soft, text_ids, text_mask, split)

    batches = make_batches(data, soft, text_ids, text_mask, {**settings, "reconstructed": share}, recipe["seed"])
    trained = fit_with(
        settings,
        loss_fn,
        clip,
        batches if placement is None else placement.share(batches),
        run_dir=run_dir,
        seed=recipe["seed"],
        evaluate=lambda model: score(model, "valid"),
        best=("mean_reciprocal_rank", "max"),
        progress=progress,
        resume=resume,
        placement=placement,
    )
    metrics = {split: score(trained, split) for split in ("valid", "test")}
    if leads():
        write_json(Path(run_dir) / "metrics.json", metrics)
        save_arrays(output, "clip", config.to_dict(), flatten_parameters(trained))
    return trained


def loss_fn(clip: CLIP, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The contrastive loss of a batch of pictures in bytes; the key is not needed, all chance is in the batch."""
    image_features = clip.encode_image(batch["images"].astype(jnp.float32) / 255)
    text_features = clip.encode_text(batch["text_ids"], batch["text_mask"])
    return contrastive_loss(image_features, text_features, clip.logit_scale[...])


def make_batches(
    data: emoji.EmojiData,
    soft: np.ndarray,
    text_ids: np.ndarray,
    text_mask: np.ndarray,
    settings: Mapping[str, Any],
    seed: int,
) -> Callable[[int], dict[str, np.ndarray]]:
    """The batch of every step: training pictures only, `hard_share` of them in groups that are easily confused.

    soft: all pictures once more, reconstructed; a share `reconstructed` of a batch is taken from them.
    """
    choose = make_chooser(data, settings["batch_size"], settings["hard_share"])

    def batches(step: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng([seed, step])
        indices = choose(generator)
        reconstructed = generator.random(len(indices)) < settings["reconstructed"]
        images = np.where(reconstructed[:, None, None, None], soft[indices], data.images[indices])
        images = augment(images, generator, settings["augmentation"])
        return {"images": images, "text_ids": text_ids[indices], "text_mask": text_mask[indices]}

    return batches


def make_chooser(
    data: emoji.EmojiData, batch_size: int, hard_share: float
) -> Callable[[np.random.Generator], np.ndarray]:
    """A function from a generator to `batch_size` different indices of the training split.

    A quarter (half of `hard_share`) comes in groups of one figure (role), a quarter in groups of one skin tone.
    """
    everything = data.split("train")
    if not 0 <= hard_share <= 1 or not 1 <= batch_size <= len(everything):
        raise ValueError(
            f"hard_share is {hard_share} and batch_size {batch_size}; expected 0 to 1, and 1 to {len(everything)}"
        )
    figures: dict[str, list[int]] = {}
    tones: dict[tuple[str, ...], list[int]] = {}
    for index in everything:
        parts = data.parts[index]
        if parts.tones:
            figures.setdefault(parts.role, []).append(int(index))
            tones.setdefault(parts.tones, []).append(int(index))
    kinds = []
    for named, size in ((figures, VARIANTS), (tones, NEIGHBOURS)):
        groups = sorted(group for group in named.values() if len(group) > 1)
        # By their size: else the few couples in twenty pairs of tones would fill half of the groups.
        weights = np.cumsum([len(group) for group in groups])
        kinds.append((groups, weights / weights[-1], size))

    def choose(generator: np.random.Generator) -> np.ndarray:
        chosen: dict[int, None] = {}  # a set that keeps its order
        for part, (groups, shares, size) in enumerate(kinds, start=1):
            while len(chosen) + size <= part * hard_share / 2 * batch_size:
                group = groups[np.searchsorted(shares, generator.random(), side="right")]
                chosen.update(dict.fromkeys(generator.permutation(group)[:size].tolist()))
        for index in generator.permutation(everything):
            if len(chosen) == batch_size:
                break
            chosen[int(index)] = None
        return np.array(list(chosen))

    return choose


def evaluate(
    clip: CLIP,
    data: emoji.EmojiData,
    soft: np.ndarray,
    text_ids: np.ndarray,
    text_mask: np.ndarray,
    split: str,
) -> dict[str, float]:
    """How well held-out pictures find their captions among all 3,655: the real ones, and ("soft_…") what `soft` has.

    recall@1, recall@5, mean_reciprocal_rank (of both kinds together), and how often the first caption of a soft picture
    has the right role and the right skin tones.
    """
    right = data.split(split)
    texts = embed_texts(clip, text_ids, text_mask)
    features, soft_features = embed_images(clip, data.images[right]), embed_images(clip, soft[right])
    scores, soft_scores = (recall(found, texts, right, (1, 5)) for found in (features, soft_features))
    first = (soft_features @ texts.T).argmax(axis=1)
    pairs = [(data.parts[i], data.parts[j]) for i, j in zip(right, first, strict=True)]
    return {
        "recall@1": scores["recall@1"],
        "recall@5": scores["recall@5"],
        "soft_recall@1": soft_scores["recall@1"],
        "soft_recall@5": soft_scores["recall@5"],
        "soft_role": float(np.mean([a.role == b.role for a, b in pairs])),
        "soft_tone": float(np.mean([a.tones == b.tones for a, b in pairs])),
        "mean_reciprocal_rank": (scores["mean_reciprocal_rank"] + soft_scores["mean_reciprocal_rank"]) / 2,
    }


def reconstructions(images: np.ndarray, vqgan: str, run_dir: Path, *, progress: bool = True) -> np.ndarray | None:
    """All pictures through the VQGAN of a folder, made once and kept in the run folder; None without a VQGAN."""
    if not vqgan:
        return None
    kept = run_dir / "reconstructed.npy"
    if not kept.exists():
        reconstructed = reconstruct(images, vqgan, progress=progress)
        with replacing(kept) as temporary, temporary.open("wb") as file:
            np.save(file, reconstructed)
    return np.load(kept)


def reconstruct(images: np.ndarray, folder: str | Path, *, batch_size: int = 64, progress: bool = True) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8 once through the VQGAN of a folder: how the pictures that CLIP ranks will look."""
    # Here and not above: PyTorch takes seconds to import, and only this needs it.
    import torch

    from minidalle.vqgan.export import load_exported

    vqgan = load_exported(folder)
    results = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(images), batch_size), disable=not progress, desc="reconstructing"):
            pixels = torch.from_numpy(images[start : start + batch_size].copy()).movedim(-1, 1).float() / 255
            decoded = vqgan.decode(vqgan.encode(pixels)).clamp(0, 1)
            results.append((decoded.movedim(1, -1) * 255).round().to(torch.uint8).numpy())
    return np.concatenate(results)


def make_config(settings: Mapping[str, Any], tokenizer: Tokenizer) -> CLIPConfig:
    """The config of a recipe's [model] with what the tokenizer decides filled in."""
    text = {
        **settings["text_config"],
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.start_id,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.end_id,
        "pooling": "eos",
    }
    return CLIPConfig.from_dict({**settings, "text_config": text})
