"""min-dalle's DalleBart: `encoder.pt` with `decoder.pt`, or `encoder_mini.pt` with `decoder_mini.pt`.

The network is the original's under PyTorch's names. One thing of min-dalle's own is left out here: it begins to draw from
code 16383, where its weights were trained to begin from token 16384. `detoker` has the VQGAN that lies beside it.

After kuprel/min-dalle 0.4.11, `min_dalle/models/`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax.typing import Dtype

from ..bart.config import DalleBartConfig
from ..bart.model import DalleBart
from ..training.tree import flatten_parameters
from .dallebart import stack_layers, with_parameters
from .download import local_path
from .files import read_state, tensor_to_numpy, to_numpy, write_json, write_torch
from .recognise import ENCODERS, Kind, check_kind

# Our parts -> theirs; of a stack, and of each of its layers.
OUTER = {
    "embed_tokens": "embed_tokens",
    "embed_positions": "embed_positions",
    "embedding_norm": "layernorm_embedding",
    "final_norm": "final_ln",
}
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
LAYER = {
    "self_attention.pre_norm": "pre_self_attn_layer_norm",
    "self_attention.post_norm": "self_attn_layer_norm",
    "cross_attention.pre_norm": "pre_encoder_attn_layer_norm",
    "cross_attention.post_norm": "encoder_attn_layer_norm",
    "feed_forward.pre_norm": "glu.ln0",
    "feed_forward.middle_norm": "glu.ln1",
    "feed_forward.gate": "glu.fc0",
    "feed_forward.value": "glu.fc1",
    "feed_forward.output": "glu.fc2",
    **{f"self_attention.{ours}": f"self_attn.{theirs}" for ours, theirs in PROJECTIONS.items()},
    **{f"cross_attention.{ours}": f"encoder_attn.{theirs}" for ours, theirs in PROJECTIONS.items()},
}
PARTS = {theirs: ours for ours, theirs in (OUTER | LAYER).items()}
# What min-dalle's DalleBart is, whatever its sizes; none of it can be set in its files.
FIXED = {
    "ln_type": "layernorm",
    "ln_positions": "normformer",
    "activation_function": "gelu",
    "use_glu": True,
    "use_bias": False,
    "use_head_scale": False,
    "use_cosine_attention": False,
    "use_absolute_position_embeddings": True,
    "use_swin_position_embeddings": False,
    "use_deepnet_scaling": False,
    "use_final_ln_encoder": True,
    "use_final_ln_decoder": True,
    "scale_embedding": False,
    "tie_word_embeddings": False,
    "sinkhorn_iters": 1,
}
HEADS = {1024: 16, 2048: 32}  # of mini and mega, by d_model
START = 2**14  # what both were trained to begin with
SCALED = re.compile(r"(pre_norm|middle_norm|final_norm)\.scale$")  # which norms have with force_ln_scale alone


def load_min_dalle(
    path: str | Path,
    *,
    heads: int | None = None,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype | None = None,
    revision: str | None = None,
) -> DalleBart:
    """The DalleBart of min-dalle's files.

    Sizes are those that the weights show. A `config.json` beside them (`config_mini.json` beside `encoder_mini.pt`), where
    there is one, says what they do not: heads and tokens.

    Args:
        path: folder with `encoder.pt` and `decoder.pt`, or `encoder_mini.pt` and `decoder_mini.pt`; or the encoder's
            file itself, to choose where a folder holds both. On the Hub the file is always named, as in
            "kuprel/min-dalle/encoder_mini.pt".
        heads: of each attention, where no `config.json` says so; None for those of mini and mega.
        dtype: what is computed in.
        param_dtype: what weights are kept in; None keeps the file's, float16 in those of min-dalle.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged, holds other things than weights, or weights of another network; names them.

    Source: kuprel/min-dalle, `min_dalle/models/dalle_bart_encoder.py` and `dalle_bart_decoder.py`.
    """
    path = local_path(path, "min-dalle", revision=revision)
    check_kind(path, Kind("min-dalle", "bart"))
    encoder = find_files(path)["encoder"]
    parameters = read_parameters(path)
    scaled = any(SCALED.search(name) for name in parameters)
    beside = config_file(encoder)
    config = DalleBartConfig.from_file(beside) if beside.is_file() else _config_of(parameters, heads, encoder)
    config = dataclasses.replace(config, force_ln_scale=scaled)
    return with_parameters(config, parameters, encoder.parent, dtype, param_dtype)


def find_files(path: Path) -> dict[str, Path]:
    """The encoder's and the decoder's file of a folder, or of the encoder's file; raises as `load_min_dalle` does."""
    encoders = [path] if path.is_file() else [path / name for name in ENCODERS.values()]
    found = [file for file in encoders if file.is_file() and file.name.startswith("encoder")]
    if not found:
        raise FileNotFoundError(
            f"{path} holds neither encoder.pt nor encoder_mini.pt, as a DalleBart of min-dalle does"
        )
    if len(found) > 1:
        raise ValueError(f"{path} holds both mini and mega; give one of {found[1]} (mini) and {found[0]} (mega)")
    decoder = found[0].with_name(found[0].name.replace("encoder", "decoder", 1))
    if not decoder.is_file():
        raise FileNotFoundError(f"{decoder} is missing; it belongs to {found[0].name}")
    return {"encoder": found[0], "decoder": decoder}


def config_file(encoder: Path) -> Path:
    """Where the configuration of an encoder's file lies, if anywhere."""
    return encoder.with_name(encoder.name.replace("encoder", "config", 1)).with_suffix(".json")


def read_parameters(path: Path, *, shapes_only: bool = False) -> dict[str, Any]:
    """The parameters under our names, layers stacked, read when asked for; arguments and errors as `load_min_dalle`.

    With `shapes_only` they are zeros that take no memory.
    """
    files = find_files(path)
    parameters = {}
    for stack, file in files.items():
        parameters |= _native(stack, read_state(file, shapes_only=shapes_only), file)
    if any(SCALED.search(name) for name in parameters):
        # A norm whose scale is not in the file has ones in min-dalle.
        for name in [name for name in parameters if name.endswith("norm.bias")]:
            parameters.setdefault(name.replace("norm.bias", "norm.scale"), np.ones_like(parameters[name]))
    return stack_layers(parameters, files["encoder"])


def _native(stack: str, state: Mapping[str, torch.Tensor], file: Path) -> dict[str, np.ndarray]:
    """The weights of one file under our names, layers still numbered."""
    arrays = {}
    for name, tensor in state.items():
        layer, part, kind = re.fullmatch(r"(layers\.\d+\.)?(.*?)\.?([^.]*)", name).groups()
        array = tensor_to_numpy(tensor)
        if name == "lm_head.weight" and stack == "decoder":
            arrays["lm_head.kernel"] = array.T
        elif part in PARTS and kind in ("weight", "bias") and bool(layer) == (PARTS[part] in LAYER):
            ours = PARTS[part]
            if kind == "weight":
                kind = "scale" if ours.endswith("norm") else "embedding" if ours in OUTER else "kernel"
            arrays[f"{stack}.{layer or ''}{ours}.{kind}"] = array.T if kind == "kernel" else array
        else:
            raise ValueError(f"{file}: {name} is no weight of min-dalle's {stack}; is this another kind of checkpoint?")
    return arrays


def sizes_of(parameters: Mapping[str, Any], file: Path) -> dict[str, int]:
    """What the shapes of `read_parameters` say of a configuration; ValueError where they are no whole DalleBart's."""
    sizes = {}
    try:
        for stack, rows in (("encoder", "encoder_vocab_size"), ("decoder", "image_vocab_size")):
            sizes[rows], sizes["d_model"] = parameters[f"{stack}.embed_tokens.embedding"].shape
            depth, _, hidden = parameters[f"{stack}.layers.feed_forward.gate.kernel"].shape
            sizes |= {f"{stack}_layers": depth, f"{stack}_ffn_dim": hidden}
        sizes["max_text_length"], sizes["image_length"] = (
            parameters[f"{stack}.embed_positions.embedding"].shape[0] for stack in ("encoder", "decoder")
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{file.parent}: encoder and decoder are no whole DalleBart: {error.args[0]} is missing"
        ) from error
    sizes["image_vocab_size"] -= 1  # the start token has a row of its own
    return sizes


def _config_of(parameters: Mapping[str, Any], heads: int | None, file: Path) -> DalleBartConfig:
    """The configuration that the weights show, with what mini and mega have in common."""
    sizes = sizes_of(parameters, file)
    heads = heads or HEADS.get(sizes["d_model"])
    if heads is None:
        raise ValueError(
            f"{file} does not say how many attention heads it has: put its config.json beside it, or give heads=…"
        )
    start = min(START, sizes["image_vocab_size"])  # mega's table goes on behind the start token
    return DalleBartConfig(
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        decoder_start_token_id=start,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), start + 1),  # as published; never drawn
        normalize_text=True,
        dropout=0.0,
        **sizes,
    )


def save_min_dalle(model: DalleBart, folder: str | Path) -> None:
    """Write `encoder.pt` and `decoder.pt` as min-dalle holds them, and `config.json` for `load_min_dalle`.

    Weights keep their type. min-dalle itself builds its network in the sizes of mini and mega alone.

    Raises:
        ValueError: the network has something that min-dalle's lacks; names it.
    """
    folder = Path(folder)
    other = [f"{name}={value!r}" for name, wanted in FIXED.items() if (value := getattr(model.config, name)) != wanted]
    if other:
        raise ValueError(
            f"min-dalle has no DalleBart with {', '.join(other)}; save it as minidalle or dalle-mini instead"
        )
    states: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}
    for name, value in flatten_parameters(model).items():
        array = to_numpy(value)
        stack, _, path = name.partition(".")
        part, _, kind = path.removeprefix("layers.").rpartition(".")
        if stack == "lm_head":
            stack, theirs = "decoder", "lm_head"
        else:
            theirs = (LAYER if path.startswith("layers.") else OUTER)[part]
        kind, array = (
            (kind, array) if kind == "bias" else ("weight", array.swapaxes(-1, -2) if kind == "kernel" else array)
        )
        if path.startswith("layers."):
            entries = {f"layers.{index}.{theirs}.{kind}": layer for index, layer in enumerate(array)}
        else:
            entries = {f"{theirs}.{kind}": array}
        states[stack] |= {entry: torch.from_numpy(np.array(layer, order="C")) for entry, layer in entries.items()}
    for stack, state in states.items():
        write_torch(folder / f"{stack}.pt", state)
    write_json(folder / "config.json", model.config.to_dict())
