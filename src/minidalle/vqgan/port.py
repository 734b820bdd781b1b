"""The crossing: weights of the VQGAN from PyTorch to its twin in Flax NNX, and back, exactly.

Pictures are channels last in JAX, so a convolution's weight `(out, in, height, width)` becomes a kernel
`(height, width, in, out)`: axes (2, 3, 1, 0). Names are translated by one rule, `jax_name`.
"""

import re
from collections.abc import Mapping

import numpy as np
import torch
from flax import nnx

from ..training.tree import build_filled, flatten_names
from .config import VQGANConfig
from .export import TRAINING_ONLY
from .model import VQGAN
from .twin import VQGANTwin

__all__ = [
    "VQGANTwin",
    "jax_name",
    "state_of",
    "to_jax",
    "to_torch",
    "torch_name",
    "translate",
    "twin_from_arrays",
    "weights_of",
]


def jax_name(name: str, dimensions: int) -> str:
    """The name of a weight here: `decoder.up.0.block.1.conv1.weight` becomes `decoder.up_0.block_1.conv1.kernel`."""
    path, _, kind = re.sub(r"\.(\d+)(?=\.)", r"_\1", name).rpartition(".")
    if kind == "weight":
        kind = "embedding" if path.endswith("embedding") else "kernel" if dimensions == 4 else "scale"
    return f"{path}.{kind}"


def torch_name(name: str) -> str:
    """The name of a weight in PyTorch; the inverse of `jax_name`."""
    path, _, kind = name.rpartition(".")
    kind = "weight" if kind in ("kernel", "scale", "embedding") else kind
    # `mid.block_1` keeps its underscore in PyTorch: there it is a name, not a place in a list.
    return re.sub(r"(?<!\bmid\.)\b(down|up|block|attn)_(\d+)\b", r"\1.\2", path) + f".{kind}"


def translate(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """A PyTorch state dict under the names and in the layout of the twin, float32; the inverse of `state_of`."""
    arrays = {}
    for name, tensor in state.items():
        array = tensor.detach().float().cpu().numpy()
        arrays[jax_name(name, array.ndim)] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return arrays


def state_of(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Weights of a twin under taming-transformers' names and in PyTorch's layout, in the type that they have."""
    state = {}
    for name, array in arrays.items():
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        state[torch_name(name)] = torch.from_numpy(np.array(array, order="C"))
    return state


def weights_of(twin: VQGANTwin) -> dict[str, np.ndarray]:
    """The weights of a twin by dotted name, without what only training needs; bfloat16, which NumPy lacks, as float32."""
    named = {name: np.asarray(x) for name, x in flatten_names(nnx.state(twin))[0].items() if name not in TRAINING_ONLY}
    return {name: x.astype(np.float32) if x.dtype == "bfloat16" else x for name, x in named.items()}


def twin_from_arrays(config: VQGANConfig, arrays: Mapping[str, np.ndarray], **options) -> VQGANTwin:
    """A twin that holds the given weights, and was never initialised with others.

    Args:
        config: sizes.
        arrays: `{dotted name: array}` in this module's names and layout, or what `np.asarray` makes one of; the running
            statistics of an "ema" codebook may be missing, and start anew.
        options: `normalize`, `dtype`, `param_dtype`, `precision` and `with_encoder` of `VQGANTwin`.

    Raises:
        ValueError: a weight is missing, unknown, of another shape than `config` says, or not finite; names it.
    """
    arrays = dict(arrays)
    if config.quantizer == "ema" and "quantize.embedding.embedding" in arrays:
        arrays.setdefault("quantize.cluster_size", np.ones(config.n_embed, np.float32))
        arrays.setdefault("quantize.embed_avg", arrays["quantize.embedding.embedding"])
    return build_filled(lambda: VQGANTwin(config, rngs=nnx.Rngs(0), **options), arrays)


def to_jax(model: VQGAN, **options) -> VQGANTwin:
    """The twin of a PyTorch VQGAN: the same codes, and pictures equal to about 1e-5.

    Args:
        model: trained or not; left as it is.
        options: `dtype`, `param_dtype` and `precision` of `VQGANTwin`.

    Raises:
        ValueError: a weight is NaN or infinite; the message names it.
    """
    options.setdefault("normalize", getattr(model.quantize, "normalize", False))
    return twin_from_arrays(model.config, translate(model.state_dict()), **options)


def to_torch(twin: VQGANTwin, **quantizer_options) -> VQGAN:
    """The PyTorch VQGAN of a twin, in float32, on the CPU and in evaluation mode; `to_jax` of it gives the twin back.

    Args:
        twin: any.
        quantizer_options: what the twin does not know, being of use in training alone (`beta`, `revive_after`, …).

    Raises:
        ValueError: the twin has no encoder.
    """
    if not twin.with_encoder:
        raise ValueError("this VQGAN has no encoder, it only draws; a whole one is needed here")
    arrays, _ = flatten_names(nnx.state(twin))
    if twin.normalize:
        quantizer_options = {"normalize": True, **quantizer_options}
    model = VQGAN(twin.config, **quantizer_options)
    state = {}
    for name, tensor in model.state_dict().items():
        array = np.asarray(arrays[jax_name(name, tensor.ndim)], np.float32)
        state[name] = torch.from_numpy(np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array, order="C"))
    model.load_state_dict(state)
    return model.eval()
