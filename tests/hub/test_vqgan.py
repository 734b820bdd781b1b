"""Checkpoints of vqgan-jax and of taming-transformers load, in any type; what they then compute is in `test_parity`."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import serialization

from minidalle.data import emoji
from minidalle.hub import native
from minidalle.hub.vqgan import load_vqgan, save_taming, save_vqgan_jax
from minidalle.vqgan import VQGAN, VQGANConfig
from minidalle.vqgan.port import to_jax, to_torch

FIXTURES = Path(__file__).parents[1] / "fixtures"
VQGAN_JAX = {"vqgan_jax_basic": 1, "vqgan_jax_shortcut": 2, "vqgan_jax_f16": 1}  # case: recorded sets of pictures
CASES = [(case, index) for case, count in VQGAN_JAX.items() for index in range(count)]


@pytest.fixture(scope="module")
def loaded():
    return {case: load_vqgan(FIXTURES / case) for case in VQGAN_JAX}


@pytest.fixture
def copied(tmp_path):
    """A copy of an original folder that may be spoiled."""
    for name in ("config.json", "flax_model.msgpack"):
        shutil.copyfile(FIXTURES / "vqgan_jax_f16" / name, tmp_path / name)
    return tmp_path


def test_pictures_are_cut_to_0_and_1(loaded):
    recorded, model = np.load(FIXTURES / "vqgan_jax_basic/io.npz"), loaded["vqgan_jax_basic"]
    drawn = model.decode(recorded["img0:codes"])
    np.testing.assert_allclose(drawn, recorded["img0:dec_codes"].clip(0, 1), atol=1e-4)


def test_a_taming_file_shows_the_sizes_that_its_config_says():
    config = json.loads((FIXTURES / "taming_shortcut/meta.json").read_text())["config"]
    found = load_vqgan(FIXTURES / "taming_shortcut/model.ckpt")
    recorded = np.load(FIXTURES / "taming_shortcut/io.npz")
    assert (found.config.ch_mult, found.config.n_embed) == (tuple(config["ch_mult"]), config["n_embed"])
    for picture in ("img0", "img1"):
        images = recorded[f"{picture}:x"].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found.encode(images), recorded[f"{picture}:indices"])


def test_both_originals_hold_the_same_network(loaded):
    ours = to_torch(loaded["vqgan_jax_shortcut"]).state_dict()
    theirs = torch.load(FIXTURES / "taming_shortcut/model.ckpt", weights_only=True)["state_dict"]
    for name, value in ours.items():
        assert torch.equal(value, theirs[name].float()), name


@pytest.mark.parametrize("quantizer", ["nearest", "gumbel"])
def test_a_bare_state_dict_shows_its_own_sizes(tmp_path, quantizer):
    config = VQGANConfig(
        ch=32, ch_mult=(1, 2, 2), num_res_blocks=2, attn_resolutions=(64,), n_embed=40, embed_dim=8, z_channels=8,
        quantizer=quantizer,
    )  # fmt: skip
    model = VQGAN(config).eval()
    state = model.state_dict()
    if quantizer == "gumbel":
        state["quantize.embed.weight"] = state.pop("quantize.embedding.weight")
    torch.save(state, tmp_path / "weights.pt")
    found = load_vqgan(tmp_path / "weights.pt")
    assert found.config == config
    images = torch.rand(1, 3, 16, 16)
    np.testing.assert_array_equal(found.encode(images.permute(0, 2, 3, 1).numpy()), model.encode(images).numpy())


def pictures(*shape):
    return np.random.default_rng(sum(shape)).uniform(size=(*shape, 3)).astype(np.float32)


def draw_torch(model, codes, height, width):
    """What the PyTorch network draws of codes in a map of any sides, in float64: it is the less exact of the two in float32."""
    model = model.double()
    with torch.no_grad():
        vectors = model.quantize.lookup(codes).view(len(codes), height, width, -1).permute(0, 3, 1, 2)
        return model.decoder(model.post_quant_conv(vectors)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"ch_mult": (1, 2, 3)}, (24, 40)),
        ({"ch_mult": (2, 1, 3), "attn_resolutions": (16, 4)}, (12, 20)),  # 6 × 10, then 3 × 5
        ({"ch_mult": (1, 1), "attn_resolutions": ()}, (26, 6)),  # halves are odd
        ({"ch_mult": (1, 2, 1, 1), "attn_resolutions": (16, 8, 4, 2), "num_res_blocks": 2}, (24, 40)),
        ({"ch_mult": (2,), "attn_resolutions": (16,)}, (5, 7)),  # no halving at all
        ({"ch_mult": (1, 1, 2), "resamp_with_conv": False}, (12, 20)),
        ({"ch_mult": (1, 2, 2), "resamp_with_conv": False, "attn_resolutions": (8,)}, (28, 4)),
        ({"ch_mult": (1, 2), "quantizer": "gumbel"}, (6, 18)),
    ],
)
@pytest.mark.parametrize("form", ["vqgan-jax", "taming"])
def test_any_levels_attention_and_sides_agree_with_pytorch(tmp_path, changes, sides, form):
    sizes = {"ch": 32, "num_res_blocks": 1, "attn_resolutions": (4,), "resolution": 16, "z_channels": 10}
    config = VQGANConfig(**sizes | {"n_embed": 50, "embed_dim": 6} | changes)
    torch.manual_seed(0)
    model = VQGAN(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if form == "taming":
        save_taming(to_jax(model), path := tmp_path / "model.ckpt")
    elif config.quantizer == "gumbel":
        pytest.skip("vqgan-jax has no Gumbel quantizer")
    else:
        save_vqgan_jax(to_jax(model), path := tmp_path)
    found = load_vqgan(path)
    images = pictures(2, *sides)
    expected = model.encode(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(found.encode(images), expected.numpy())
    height, width = (side // config.downsampling for side in sides)
    drawn = found.decode_unclipped(expected.numpy().reshape(2, height, width))
    wanted = draw_torch(model, expected, height, width)
    assert drawn.shape == images.shape
    np.testing.assert_allclose(drawn, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def error(actual, wanted):
    """The largest difference, relative to the largest value."""
    return np.abs(np.asarray(actual, np.float32) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(("case", "index"), CASES)
def test_float16_keeps_two_digits_of_every_output(case, index):
    """And bfloat16 comes to at most twice the error that its rounding of the weights makes in any network."""
    recorded = np.load(FIXTURES / case / "io.npz")
    images, codes, vectors, drawn = (
        recorded[f"img{index}:{name}"] for name in ("pixel_values", "codes", "prequant", "dec_codes")
    )

    def errors(**types):
        model = load_vqgan(FIXTURES / case, **types)
        return np.array([error(model.features(images), vectors), error(model.decode_unclipped(codes), drawn)])

    assert (errors(dtype=jnp.float16, param_dtype=jnp.float16) < 1e-2).all()
    assert (errors(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16) < 2.5 * errors(param_dtype=jnp.bfloat16)).all()


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 1e-2), ("float16", 2e-3)])
def test_the_shipped_network_draws_nearly_the_same_in_half_precision(dtype, limit):
    whole, half = native.load_vqgan("emoji"), native.load_vqgan("emoji", dtype=dtype, param_dtype=dtype)
    images = emoji.load().images[::200].astype(np.float32) / 255
    codes, drawn = whole.encode(images), np.asarray(whole.decode(whole.encode(images)))
    assert error(half.features(images), np.asarray(whole.features(images))) < limit
    assert np.linalg.norm(half.decode(codes) - drawn) < limit * np.linalg.norm(drawn)
    assert (np.asarray(half.encode(images)) == codes).mean() > 0.95


def test_a_detokenizer_of_min_dalle_loads_from_its_file_and_its_folder():
    folder = FIXTURES / "min_dalle_detoker"
    recorded = np.load(folder / "io.npz")
    for path in (folder, folder / "detoker.pt"):
        model = load_vqgan(path, param_dtype=jnp.float16)
        drawn = model.decode_unclipped(recorded["tokens"][:1])
        assert error(drawn, recorded["vqgan_jax_dec_first"]) < 1e-5 and not model.with_encoder


def test_types_are_chosen_on_loading():
    model = load_vqgan(FIXTURES / "vqgan_jax_basic", dtype=jnp.bfloat16, param_dtype=jnp.float16)
    assert model.decoder.conv_in.kernel[...].dtype == jnp.float16
    recorded = np.load(FIXTURES / "vqgan_jax_basic/io.npz")
    drawn, expected = model.decode_unclipped(recorded["img0:codes"]), recorded["img0:dec_codes"]
    assert 1e-5 < np.abs(np.asarray(drawn) - expected).mean() < 5e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["config.json", "flax_model.msgpack"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_vqgan(copied)


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.ckpt does not exist; give a vqgan-jax folder or"):
        load_vqgan(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.99])
def test_truncated_files_are_refused(copied, kept):
    for name, source in [
        ("flax_model.msgpack", copied / "flax_model.msgpack"),
        ("model.ckpt", FIXTURES / "taming_shortcut/model.ckpt"),
    ]:
        whole = source.read_bytes()
        (copied / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="flax_model.msgpack is damaged or cut off"):
        load_vqgan(copied)
    with pytest.raises(ValueError, match="model.ckpt is (damaged or cut off|no file of PyTorch .an empty file)"):
        load_vqgan(copied / "model.ckpt")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "does not describe a VQGAN"), ('{"ch": "wide"}', "does not describe a VQGAN")],
)
def test_a_broken_config_is_refused(copied, text, message):
    (copied / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_vqgan(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_embed": 97}, "quantize.embedding.embedding has shape"),
        ({"ch_mult": [1, 1, 1, 1]}, "unknown"),
        ({"num_res_blocks": 2}, "missing .*block_2"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused_by_name(copied, change, message):
    config = json.loads((copied / "config.json").read_text()) | change
    config["resolution"] = 64
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as raised:
        load_vqgan(copied)
    assert str(copied) in str(raised.value)


def test_nan_weights_are_refused_by_name(copied):
    tree = serialization.msgpack_restore((copied / "flax_model.msgpack").read_bytes())
    tree["decoder"]["conv_in"]["bias"] = np.full(32, np.nan, np.float16)
    (copied / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(ValueError, match="decoder.conv_in.bias holds NaN or infinity"):
        load_vqgan(copied)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"head.weight": torch.zeros(2)}, "holds no VQGAN"),
        ({"state_dict": {"epoch": 3}}, "holds no VQGAN"),
        (7, "no VQGAN"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        load_vqgan(tmp_path / "other.pt")


def test_half_a_taming_state_dict_is_refused_by_name(tmp_path):
    state = torch.load(FIXTURES / "taming_shortcut/model.ckpt", weights_only=True)["state_dict"]
    torch.save({name: value for name, value in state.items() if "quantize" not in name}, tmp_path / "half.pt")
    with pytest.raises(ValueError, match="quantize.embedding.weight is missing"):
        load_vqgan(tmp_path / "half.pt")
    torch.save({name: value for name, value in state.items() if "attn_1" not in name}, tmp_path / "half.pt")
    with pytest.raises(ValueError, match="missing .*attn_1"):
        load_vqgan(tmp_path / "half.pt")


class Stranger:
    """What a training checkpoint holds besides weights."""


def test_a_checkpoint_with_other_objects_says_how_to_keep_its_weights(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Stranger()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="could run any code.* you trust, its weights alone are kept by .*torch.save"):
        load_vqgan(tmp_path / "last.ckpt")
