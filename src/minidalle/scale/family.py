"""A family of DalleBarts that differ in width alone, trained alike on endless pictures of `shapes`: what laws are fitted to.

Notable:
- every batch is new, so that nothing can be learned by heart, and the training loss is a loss on new pictures as well;
- places and extents are free, so that no model reaches the floor, the variety of pictures that fit a caption;
- the schedule is an argument of the compiled step, not a part of it: runs of all lengths and seeds share one program.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from ..bart import objective
from ..bart.config import DalleBartConfig
from ..bart.model import DalleBart
from ..data import shapes
from ..data.shape_codes import ShapeCodes, ink
from ..text.tokenizer import Tokenizer
from ..training import log
from ..training.tree import flatten_names
from ..vqgan.quantize import k_means
from . import cost

SIDE, PATCH, FORMS = 24, 6, 56  # pictures of 24 × 24 pixels are 4 codes for colours and 16 for forms
BATCH = 32
# Flat: one vector instead of one small array for each weight, each of which would be a program's step of its own.
RULE = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b2=0.99)))


class Examples(NamedTuple):
    """Captions and codes, one row a picture."""

    text_ids: np.ndarray  # (N, T) int32
    text_mask: np.ndarray  # (N, T)
    codes: np.ndarray  # (N, 20) int32


class Run(NamedTuple):
    """What is left of a run: `losses` (steps,), each of a batch not seen before, and the loss on the examples put aside."""

    losses: np.ndarray
    final: float


class World:
    """Pictures of shapes as codes, captions as ids: the task that every member of the family learns."""

    def __init__(self) -> None:
        every = shapes.all_captions("train")
        self.tokenizer = Tokenizer.train(every, vocab_size=320)
        self.text_length = 2 + max(len(self.tokenizer.pieces(caption)) for caption in every)
        patches = ink(_draw(1000, 0)[0], PATCH)[1].reshape(-1, PATCH**2)
        inked = torch.tensor(patches[patches.max(axis=1) > 0.02])
        forms = k_means(inked, FORMS - 1, generator=torch.Generator().manual_seed(0))
        self.coder = ShapeCodes(np.concatenate([np.zeros((1, PATCH**2)), forms]), SIDE)

    def examples(self, count: int, seed: int) -> Examples:
        """So many pictures of random captions; other seeds give other pictures."""
        images, captions = _draw(count, seed)
        ids, mask = self.tokenizer.encode(captions, self.text_length)
        return Examples(ids, mask, self.coder.encode(images))

    def member(self, width: int) -> DalleBartConfig:
        """One encoder layer and two decoder layers of this width, 4 heads, feed-forward blocks twice as wide.

        Initial weights are as wide as products of the original's need, 0.02 at 1,024 channels.
        """
        return DalleBartConfig(
            encoder_vocab_size=self.tokenizer.vocab_size, max_text_length=self.text_length,
            image_vocab_size=self.coder.codebook_size, image_length=self.coder.code_length,
            d_model=width, init_std=0.02 * math.sqrt(1024 / width), dropout=0.0, gradient_checkpointing=False, use_scan=False,
            encoder_layers=1, encoder_attention_heads=4, encoder_ffn_dim=2 * width,
            decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=2 * width,
        )  # fmt: skip


def multiplying_parameters(config: DalleBartConfig) -> int:
    """Parameters without the tables of tokens and places, whose rows are looked up: those that cost operations.

    Of Kaplan et al. 2020 that is N, but for the output layer, which is counted here.
    """
    tables = config.encoder_vocab_size + config.max_text_length + config.image_vocab_size + 1 + config.image_length
    return cost.dallebart_parameters(config) - tables * config.d_model


def peak_rate(width: int) -> float:
    """The learning rate at the height of the schedule, in proportion to 1 / width as Adam's should be (Yang et al. 2022)."""
    return 0.5 / width


def schedule(steps: int, peak: float, warmup: int = 40) -> np.ndarray:
    """Learning rates (steps,): linear warm-up, then half a cosine that ends at 0."""
    rising = np.arange(1, min(warmup, steps // 5) + 1) / max(1, min(warmup, steps // 5))
    falling = (1 + np.cos(np.pi * np.linspace(0, 1, steps - len(rising) + 1)[:-1])) / 2
    return (peak * np.concatenate([rising, falling])).astype(np.float32)


def train(config: DalleBartConfig, examples: Examples, aside: Examples, rates: np.ndarray, seed: int = 0) -> Run:
    """Train a member from random weights, a batch of 32 for each learning rate, every example at most once.

    Args:
        config: the member's.
        examples: to learn from, taken in an order that follows from the seed.
        aside: to judge the trained model by.
        rates: (steps,) as `schedule` gives them.
        seed: of initial weights and order.

    Raises:
        ValueError: there are too few examples.
    """
    if len(rates) * BATCH > len(examples.codes):
        raise ValueError(f"{len(rates)} steps need {len(rates) * BATCH:,} examples, got {len(examples.codes):,}")
    start, step, judge = compiled(config)
    weights, state = start(seed)
    order = np.random.default_rng(seed).permutation(len(examples.codes))
    losses = []
    for number, rate in enumerate(rates):
        rows = order[number * BATCH : (number + 1) * BATCH]
        weights, state, loss = step(weights, state, Examples(*(array[rows] for array in examples)), rate)
        losses.append(loss)
    return Run(np.array(losses), float(judge(weights, aside)))


@functools.cache
def compiled(config: DalleBartConfig) -> tuple[Callable, jax.stages.Compiled, Callable]:
    """`start(seed)`, `step(weights, state, examples, rate)` and `judge(weights, examples)` of a member.

    The step is compiled for a batch, and of one thread: products of these sizes gain nothing from two, while two runs do.
    """
    structure, shapes = nnx.split(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0))))

    def start(seed):
        """What DalleBart starts from, drawn by NumPy: compiling its own start would take as long as a run."""
        generator, (named, tree) = np.random.default_rng(seed), flatten_names(shapes)
        matrices = ".kernel", ".embedding"
        arrays = [
            generator.normal(0, config.init_std, leaf.shape)
            if name.endswith(matrices)
            else np.full(leaf.shape, name.endswith(".scale"))
            for name, leaf in named.items()
        ]
        weights = jax.tree.unflatten(tree, [jnp.asarray(array, jnp.float32) for array in arrays])
        return weights, RULE.init(weights)

    def loss_of(weights, examples):
        return objective.loss(nnx.merge(structure, weights), *examples)

    def step(weights, state, examples, rate):
        loss, slopes = jax.value_and_grad(loss_of)(weights, examples)
        changes, state = RULE.update(slopes, state)
        return jax.tree.map(lambda weight, change: weight - rate * change, weights, changes), state, loss

    text = jax.ShapeDtypeStruct((BATCH, config.max_text_length), np.int32)
    examples = Examples(text, text, jax.ShapeDtypeStruct((BATCH, config.image_length), np.int32))
    begun = shapes, jax.eval_shape(RULE.init, shapes)
    lowered = jax.jit(step).lower(*begun, examples, jax.ShapeDtypeStruct((), np.float32))
    return start, lowered.compile(compiler_options={"xla_cpu_multi_thread_eigen": False}), jax.jit(loss_of)


def _draw(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    captions = np.random.default_rng([seed, 0]).choice(shapes.all_captions("train"), count).tolist()
    return np.stack([shapes.draw(text, SIDE, [seed, row]) for row, text in enumerate(captions)]), captions


def recorded() -> list[dict[str, Any]]:
    """The runs that `benchmarks/scaling.py` made once: width, steps, seed, times_rate, parameters, codes, operations, loss.

    `times_rate` is the peak learning rate over `peak_rate`; `loss` is that on 1,024 pictures put aside.
    """
    return log.read(Path(__file__).parent / "measured" / "scaling.jsonl")
