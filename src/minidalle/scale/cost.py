"""What drawing and training cost, before a machine is rented: memory, operations and time, from configurations alone.

Nothing is allocated. Networks are built abstractly, so a model of any size is counted on any machine.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..bart.config import DalleBartConfig
from ..bart.model import DalleBart
from ..clip.config import CLIPConfig
from ..clip.model import CLIP
from ..training.optimizer import make_optimizer
from ..training.tree import flatten_names
from ..vqgan.config import VQGANConfig
from ..vqgan.twin import VQGANTwin

# As published: https://huggingface.co/dalle-mini, configurations of June 2022. Ids and sizes that are the defaults of
# the original's class are left out.
MINI = DalleBartConfig(encoder_ffn_dim=2730, decoder_ffn_dim=2730, dropout=0.0, normalize_text=True)
MEGA = DalleBartConfig(
    encoder_vocab_size=50272, image_vocab_size=16415, decoder_start_token_id=16384, d_model=2048, encoder_layers=24,
    decoder_layers=24, encoder_attention_heads=32, decoder_attention_heads=32, dropout=0.0, normalize_text=True,
    init_std=0.01,
)  # fmt: skip

VQGAN, RANKER = VQGANConfig(), CLIPConfig()  # vqgan_imagenet_f16_16384 and clip-vit-base-patch32, which go with both

FULL_SIZE_ARRAYS = 3  # of the VQGAN's decoder, alive together: a residual block's input, its inside, its output


@dataclass(frozen=True)
class Device:
    """What a data sheet promises.

    Attributes:
        memory: bytes.
        bandwidth: bytes a second between memory and processor.
        half: floating-point operations a second in matrix products of 16-bit numbers, summed in 32 bits, no sparsity.
        single: the same for 32-bit numbers.
    """

    memory: float
    bandwidth: float
    half: float
    single: float


DEVICES = {  # NVIDIA's data sheets
    "T4": Device(16e9, 320e9, 65e12, 8.1e12),
    "L4": Device(24e9, 300e9, 121e12, 30.3e12),
    "RTX 4090": Device(24e9, 1008e9, 165e12, 82.6e12),
    "A100 40 GB": Device(40e9, 1555e9, 312e12, 19.5e12),
    "H100": Device(80e9, 3350e9, 989e12, 67e12),  # SXM
}


@dataclass(frozen=True)
class Memory:
    """Bytes that stand in a device's memory while pictures are drawn.

    Attributes:
        weights: DalleBart's parameters.
        others: parameters of VQGAN and CLIP, in float32.
        taken_apart: the decoder's layers and the output layer once more, as the sampler unstacks them.
        caches: keys and values of the codes so far and of the caption.
        painting: what the VQGAN's decoder holds at its widest.
    """

    weights: int
    others: int
    taken_apart: int
    caches: int
    painting: int

    @property
    def peak(self) -> int:
        """The most at any time: codes are written first, and only when that is over are they painted."""
        return self.weights + self.others + max(self.taken_apart + self.caches, self.painting)


def count_parameters(build: Callable[[], nnx.Module]) -> int:
    """Parameters of the module that `build()` would give; it is built abstractly, without numbers."""
    state = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


@functools.cache
def dallebart_parameters(config: DalleBartConfig) -> int:
    """Parameters of a DalleBart: 437,833,712 for `MINI`, 2,587,521,024 for `MEGA`."""
    return count_parameters(lambda: DalleBart(config, rngs=nnx.Rngs(0)))


@functools.cache
def encoder_parameters(config: DalleBartConfig) -> int:
    """Parameters of the half that reads a caption, its tables of tokens and places among them."""
    return count_parameters(lambda: DalleBart(config, rngs=nnx.Rngs(0)).encoder)


@functools.cache
def taken_apart_parameters(config: DalleBartConfig) -> int:
    """Parameters of all decoder layers, and of the output layer's columns that belong to codes."""
    state = nnx.state(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0)).decoder.layers), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) + config.d_model * config.codebook_size


@functools.cache
def _vqgan_parameters(vqgan: VQGANConfig) -> int:
    return count_parameters(lambda: VQGANTwin(vqgan, rngs=nnx.Rngs(0)))


@functools.cache
def _clip_parameters(clip: CLIPConfig) -> int:
    return count_parameters(lambda: CLIP(clip, rngs=nnx.Rngs(0)))


def cache_numbers(config: DalleBartConfig, rows: int) -> int:
    """Numbers kept as keys and values: two for each layer, row and channel at every code and every token."""
    positions = config.image_length + config.max_text_length
    return 2 * config.decoder_layers * rows * positions * config.d_model


def painting_bytes(vqgan: VQGANConfig, pictures: int) -> int:
    """What the VQGAN's decoder holds at its widest: arrays of full size, as wide as what is upsampled into them.

    XLA plans the same for the published VQGAN on a CPU; on a GPU its convolutions may take room to work in besides.
    """
    channels = vqgan.ch * max(vqgan.ch_mult[:2])
    return FULL_SIZE_ARRAYS * pictures * vqgan.resolution**2 * channels * 4


def drawing_memory(
    config: DalleBartConfig,
    pictures: int,
    bytes_per_number: int = 4,
    *,
    guided: bool = True,
    vqgan: VQGANConfig = VQGAN,
    clip: CLIPConfig | None = RANKER,
) -> Memory:
    """Bytes needed to draw so many pictures at a time (`Pipeline.generate` draws at most 64 on one device).

    Args:
        config: the DalleBart's.
        pictures: drawn together.
        bytes_per_number: 4 for float32, 2 for bfloat16 and float16; for weights and caches of DalleBart alone.
        guided: every picture has an unconditional twin.
        vqgan, clip: the others' sizes; None for no CLIP.
    """
    rows = pictures * (2 if guided else 1)
    others = _vqgan_parameters(vqgan) + (_clip_parameters(clip) if clip is not None else 0)
    return Memory(
        weights=dallebart_parameters(config) * bytes_per_number,
        others=others * 4,
        taken_apart=taken_apart_parameters(config) * bytes_per_number,
        caches=cache_numbers(config, rows) * bytes_per_number,
        painting=painting_bytes(vqgan, pictures),
    )


def step_products(config: DalleBartConfig) -> dict[str, int]:
    """Multiplications that write one code of one row, all layers together, by the part of the decoder.

    "caption again" is not done here: what the originals spend at every step to compute the caption's keys and values
    anew (dalle-mini's and min-dalle's cross-attention).
    """
    d, hidden, depth = config.d_model, config.decoder_ffn_dim, config.decoder_layers
    return {
        "self-attention": depth * (4 * d * d + 2 * d * config.image_length),
        "cross-attention": depth * (2 * d * d + 2 * d * config.max_text_length),
        "feed-forward": depth * (3 if config.use_glu else 2) * d * hidden,
        "output layer": d * config.codebook_size,
        "caption again": depth * 2 * d * d * config.max_text_length,
    }


def forward_products(config: DalleBartConfig) -> dict[str, int]:
    """Multiplications that score all codes of one picture given its caption, by the part of the network.

    Every position is computed, padding and what the causal mask hides among them, as XLA does. Embeddings are looked up
    and multiply nothing.
    """
    d, text, codes = config.d_model, config.max_text_length, config.image_length
    matrices = 3 if config.use_glu else 2
    return {
        "encoder": config.encoder_layers
        * (text * (4 * d * d + matrices * d * config.encoder_ffn_dim) + 2 * d * text * text),
        "self-attention": config.decoder_layers * (4 * d * d * codes + 2 * d * codes * codes),
        "cross-attention": config.decoder_layers * (2 * d * d * (codes + text) + 2 * d * codes * text),
        "feed-forward": config.decoder_layers * matrices * d * config.decoder_ffn_dim * codes,
        "output layer": d * (config.image_vocab_size + 1) * codes,
    }


def training_operations(config: DalleBartConfig, pictures: int = 1, *, recomputing: bool = False) -> int:
    """Floating-point operations of the matrix products that one training step over so many pictures needs.

    A product's backward pass takes two of its size, one for the gradient of each factor, and a multiplication is two
    operations. This is what 6 · parameters · tokens approximates (Kaplan et al. 2020, section 2.1): here each half has
    its own length, attention is counted, and the tables are not.

    Args:
        config: the DalleBart's.
        pictures: in a batch, or in a whole training.
        recomputing: count also the layers' second forward pass, which gradient checkpointing adds; the model learns
            nothing more by it, and utilisation is counted without (Chowdhery et al. 2022, appendix B).
    """
    products = forward_products(config)
    again = sum(products.values()) - products["output layer"] if recomputing else 0
    return 2 * pictures * (3 * sum(products.values()) + again)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that stand in memory while one training step is taken, on one device that does it all.

    Attributes:
        weights, gradients: 4 bytes a parameter each.
        optimizer: its moments, as `minidalle.training.optimizer` keeps them.
        kept: each layer's input, kept for the way back; with no gradient checkpointing all that the layers compute.
        working: logits and their gradient, or one layer on its way back, whichever is more.
    """

    weights: int
    gradients: int
    optimizer: int
    kept: int
    working: int

    @property
    def peak(self) -> int:
        """All together. A compiler that puts gradients where activations were may need less, one that copies more."""
        return self.weights + self.gradients + self.optimizer + self.kept + self.working


@functools.cache
def optimizer_bytes(config: DalleBartConfig, optimizer: str = "adamw") -> int:
    """Bytes of what an optimizer of `minidalle.training.optimizer` remembers; it is set up abstractly."""
    state = nnx.state(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0))), nnx.Param)
    moments = jax.eval_shape(make_optimizer(optimizer, 1e-4, 1000).init, flatten_names(state)[0])
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(moments))


def training_memory(
    config: DalleBartConfig, pictures: int, bytes_per_number: int = 2, *, optimizer: str = "adamw"
) -> TrainingMemory:
    """Bytes needed to train on so many pictures at a time; `bytes_per_number` is 2 for computing in bfloat16, 4 in float32.

    Weights, gradients and moments are exact. What is computed is counted as the arrays that the formulas of a layer name,
    each once, which a compiler may fuse away or copy: good to a factor of two.
    """
    d, text, codes = config.d_model, config.max_text_length, config.image_length
    matrices = 3 if config.use_glu else 2

    def layer(length: int, hidden: int, heads: int, reads: int) -> int:
        """Numbers that a layer computes: d_model wide, hidden, and each head's weights twice, before and after softmax."""
        wide = 14 * d if reads else 9 * d
        return length * (wide + 2 * (matrices - 1) * hidden + 2 * heads * (length + reads)) + 2 * reads * d

    encoder = layer(text, config.encoder_ffn_dim, config.encoder_attention_heads, 0)
    decoder = layer(codes, config.decoder_ffn_dim, config.decoder_attention_heads, text)
    if config.gradient_checkpointing:
        kept = d * (config.encoder_layers * text + config.decoder_layers * codes)
    else:
        kept = config.encoder_layers * encoder + config.decoder_layers * decoder
    logits = 2 * 4 * codes * (config.image_vocab_size + 1)  # float32, and as much for their gradient
    parameters = dallebart_parameters(config)
    return TrainingMemory(
        weights=4 * parameters,
        gradients=4 * parameters,
        optimizer=optimizer_bytes(config, optimizer),
        kept=pictures * kept * bytes_per_number,
        working=pictures * max(logits, 2 * decoder * bytes_per_number),
    )


def training_seconds(
    config: DalleBartConfig, pictures: int, device: Device, bytes_per_number: int = 2, *, optimizer: str = "adamw"
) -> dict[str, float]:
    """Seconds below which no step can stay on this device: to multiply, to update the weights, and both.

    The update reads weights, gradients and moments and writes weights and moments, at the speed of memory; weights and
    gradients are float32.
    """
    memory = training_memory(config, pictures, bytes_per_number, optimizer=optimizer)
    peak = device.half if bytes_per_number == 2 else device.single
    computing = training_operations(config, pictures, recomputing=config.gradient_checkpointing) / peak
    updating = (2 * memory.weights + memory.gradients + 2 * memory.optimizer) / device.bandwidth
    return {"computing": computing, "updating": updating, "all": computing + updating}


def operations(function: Callable, *arguments: Any) -> float:
    """Floating-point operations of a function by XLA's own count; arguments may be `jax.ShapeDtypeStruct`s.

    The body of a loop is counted once, however often it runs.
    """
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


@functools.cache
def painting_operations(vqgan: VQGANConfig = VQGAN) -> float:
    """Floating-point operations that paint one picture."""
    structure, state = nnx.split(nnx.eval_shape(lambda: VQGANTwin(vqgan, rngs=nnx.Rngs(0)).decoder))
    features = jax.ShapeDtypeStruct((1, vqgan.grid, vqgan.grid, vqgan.z_channels), jnp.float32)
    return operations(lambda state, z: nnx.merge(structure, state)(z), state, features)


def drawing_seconds(
    config: DalleBartConfig,
    pictures: int,
    device: Device,
    bytes_per_number: int = 2,
    *,
    guided: bool = True,
    vqgan: VQGANConfig = VQGAN,
) -> dict[str, float]:
    """Seconds below which no device can stay: to read, to compute, to paint, and all together.

    Each step reads the decoder's layers and the caches once ("reading"), and multiplies ("computing"); the slower of the
    two counts. Painting is in float32. What is left out (the encoder, CLIP, starting thousands of small kernels) only adds.
    """
    rows = pictures * (2 if guided else 1)
    step_bytes = (taken_apart_parameters(config) + cache_numbers(config, rows)) * bytes_per_number
    products = sum(count for part, count in step_products(config).items() if part != "caption again")
    peak = device.half if bytes_per_number == 2 else device.single
    reading = config.image_length * step_bytes / device.bandwidth
    computing = config.image_length * 2 * products * rows / peak
    painting = pictures * painting_operations(vqgan) / device.single
    return {
        "reading": reading,
        "computing": computing,
        "painting": painting,
        "all": max(reading, computing) + painting,
    }
