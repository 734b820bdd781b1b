"""The original's tiny checkpoint with what the original computed from it, loaded once."""

import functools
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.hub.dallebart import load_dallebart

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def original() -> DalleBart:
    return load_dallebart(FIXTURES / "dallebart_mini_scan")


@pytest.fixture(scope="session")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURES / "dallebart_mini_scan" / "io.npz"))


@pytest.fixture(scope="session")
def recorded_layers() -> dict[str, np.ndarray]:
    """The same weights' hidden states, which only the unstacked case records."""
    return dict(np.load(FIXTURES / "dallebart_mini_noscan" / "io.npz"))


def tiny_config(**changes) -> DalleBartConfig:
    sizes = {
        "encoder_vocab_size": 40,
        "image_vocab_size": 32,
        "image_length": 9,
        "max_text_length": 8,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "d_model": 16,
        "dropout": 0.0,
        "init_std": 0.3,
        "gradient_checkpointing": False,
    }
    return DalleBartConfig(**(sizes | changes))


@pytest.fixture(scope="session", name="tiny_config")
def tiny_config_fixture():
    return tiny_config


@pytest.fixture(scope="session")
def make_tiny():
    @functools.cache
    def make(seed: int = 0, dtype=np.float32, **changes) -> DalleBart:
        return DalleBart(tiny_config(**changes), rngs=nnx.Rngs(seed), dtype=dtype)

    return make


@pytest.fixture(scope="session")
def tiny_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Captions of several lengths, their masks, and codes for ``tiny_config``."""
    random = np.random.default_rng(0)
    text_mask = (np.arange(8) < np.array([[8], [5], [2], [3]])).astype(np.int32)
    text_ids = np.where(text_mask, random.integers(3, 40, (4, 8)), 1).astype(np.int32)
    return text_ids, text_mask, random.integers(0, 32, (4, 9)).astype(np.int32)


@pytest.fixture(scope="module", autouse=True)
def every_test(quickly_compiled):
    """All tests here are so."""
