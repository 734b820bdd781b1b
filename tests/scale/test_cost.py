"""Every formula beside what JAX says of the very code that runs: shapes, XLA's memory plan, XLA's count."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig, objective, sampling
from minidalle.scale import cost
from minidalle.training.optimizer import make_optimizer
from minidalle.training.step import Step
from minidalle.vqgan.config import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin

SMALL = DalleBartConfig(
    d_model=64, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=96, decoder_ffn_dim=96, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_vocab_size=100, image_vocab_size=520, decoder_start_token_id=512,
    image_length=16, max_text_length=8,
)  # fmt: skip
EMOJI = VQGANConfig(
    ch=16, ch_mult=(1, 2, 6, 12), num_res_blocks=1, attn_resolutions=(8,), resolution=64, z_channels=128, n_embed=1024,
    embed_dim=32, norm_groups=8,
)  # fmt: skip


def nbytes(tree):
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if leaf.dtype != bool)


@functools.cache
def abstract_drawing(config, pictures, dtype):
    """What the sampler would hold and run for so many guided pictures: the model, its prompt, its progress."""
    build = functools.partial(DalleBart, config, dtype=dtype, param_dtype=dtype)
    structure, parameters = nnx.split(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))
    model = nnx.merge(structure, parameters)
    text = jax.ShapeDtypeStruct((2, config.max_text_length), jnp.int32)
    rows = jax.ShapeDtypeStruct((2 * pictures,), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), pictures))
    read = functools.partial(sampling._read_captions, structure, codebook=config.codebook_size)
    prompt = jax.eval_shape(read, parameters, text, text, rows, keys, jnp.int32(0))
    codes = jnp.zeros((pictures, config.image_length), jnp.int32)
    progress = jax.eval_shape(lambda codes: sampling._start(model, codes, 2 * pictures, None), codes)
    return structure, parameters, prompt, progress


@pytest.mark.parametrize(
    ("config", "parameters"), [(cost.MINI, 437_833_712), (cost.MEGA, 2_587_521_024)], ids=["mini", "mega"]
)
def test_the_published_models_have_the_published_parameters(config, parameters):
    assert cost.dallebart_parameters(config) == parameters


def test_the_encoder_of_mega_is_as_large_as_its_file_says():
    assert cost.encoder_parameters(cost.MEGA) == 1_110_022_144


def test_a_parameter_is_counted_once_and_a_buffer_never():
    class Counted(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(3, 5, rngs=rngs)
            self.norm = nnx.BatchNorm(5, rngs=rngs)  # 5 scales, 5 biases; its running means are no parameters

    assert cost.count_parameters(lambda: Counted(nnx.Rngs(0))) == 3 * 5 + 5 + 10


@pytest.mark.parametrize("config", [SMALL, cost.MINI, cost.MEGA], ids=["small", "mini", "mega"])
@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 4), (jnp.bfloat16, 2)])
def test_memory_is_that_of_the_arrays_the_sampler_makes(config, dtype, size):
    memory = cost.drawing_memory(config, 3, size, clip=None)
    _, parameters, prompt, progress = abstract_drawing(config, 3, dtype)
    assert memory.weights == nbytes(parameters)
    assert memory.taken_apart == nbytes((prompt.layers, prompt.head))
    assert memory.caches == nbytes((prompt.cross, progress.caches))


def test_without_guidance_the_caches_are_half():
    guided, plain = (cost.drawing_memory(SMALL, 4, guided=guided, clip=None) for guided in (True, False))
    assert guided.caches == 2 * plain.caches and guided.weights == plain.weights


def test_the_peak_is_the_larger_of_writing_and_painting():
    memory = cost.Memory(weights=100, others=10, taken_apart=50, caches=5, painting=40)
    assert memory.peak == 165
    assert cost.Memory(weights=100, others=10, taken_apart=50, caches=5, painting=60).peak == 170


# The emoji VQGAN's inner levels are so wide that they weigh as much as the outermost; the formula knows that one alone.
@pytest.mark.parametrize(("vqgan", "off"), [(VQGANConfig(), 0.01), (EMOJI, 0.2)], ids=["published", "emoji"])
def test_painting_takes_what_xla_plans_for_it(vqgan, off):
    structure, state = nnx.split(nnx.eval_shape(lambda: VQGANTwin(vqgan, rngs=nnx.Rngs(0))))
    codes = jax.ShapeDtypeStruct((2, vqgan.grid, vqgan.grid), jnp.int32)
    compiled = jax.jit(lambda state, codes: nnx.merge(structure, state)._decode(codes)).lower(state, codes).compile()
    assert cost.painting_bytes(vqgan, 2) == pytest.approx(compiled.memory_analysis().temp_size_in_bytes, rel=off)


def test_a_step_takes_the_operations_that_xla_counts_in_the_compiled_sampler():
    pictures = 5
    structure, parameters, prompt, progress = abstract_drawing(cost.MINI, pictures, jnp.float32)
    settings = sampling.check_settings(10.0, 0.0, None, None, cost.MINI.codebook_size)
    lowered = sampling._advance.lower(structure, parameters, prompt, progress, 0, 256, settings)
    products = cost.step_products(cost.MINI)
    del products["caption again"]
    assert 2 * 2 * pictures * sum(products.values()) == pytest.approx(lowered.cost_analysis()["flops"], rel=0.02)


def test_operations_of_a_product_are_two_for_each_multiplication():
    a, b = jax.ShapeDtypeStruct((3, 7), jnp.float32), jax.ShapeDtypeStruct((7, 5), jnp.float32)
    assert cost.operations(jnp.matmul, a, b) == 2 * 3 * 7 * 5


def test_the_slower_of_reading_and_computing_counts():
    slow_memory = cost.Device(memory=1e9, bandwidth=1e9, half=1e15, single=1e15)
    slow_products = cost.Device(memory=1e9, bandwidth=1e15, half=1e9, single=1e9)
    for device, slower in ((slow_memory, "reading"), (slow_products, "computing")):
        seconds = cost.drawing_seconds(SMALL, 2, device, vqgan=EMOJI)
        assert seconds["all"] == max(seconds.values()) == seconds[slower] + seconds["painting"]


def test_more_pictures_share_the_reading_of_the_weights_but_not_that_of_the_caches():
    one, two, three = (cost.drawing_seconds(SMALL, n, cost.DEVICES["T4"], vqgan=EMOJI)["reading"] for n in (1, 2, 3))
    assert two < 2 * one
    assert three - two == pytest.approx(two - one)


def written_out(config):
    """The same network without loops, whose bodies XLA counts once, and with nothing computed twice."""
    return dataclasses.replace(config, use_scan=False, gradient_checkpointing=False, dropout=0.0)


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(cost.MINI, encoder_layers=2, decoder_layers=2)])
@pytest.mark.parametrize("use_glu", [True, False])
def test_training_takes_the_operations_that_xla_counts_in_a_gradient(config, use_glu):
    config = written_out(dataclasses.replace(config, use_glu=use_glu))
    structure, parameters = nnx.split(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0))))
    text, codes = (jax.ShapeDtypeStruct((3, n), jnp.int32) for n in (config.max_text_length, config.image_length))

    def loss(parameters, text, codes):
        return objective.loss(nnx.merge(structure, parameters), text, jnp.ones_like(text), codes)

    forward = cost.operations(loss, parameters, text, codes)
    both = cost.operations(jax.value_and_grad(loss), parameters, text, codes)
    # What is not a matrix product (norms, softmax, gelu) weighs more beside the small ones of SMALL.
    within = 0.03 if config.d_model > 64 else 0.5
    assert 2 * 3 * sum(cost.forward_products(config).values()) == pytest.approx(forward, rel=within)
    assert cost.training_operations(config, 3) == pytest.approx(both, rel=within)


def test_checkpointed_layers_are_computed_a_fourth_time():
    products = cost.forward_products(SMALL)
    plain, again = (cost.training_operations(SMALL, 5, recomputing=flag) for flag in (False, True))
    assert again - plain == 2 * 5 * (sum(products.values()) - products["output layer"])


def test_training_is_near_six_operations_for_each_parameter_and_token():
    """Kaplan et al. 2020 leave out attention and the tables, and know one length for all parameters."""
    config = cost.MEGA
    tables = config.d_model * (config.encoder_vocab_size + config.image_vocab_size + 1 + 256 + 64)
    encoder = cost.encoder_parameters(config) - config.d_model * (config.encoder_vocab_size + 64)
    decoder = cost.dallebart_parameters(config) - tables - encoder
    assert cost.training_operations(config) == pytest.approx(6 * (64 * encoder + 256 * decoder), rel=0.1)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_training_memory_holds_what_the_step_holds(optimizer):
    model = nnx.eval_shape(lambda: DalleBart(SMALL, rngs=nnx.Rngs(0)))
    batch = {name: jax.ShapeDtypeStruct((1, n), jnp.int32) for name, n in (("text", 8), ("mask", 8), ("codes", 16))}
    step = Step(
        lambda model, batch, key: (objective.loss(model, batch["text"], batch["mask"], batch["codes"]), {}),
        model,
        make_optimizer(optimizer, 1e-4, 1000),
        batch,
    )
    memory = cost.training_memory(SMALL, 1, optimizer=optimizer)
    assert memory.weights == memory.gradients == nbytes(step.shapes["parameters"])
    assert memory.optimizer == nbytes(step.shapes["optimizer"])


@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_are_within_a_factor_of_two_of_xlas_plan(checkpointing):
    config = dataclasses.replace(
        SMALL, d_model=128, encoder_layers=4, decoder_layers=8, image_length=64, gradient_checkpointing=checkpointing,
        dropout=0.0,
    )  # fmt: skip
    structure, parameters = nnx.split(nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0))))

    text, codes = (jax.ShapeDtypeStruct((40, n), jnp.int32) for n in (8, 64))

    def loss(parameters, text, codes):
        return objective.loss(nnx.merge(structure, parameters), text, jnp.ones_like(text), codes)

    planned = jax.jit(jax.grad(loss)).lower(parameters, text, codes).compile().memory_analysis().temp_size_in_bytes
    memory = cost.training_memory(config, 40, 4)
    assert 0.5 < (memory.kept + memory.working) / planned < 2


def test_a_step_takes_at_least_its_products_and_its_update():
    device = cost.Device(memory=1e9, bandwidth=1e9, half=1e12, single=1e11)
    seconds = cost.training_seconds(SMALL, 4, device)
    parameters = cost.dallebart_parameters(SMALL)
    # Weights, gradients and two moments are read, weights and moments written, 4 bytes each; AdamW counts its steps, too.
    assert seconds["updating"] == pytest.approx(7 * 4 * parameters / 1e9, rel=1e-3)
    assert seconds["computing"] == cost.training_operations(SMALL, 4, recomputing=True) / 1e12
    assert seconds["all"] == seconds["computing"] + seconds["updating"]
