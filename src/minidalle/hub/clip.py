"""CLIP checkpoints of Hugging Face: `config.json` with `model.safetensors`, or the older `pytorch_model.bin` or
`flax_model.msgpack`.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from minidalle.clip.config import CLIPConfig
from minidalle.clip.model import CLIP
from minidalle.hub.files import replacing, to_numpy, write_json
from minidalle.training.tree import build_filled, flatten_parameters

from .download import local_path
from .huggingface import find_weights, read_weights, stack_numbered
from .recognise import Kind, check_kind, read_object
from .stored import Derived, transposed

# Their names for a layer's parts -> ours; `weight` becomes `kernel` (transposed) or, in a norm, `scale`.
PARTS = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.out_proj": "out",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}
OUTER = {
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.embedding",
    "text_model.embeddings.position_embedding.weight": "text.position_embedding",
    "text_model.final_layer_norm.weight": "text.final_norm.scale",
    "text_model.final_layer_norm.bias": "text.final_norm.bias",
    "vision_model.embeddings.class_embedding": "vision.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "vision.position_embedding",
    "vision_model.pre_layrnorm.weight": "vision.pre_norm.scale",
    "vision_model.pre_layrnorm.bias": "vision.pre_norm.bias",
    "vision_model.post_layernorm.weight": "vision.post_norm.scale",
    "vision_model.post_layernorm.bias": "vision.post_norm.bias",
    "logit_scale": "logit_scale",
}
LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
FLAX_LAYER = re.compile(r"(text|vision)_model/encoder/layers/(\d+)/(.+)/(kernel|scale|bias)")


def load_clip(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    revision: str | None = None,
) -> CLIP:
    """Load a CLIP from a Hugging Face folder, or by its name on the Hub, such as "openai/clip-vit-base-patch32".

    The folder holds `config.json` and one of `model.safetensors`, `pytorch_model.bin` and `flax_model.msgpack`, the first
    of them counts; mean and standard deviation of the pictures come from `preprocessor_config.json` where there is one.
    With `flax_model.msgpack` the caption is read at its largest id whatever the config says, as FlaxCLIPModel did.
    dtype is what the model computes in (softmax in float32), param_dtype what its weights are kept in; in half precision
    the best of eight pictures by the shipped CLIP is the same in 99.5 % (bfloat16) and 99.9 % (float16) of all cases.
    Raises FileNotFoundError for what is missing, ValueError for files that are broken or do not fit one another.
    """
    path = local_path(path, "clip", revision=revision)
    check_kind(path, Kind("huggingface", "clip"))
    values = _read_json(path / "config.json")
    if values.get("model_type", "clip") != "clip":
        raise ValueError(
            f"{path / 'config.json'} describes a {values['model_type']!r}; expected a CLIP (model_type 'clip')"
        )
    processor = path / "preprocessor_config.json"
    if processor.exists():
        found = _read_json(processor)
        vision = values.setdefault("vision_config", {})
        vision.update({k: found[k] for k in ("image_mean", "image_std") if k in found})
    file = find_weights(path)
    if file.suffix == ".msgpack":
        values["text_config"] = {"pooling": "argmax", **(values.get("text_config") or {})}
    try:
        config = CLIPConfig.from_dict(values)
        arrays = (from_flax if file.suffix == ".msgpack" else from_huggingface)(read_weights(file))
        return build_filled(lambda: CLIP(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype), arrays)
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def from_flax(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays under their slashed names in FlaxCLIPModel, as `{dotted name: array}` of our `CLIP`, made when asked for.

    Its kernels lie as ours do, the patch convolution's (P, P, 3, D) as (P·P·3, D) once it is flat; layers are stacked.
    Raises ValueError as `from_huggingface` does.
    """
    outer = {_flax_name(theirs): ours for theirs, ours in OUTER.items()}
    converted: dict[str, Any] = {}
    layers: dict[str, dict[int, Any]] = {}
    for name, array in arrays.items():
        match = FLAX_LAYER.fullmatch(name)
        if name in outer:
            converted[outer[name]] = array
        elif name == "vision_model/embeddings/patch_embedding/kernel":
            converted["vision.patch_embedding.kernel"] = _flat_kernel(array)
        elif name in ("text_projection/kernel", "visual_projection/kernel"):
            converted[name.replace("/", ".")] = array
        elif match and match[3].replace("/", ".") in PARTS:
            tower, index, part, kind = match.groups()
            layers.setdefault(f"{tower}.layers.{PARTS[part.replace('/', '.')]}.{kind}", {})[int(index)] = array
        else:
            raise ValueError(f"{name} is no weight of a FlaxCLIPModel; is this another kind of checkpoint?")
    return converted | stack_numbered(layers)


def _flax_name(name: str) -> str:
    kind = "embedding" if "_embedding." in name else "scale"
    return re.sub(r"\.weight$", f".{kind}", name).replace(".", "/")


def from_huggingface(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays under their names in transformers' CLIPModel, as `{dotted name: array}` of our `CLIP`, made when asked for.

    Linear weights are transposed, the patch convolution (D, 3, P, P) is laid flat as (P·P·3, D), layers are stacked.
    Raises ValueError for a name that is no part of a CLIPModel and for layers that do not count up from 0.
    """
    converted: dict[str, Any] = {}
    layers: dict[str, dict[int, Any]] = {}
    for name, array in arrays.items():
        match = LAYER.fullmatch(name)
        if name.endswith("embeddings.position_ids"):
            continue  # a counter 0, 1, 2, … that older versions saved
        if name in OUTER:
            converted[OUTER[name]] = array
        elif name == "vision_model.embeddings.patch_embedding.weight":
            converted["vision.patch_embedding.kernel"] = _flat_patches(array)
        elif name in ("text_projection.weight", "visual_projection.weight"):
            converted[name.replace("weight", "kernel")] = transposed(array)
        elif match and match[3] in PARTS:
            tower, index, part, kind = match.groups()
            if kind == "weight":
                kind, array = ("scale", array) if part.startswith("layer_norm") else ("kernel", transposed(array))
            layers.setdefault(f"{tower}.layers.{PARTS[part]}.{kind}", {})[int(index)] = array
        else:
            raise ValueError(f"{name} is no weight of a CLIPModel; is this another kind of checkpoint?")
    return converted | stack_numbered(layers)


def save_clip(model: CLIP, folder: str | Path) -> None:
    """Write a CLIP as transformers does: `config.json`, `model.safetensors` and `preprocessor_config.json`.

    Weights keep their type. Raises ValueError for a caption token that transformers would choose otherwise.
    """
    from safetensors.numpy import save_file

    config = model.config
    text, vision = config.text_config, config.vision_config
    theirs = "argmax" if text.eos_token_id == 2 else "eos"
    if text.pooling != theirs:
        raise ValueError(
            f"transformers reads a caption's vector by {theirs!r} where eos_token_id is {text.eos_token_id}, this CLIP by "
            f"{text.pooling!r}: there it would score otherwise; save it as minidalle instead"
        )
    folder = Path(folder)
    with replacing(folder / "model.safetensors") as temporary:
        save_file(to_huggingface(flatten_parameters(model), vision.patch_size), temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read
    values = config.to_dict()
    processor = {name: values["vision_config"].pop(name) for name in ("image_mean", "image_std")}
    processor |= {"size": {"shortest_edge": vision.image_size}, "image_processor_type": "CLIPImageProcessor"}
    processor |= {"crop_size": {"height": vision.image_size, "width": vision.image_size}}
    del values["text_config"]["pooling"]  # follows from eos_token_id
    write_json(folder / "preprocessor_config.json", processor)
    write_json(folder / "config.json", values)


def to_huggingface(parameters: Mapping[str, jax.Array | np.ndarray], patch_size: int) -> dict[str, np.ndarray]:
    """Parameters of our `CLIP` under their names in transformers' CLIPModel; the inverse of `from_huggingface`."""
    outer, parts = ({ours: theirs for theirs, ours in table.items()} for table in (OUTER, PARTS))
    converted = {}
    for name, value in parameters.items():
        array = to_numpy(value)
        path, _, kind = name.rpartition(".")
        if name in outer:
            converted[outer[name]] = array
        elif name == "vision.patch_embedding.kernel":
            squares = array.reshape(patch_size, patch_size, -1, array.shape[1])
            converted["vision_model.embeddings.patch_embedding.weight"] = squares.transpose(3, 2, 0, 1)
        elif path in ("text_projection", "visual_projection"):
            converted[f"{path}.weight"] = array.T
        else:
            tower, _, part = path.split(".")
            for index, layer in enumerate(array):
                theirs = f"{tower}_model.encoder.layers.{index}.{parts[part]}"
                converted[f"{theirs}.{'bias' if kind == 'bias' else 'weight'}"] = layer.T if kind == "kernel" else layer
    return {name: np.array(array, order="C") for name, array in converted.items()}


def _flat_patches(array: Any) -> Derived:
    width, *rest = _four_axes(array)
    return Derived(
        (math.prod(rest), width), array.dtype, lambda: np.asarray(array).transpose(2, 3, 1, 0).reshape(-1, width)
    )


def _flat_kernel(array: Any) -> Derived:
    *rest, width = _four_axes(array)
    return Derived((math.prod(rest), width), array.dtype, lambda: np.asarray(array).reshape(-1, width))


def _four_axes(array: Any) -> tuple[int, ...]:
    if len(array.shape) != 4:
        raise ValueError(f"the patch embedding has shape {tuple(array.shape)}; expected the four axes of a convolution")
    return tuple(array.shape)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}; give the folder of a CLIP checkpoint")
    return read_object(path)
