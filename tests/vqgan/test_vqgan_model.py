"""The network against taming-transformers' own records: names, order, numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from minidalle.vqgan import VQGAN, VQGANConfig
from minidalle.vqgan.export import export, load_exported

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = VQGANConfig(
    ch=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,), resolution=16, z_channels=8, n_embed=32, embed_dim=4,
    norm_groups=4,
)  # fmt: skip


def taming(case, **options):
    """A VQGAN with the original's weights, and the file's meta data."""
    meta = json.loads((FIXTURES / case / "meta.json").read_text())
    state = torch.load(FIXTURES / case / "model.ckpt", weights_only=True)["state_dict"]
    model = VQGAN(VQGANConfig.from_dict(meta["config"]), **options)
    model.load_state_dict({name: value.float() for name, value in state.items() if not name.startswith("loss.")})
    return model.eval(), meta


@pytest.fixture(scope="module")
def recorded():
    return {name: torch.from_numpy(value) for name, value in np.load(FIXTURES / "taming_shortcut/io.npz").items()}


@pytest.mark.parametrize("case", ["taming_shortcut", "taming_trainstep"])
def test_weights_have_the_names_of_taming(case):
    model, meta = taming(case)
    original = {name: shape for name, shape in meta["state_dict"].items() if not name.startswith("loss.")}
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == original


def test_weights_stand_in_the_order_of_taming():
    model, meta = taming("taming_trainstep")
    # Gradient norms were recorded in the order of the original's own parameters.
    assert [name for name, _ in model.named_parameters()] == list(meta["gen_grad_norms"])


@pytest.mark.parametrize("picture", ["img0", "img1"])
def test_codes_and_pictures_are_those_of_taming(recorded, picture):
    model, _ = taming("taming_shortcut")
    with torch.no_grad():
        images = recorded[f"{picture}:x"]
        torch.testing.assert_close(model.features(images), recorded[f"{picture}:prequant"], atol=2e-4, rtol=0)
        assert torch.equal(model.encode(images), recorded[f"{picture}:indices"].long())
        reconstruction, quantized = model(images)
        torch.testing.assert_close(quantized.vectors, recorded[f"{picture}:quant"], atol=2e-4, rtol=0)
        torch.testing.assert_close(reconstruction, recorded[f"{picture}:dec"], atol=2e-4, rtol=0)
        vectors = model.quantize.lookup(recorded[f"{picture}:codes"].long()).permute(0, 3, 1, 2)
        decoded = model.decoder(model.post_quant_conv(vectors))
        torch.testing.assert_close(decoded, recorded[f"{picture}:dec_codes"], atol=2e-4, rtol=0)


def test_decoding_codes_is_that_of_taming(recorded):
    model, _ = taming("taming_shortcut")
    codes, expected = recorded["img0:codes"].long().flatten(1), recorded["img0:dec_codes"]
    torch.testing.assert_close(model.decode_code(codes).detach(), expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(model.decode(codes), expected.clamp(0, 1), atol=2e-4, rtol=0)
    assert expected.min() < 0


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("picture", ["img0", "img1"])
def test_gradients_are_those_of_taming(recorded, picture, legacy):
    model, meta = taming("taming_shortcut", legacy=legacy)
    name = "legacy_true" if legacy else "legacy_false"
    images = recorded[f"{picture}:x"].clone().requires_grad_()
    reconstruction, quantized = model(images)
    torch.testing.assert_close(quantized.loss, recorded[f"{picture}:quant_loss_{name}"], atol=2e-5, rtol=1e-5)
    total = quantized.loss + (reconstruction - recorded[f"{picture}:target"]).square().mean()
    torch.testing.assert_close(total, recorded[f"{picture}:total_loss_{name}"], atol=2e-5, rtol=1e-5)
    total.backward()
    for key, parameter in [("embedding", model.quantize.embedding), ("quant_conv_weight", model.quant_conv)]:
        expected = recorded[f"{picture}:grad_{key}_{name}"]
        assert (parameter.weight.grad - expected).norm() < 1e-3 * expected.norm()
    if legacy:
        expected = recorded[f"{picture}:grad_input_{name}"]
        assert (images.grad - expected).norm() < 1e-3 * expected.norm()
        norms = meta["grad_norms"][f"{picture}:gn_{name}"]
        found = {key: parameter.grad.norm().item() for key, parameter in model.named_parameters()}
        assert found.keys() == norms.keys()
        assert all(abs(found[key] - norms[key]) < 1e-3 * norms[key] + 1e-6 for key in norms)


def test_the_default_config_has_as_many_weights_as_the_published_model():
    with torch.device("meta"):
        model = VQGAN(VQGANConfig())
    assert sum(weight.numel() for weight in model.parameters()) == 76_073_859
    assert sum(weight.numel() for weight in model.encoder.parameters()) == 29_298_176
    assert sum(weight.numel() for weight in model.decoder.parameters()) == 42_449_795
    assert (model.config.downsampling, model.config.code_length) == (16, 256)


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (2, 2)])
def test_any_sides_that_are_multiples_of_the_downsampling_work(shape):
    model = VQGAN(TINY).eval()
    reconstruction, quantized = model(torch.rand(2, 3, *shape))
    assert reconstruction.shape == (2, 3, *shape)
    assert quantized.codes.shape == (2, shape[0] * shape[1] // 4)


def test_resampling_works_without_convolutions():
    config = VQGANConfig(**TINY.to_dict() | {"resamp_with_conv": False})
    model = VQGAN(config)
    assert not any("sample.conv" in name for name in model.state_dict())
    assert model(torch.rand(1, 3, 16, 16))[0].shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 16, 16), r"expected pictures \(batch, 3, height, width\), got \(3, 16, 16\)"),
        (torch.zeros(1, 16, 16, 3), "expected pictures"),
        (torch.zeros(1, 3, 15, 16), r"multiples of 2, got \(15, 16\)"),
    ],
)
def test_pictures_of_a_wrong_shape_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        VQGAN(TINY).encode(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 60, dtype=torch.int64), "60 codes are not a square map"),
        (torch.full((1, 64), 32), r"must lie in \[0, 32\), got 32 to 32"),
        (torch.full((1, 64), -1), r"must lie in \[0, 32\), got -1 to -1"),
    ],
)
def test_codes_that_mean_nothing_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        VQGAN(TINY).decode(codes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizer": "vq"}, "unknown quantizer 'vq'; choose one of nearest, ema, gumbel, fsq"),
        ({"norm_groups": 3}, "8 channels do not divide into norm_groups=3"),
        ({"resolution": 17}, "resolution 17 is not a multiple of the downsampling 2"),
        ({"double_z": True}, "double_z=True is not supported"),
        ({"quantizer": "fsq", "fsq_levels": (4, 4)}, r"give 16 codes in 2 dimensions, but n_embed is 32"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VQGANConfig(**TINY.to_dict() | changes)


def test_a_config_survives_json_with_foreign_keys():
    stored = json.loads(json.dumps({**TINY.to_dict(), "model_type": "vqgan", "num_resolutions": 2}))
    assert VQGANConfig.from_dict(stored) == TINY


@pytest.mark.parametrize("quantizer", ["nearest", "ema"])
def test_an_exported_model_draws_the_same_pictures_at_half_the_size(tmp_path, quantizer):
    model = VQGAN(VQGANConfig(**TINY.to_dict() | {"quantizer": quantizer})).eval()
    model.quantize.initialize(torch.randn(2, 4, 8, 8))
    export(model, tmp_path)
    loaded = load_exported(tmp_path)
    codes = torch.randint(32, (2, 64))
    torch.testing.assert_close(loaded.decode(codes), model.decode(codes), atol=5e-3, rtol=0)
    assert loaded.config == model.config
    size = sum(weight.numel() for weight in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.2 * size + 20_000


def test_an_export_whose_config_does_not_fit_is_refused_by_name(tmp_path):
    export(VQGAN(TINY), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_embed": 64}))
    with pytest.raises(ValueError, match="quantize.embedding.weight"):
        load_exported(tmp_path)


def test_nan_weights_are_not_exported(tmp_path):
    model = VQGAN(TINY)
    model.decoder.conv_in.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="decoder.conv_in.bias holds NaN"):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())
