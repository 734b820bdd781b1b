"""Contestants that train: BART here and in transformers, eager and compiled, and the VQGAN in two memory layouts."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.processes import serve

RATE = 1e-3  # learning rate of all


def batch(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Random texts and targets, no padding: `{"text", "codes"}`, int."""
    random = np.random.default_rng(0)
    shape = {"text": (sizes["batch"], sizes["text"]), "codes": (sizes["batch"], sizes["codes"])}
    return {name: random.integers(4, sizes["vocabulary"], each) for name, each in shape.items()}


def settings(sizes: dict[str, int]) -> dict[str, Any]:
    """Of a BART, in the words that both sides share."""
    width, depth = sizes["width"], sizes["depth"]
    return {
        "vocab_size": sizes["vocabulary"], "max_position_embeddings": max(sizes["text"], sizes["codes"]), "d_model": width,
        "encoder_layers": depth, "decoder_layers": depth, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
        "encoder_attention_heads": width // 64 or 1, "decoder_attention_heads": width // 64 or 1, "dropout": 0.0,
    }  # fmt: skip


def our_bart(sizes: dict[str, int], folder: str, dtype: str) -> Callable[[], float]:
    """A step of our `Bart` with the weights that transformers wrote to `folder`; the loss before it."""
    import jax
    import jax.numpy as jnp
    import optax

    from minidalle.bart.denoiser import denoising_loss
    from minidalle.hub import load_bart
    from minidalle.training.step import Step

    given = batch(sizes)
    ones = np.ones_like(given["text"]), np.ones_like(given["codes"])

    def loss(model: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict]:
        return denoising_loss(model, batch["text"], ones[0], batch["codes"], ones[1]), {}

    step = Step(loss, load_bart(folder, dtype=dtype), optax.adamw(RATE), given)
    kept = {"state": step.start()}

    def call() -> float:
        kept["state"]["sums"] = {"loss": jnp.zeros(())}
        kept["state"] = jax.block_until_ready(step(kept["state"], given))
        return float(kept["state"]["sums"]["loss"])

    return call


def their_bart(sizes: dict[str, int], folder: str, dtype: str, compiled: bool) -> Callable[[], float]:
    """A step of transformers' `BartForConditionalGeneration` with the same weights; the loss before it."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.BartForConditionalGeneration.from_pretrained(folder).to(device).train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4, fused=True)
    given = {name: torch.from_numpy(array).to(device) for name, array in batch(sizes).items()}
    half = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = forward(input_ids=given["text"], labels=given["codes"], use_cache=False).loss
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return call


def write_bart(sizes: dict[str, int], folder: str) -> int:
    """Random weights of a BART in transformers' format; how many numbers they are."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**settings(sizes)))
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def vqgan(sizes: dict[str, int], folder: str, layout: str, bfloat16: bool) -> Callable[[], float]:
    """A step of the VQGAN's training: ours, or in taming-transformers' layout (NCHW) with an Adam that is not fused."""
    import torch

    from minidalle.vqgan import VQGANConfig
    from minidalle.vqgan.train import Run, VQGANTraining

    side = sizes["side"]
    config = VQGANConfig(
        ch=sizes["width"], ch_mult=(1, 1, 2, 2), num_res_blocks=2, attn_resolutions=(side // 8,), resolution=side,
        z_channels=64, n_embed=1024, embed_dim=64, quantizer="nearest",
    )  # fmt: skip
    torch.manual_seed(0)
    images = torch.randint(0, 256, (sizes["batch"], 3, side, side), dtype=torch.uint8)
    training = VQGANTraining(batch_size=sizes["batch"], disc_weight=0.8, bfloat16=bfloat16)
    run = Run(config, training, images, seed=0, folder=folder)
    run.model.train()
    if layout == "NCHW":
        run.model.to(memory_format=torch.contiguous_format)
        given, run.batch = run.batch, lambda *where, **kind: given(*where, **kind).contiguous()
        run.optimizer = torch.optim.Adam(run.model.parameters(), betas=(0.5, 0.9))
        run.disc_optimizer = torch.optim.Adam(run.discriminator.parameters(), betas=(0.5, 0.9))

    def call() -> float:
        loss = float(run.train_step()["loss"])
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        return loss

    return call


def main(name: str) -> None:
    made: dict[str, Callable[[], float]] = {}

    def prepare(sizes: dict[str, int], folder: str, dtype: str) -> None:
        made["step"] = {
            "minidalle": lambda: our_bart(sizes, folder, dtype),
            "transformers": lambda: their_bart(sizes, folder, dtype, compiled=False),
            "transformers, compiled": lambda: their_bart(sizes, folder, dtype, compiled=True),
            "minidalle, channels last": lambda: vqgan(sizes, folder, "NHWC", dtype == "bfloat16"),
            "taming-transformers' layout": lambda: vqgan(sizes, folder, "NCHW", dtype == "bfloat16"),
        }[name]()

    def step() -> dict[str, float]:
        """Seconds of one step and the loss before it; the first step compiles."""
        began = time.perf_counter()
        loss = made["step"]()
        return {"seconds": time.perf_counter() - began, "loss": loss}

    serve({"write": write_bart, "prepare": prepare, "step": step})


if __name__ == "__main__":
    main(*sys.argv[1:])
