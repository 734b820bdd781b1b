"""minidalle as a contestant: draws codes with guidance, and pictures from codes."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks.processes import serve
from benchmarks.report import versions
from minidalle.bart import stream
from minidalle.hub.detoker import load_detoker
from minidalle.hub.min_dalle import load_min_dalle
from minidalle.training.tree import flatten_names


def main(folder: Path, dtype: str, int8: bool) -> None:
    model = load_min_dalle(folder, dtype=dtype, param_dtype=dtype)
    vqgan = load_detoker(folder, dtype=dtype, param_dtype=dtype)
    config = model.config
    captions = {}

    def read(caption: list[int], pictures: int) -> None:
        ids = np.ones((2, config.max_text_length), np.int32)
        ids[0, : len(caption)] = caption
        ids[1, :2] = caption[0], caption[-1]
        rows = [np.repeat(part, pictures, axis=0) for part in (ids[:1], ids[:1] != 1)]
        captions["now"] = (*rows, ids[1:], ids[1:] != 1)

    def draw(steps: int, guidance: float, top_k: int, seed: int) -> dict[str, float]:
        """Seconds of the caption with the first step, and of a step among `steps` later ones."""
        every = min(steps, config.image_length // 2)
        key, clock = jax.random.key(seed), [time.perf_counter()]
        settings = {"guidance": guidance, "top_k": top_k, "int8": int8}
        for _, codes in stream(model, *captions["now"], key=key, every=every, **settings):
            jax.block_until_ready(codes)
            clock.append(time.perf_counter())
            if len(clock) == 3:
                break
        step = (clock[2] - clock[1]) / every
        return {"first": clock[1] - clock[0] - (every - 1) * step, "step": step}

    def decode(codes: list[list[int]]) -> float:
        start = time.perf_counter()
        np.asarray(vqgan.decode(np.array(codes, np.int32)))
        return time.perf_counter() - start

    def logits(file: str, caption: list[int], codes: list[int]) -> str:
        """Unconditional and conditional logits where `codes` are what was drawn so far."""
        read(caption, 1)
        ids, mask, blank_ids, blank_mask = captions["now"]
        both, masks = np.concatenate([blank_ids, ids]), np.concatenate([blank_mask, mask])
        inputs = np.tile(np.array([config.decoder_start_token_id, *codes], np.int32), (2, 1))
        np.save(file, np.asarray(model.decode(model.encode(both, masks), masks, inputs)))
        return file

    def weight_bytes() -> int:
        """What each step has to read: the decoder's layers but for what reads the caption, and the output layer."""
        layers = flatten_names(nnx.state(model.decoder.layers))[0]
        once = "cross_attention.key.", "cross_attention.value."
        read = sum(array.size for name, array in layers.items() if not name.startswith(once))
        return (read + config.d_model * config.codebook_size) * (1 if int8 else jnp.dtype(dtype).itemsize)

    serve(
        {
            "about": lambda: {
                "versions": versions("minidalle", "jax", "flax", "torch"),
                "device": jax.devices()[0].device_kind,
                "code_length": config.image_length,
                "codebook_size": config.codebook_size,
                "text_vocabulary": config.encoder_vocab_size,
                "bytes": weight_bytes(),
            },
            "read": read,
            "draw": draw,
            "decode": decode,
            "logits": logits,
            "bandwidth": bandwidth,
        }
    )


def bandwidth(megabytes: int) -> float:
    """Bytes a second at which this device reads its memory: the best of five sums and matrix-vector products."""
    rows = megabytes * 1_000_000 // 4 // 4096
    array, vector = jnp.ones((rows, 4096)), jnp.ones(4096)
    total, product = jax.jit(jnp.sum), jax.jit(jnp.matmul)
    reads = [lambda: total(array), lambda: product(array, vector)]
    if jax.default_backend() == "cpu":
        host, other = torch.ones(rows, 4096), torch.ones(4096)
        reads += [host.sum, lambda: host @ other]
    best = float("inf")
    for read in reads:
        jax.block_until_ready(read())
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(read())
            best = min(best, time.perf_counter() - start)
    return array.nbytes / best


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], "--int8" in sys.argv[3:])
