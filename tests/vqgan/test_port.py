"""The crossing: one network in two frameworks, weights exact both ways, the same codes and pictures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import minidalle
from minidalle.data import emoji
from minidalle.training import flatten_names
from minidalle.vqgan import VQGAN, VQGANConfig, twin
from minidalle.vqgan.export import load_exported
from minidalle.vqgan.port import VQGANTwin, jax_name, to_jax, to_torch, translate, twin_from_arrays

SHIPPED = Path(minidalle.__file__).parent / "checkpoints" / "emoji" / "vqgan"
SIZES = {
    "ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (8,), "resolution": 16, "z_channels": 12,
    "n_embed": 60, "embed_dim": 6, "norm_groups": 4,
}  # fmt: skip
KINDS = {
    "nearest": {"quantizer": "nearest"},
    "normalized": {"quantizer": "nearest"},
    "ema": {"quantizer": "ema"},
    "gumbel": {"quantizer": "gumbel"},
    "fsq": {"quantizer": "fsq", "fsq_levels": (5, 4, 3), "embed_dim": 3},
}


def network(kind, **changes):
    """A PyTorch VQGAN with biases and norms away from 0 and 1, and codes where its vectors are."""
    torch.manual_seed(3)
    model = VQGAN(VQGANConfig(**SIZES | KINDS[kind] | changes), **({"normalize": True} if kind == "normalized" else {}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        if hasattr(model.quantize, "initialize"):
            model.quantize.initialize(model.features(pictures(8)))
    return model.eval()


def pictures(n, height=16, width=16):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(n))


def channels_last(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def pairs():
    models = {kind: network(kind) for kind in KINDS}
    return {kind: (model, to_jax(model)) for kind, model in models.items()}


# --- one network


@pytest.mark.parametrize("kind", KINDS)
def test_codes_survive_the_crossing_to_jax(pairs, kind):
    model, crossed = pairs[kind]
    codes = model.encode(pictures(4)).numpy()
    found = crossed.encode(channels_last(pictures(4)))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, codes)
    assert len(np.unique(codes)) > 8


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_survive_the_crossing_to_jax(pairs, kind):
    model, crossed = pairs[kind]
    codes = torch.randint(60, (3, 64), generator=torch.Generator().manual_seed(1))
    expected = channels_last(model.decode_code(codes).detach())
    np.testing.assert_allclose(crossed.decode_unclipped(codes.numpy()), expected, atol=1e-4)
    assert expected.std() > 0.1


def test_decoded_pictures_are_cut_to_their_range(pairs):
    model, crossed = pairs["nearest"]
    codes = torch.arange(64)[None] % 60
    unclipped = model.decode_code(codes)
    assert unclipped.min() < 0
    np.testing.assert_allclose(crossed.decode(codes.numpy()), channels_last(model.decode(codes)), atol=1e-4)


def test_vectors_survive_the_crossing_to_jax(pairs):
    model, crossed = pairs["nearest"]
    expected = channels_last(model.features(pictures(2)).detach())
    np.testing.assert_allclose(crossed.features(channels_last(pictures(2))), expected, atol=1e-4)


def test_pictures_of_any_sides_cross(pairs):
    model, crossed = pairs["ema"]
    codes = model.encode(pictures(2, 8, 24))
    np.testing.assert_array_equal(crossed.encode(channels_last(pictures(2, 8, 24))), codes.numpy())
    drawn = crossed.decode_map(codes.reshape(2, 4, 12).numpy())
    vectors = model.quantize.lookup(codes).view(2, 4, 12, 6).permute(0, 3, 1, 2)
    expected = model.decoder(model.post_quant_conv(vectors)).clamp(0, 1)
    np.testing.assert_allclose(drawn, channels_last(expected.detach()), atol=1e-4)


def test_resampling_without_convolutions_crosses():
    model = network("nearest", resamp_with_conv=False)
    crossed, codes = to_jax(model), torch.arange(64)[None] % 60
    np.testing.assert_array_equal(crossed.encode(channels_last(pictures(2))), model.encode(pictures(2)).numpy())
    np.testing.assert_allclose(crossed.decode(codes.numpy()), channels_last(model.decode(codes)), atol=1e-4)


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="make checkpoints has not run in this copy")
def test_the_shipped_network_crosses():
    model = load_exported(SHIPPED)
    crossed = to_jax(model)
    images = emoji.load().images[::200].copy()
    codes = model.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_array_equal(crossed.encode(images.astype(np.float32) / 255), codes.numpy())
    drawn = np.asarray(crossed.decode(codes.numpy()))
    np.testing.assert_allclose(drawn, channels_last(model.decode(codes)), atol=1e-4)
    assert -10 * np.log10(np.mean((drawn - images / 255) ** 2)) > 20
    assert len(np.unique(codes)) > 200


# --- the weights, both ways


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_jax_as_they_went(pairs, kind):
    model, crossed = pairs[kind]
    returned = to_torch(crossed)
    assert returned.config == model.config
    assert list(returned.state_dict()) == list(model.state_dict())
    for name, value in returned.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert torch.equal(returned.encode(pictures(2)), model.encode(pictures(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_torch_as_they_went(kind):
    config, generator = VQGANConfig(**SIZES | KINDS[kind]), np.random.default_rng(0)
    options = {"normalize": kind == "normalized"}
    shapes = nnx.state(nnx.eval_shape(lambda: VQGANTwin(config, rngs=nnx.Rngs(0), **options)))
    arrays = {name: generator.normal(size=leaf.shape) for name, leaf in flatten_names(shapes)[0].items()}
    fresh = twin_from_arrays(config, arrays, **options)
    returned = to_jax(to_torch(fresh))
    before, after = flatten_names(nnx.state(fresh))[0], flatten_names(nnx.state(returned))[0]
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    assert returned.normalize == fresh.normalize


def test_a_convolutions_axes_are_those_of_the_formula():
    weight = torch.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    kernel = translate({"conv_in.weight": weight})["conv_in.kernel"]
    assert kernel.shape == (5, 7, 3, 2)
    assert kernel[4, 6, 2, 1] == weight[1, 2, 4, 6]
    assert kernel[1, 2, 0, 1] == weight[1, 0, 1, 2]


@pytest.mark.parametrize(
    ("name", "dimensions", "expected"),
    [
        ("encoder.down.0.block.1.conv1.weight", 4, "encoder.down_0.block_1.conv1.kernel"),
        ("decoder.up.10.attn.2.norm.weight", 1, "decoder.up_10.attn_2.norm.scale"),
        ("decoder.mid.block_1.norm2.bias", 1, "decoder.mid.block_1.norm2.bias"),
        ("quantize.embedding.weight", 2, "quantize.embedding.embedding"),
        ("quantize.embed_avg", 2, "quantize.embed_avg"),
        ("quantize.proj.weight", 4, "quantize.proj.kernel"),
        ("post_quant_conv.bias", 1, "post_quant_conv.bias"),
    ],
)
def test_names_are_those_of_vqgan_jax(name, dimensions, expected):
    assert jax_name(name, dimensions) == expected


def test_training_options_are_given_on_the_way_back(pairs):
    returned = to_torch(pairs["ema"][1], beta=0.5, revive_after=9)
    assert (returned.quantize.beta, returned.quantize.revive_after) == (0.5, 9)


def test_the_running_statistics_of_an_ema_codebook_may_be_missing(pairs):
    model, _ = pairs["ema"]
    arrays = translate(model.state_dict())
    for name in ("quantize.cluster_size", "quantize.embed_avg"):
        del arrays[name]
    crossed = twin_from_arrays(model.config, arrays)
    np.testing.assert_array_equal(crossed.encode(channels_last(pictures(4))), model.encode(pictures(4)).numpy())
    np.testing.assert_array_equal(crossed.quantize.embed_avg[...], crossed.quantize.embedding.embedding[...])


# --- types


def test_computing_in_bfloat16_draws_nearly_the_same_in_float32(pairs):
    model, crossed = pairs["nearest"]
    half = to_jax(model, dtype=jnp.bfloat16)
    codes = np.arange(64)[None] % 60
    drawn = half.decode(codes)
    assert drawn.dtype == jnp.float32
    assert half.encoder.conv_in.kernel[...].dtype == jnp.float32
    difference = np.abs(np.asarray(drawn) - np.asarray(crossed.decode(codes)))
    assert 1e-5 < difference.mean() < 2e-2


def test_weights_kept_in_float16_draw_what_rounded_weights_draw(pairs):
    model, _ = pairs["nearest"]
    small = to_jax(model, param_dtype=jnp.float16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(small, nnx.Param))} == {jnp.dtype("float16")}
    rounded = to_torch(small)
    assert rounded.decoder.conv_in.weight.dtype == torch.float32
    codes = torch.arange(64)[None] % 60
    np.testing.assert_allclose(small.decode(codes.numpy()), channels_last(rounded.decode(codes)), atol=1e-4)


def test_default_precision_is_accepted_and_another_word_is_not(pairs):
    model, crossed = pairs["nearest"]
    codes = np.zeros((1, 64), np.int32)
    np.testing.assert_allclose(to_jax(model, precision="default").decode(codes), crossed.decode(codes), atol=1e-2)
    with pytest.raises(ValueError, match="sloppy"):
        to_jax(model, precision="sloppy")


# --- compiled, and small in memory


def test_calls_are_compiled_once_for_twins_of_one_size(pairs):
    model, crossed = pairs["fsq"]
    codes = np.zeros((5, 64), np.int32)
    crossed.decode(codes)
    before = twin._compiled._cache_size()
    crossed.decode(codes + 1)
    to_jax(model).decode(codes)
    assert twin._compiled._cache_size() == before
    crossed.decode(codes[:2])
    assert twin._compiled._cache_size() == before + 1


def test_new_weights_in_a_twin_count_at_once():
    changed = to_jax(network("nearest"))
    before = np.asarray(changed.decode(np.zeros((1, 64), np.int32)))
    nnx.update(changed, jax.tree.map(lambda value: 0 * value, nnx.state(changed)))
    assert before.any()
    assert not np.asarray(changed.decode(np.zeros((1, 64), np.int32))).any()


def test_decoding_goes_inside_another_compiled_function(pairs):
    _, crossed = pairs["fsq"]
    codes = np.arange(64, dtype=np.int32)[None] % 60
    inside = jax.jit(lambda codes: 1 - crossed.decode(codes))(codes)
    np.testing.assert_allclose(inside, 1 - crossed.decode(codes), atol=1e-5)


def largest(jaxpr):
    """Elements of the largest array in a traced function, its inner functions included."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                sizes.append(largest(inner))
    return max(sizes, default=0)


def test_the_search_never_builds_pixels_by_codes_by_dimensions(monkeypatch):
    monkeypatch.setattr(twin, "SEARCH_BLOCK", 512)
    vectors, codebook = jnp.zeros((2000, 64)), jnp.zeros((256, 64))
    traced = jax.make_jaxpr(twin.nearest_codes)(vectors, codebook)
    assert largest(traced.jaxpr) == 512 * 256  # one block of distances, and nothing larger


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_the_search_is_right_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(twin, "SEARCH_BLOCK", block)
    generator = np.random.default_rng(0)
    vectors, codebook = generator.normal(size=(64, 6)), generator.normal(size=(37, 6))
    brute = ((vectors[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    found = twin.nearest_codes(jnp.asarray(vectors, jnp.float32), jnp.asarray(codebook, jnp.float32))
    np.testing.assert_array_equal(found, brute)


# --- what is refused


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32, 3), np.float32), r"expected pictures \(batch, height, width, 3\), got \(32, 32, 3\)"),
        (np.zeros((1, 3, 32, 32), np.float32), r"got \(1, 3, 32, 32\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), "float in .0, 1., got uint8; divide bytes by 255"),
        (np.zeros((1, 31, 32, 3), np.float32), r"multiples of 2, got \(31, 32\)"),
        (np.zeros((1, 0, 32, 3), np.float32), r"positive multiples of 2"),
    ],
)
def test_pictures_of_a_wrong_kind_are_refused(pairs, images, message):
    with pytest.raises(ValueError, match=message):
        pairs["nearest"][1].encode(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 60), np.int32), "60 codes are not a square map; use decode_map"),
        (np.zeros(64, np.int32), r"expected codes \(batch, code_length\), got \(64,\)"),
        (np.full((1, 64), 60), r"codes must lie in \[0, 60\), got 60 to 60"),
        (np.full((1, 64), -1), r"got -1 to -1"),
        (np.zeros((1, 64), np.float32), "codes must be integers, got float32"),
        (np.zeros((0, 64), np.int32), r"expected code maps \(batch, height, width\), got \(0, 8, 8\)"),
    ],
)
def test_codes_that_mean_nothing_are_refused(pairs, codes, message):
    with pytest.raises(ValueError, match=message):
        pairs["nearest"][1].decode(codes)


def test_weights_that_are_not_numbers_do_not_cross():
    spoiled = network("nearest")
    spoiled.decoder.mid.attn_1.k.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="decoder.mid.attn_1.k.kernel holds NaN or infinity"):
        to_jax(spoiled)


def test_weights_of_another_network_do_not_cross(pairs):
    model, _ = pairs["nearest"]
    arrays = translate(model.state_dict())
    with pytest.raises(
        ValueError, match=r"quantize.embedding.embedding has shape \(60, 6\) but the model expects \(61"
    ):
        twin_from_arrays(VQGANConfig(**SIZES | {"n_embed": 61}), arrays)
    with pytest.raises(ValueError, match="2 missing .*quantize.proj.bias"):
        twin_from_arrays(VQGANConfig(**SIZES | {"quantizer": "gumbel"}), arrays)
    with pytest.raises(ValueError, match="1 unknown .*stranger"):
        twin_from_arrays(model.config, arrays | {"stranger": np.zeros(1)})


def test_only_a_nearest_codebook_can_be_normalized():
    with pytest.raises(ValueError, match='normalize=True belongs to quantizer "nearest"'):
        VQGANTwin(VQGANConfig(**SIZES | KINDS["ema"]), rngs=nnx.Rngs(0), normalize=True)
