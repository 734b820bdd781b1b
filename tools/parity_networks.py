"""For each kind of recorded case, what our networks make of its inputs beside what the originals made of them.

Each function yields (output, ours, theirs). What the arrays are stands in each case's `meta.json`. Left out is what has no
counterpart here: a decoder's attention mask, hidden states inside a stack, and training, which other tests hold.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig, loss, sample
from minidalle.bart.sampling import guide, keep_top_k, keep_top_p
from minidalle.clip import contrastive_loss, normalize
from minidalle.hub.clip import load_clip, to_huggingface
from minidalle.hub.dallebart import load_dallebart, native_name
from minidalle.hub.detoker import load_detoker
from minidalle.hub.dvae import load_dvae
from minidalle.hub.min_dalle import load_min_dalle
from minidalle.hub.vqgan import load_vqgan
from minidalle.training.tree import flatten_names
from minidalle.vqgan import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin
from tools.parity import Case, Found

KEY = jax.random.key(0)  # for greedy codes, which no key changes


def dallebart(case: Case) -> Found:
    """DalleBart of dalle-mini."""
    io, model = case.io, load_dallebart(case.weights, dtype=case.dtype)
    kinds = {"": "", "uncond_": "_uncond"}
    text = {name: (io[f"input_ids{kind}"], io[f"attention_mask{kind}"]) for name, kind in kinds.items()}
    states = {name: model.encode(*text[name]) for name in text}

    def logits(name: str, inputs: np.ndarray) -> jax.Array:
        return model.decode(states[name], text[name][1], inputs)

    for name, label in {"": "", "uncond_": "unconditional "}.items():
        yield f"{label}encoder states", states[name], io[f"{name}encoder_last_hidden_state"]
        yield f"{label}logits", logits(name, io["decoder_input_ids"]), io[f"{name}logits"]
    if "logits_prefix" in io:
        length = io["logits_prefix"].shape[1]
        yield "logits of a beginning", logits("", io["decoder_input_ids"][:, :length]), io["logits_prefix"]
    if "logits_no_attention_mask" in io:
        ids, mask = io["input_ids"], np.ones_like(io["attention_mask"])
        ours = model.decode(model.encode(ids, mask), mask, io["decoder_input_ids"])
        yield "logits without a mask", ours, io["logits_no_attention_mask"]

    def guided(sequences: np.ndarray, scale: float) -> np.ndarray:
        inputs = np.minimum(sequences[:, :-1], model.config.image_vocab_size)
        return guide(logits("", inputs), logits("uncond_", inputs), scale)

    for name in (name for name in io if re.fullmatch(r"gen_(greedy|topk1_cs.+)_sequences", name)):
        sequences, stem = io[name], name.removesuffix("_sequences")
        scale = float(stem.partition("_cs")[2] or 1)
        label = "greedy" if stem == "gen_greedy" else f"guidance {scale:g}"
        theirs = io[f"{stem}_step_logits"]
        before = before_end(sequences, model.config)
        seen = before[:, : theirs.shape[1]]  # up to the first end, after which the original repeats the padding
        yield f"step logits, {label}", np.asarray(guided(sequences, scale))[:, : theirs.shape[1]][seen], theirs[seen]
        if case.exact:
            ours = sample(model, *text[""], *text["uncond_"], key=KEY, guidance=scale, temperature=0)
            drawn = before[:, 1:]
            yield f"codes, {label}", np.asarray(ours)[:, : drawn.shape[1]][drawn], sequences[:, 1:][drawn]
    if case.exact:
        runs = []
        for number, setting in enumerate(case.meta.get("sample_settings", [])):
            if (sequences := io.get(f"gen_sample{number}_sequences")) is None:
                continue
            values = {name: float(str(value).split()[-1]) for name, value in setting.items() if name != "prng_key"}
            seed = int(re.search(r"PRNGKey\((\d+)\)", setting["prng_key"])[1])
            ours = original_draws(guided(sequences, values.pop("condition_scale")), seed, **values)
            drawn = before_end(sequences, model.config)[:, 1:]
            runs.append((ours[drawn], sequences[:, 1:][drawn]))
        if runs:
            yield f"random codes, {len(runs)} runs", *joined(runs)
        yield from dallebart_gradients(case, model)


def before_end(sequences: np.ndarray, config: DalleBartConfig) -> np.ndarray:
    """True up to what is no code, with which the original ends a row and which we never draw; the start token aside."""
    ended = (sequences >= config.codebook_size) | np.isin(sequences, (config.eos_token_id, config.pad_token_id))
    ended[:, 0] = False
    return np.cumsum(ended, axis=1) == 0


def original_draws(logits: jax.Array, seed: int, temperature: float, top_k: float, top_p: float) -> np.ndarray:
    """The codes that the original's random numbers pick from our logits (B, L, V) after our filters."""
    warped, codes = filtered(logits, temperature, top_k, top_p), []
    with jax.threefry_partitionable(False):  # JAX drew so in 2022
        key = jax.random.PRNGKey(seed)
        for position in range(logits.shape[1]):
            draw_key, key = jax.random.split(key)
            codes.append(jax.random.categorical(draw_key, warped[:, position]))
    return np.stack(codes, axis=1)


def dallebart_gradients(case: Case, model: DalleBart) -> Found:
    """Loss and its gradients, dropout off."""
    io, norms = case.io, case.meta.get("grad_norms", {})
    structure, parameters = nnx.split(model)
    batch = io["input_ids"], io["attention_mask"], io["labels"]
    value, gradients = jax.jit(jax.value_and_grad(lambda p: loss(nnx.merge(structure, p), *batch)))(parameters)
    yield "loss", value, io["loss"]
    named = flatten_names(gradients)[0]

    def ours(name: str) -> np.ndarray:
        native = native_name(model.config, name)
        stack, number, part = re.fullmatch(r"(?:(.*\.layers)\.(\d+)\.)?(.*)", native).groups()
        return np.asarray(named[part] if stack is None else named[f"{stack}.{part}"][int(number)])

    yield from gradient_rows({name: ours(name) for name in norms}, norms, io["grad_global_norm"])
    recorded = {name.removeprefix("grad:"): array for name, array in io.items() if name.startswith("grad:")}
    if recorded:
        # One scale for all, so that a gradient of zero but for rounding is not measured by its own rounding.
        scales = {name: max(np.abs(array).max(), 1e-3 * io["grad_global_norm"]) for name, array in recorded.items()}
        pairs = [
            (ours(name).reshape(array.shape) / scales[name], array / scales[name]) for name, array in recorded.items()
        ]
        yield "gradients", *joined(pairs)


def joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """Ours and theirs of several comparisons as one."""
    return (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))


def gradient_rows(ours: dict[str, np.ndarray], norms: dict[str, float], whole: np.ndarray) -> Found:
    """Norms of single parameters' gradients, and of all together."""
    if norms:
        found = {name: np.linalg.norm(ours[name].astype(np.float64)) for name in norms}
        yield "gradient norms", np.array([found[name] for name in norms]), np.array(list(norms.values()))
        yield "gradient norm", np.sqrt(sum(norm**2 for norm in found.values())), whole


def sampling(case: Case) -> Found:
    """Guidance, temperature, top-k and top-p of DalleBart's generation on given logits, over all recorded settings."""
    io, config = case.io, case.meta["config"]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, setting in enumerate(config["settings"]):
        guided = guide(io["logits_cond"], io["logits_uncond"], setting["condition_scale"])
        warped = filtered(guided, **original_settings(setting, config))
        ours = {"combined": guided, "warped": warped, "probs": jax.nn.softmax(warped)}
        with jax.threefry_partitionable(False):
            keys = [jax.random.split(jax.random.PRNGKey(seed))[0] for seed in range(len(io[f"s{number}:drawn"]))]
            ours["drawn"] = np.stack([jax.random.categorical(key, warped) for key in keys])
        for name, array in ours.items():
            found.setdefault(name, []).append((array, io[f"s{number}:{name}"]))
    labels = {"combined": "guided logits", "warped": "filtered logits", "probs": "probabilities", "drawn": "codes"}
    for name, pairs in found.items():
        yield f"{labels[name]}, {len(pairs)} settings", *joined(pairs)


def original_settings(setting: dict[str, Any], config: dict[str, Any]) -> dict[str, float | None]:
    """A recorded setting as we say it: what None, 0 and 1 stand for there is explicit here."""
    names = "temperature", "top_k", "top_p"
    chosen = {name: config[f"config.{name}"] if setting[name] is None else setting[name] for name in names}
    return {
        "temperature": chosen["temperature"],
        "top_k": chosen["top_k"] or None,
        "top_p": chosen["top_p"] if chosen["top_p"] < 1 else None,
    }


def filtered(logits: jax.Array, temperature: float, top_k: float | None, top_p: float | None) -> jax.Array:
    """Logits (..., V) as they are drawn from: by temperature, then the k likeliest, then the nucleus."""
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, min(int(top_k), logits.shape[-1]))
    return logits if top_p is None else keep_top_p(logits, top_p)


def pictures_of(case: Case) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The recorded sets of pictures, `img0:`, `img1:`, …, and how they are called in the table."""
    prefixes = sorted({name.partition(":")[0] for name in case.io if re.match(r"img\d+:", name)})
    for prefix in prefixes:
        arrays = {name.partition(":")[2]: array for name, array in case.io.items() if name.startswith(f"{prefix}:")}
        yield ("" if len(prefixes) == 1 else f", set {prefix[3:]}"), arrays


def vqgan_jax(case: Case) -> Found:
    """VQModel of vqgan-jax; pictures have their channels last."""
    yield from vqgan(case, load_vqgan(case.weights, dtype=case.dtype), "pixel_values", lambda images: images)


def taming(case: Case) -> Found:
    """VQModel of taming-transformers; pictures have their channels first."""
    file = next(file for file in sorted(case.weights.iterdir()) if file.suffix in (".ckpt", ".pt", ".pth"))
    model = load_vqgan(file, config=VQGANConfig.from_dict(case.meta["config"]), dtype=case.dtype)
    if "image" in case.io:  # a training step, which is given its pictures channels last
        step = {"img0:x": case.io["image"].transpose(0, 3, 1, 2)}
        case = dataclasses.replace(case, io=step | {f"img0:{name}": case.io[name] for name in ("indices", "dec")})
    yield from vqgan(case, model, "x", lambda images: images.transpose(0, 2, 3, 1))


def vqgan(case: Case, model: VQGANTwin, pictures: str, last: Callable[[np.ndarray], np.ndarray]) -> Found:
    """Codes, vectors and pictures of a VQGAN; `last` puts an array's channels last."""
    for label, io in pictures_of(case):
        images = last(io[pictures])
        if "prequant" in io:
            yield f"vectors{label}", model.features(images), last(io["prequant"])
        if case.exact:
            yield f"codes{label}", model.encode(images), io["indices"].reshape(len(images), -1)
        sides = [side // model.config.downsampling for side in images.shape[1:3]]
        yield f"pictures{label}", model.decode_unclipped(io["indices"].reshape(-1, *sides)), last(io["dec"])
        if "codes" in io:
            yield f"pictures of random codes{label}", model.decode_unclipped(io["codes"]), last(io["dec_codes"])


def detoker(case: Case) -> Found:
    """min-dalle's detokenizer, beside the VQGAN that it was made from.

    Its own picture is a little different, since its norms divide by another epsilon than the VQGAN was trained with.
    """
    model, io = load_detoker(case.weights, dtype=case.dtype), case.io
    theirs = io["vqgan_jax_dec_first"]
    yield "pictures", model.decode_unclipped(io["tokens"][: len(theirs)]), theirs


def dvae(case: Case) -> Found:
    """OpenAI's discrete VAE, in PyTorch and float32 always."""
    model, io = load_dvae(case.weights), case.io
    images, codes = torch.from_numpy(io["x"]), torch.from_numpy(io["z"]).long()
    yield "logits", model.logits(images), io["z_logits"]
    yield "codes", model.encode(images), io["z"].reshape(len(images), -1)
    yield "pictures", model.decode(codes), io["x_rec"].clip(0, 1)


def min_dalle(case: Case) -> Found:
    """DalleBart of min-dalle: rows are unconditional, conditional, caption after caption."""
    io = case.io
    model = load_min_dalle(case.weights, heads=case.meta.get("config", {}).get("h"), dtype=case.dtype)
    pairs = io["text_tokens"].reshape(-1, 2, io["text_tokens"].shape[-1])
    ids = pairs.reshape(-1, pairs.shape[-1])
    mask = ids != 1
    states = model.encode(ids, mask)
    yield "encoder states", states, io["encoder_state"].reshape(states.shape)
    name = "logits" if "logits" in io else "step_logits"
    inputs = np.atleast_2d(io["prev_tokens"]).repeat(2, axis=0)
    logits = model.decode(states, mask, inputs)
    yield "logits", logits, io[name].reshape(logits.shape)
    if "two_image_logits" in io:
        rows = np.array([0, 0, 1, 1])
        ours = model.decode(states[rows], mask[rows], np.tile(io["two_image_prev"], (2, 1)))
        yield "logits, two pictures", ours, io["two_image_logits"]
    if case.exact:
        for name in (name for name in io if name.startswith("top1_tokens_cond")):
            theirs, guidance = np.atleast_2d(io[name]), float(name.removeprefix("top1_tokens_cond"))
            text = (part for side in (1, 0) for part in (pairs[:, side], pairs[:, side] != 1))
            ours = sample(model, *text, key=KEY, guidance=guidance, temperature=0)
            drawn = np.cumsum(theirs >= model.config.codebook_size, axis=1) == 0  # the start token can be drawn there
            yield f"codes, guidance {guidance:g}", np.asarray(ours)[:, : theirs.shape[1]][drawn], theirs[drawn]


def clip(case: Case) -> Found:
    """CLIPModel of transformers."""
    io, model = case.io, load_clip(case.weights, dtype=case.dtype)
    ids, mask = io["input_ids"], io["attention_mask"]
    pixels = io["pixel_values"].transpose(0, 2, 3, 1)
    (text_states, text_pooled), (states, pooled) = model.text(ids, mask), model.vision(pixels)
    text, image = model.encode_text(ids, mask), model.encode_pixels(pixels)
    scale = model.logit_scale[...]
    logits = np.exp(scale) * normalize(image) @ normalize(text).T
    ours = {
        "text_last_hidden_state": text_states, "text_pooler_output": text_pooled, "text_features": text,
        "text_embeds": normalize(text), "vision_last_hidden_state": states, "vision_pooler_output": pooled,
        "image_features": image, "image_embeds": normalize(image), "logit_scale": scale, "logits_per_image": logits,
        "logits_per_text": logits.T,
    }  # fmt: skip
    for name, found in ours.items():
        if name not in io:
            continue
        # Behind a caption's end nobody looks, and what stands there depends on the mask's form.
        seen = mask != 0 if name == "text_last_hidden_state" else ...
        yield name.replace("_", " "), np.asarray(found)[seen], io[name][seen]
    if "text_embeds_no_mask" in io:
        yield "text embeds without a mask", normalize(model.encode_text(ids)), io["text_embeds_no_mask"]
    if "loss" in io and case.exact:

        def objective(model: Any) -> jax.Array:
            return contrastive_loss(model.encode_pixels(pixels), model.encode_text(ids, mask), model.logit_scale[...])[
                0
            ]

        value, gradients = nnx.value_and_grad(objective)(model)
        yield "loss", value, io["loss"]
        named = to_huggingface(flatten_names(gradients)[0], model.config.vision_config.patch_size)
        yield from gradient_rows(named, case.meta.get("grad_norms", {}), io["grad_global_norm"])
