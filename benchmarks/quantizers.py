"""Our quantizers and those of vector-quantize-pytorch as contestants: one training step."""

import sys
import time
from collections.abc import Callable

import torch
import vector_quantize_pytorch as peers
from torch import Tensor

from benchmarks.memory import with_peak
from benchmarks.processes import serve
from minidalle.vqgan import quantize

COMMITMENT, DECAY, EPSILON = 0.25, 0.95, 1e-5


def ours(kind: str, n_embed: int, dim: int) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A call that gives vectors (B, dim, H, W), codes (B, H·W) and loss of such vectors, by our quantizer of this kind."""
    quantizer = {
        "gradient": lambda: quantize.NearestQuantizer(n_embed, dim, COMMITMENT),
        "ema": lambda: quantize.EMAQuantizer(n_embed, dim, COMMITMENT, DECAY, EPSILON),
        "rotation": lambda: quantize.EMAQuantizer(n_embed, dim, COMMITMENT, DECAY, EPSILON, rotation=True),
    }[kind]()
    table = codebook(n_embed, dim)
    quantizer.embedding.weight.data.copy_(table)
    if hasattr(quantizer, "embed_avg"):
        quantizer.embed_avg.copy_(table)

    def call(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = quantizer(z)
        return found.vectors, found.codes, found.loss

    return call


def theirs(kind: str, n_embed: int, dim: int) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The same by vector-quantize-pytorch."""
    options = {
        "gradient": {"learnable_codebook": True, "ema_update": False, "rotation_trick": False},
        "ema": {"decay": DECAY, "rotation_trick": False},
        "rotation": {"decay": DECAY, "rotation_trick": True},
    }[kind]
    quantizer = peers.VectorQuantize(
        dim=dim, codebook_size=n_embed, eps=EPSILON, commitment_weight=COMMITMENT, accept_image_fmap=True, **options
    )
    table = codebook(n_embed, dim)
    quantizer._codebook.embed.data[0].copy_(table)
    if kind != "gradient":
        quantizer._codebook.embed_avg.data[0].copy_(table)

    def call(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, codes, loss = quantizer(z)
        return vectors, codes.flatten(1), loss.sum()

    return call


def codebook(n_embed: int, dim: int) -> Tensor:
    return torch.randn(n_embed, dim, generator=torch.Generator().manual_seed(0))


def encoded(pictures: int, side: int, dim: int) -> Tensor:
    return torch.randn(pictures, dim, side, side, generator=torch.Generator().manual_seed(1))


def main(side: str) -> None:
    made: dict[str, Callable] = {}
    inputs: dict[str, Tensor] = {}

    def prepare(kind: str, n_embed: int, dim: int, pictures: int, grid: int) -> list[int]:
        """Set the contestants up, and return the codes of a look at the input."""
        made["now"] = {"minidalle": ours, "vector-quantize-pytorch": theirs}[side](kind, n_embed, dim)
        inputs["now"] = encoded(pictures, grid, dim)
        with torch.no_grad():
            return made["now"](inputs["now"])[1].flatten().tolist()

    def step() -> float:
        """Seconds of one training step: forward, the sum of all vectors and the loss, backward."""
        z = inputs["now"].clone().requires_grad_()
        began = time.perf_counter()
        vectors, _, loss = made["now"](z)
        (vectors.sum() + loss).backward()
        return time.perf_counter() - began

    def peak() -> int | None:
        """Bytes that one training step takes at most, beside what is held before it; None where Linux does not count."""
        step()  # what is kept for good, such as a gradient, is there already
        return with_peak(step)[1]

    serve({"prepare": prepare, "step": step, "peak": peak})


if __name__ == "__main__":
    main(*sys.argv[1:])
