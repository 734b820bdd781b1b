"""Networks with random weights in the sizes of the published ones, written to files that any contestant can read.

`python -m benchmarks.weights SIZE FOLDER FORMAT...` writes a folder for each format, all of the same weights.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.hub.dallebart import save_dallebart
from minidalle.hub.detoker import save_detoker
from minidalle.hub.min_dalle import save_min_dalle
from minidalle.hub.native import save
from minidalle.training.tree import build_filled, flatten_names
from minidalle.vqgan import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin

MINI = {
    "encoder_ffn_dim": 2730, "decoder_ffn_dim": 2730, "decoder_start_token_id": 16384, "bos_token_id": 16385,
    "eos_token_id": 16385, "pad_token_id": 16385, "dropout": 0.0, "normalize_text": True,
}  # fmt: skip
MEGA = MINI | {
    "d_model": 2048, "encoder_layers": 24, "decoder_layers": 24, "encoder_attention_heads": 32,
    "decoder_attention_heads": 32, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_vocab_size": 50272,
    "image_vocab_size": 16415,
}  # fmt: skip
TINY = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "encoder_vocab_size": 300, "image_vocab_size": 512,
    "image_length": 16, "dropout": 0.0,
}  # fmt: skip
SMALL_VQGAN = {
    "ch": 32, "ch_mult": (1,) * 5, "attn_resolutions": (4,), "resolution": 64, "z_channels": 24, "embed_dim": 24,
    "n_embed": 512,
}  # fmt: skip
SIZES = {"tiny": (TINY, SMALL_VQGAN), "mini": (MINI, {}), "mega": (MEGA, {})}
FORMATS = {"msgpack": save_dallebart, "safetensors": save, "min-dalle": save_min_dalle}


def random_network(build: Callable[[], nnx.Module]) -> nnx.Module:
    """A network as new: matrices from N(0, 0.02²), norms that change nothing, biases of 0; by NumPy, in little time."""
    generator = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = name.rpartition(".")[2]
        if kind in ("scale", "bias"):
            return np.full(shape, kind == "scale", np.float32)
        return generator.standard_normal(shape, np.float32) * np.float32(0.02)

    shapes = flatten_names(nnx.state(nnx.eval_shape(build)))[0]
    return build_filled(build, {name: draw(name, leaf.shape) for name, leaf in shapes.items()})


def write(size: str, folder: Path, formats: Sequence[str]) -> None:
    """A DalleBart ("tiny", "mini" or "mega") in each format, and for "min-dalle" also its VQGAN's decoding half."""
    bart, vqgan = SIZES[size]
    model = random_network(lambda: DalleBart(DalleBartConfig(**bart), rngs=nnx.Rngs(0)))
    for form in formats:
        FORMATS[form](model, folder / form)
    if "min-dalle" in formats:
        config = VQGANConfig(**vqgan)
        save_detoker(
            random_network(lambda: VQGANTwin(config, rngs=nnx.Rngs(0), with_encoder=False)), folder / "min-dalle"
        )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    write(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
