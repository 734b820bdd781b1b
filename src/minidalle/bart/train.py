"""Training DalleBart: on arrays of ids and codes, or from a recipe.

The recipe's road: captions to ids, pictures to codes (once, by the recipe's VQGAN; kept in the run folder), training
with a look at held-out captions now and then, and the finished weights written in half precision.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from minidalle.bart import objective
from minidalle.bart.config import DalleBartConfig
from minidalle.bart.model import DalleBart
from minidalle.bart.sampling import sample
from minidalle.data import emoji
from minidalle.data.encoded import Encoded
from minidalle.data.order import Order
from minidalle.files import replacing, write_json
from minidalle.text import Tokenizer
from minidalle.training import compute_dtype, fit_with, flatten_parameters, load_parameters, section
from minidalle.training.export import read_arrays, save_arrays
from minidalle.training.placement import Placement
from minidalle.training.processes import leads
from minidalle.vqgan.export import load_exported

SHIPPED = "src/minidalle/checkpoints/emoji"
DATA = {
    "source": "emoji",  # or what `minidalle encode` wrote: the folder, or a shard of it
    "reading": "memory",  # all of it, in every process; or "grain": shards as they are needed, see bart.streaming
    "window": 16,  # with "grain": shards in memory, whose rows are shuffled together
    "vqgan": f"{SHIPPED}/vqgan",  # encodes the emoji
    "variants": 1,  # codings of each picture: it as it is, and moved by up to max_shift pixels
    "max_shift": 2,
    "single_share": 0.0,  # of a batch: emoji without skin tones, which share no parts with others; 0 takes all alike
    "tokenizer": f"{SHIPPED}/tokenizer.json",  # trained on the captions and put there when there is none
    "vocab_size": 2048,
}
TRAIN = {
    "steps": 4000,  # length of the schedule
    "stop_at": 0,  # end at this step, with the schedule cut short; 0 goes to the end
    "start_from": "",  # folder of trained weights to go on from with a new schedule; "" starts from nothing
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup_steps": 100,
    "weight_decay": 0.05,
    "clip_norm": 1.0,
    "accumulate": 1,
    "ema_decay": 0.998,
    "blank_probability": 0.1,
    "hide_probability": 0.0,
    "code_corruption": 0.0,
    "label_smoothing": 0.0,
    "precision": "float32",  # or "bfloat16", what is computed in
    "save_every": 250,
    "log_every": 25,
    "evaluate_every": 500,
    "guidance": 3.0,  # of the pictures drawn in evaluations
    "temperature": 1.0,
    "best": "",  # keep the weights of the evaluation best by this number; "" keeps the last
}
OUTPUT = {"path": f"{SHIPPED}/bart"}


class Pairs(NamedTuple):
    """Captions and pictures as arrays, and the empty caption."""

    text_ids: np.ndarray  # (N, T) int32
    text_mask: np.ndarray  # (N, T)
    codes: np.ndarray  # (N, V, L) int32: V codings of each picture, the first is the picture's own
    blank_ids: np.ndarray  # (1, T)
    blank_mask: np.ndarray  # (1, T)


class Prepared(NamedTuple):
    """What a recipe's [data] and [model] come to."""

    config: DalleBartConfig
    pairs: Pairs
    evaluate: Callable[[DalleBart], dict[str, float]]
    weights: np.ndarray | None = None
    batches: Callable[[int], dict[str, np.ndarray]] | None = None


def train_dalle_bart(
    config: DalleBartConfig,
    pairs: Pairs,
    *,
    run_dir: str | Path,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    evaluate: Callable[[DalleBart], dict[str, float]] | None = None,
    weights: np.ndarray | None = None,
    batches: Callable[[int], dict[str, np.ndarray]] | None = None,
    resume: bool = True,
    progress: bool = True,
    placement: Placement | None = None,
) -> DalleBart:
    """Train a DalleBart on arrays and return it: the best by ``settings["best"]``, else the averaged weights.

    Args:
        config: sizes and switches.
        pairs: what to train on; each step takes one coding of each of its pictures.
        run_dir: folder for the log and the checkpoints.
        settings: any of ``TRAIN``; the rest as there.
        seed: of initial weights, batches and all randomness.
        evaluate: numbers of a model on what was held out, called every ``evaluate_every`` steps.
        weights: (N,) how often each pair is taken, in proportion; None takes all equally often.
        batches: the rows that this process brings to each step, as ``make_batches`` gives them, for data that do not
            fit into memory; ``pairs`` is then a sample of them, to be checked, and has the blank. None takes ``pairs``.
        resume: go on from the checkpoint in ``run_dir``, if there is one.
        progress: show a bar.
        placement: over which devices, as ``scale.mesh.on_mesh`` makes it; None is one.

    Raises:
        ValueError: a setting is unknown or out of its range, or the arrays do not fit the model or each other.
        Whatever ``minidalle.training.fit`` raises.
    """
    settings = section({"train": settings or {}}, "train", TRAIN)
    for name in ("blank_probability", "hide_probability", "code_corruption", "label_smoothing"):
        if not 0 <= settings[name] < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {settings[name]}")
    dtype = compute_dtype(settings)
    _check_pairs(config, pairs)

    def build() -> DalleBart:
        return DalleBart(config, rngs=nnx.Rngs(seed), dtype=dtype)

    model = build() if placement is None else placement.build(build)
    if settings["start_from"]:
        load_parameters(model, read_arrays(settings["start_from"]))

    def loss_fn(model: DalleBart, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict]:
        spoiling = ("blank_probability", "hide_probability", "code_corruption", "label_smoothing")
        value = objective.loss(
            model,
            batch["text_ids"],
            batch["text_mask"],
            batch["codes"],
            key=key,
            blank_ids=pairs.blank_ids,
            blank_mask=pairs.blank_mask,
            **{name: settings[name] for name in spoiling},
        )
        return value, {}

    best = settings["best"]
    if batches is None:
        batches = make_batches(pairs, settings["batch_size"], seed, weights)
        batches = batches if placement is None else placement.share(batches)
    return fit_with(
        settings,
        loss_fn,
        model,
        batches,
        run_dir=run_dir,
        seed=seed,
        evaluate=evaluate,
        best=(best, "min" if best.endswith("loss") else "max") if best else None,
        resume=resume,
        progress=progress,
        placement=placement,
    )


def make_batches(
    pairs: Pairs, batch_size: int, seed: int, weights: np.ndarray | None = None
) -> Callable[[int], dict[str, np.ndarray]]:
    """The batch of every step: all pairs once, shuffled, then all again in another order; a random coding of each.

    With ``weights`` (N,), pairs are drawn in proportion to them instead, each batch by itself.
    """
    count, variants, _ = pairs.codes.shape
    order = Order(count, batch_size, (seed, 0))

    def batches(step: int) -> dict[str, np.ndarray]:
        if weights is None:
            rows = order.rows(step)
        else:
            rows = np.random.default_rng([seed, 2, step]).choice(count, batch_size, p=weights / weights.sum())
        variant = np.random.default_rng([seed, 1, step]).integers(variants, size=batch_size)
        return {
            "text_ids": pairs.text_ids[rows],
            "text_mask": pairs.text_mask[rows],
            "codes": pairs.codes[rows, variant],
        }

    return batches


def train(
    recipe: Mapping[str, Any],
    *,
    run_dir: str | Path,
    resume: bool = True,
    progress: bool = True,
    placement: Placement | None = None,
) -> DalleBart:
    """Train the DalleBart of a recipe, write it to ``[output] path`` in half precision, and return it.

    The run folder gets ``log.jsonl``, ``checkpoints/``, the pictures' codes and, at the end, ``metrics.json``;
    ``placement`` says over which devices, None is one.

    Raises:
        ValueError: the recipe is of another kind, has unknown keys or values out of range.
        FileNotFoundError: the VQGAN or the file of codes that it names is missing.
        Whatever ``minidalle.training.fit`` raises.
    """
    if recipe.get("kind") != "bart":
        raise ValueError(f"this recipe is of kind {recipe.get('kind')!r}; expected 'bart'")
    data_settings, settings = section(recipe, "data", DATA), section(recipe, "train", TRAIN)
    output = Path(section(recipe, "output", OUTPUT)["path"])
    run_dir = Path(run_dir)
    if data_settings["reading"] == "grain":
        from minidalle.bart.streaming import prepare_stream  # needs Grain

        prepared = prepare_stream(
            recipe, data_settings, settings["batch_size"], run_dir, resume=resume, placement=placement
        )
    elif data_settings["reading"] == "memory":
        prepared = prepare(recipe, data_settings, settings, run_dir)
    else:
        raise ValueError(f"[data] reading is {data_settings['reading']!r}; expected 'memory' or 'grain'")
    model = train_dalle_bart(
        prepared.config,
        prepared.pairs,
        run_dir=run_dir,
        settings=recipe.get("train", {}),
        seed=recipe["seed"],
        evaluate=prepared.evaluate,
        weights=prepared.weights,
        batches=prepared.batches,
        resume=resume,
        progress=progress,
        placement=placement,
    )
    metrics = prepared.evaluate(model)
    if leads():
        write_json(run_dir / "metrics.json", metrics)
        save_arrays(output, "bart", model.config.to_dict(), flatten_parameters(model))
    return model


def prepare(
    recipe: Mapping[str, Any], data_settings: Mapping[str, Any], settings: Mapping[str, Any], run_dir: Path
) -> Prepared:
    """The emoji, or a recipe's codes, whole in memory; a fiftieth of those is held out."""
    if data_settings["source"] == "emoji":
        data = emoji.load()
        captions, groups = data.captions, {split: data.split(split) for split in ("train", "valid")}
        weights = single_weights(data, groups["train"], data_settings["single_share"])
        codes, codebook = encode_emoji(data, data_settings, run_dir)
    else:
        encoded, weights = Encoded.load(data_settings["source"]), None
        captions, codes = encoded.captions, encoded.codes[:, None]
        codebook = np.empty((encoded.n_embed, 0), np.float32)
        held_out = max(1, len(captions) // 50)
        shuffled = np.random.default_rng(recipe["seed"]).permutation(len(captions))
        groups = {"train": shuffled[held_out:], "valid": shuffled[:held_out]}

    training_captions = [captions[row] for row in groups["train"]]
    tokenizer = Tokenizer.load_or_train(data_settings["tokenizer"], training_captions, data_settings["vocab_size"])
    config = make_config(recipe.get("model", {}), tokenizer, len(codebook), codes.shape[2])
    text_ids, text_mask = tokenizer.encode(captions, config.max_text_length)
    length = int(text_mask.sum(axis=1).max())  # behind the longest caption there is nothing to compute
    blank_ids, blank_mask = tokenizer.encode([""], length)
    pairs = Pairs(text_ids[:, :length], text_mask[:, :length], codes, blank_ids, blank_mask)

    def rows_of(split: str) -> Pairs:
        rows = groups[split]
        return pairs._replace(text_ids=pairs.text_ids[rows], text_mask=pairs.text_mask[rows], codes=codes[rows])

    def evaluate(model: DalleBart) -> dict[str, float]:
        scores = evaluation_losses(model, rows_of("valid"))
        if data_settings["source"] == "emoji":
            scores |= judge_codes(model, pairs, groups["valid"], codebook, data, settings)
        return scores

    return Prepared(config, rows_of("train"), evaluate, weights)


def single_weights(data: emoji.EmojiData, rows: np.ndarray, share: float) -> np.ndarray | None:
    """Weights (len(rows),) by which emoji without skin tones make up ``share`` of what is drawn; None when it is 0."""
    if not 0 <= share < 1:
        raise ValueError(f"[data] single_share must lie in [0, 1), got {share}")
    if share == 0:
        return None
    single = np.array([not data.parts[row].tones for row in rows])
    return np.where(single, share / single.sum(), (1 - share) / (~single).sum())


def make_config(values: Mapping[str, Any], tokenizer: Tokenizer, n_embed: int, code_length: int) -> DalleBartConfig:
    """The configuration of a recipe's [model], with what tokenizer and codes decide filled in where it says nothing."""
    decided = {
        "encoder_vocab_size": tokenizer.vocab_size,
        "image_vocab_size": n_embed,
        "image_length": code_length,
        "gradient_checkpointing": False,
    }
    return DalleBartConfig.from_dict({**decided, **values})


def encode_emoji(data: emoji.EmojiData, settings: Mapping[str, Any], run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The emoji's codes (3655, variants, L) int32, and the VQGAN's codebook (n_embed, embed_dim).

    The codes are kept in ``run_dir`` under a name that holds a checksum of all they depend on.
    """
    variants, reach = settings["variants"], settings["max_shift"]
    if variants < 1 or reach < 0:
        raise ValueError(f"[data] variants is {variants} and max_shift {reach}; expected at least 1 and 0")
    vqgan = load_exported(settings["vqgan"])
    checksum = zlib.crc32(str((variants, reach)).encode())
    for _, weight in sorted(vqgan.state_dict().items()):
        checksum = zlib.crc32(weight.contiguous().numpy().reshape(-1).view(np.uint8), checksum)
    codebook = vqgan.quantize.codebook.detach().numpy()
    path = run_dir / f"codes-{checksum:08x}.npy"
    if path.exists():
        return np.load(path), codebook

    moves = np.random.default_rng(0).integers(-reach, reach + 1, (len(data.images), variants, 2))
    moves[:, 0] = 0
    codes = []
    with torch.inference_mode():
        for variant in range(variants):
            images = np.stack(
                [move(image, *shift) for image, shift in zip(data.images, moves[:, variant], strict=True)]
            )
            batches = [
                vqgan.encode(torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).float() / 255)
                for start in range(0, len(images), 64)
            ]
            codes.append(torch.cat(batches).numpy().astype(np.int32))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(codes, axis=1))
    return np.load(path), codebook


def move(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 moved by whole pixels, white where it has left."""
    height, width, _ = image.shape
    moved = np.full_like(image, 255)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def evaluation_losses(model: DalleBart, pairs: Pairs, batch_size: int = 64) -> dict[str, float]:
    """Nats for each code of pictures not trained on: ``valid_loss`` with their captions, ``blank_loss`` without."""
    structure, parameters = nnx.split(model)
    totals = {"valid_loss": 0.0, "blank_loss": 0.0}
    count = len(pairs.codes)
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        codes = pairs.codes[rows, 0]
        blank = tuple(
            np.broadcast_to(array, pairs.text_ids[rows].shape) for array in (pairs.blank_ids, pairs.blank_mask)
        )
        for name, text in (("valid_loss", (pairs.text_ids[rows], pairs.text_mask[rows])), ("blank_loss", blank)):
            totals[name] += float(_loss(structure, parameters, *text, codes)) * len(codes)
    return {name: total / count for name, total in totals.items()}


@functools.partial(jax.jit, static_argnums=0)
def _loss(structure: nnx.GraphDef, parameters: nnx.State, *batch: jax.Array) -> jax.Array:
    return objective.loss(nnx.merge(structure, parameters), *batch)


def judge_codes(
    model: DalleBart,
    pairs: Pairs,
    rows: np.ndarray,
    codebook: np.ndarray,
    data: emoji.EmojiData,
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Draw one picture for each of these emoji and see which real one is nearest, by the distance of the code vectors.

    Returns:
        Shares of pictures whose nearest real emoji is the caption's own (``exact``), has its role and hair (``role``),
        its skin tones (``tone``), and both (``role_and_tone``).
    """
    drawn = sample(
        model,
        pairs.text_ids[rows],
        pairs.text_mask[rows],
        pairs.blank_ids,
        pairs.blank_mask,
        key=jax.random.key(0),
        guidance=settings["guidance"],
        temperature=settings["temperature"],
    )
    judged = judge_drawn(np.asarray(drawn), rows, pairs.codes[:, 0], codebook, data.parts)
    return {name: float(np.mean(hits)) for name, hits in judged.items()}


def judge_drawn(
    drawn: np.ndarray, rows: np.ndarray, codes: np.ndarray, codebook: np.ndarray, parts: Sequence[emoji.Parts]
) -> dict[str, np.ndarray]:
    """The same for each of the codes (n, L) drawn for these rows of N real emoji with codes (N, L) and parts: (n,) of bool."""
    real = codebook[codes].reshape(len(codes), -1)
    made = codebook[drawn].reshape(len(rows), -1)
    nearest = ((real**2).sum(axis=1) - 2 * made @ real.T).argmin(axis=1)
    couples = [(parts[found], parts[wanted]) for found, wanted in zip(nearest, rows, strict=True)]
    role = np.array([a.role == b.role and a.hair == b.hair for a, b in couples])
    tone = np.array([a.tones == b.tones for a, b in couples])
    return {"exact": nearest == rows, "role": role, "tone": tone, "role_and_tone": role & tone}


def _check_pairs(config: DalleBartConfig, pairs: Pairs) -> None:
    count = len(pairs.codes)
    if count == 0 or pairs.codes.ndim != 3 or not len(pairs.text_ids) == len(pairs.text_mask) == count:
        raise ValueError(
            f"text_ids {pairs.text_ids.shape}, text_mask {pairs.text_mask.shape} and codes {pairs.codes.shape} must "
            "have one row for each of at least one picture, codes as (pictures, variants, code length)"
        )
    for name, values, size in (
        ("codes", pairs.codes, config.codebook_size),
        ("text_ids", pairs.text_ids, config.encoder_vocab_size),
    ):
        if values.min() < 0 or values.max() >= size:
            raise ValueError(f"{name} run from {values.min()} to {values.max()}; this model knows [0, {size})")
    if pairs.codes.shape[2] != config.image_length:
        raise ValueError(f"pictures have {pairs.codes.shape[2]} codes; image_length is {config.image_length}")
