"""A trained VQGAN as files: `config.json` beside `model.safetensors`, under taming-transformers' names."""

from pathlib import Path

import numpy as np
import torch

from ..training.export import read_arrays, read_config, save_arrays
from .config import VQGANConfig
from .model import VQGAN

TRAINING_ONLY = (
    "quantize.cluster_size",
    "quantize.embed_avg",
)  # running means of the EMA codebook: not needed to encode


def export(model: VQGAN, folder: str | Path, half: bool = True) -> None:
    """Write `config.json` and `model.safetensors` (float16, or float32 unless `half`) of a VQGAN into a folder."""
    state = {key: value.float().cpu().numpy() for key, value in model.state_dict().items() if key not in TRAINING_ONLY}
    save_arrays(folder, "vqgan", model.config.to_dict(), state, half)


def load_exported(folder: str | Path) -> VQGAN:
    """Return the PyTorch VQGAN of a folder, in evaluation mode and float32.

    Raises:
        ValueError: its config does not fit its weights, or one of the two is damaged.
    """
    config = VQGANConfig.from_dict(read_config(folder, "vqgan"))
    model = VQGAN(config)
    expected = {key: value for key, value in model.state_dict().items() if key not in TRAINING_ONLY}
    arrays = read_arrays(folder)
    wrong = [
        f"{name} ({tuple(arrays[name].shape) if name in arrays else 'missing'})"
        for name in sorted(expected.keys() | arrays.keys())
        if name not in arrays or name not in expected or tuple(arrays[name].shape) != tuple(expected[name].shape)
    ]
    if wrong:
        raise ValueError(
            f"{folder}: config.json does not fit the weights: {', '.join(wrong[:5])}; copy both from one place"
        )
    state = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    model.load_state_dict(state, strict=False)
    return model.eval().requires_grad_(False)
