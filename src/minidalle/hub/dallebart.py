"""The original DalleBart checkpoints: a folder with ``config.json`` and ``flax_model.msgpack``."""

import math
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from flax.typing import Dtype

from minidalle.bart.config import DalleBartConfig
from minidalle.bart.model import DalleBart
from minidalle.hub.files import write_json, write_msgpack
from minidalle.training.tree import flatten_parameters

from .download import local_path
from .stored import Stored, stacked, stored_msgpack

# Numbered by order of creation in the original, so that a name's meaning depends on the block it stands in.
ATTENTION_NAMES = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
NORMFORMER_NORMS = {
    "norm_0": "self_attention.pre_norm",
    "norm_1": "self_attention.post_norm",
    "norm_2": "cross_attention.pre_norm",
    "norm_3": "cross_attention.post_norm",
}
PRELN_NORMS = {"norm_0": "self_attention.pre_norm", "norm_1": "cross_attention.pre_norm"}
FEED_FORWARD_NORMS = {"norm_0": "pre_norm", "norm_1": "middle_norm"}
GATED_NAMES = {"Dense_0": "gate", "Dense_1": "value", "Dense_2": "output"}
PLAIN_NAMES = {"Dense_0": "gate", "Dense_1": "output"}


def load_dallebart(
    path: str | Path, *, dtype: Dtype = jnp.float32, param_dtype: Dtype | None = None, revision: str | None = None
) -> DalleBart:
    """A DalleBart from the original's folder, layers stacked (``use_scan``) or not, float32 or float16.

    Args:
        path: folder with ``config.json`` and ``flax_model.msgpack``; or a name on the Hub, such as
            "dalle-mini/dalle-mini" or "dalle-mini/dalle-mini@revision".
        dtype: what is computed in.
        param_dtype: what weights are kept in; None keeps the file's.
        revision: branch, tag or commit on the Hub.

    Returns:
        The model, weights on the default device.

    Raises:
        FileNotFoundError: the folder or one of its two files is missing, or the Hub has no such name.
        ValueError: the file is cut off or no msgpack, the configuration asks for what is not built here, or its sizes
            and names do not fit the weights; the message names the parameter.

    Source: dalle-mini 0.1.5, ``save_pretrained`` of ``model/modeling.py``.
    """
    folder = local_path(path, "dallebart", revision=revision)
    weights_file = folder / "flax_model.msgpack"
    for file in (folder / "config.json", weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; an original DalleBart folder holds it")
    config = DalleBartConfig.from_file(folder / "config.json")
    stored = stored_msgpack(weights_file)
    parameters = stack_layers({native_name(config, name): array for name, array in stored.items()}, weights_file)
    return with_parameters(config, parameters, weights_file, dtype, param_dtype)


def native_name(config: DalleBartConfig, name: str) -> str:
    """The dotted name here of a slashed name there; a layer number, where one stands, becomes ``layers.<number>``."""
    parts = re.sub(r"(LayerNorm|RMSNorm)_", "norm_", name).removeprefix("model/").split("/")
    if "layers" not in parts:
        return ".".join(parts).replace("layernorm_embedding", "embedding_norm").replace("final_ln", "final_norm")
    stack, _, layer, block, *rest = parts
    number = layer.rpartition("_")[2]
    prefix = f"{stack}.layers.{number}" if number.isdigit() else f"{stack}.layers"
    if block.startswith("FlaxBartAttention_"):
        block = "self_attention" if block.endswith("_0") else "cross_attention"
        rest[0] = ATTENTION_NAMES.get(rest[0], rest[0])
    elif block.startswith("norm_"):
        block = (NORMFORMER_NORMS if config.ln_positions == "normformer" else PRELN_NORMS).get(block, block)
    elif block in ("GLU_0", "FFN_0"):
        names = FEED_FORWARD_NORMS | (GATED_NAMES if config.use_glu else PLAIN_NAMES)
        block, rest[0] = "feed_forward", names.get(rest[0], rest[0])
    return ".".join([prefix, block, *rest])


def stack_layers(parameters: dict[str, Stored], file: Path) -> dict[str, Any]:
    """Parameters with numbered layers joined along a leading layer axis; already stacked ones pass through."""
    joined, layers = {}, {}
    for name, value in parameters.items():
        match = re.fullmatch(r"(\w+\.layers)\.(\d+)\.(.+)", name)
        if match:
            layers.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = value
        else:
            joined[name] = value
    for name, by_number in layers.items():
        values = [by_number[number] for number in sorted(by_number)]
        if sorted(by_number) != list(range(len(values))) or len({value.shape for value in values}) > 1:
            raise ValueError(f"{file}: the layers of {name} are incomplete or differ in shape")
        joined[name] = stacked(values)
    return joined


def with_parameters(
    config: DalleBartConfig, parameters: dict[str, Any], file: Path, dtype: Dtype, param_dtype: Dtype | None
) -> DalleBart:
    """A model that holds the given parameters (NumPy's, or `Stored`), and was never initialised with others.

    Each goes to the device as it is read, so that the host never holds more than one beside what the device does.
    """
    kept_dtype = param_dtype or parameters.get("lm_head.kernel", np.zeros(0, np.float32)).dtype
    structure, state = nnx.split(
        nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=kept_dtype))
    )
    expected = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    wanted = {".".join(path): leaf.shape for path, leaf in expected.items()}
    if missing := sorted(wanted.keys() - parameters.keys()):
        raise ValueError(f"{file} lacks {len(missing)} parameters that its config.json asks for, such as {missing[0]}")
    if unknown := sorted(parameters.keys() - wanted.keys()):
        raise ValueError(f"{file} has {len(unknown)} parameters that its config.json leaves out, such as {unknown[0]}")
    for name, shape in wanted.items():
        found = tuple(parameters[name].shape)
        same = math.prod(found) == math.prod(shape) if name.endswith("head_scale") else found == shape
        if not same:
            raise ValueError(f"{file}: {name} has shape {found}, its config.json asks for {shape}")
    values = {
        path: jnp.asarray(np.asarray(parameters[".".join(path)]).reshape(leaf.shape), kept_dtype)
        for path, leaf in expected.items()
    }
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(values))
    return nnx.merge(structure, state)


def save_dallebart(model: DalleBart, folder: str | Path) -> None:
    """Write ``config.json`` and ``flax_model.msgpack`` as the original saves them, layers stacked; weights keep their type.

    Source: dalle-mini 0.1.5, ``save_pretrained`` of ``model/modeling.py``.
    """
    config = model.config
    names = original_names(config)
    arrays = {}
    for name, array in flatten_parameters(model).items():
        if name.endswith(".head_scale"):  # (layers, heads, 1) here
            array = array.reshape(array.shape[0], 1, 1, *array.shape[1:])
        arrays[names[name]] = array
    write_msgpack(Path(folder) / "flax_model.msgpack", arrays)
    length = config.image_length + 1  # the start token counts there
    values = config.to_dict() | {"use_scan": True, "max_length": length, "min_length": length}
    write_json(Path(folder) / "config.json", values | {"architectures": ["eBart"]})


def original_names(config: DalleBartConfig) -> dict[str, str]:
    """The slashed name there of each dotted name here, layers stacked: what ``native_name`` makes of all it may be given."""
    norm = "RMSNorm" if config.ln_type == "rmsnorm" else "LayerNorm"
    feed_forward = "GLU_0" if config.use_glu else "FFN_0"
    attentions = [f"FlaxBartAttention_{index}" for index in range(2)]
    parts = [f"{attention}/{part}" for attention in attentions for part in ATTENTION_NAMES]
    parts += [f"{norm}_{index}" for index in range(4)]
    parts += [f"{feed_forward}/{part}" for part in (f"{norm}_0", f"{norm}_1", *GATED_NAMES)]
    leaves = [f"{part}/{kind}" for part in parts for kind in ("kernel", "bias", "scale")]
    leaves += [f"{attention}/head_scale" for attention in attentions]
    names = ["lm_head/kernel"]
    for stack in ("encoder", "decoder"):
        layers = f"layers/FlaxBart{stack.capitalize()}Layers/"
        outer = [f"embed_{table}/embedding" for table in ("tokens", "positions")]
        outer += [f"{part}/{kind}" for part in ("layernorm_embedding", "final_ln") for kind in ("scale", "bias")]
        names += [f"model/{stack}/{leaf}" for leaf in [*outer, *(layers + leaf for leaf in leaves)]]
    return {native_name(config, name): name for name in names}
