"""BART checkpoints of Hugging Face, such as `facebook/bart-base`: `config.json` with `model.safetensors`."""

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.denoiser import Bart, BartConfig
from minidalle.training.tree import build_filled

from .clip import read_arrays
from .download import local_path
from .stored import stacked, transposed

OUTER_NAMES = {"embed_positions": "embed_positions", "layernorm_embedding": "embedding_norm"}
PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
LAYER_NAMES = {
    **{f"self_attn.{there}": f"self_attention.{here}" for there, here in PROJECTIONS.items()},
    **{f"encoder_attn.{there}": f"cross_attention.{here}" for there, here in PROJECTIONS.items()},
    "self_attn_layer_norm": "self_attention.sum_norm",
    "encoder_attn_layer_norm": "cross_attention.sum_norm",
    "fc1": "feed_forward.gate",
    "fc2": "feed_forward.output",
    "final_layer_norm": "feed_forward.sum_norm",
}
SHARED = "decoder.embed_tokens.embedding"
COPIES = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of the shared table
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)")
OUTER = re.compile(r"(encoder|decoder)\.(\w+)\.(weight|bias)")


def load_bart(
    path: str | Path,
    *,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    revision: str | None = None,
) -> Bart:
    """The BART of a Hugging Face folder, or by its name on the Hub, such as "facebook/bart-base".

    Args:
        path: folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`), of the bare model or of the one
            for conditional generation.
        dtype: what is computed in.
        param_dtype: what weights are kept in.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or the Hub has no such name.
        ValueError: a file is damaged or of another kind, or sizes and weights do not fit; the message names the weight.

    Source: transformers, `models/bart/modeling_bart.py`.
    """
    folder = local_path(path, "bart", revision=revision)
    file = folder / "config.json"
    try:
        config = BartConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing; a BART's folder holds it beside its weights") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: {error}") from error
    try:
        arrays = from_huggingface(read_arrays(folder), config)
        return build_filled(lambda: Bart(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype), arrays)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def from_huggingface(arrays: dict[str, Any], config: BartConfig) -> dict[str, Any]:
    """Arrays under their names in transformers' BartForConditionalGeneration, as `{dotted name: array}` of our `Bart`.

    Linear weights are transposed and layers stacked, when they are asked for. Raises ValueError for a name that is no part
    of a BART and for layers that do not count up from 0.
    """
    converted: dict[str, Any] = {}
    layers: dict[str, dict[int, Any]] = {}
    for full_name, array in arrays.items():
        name = full_name.removeprefix("model.")
        if name == "shared.weight" or (name in COPIES and SHARED not in converted):
            converted[SHARED] = array
        elif name == "final_logits_bias":
            converted[name] = array
        elif (found := LAYER.fullmatch(name)) and found[3] in LAYER_NAMES:
            stack, index, part, kind = found.groups()
            here = LAYER_NAMES[part]
            if kind == "weight":
                kind, array = ("scale", array) if here.endswith("norm") else ("kernel", transposed(array))
            layers.setdefault(f"{stack}.layers.{here}.{kind}", {})[int(index)] = array
        elif (found := OUTER.fullmatch(name)) and found[2] in OUTER_NAMES:
            stack, part, kind = found.groups()
            here = OUTER_NAMES[part]
            kind = "bias" if kind == "bias" else "scale" if here.endswith("norm") else "embedding"
            converted[f"{stack}.{here}.{kind}"] = array
        elif name not in COPIES:
            raise ValueError(f"{full_name} is no weight of a BART; is this another kind of checkpoint?")
    for name, stack in layers.items():
        if sorted(stack) != list(range(len(stack))):
            raise ValueError(f"layers {sorted(stack)} of {name} do not count up from 0; the file is incomplete")
        converted[name] = stacked([stack[index] for index in range(len(stack))])
    converted.setdefault("final_logits_bias", jnp.zeros((1, config.vocab_size)))  # the bare model has none
    return converted
