"""min-dalle's weights: `encoder.pt` with `decoder.pt` (a DalleBart), and `detoker.pt` (the decoding half of a VQGAN).

The networks are the originals' under PyTorch's names. Two things of min-dalle's own are left out here: it begins to draw
from code 16383 where its weights were trained to begin from token 16384, and its GroupNorms have epsilon 1e-5 where the
VQGAN was trained with 1e-6 (at most 0.02 of 255 in a picture).

After kuprel/min-dalle 0.4.11, `min_dalle/models/`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from flax.typing import Dtype

from ..bart.config import DalleBartConfig
from ..bart.model import DalleBart
from ..training.tree import flatten_parameters
from ..vqgan.config import VQGANConfig
from ..vqgan.port import translate, twin_from_arrays
from ..vqgan.twin import VQGANTwin
from .dallebart import stack_layers, with_parameters
from .files import read_state, to_numpy, write_json, write_torch
from .vqgan import state_of

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


def load_min_dalle(
    path: str | Path, *, heads: int | None = None, dtype: Dtype = jnp.float32, param_dtype: Dtype | None = None
) -> DalleBart:
    """The DalleBart of min-dalle's files.

    Sizes are those that the weights show. A `config.json` beside them (`config_mini.json` beside `encoder_mini.pt`), where
    there is one, says what they do not: heads and tokens.

    Args:
        path: folder with `encoder.pt` and `decoder.pt`, or `encoder_mini.pt` and `decoder_mini.pt`; or the encoder's
            file itself, to choose where a folder holds both.
        heads: of each attention, where no `config.json` says so; None for those of mini and mega.
        dtype: what is computed in.
        param_dtype: what weights are kept in; None keeps the file's, float16 in those of min-dalle.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged, holds other things than weights, or weights of another network; names them.

    Source: kuprel/min-dalle, `min_dalle/models/dalle_bart_encoder.py` and `dalle_bart_decoder.py`.
    """
    files = find_files(Path(path))
    parameters = {}
    for stack, file in files.items():
        parameters |= _native(stack, file)
    encoder = files["encoder"]
    if scaled := any(re.search(r"(pre_norm|middle_norm|final_norm)\.scale$", name) for name in parameters):
        # A norm whose scale is not in the file has ones in min-dalle.
        for name in [name for name in parameters if name.endswith("norm.bias")]:
            parameters.setdefault(name.replace("norm.bias", "norm.scale"), np.ones_like(parameters[name]))
    parameters = stack_layers(parameters, encoder)
    beside = encoder.with_name(encoder.name.replace("encoder", "config")).with_suffix(".json")
    config = DalleBartConfig.from_file(beside) if beside.is_file() else _config_of(parameters, heads, encoder)
    config = dataclasses.replace(config, force_ln_scale=scaled)
    return with_parameters(config, parameters, encoder.parent, dtype, param_dtype)


def find_files(path: Path) -> dict[str, Path]:
    """The encoder's and the decoder's file of a folder, or of the encoder's file; raises as `load_min_dalle` does."""
    encoders = [path] if path.is_file() else [path / name for name in ("encoder.pt", "encoder_mini.pt")]
    found = [file for file in encoders if file.is_file() and file.name.startswith("encoder")]
    if not found:
        raise FileNotFoundError(
            f"{path} holds neither encoder.pt nor encoder_mini.pt, as a DalleBart of min-dalle does"
        )
    if len(found) > 1:
        raise ValueError(f"{path} holds both mini and mega; give one of {found[0]} and {found[1]}")
    decoder = found[0].with_name(found[0].name.replace("encoder", "decoder", 1))
    if not decoder.is_file():
        raise FileNotFoundError(f"{decoder} is missing; it belongs to {found[0].name}")
    return {"encoder": found[0], "decoder": decoder}


def _native(stack: str, file: Path) -> dict[str, np.ndarray]:
    """The weights of one file under our names, layers still numbered."""
    arrays = {}
    for name, tensor in read_state(file).items():
        layer, part, kind = re.fullmatch(r"(layers\.\d+\.)?(.*?)\.?([^.]*)", name).groups()
        array = to_numpy(tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())
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


def _config_of(parameters: Mapping[str, np.ndarray], heads: int | None, file: Path) -> DalleBartConfig:
    """The configuration that the weights show, with what mini and mega have in common."""
    sizes = {}
    try:
        for stack in ("encoder", "decoder"):
            rows, d_model = parameters[f"{stack}.embed_tokens.embedding"].shape
            depth, _, hidden = parameters[f"{stack}.layers.feed_forward.gate.kernel"].shape
            sizes |= {f"{stack}_layers": depth, f"{stack}_ffn_dim": hidden, f"{stack}_vocab": rows}
            sizes[f"{stack}_length"] = parameters[f"{stack}.embed_positions.embedding"].shape[0]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{file.parent}: encoder and decoder are no whole DalleBart: {error.args[0]} is missing"
        ) from error
    heads = heads or HEADS.get(d_model)
    if heads is None:
        raise ValueError(
            f"{file} does not say how many attention heads it has: put its config.json beside it, or give heads=…"
        )
    codes = sizes.pop("decoder_vocab") - 1
    start = min(START, codes)  # mega's table goes on behind the start token
    return DalleBartConfig(
        d_model=d_model,
        encoder_vocab_size=sizes.pop("encoder_vocab"),
        max_text_length=sizes.pop("encoder_length"),
        image_length=sizes.pop("decoder_length"),
        image_vocab_size=codes,
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


def load_detoker(
    path: str | Path, *, dtype: Dtype = jnp.float32, param_dtype: Dtype = jnp.float32, precision: str = "highest"
) -> VQGANTwin:
    """The decoding half of a VQGAN in min-dalle's `detoker.pt`; it draws, and its `encode` says that it cannot.

    Args:
        path: the file, or a folder that holds it.
        dtype, param_dtype, precision: as for `load_vqgan`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds other things than weights, or weights of another network; names them.

    Source: kuprel/min-dalle, `min_dalle/models/vqgan_detokenizer.py`.
    """
    file = Path(path) / "detoker.pt" if Path(path).is_dir() else Path(path)
    state = read_state(file)
    try:
        state["quantize.embedding.weight"] = state.pop("embedding.weight")
        n_embed, embed_dim = state["quantize.embedding.weight"].shape
        levels = len({match[1] for name in state if (match := re.match(r"decoder\.up\.(\d+)\.", name))})
        widths = [state[f"decoder.up.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
        blocks = sum(f"decoder.up.0.block.{index}.conv1.weight" in state for index in range(100))
        ch = math.gcd(*widths)
        config = VQGANConfig(
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=blocks - 1,
            # As many pixels to a side as in DALL·E mini; only the level counts, see `config_of_weights` of `vqgan`.
            attn_resolutions=tuple(256 >> i for i in range(levels) if f"decoder.up.{i}.attn.0.q.weight" in state),
            z_channels=state["decoder.conv_in.weight"].shape[1],
            out_ch=state["decoder.conv_out.weight"].shape[0],
            n_embed=n_embed,
            embed_dim=embed_dim,
            resamp_with_conv=levels == 1 or "decoder.up.1.upsample.conv.weight" in state,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no detokenizer of min-dalle: {error.args[0]} is missing") from error
    options = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision, "with_encoder": False}
    try:
        return twin_from_arrays(config, translate(state), **options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def save_detoker(twin: VQGANTwin, folder: str | Path) -> None:
    """Write the decoding half of a VQGAN as min-dalle's `detoker.pt`; the encoder is left behind.

    Weights keep their type. min-dalle itself builds its network in the sizes of DALL·E mini's VQGAN alone.

    Raises:
        ValueError: the network has something that min-dalle's lacks; names it.
    """
    config = twin.config
    fixed = {"num_res_blocks": 2, "attn_resolutions": (config.grid,), "resamp_with_conv": True, "out_ch": 3}
    fixed |= {"norm_groups": 32}
    other = [f"{name}={value!r}" for name, wanted in fixed.items() if (value := getattr(config, name)) != wanted]
    other += [f"{len(config.ch_mult)} resolutions"] if len(config.ch_mult) != 5 else []
    other += [f"quantizer={config.quantizer!r}"] if config.quantizer not in ("nearest", "ema") else []
    if other:
        raise ValueError(
            f"min-dalle has no detokenizer with {', '.join(other)}; save it as minidalle or vqgan-jax instead"
        )
    state = state_of(twin)
    state["embedding.weight"] = state.pop("quantize.embedding.weight")
    kept = {name: state[name] for name in state if name.startswith(("embedding.", "decoder.", "post_quant_conv."))}
    write_torch(Path(folder) / "detoker.pt", kept)
