"""The original DalleBart checkpoints: a folder with ``config.json`` and ``flax_model.msgpack``."""

import functools
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from minidalle.bart.blocks import FEED_FORWARD_NORMS, attention_norms
from minidalle.bart.config import SWIN_PERIOD, DalleBartConfig
from minidalle.bart.model import DalleBart
from minidalle.hub.files import write_json, write_msgpack
from minidalle.training.tree import build_filled, flatten_parameters

from .download import local_path
from .recognise import Kind, check_age, check_kind
from .stored import Derived, Stored, stacked, stored_msgpack

OUTER_NAMES = {
    "embed_tokens": "embed_tokens",
    "embed_positions": "embed_positions",
    "layernorm_embedding": "embedding_norm",
    "final_ln": "final_norm",
}
ATTENTION_NAMES = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
    "rel_bias": "position_bias",
    "mid_layernorm": "middle_norm",
}
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
    check_kind(folder, Kind("dalle-mini", "bart"))
    stored = stored_msgpack(weights_file)
    check_age(weights_file, stored)
    config = DalleBartConfig.from_file(folder / "config.json")
    parameters = {native_name(config, name): flat_scale(name, array) for name, array in stored.items()}
    for stack in ("encoder", "decoder"):
        # The last layer's last norm has no scale in the original when its layers are numbered: there it is 1.
        norms = [f"{stack}.layers.{i}.feed_forward.sum_norm" for i in range(getattr(config, f"{stack}_layers"))]
        if config.ln_positions == "postln" and (bias := parameters.get(f"{norms[-1]}.bias")) is not None:
            parameters.setdefault(f"{norms[-1]}.scale", np.ones(bias.shape, bias.dtype))
    return with_parameters(config, stack_layers(parameters, weights_file), weights_file, dtype, param_dtype)


def flat_scale(name: str, array: Any) -> Any:
    """A head's factor as (…, heads, 1) instead of (…, 1, 1, heads, 1); anything else as it is."""
    if not name.endswith("head_scale"):
        return array
    *layers, _, _, heads, _ = array.shape
    return Derived((*layers, heads, 1), array.dtype, lambda: np.asarray(array).reshape(*layers, heads, 1))


def native_name(config: DalleBartConfig, name: str) -> str:
    """The dotted name here of a slashed name there; layers, where they are numbered, become ``layers.<number>``."""
    path = name.removeprefix("model/").split("/")
    stack, rest = path[0], path[1:]
    if stack not in ("encoder", "decoder") or not rest:
        return ".".join(path)
    if rest[0] != "layers":
        return ".".join([stack, OUTER_NAMES.get(rest[0], rest[0]), *rest[1:]])
    if len(rest) < 3:
        return ".".join(path)
    number = rest[1].rpartition("_")[2]
    numbers = [number] if number.isdigit() else []
    *part, kind = rest[2:]
    part = layer_parts(config, stack).get("/".join(part), ".".join(part))
    if part == "between_norms" and numbers:
        return f"{stack}.between_norms.{(int(number) + 1) // SWIN_PERIOD - 1}.{kind}"
    return ".".join([stack, "layers", *numbers, *([part] if part else []), kind])


@functools.cache
def layer_parts(config: DalleBartConfig, stack: str) -> dict[str, str]:
    """The parts of a layer there, to their names here.

    The original numbers them in the order in which it makes them, so that a name's meaning depends on the configuration.
    """
    norm = "RMSNorm" if config.ln_type == "rmsnorm" else "LayerNorm"
    branches = ["self_attention"] if stack == "encoder" else ["self_attention", "cross_attention"]
    parts, norms = {}, []
    for index, branch in enumerate(branches):
        parts[f"FlaxBartAttention_{index}"] = branch
        parts |= {f"FlaxBartAttention_{index}/{there}": f"{branch}.{here}" for there, here in ATTENTION_NAMES.items()}
        places = attention_norms(config, "cross" if index else stack)
        norms += [f"{branch}.{place}_norm" for place in places if place != "middle"]  # that one has a name of its own
    inside = [place for place in FEED_FORWARD_NORMS[config.ln_positions] if place != "sum"]
    norms += ["feed_forward.sum_norm"] if config.ln_positions == "postln" else []
    norms += ["between_norms"] if config.ln_positions == "swinv2" else []
    dense = GATED_NAMES if config.use_glu else PLAIN_NAMES
    inner = dense | {f"{norm}_{index}": f"{place}_norm" for index, place in enumerate(inside)}
    block = "GLU_0" if config.use_glu else "FFN_0"
    parts |= {f"{block}/{there}": f"feed_forward.{here}" for there, here in inner.items()}
    return parts | {f"{norm}_{index}": name for index, name in enumerate(norms)}


def stack_layers(parameters: dict[str, Stored], file: Path) -> dict[str, Any]:
    """Parameters with numbered layers joined along a leading layer axis; already stacked ones pass through."""
    joined, layers = {}, {}
    for name, value in parameters.items():
        match = re.fullmatch(r"(\w+\.(?:layers|between_norms))\.(\d+)\.(.+)", name)
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
    """A model that holds the given parameters (NumPy's, or `Stored`); errors name the file. See `build_filled`."""
    kept_dtype = param_dtype or next(iter(parameters.values()), np.zeros(0, np.float32)).dtype
    try:
        return build_filled(
            lambda: DalleBart(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=kept_dtype), parameters
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def save_dallebart(model: DalleBart, folder: str | Path) -> None:
    """Write ``config.json`` and ``flax_model.msgpack`` as the original saves them; weights keep their type.

    Layers are stacked, but for those that the original cannot stack: of "swinv2", and with relative positions.

    Source: dalle-mini 0.1.5, ``save_pretrained`` of ``model/modeling.py``.
    """
    config = model.config
    scanned = config.ln_positions != "swinv2" and not config.use_swin_position_embeddings
    arrays = {}
    for name, array in flatten_parameters(model).items():
        arrays |= original_arrays(config, name, array, scanned)
    write_msgpack(Path(folder) / "flax_model.msgpack", arrays)
    length = config.image_length + 1  # the start token counts there
    values = config.to_dict() | {"use_scan": scanned, "max_length": length, "min_length": length}
    write_json(Path(folder) / "config.json", values | {"architectures": ["eBart"]})


def original_arrays(config: DalleBartConfig, name: str, array: Any, scanned: bool) -> dict[str, Any]:
    """What a parameter here is there: one array by slashed name, or one for each layer."""
    stack, _, rest = name.partition(".")
    if stack == "lm_head":
        return {name.replace(".", "/"): array}
    part, _, kind = rest.rpartition(".")
    names = {here: there for there, here in (OUTER_NAMES | layer_parts(config, stack)).items()}
    if part in OUTER_NAMES.values():
        return {f"model/{stack}/{names[part]}/{kind}": array}
    if kind == "head_scale":
        array = array.reshape(array.shape[0], 1, 1, *array.shape[1:])
    layer = f"model/{stack}/layers/FlaxBart{stack.capitalize()}Layer"
    path = f"{names[part.removeprefix('layers.')]}/{kind}"
    if scanned:
        return {f"{layer}s/{path}": array}
    numbers = range(len(array))
    if part == "between_norms":
        numbers = range(SWIN_PERIOD - 1, SWIN_PERIOD * len(array), SWIN_PERIOD)
    return {f"{layer}_{number}/{path}": array[index] for index, number in enumerate(numbers)}
