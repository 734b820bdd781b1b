"""A whole pipeline of toy size with random weights, on disk, as `Pipeline.load` wants it."""

import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.clip.config import CLIPConfig
from minidalle.clip.model import CLIP
from minidalle.pipeline import Pipeline
from minidalle.text import Tokenizer
from minidalle.training.export import save_arrays
from minidalle.training.tree import flatten_parameters
from minidalle.vqgan.config import VQGANConfig
from minidalle.vqgan.export import export
from minidalle.vqgan.model import VQGAN

CAPTIONS = ["a red heart", "a blue square", "woman firefighter: dark skin tone", "cat"]
TRANSFORMER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(CAPTIONS, 300, min_frequency=1)
    tokenizer.save(path)
    vqgan = VQGANConfig(
        ch=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), resolution=8, z_channels=8, n_embed=32,
        embed_dim=4, norm_groups=4,
    )  # fmt: skip
    network = VQGAN(vqgan)
    torch.nn.init.normal_(network.quantize.embedding.weight)
    export(network, path / "vqgan")
    bart = DalleBartConfig(
        encoder_vocab_size=tokenizer.vocab_size, image_vocab_size=32, image_length=16, max_text_length=12,
        encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, d_model=16, init_std=0.5, dropout=0.0,
    )  # fmt: skip
    save_arrays(path / "bart", "bart", bart.to_dict(), flatten_parameters(DalleBart(bart, rngs=nnx.Rngs(0))))
    clip = CLIPConfig.from_dict(
        {
            "projection_dim": 8,
            "text_config": {
                **TRANSFORMER, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 16, "bos_token_id": 0,
                "pad_token_id": 1, "eos_token_id": 2, "pooling": "eos",
            },
            "vision_config": {**TRANSFORMER, "image_size": 8, "patch_size": 4},
        }
    )  # fmt: skip
    model = CLIP(clip, rngs=nnx.Rngs(1), dtype=jnp.float32)
    save_arrays(path / "clip", "clip", clip.to_dict(), flatten_parameters(model))
    return path


@pytest.fixture(scope="session")
def pipe(folder):
    return Pipeline.load(folder)
