"""BART checkpoints of Hugging Face, such as `facebook/bart-base`: `config.json` with `model.safetensors`, or the older
`pytorch_model.bin` or `flax_model.msgpack`.
"""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.denoiser import Bart, BartConfig
from minidalle.training.tree import build_filled

from .download import local_path
from .huggingface import find_weights, read_weights, stack_numbered
from .recognise import read_object
from .stored import transposed

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
COPIES = ("lm_head", "encoder.embed_tokens", "decoder.embed_tokens")  # of the shared table
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)")
OUTER = re.compile(r"(encoder|decoder)\.(\w+)")


def load_bart(
    path: str | Path,
    *,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    revision: str | None = None,
) -> Bart:
    """The BART of a Hugging Face folder, or by its name on the Hub, such as "facebook/bart-base".

    Args:
        path: folder with `config.json` and weights, of the bare model or of the one for conditional generation.
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
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; a BART's folder holds it beside its weights")
    values = read_object(file)
    try:
        config = BartConfig.from_dict(values)
        arrays = from_huggingface(read_weights(find_weights(folder)), config)
        return build_filled(lambda: Bart(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype), arrays)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def from_huggingface(arrays: dict[str, Any], config: BartConfig) -> dict[str, Any]:
    """Arrays under their names in transformers' BartForConditionalGeneration, as `{dotted name: array}` of our `Bart`.

    Names may be PyTorch's or, with slashes, Flax's. PyTorch's linear weights are transposed and layers stacked, when they
    are asked for. Raises ValueError for a name that is no part of a BART and for layers that do not count up from 0.
    """
    converted: dict[str, Any] = {
        "final_logits_bias": np.zeros((1, config.vocab_size), np.float32)
    }  # the bare one has none
    layers: dict[str, dict[int, Any]] = {}
    for full_name, array in arrays.items():
        name = full_name.replace("/", ".").removeprefix("model.")
        part, _, kind = name.rpartition(".")
        if name == "final_logits_bias":
            converted[name] = array
        elif part == "shared" or (part in COPIES and SHARED not in converted):
            converted[SHARED] = array
        elif (found := LAYER.fullmatch(part)) and found[3] in LAYER_NAMES:
            stack, index, here = found[1], int(found[2]), LAYER_NAMES[found[3]]
            if kind == "weight":
                kind, array = ("scale", array) if here.endswith("norm") else ("kernel", transposed(array))
            layers.setdefault(f"{stack}.layers.{here}.{kind}", {})[index] = array
        elif (found := OUTER.fullmatch(part)) and found[2] in OUTER_NAMES:
            stack, here = found[1], OUTER_NAMES[found[2]]
            kind = {"weight": "scale" if here.endswith("norm") else "embedding"}.get(kind, kind)
            converted[f"{stack}.{here}.{kind}"] = array
        elif part not in COPIES:
            raise ValueError(f"{full_name} is no weight of a BART; is this another kind of checkpoint?")
    return converted | stack_numbered(layers)
