"""Pictures to codes and back: the VQGAN, its quantizers, its losses and its training, in PyTorch; `port` takes it to JAX."""

from .config import VQGANConfig
from .model import VQGAN
from .quantize import (
    FSQ,
    EMAQuantizer,
    GumbelQuantizer,
    NearestQuantizer,
    build_quantizer,
    k_means,
    nearest_codes,
    perplexity,
    usage,
)

__all__ = [
    "FSQ",
    "EMAQuantizer",
    "GumbelQuantizer",
    "NearestQuantizer",
    "VQGAN",
    "VQGANConfig",
    "build_quantizer",
    "k_means",
    "nearest_codes",
    "perplexity",
    "usage",
]
