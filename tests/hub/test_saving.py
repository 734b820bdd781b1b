"""What is written in an original's layout is what the original wrote, bit for bit, and is read again."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx, serialization, traverse_util
from safetensors.numpy import load_file

from minidalle.clip import CLIP, CLIPConfig
from minidalle.hub import native
from minidalle.hub.clip import load_clip, save_clip
from minidalle.hub.dallebart import load_dallebart, save_dallebart
from minidalle.hub.vqgan import load_vqgan, save_taming, save_vqgan_jax
from minidalle.vqgan import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin

STATISTICS = ("['quantize']['cluster_size']", "['quantize']['embed_avg']")  # of training alone, and not kept
FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = {
    "ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (128,), "resolution": 256, "z_channels": 8,
    "n_embed": 20, "embed_dim": 6,
}  # fmt: skip


def read_msgpack(folder):
    tree = serialization.msgpack_restore((folder / "flax_model.msgpack").read_bytes())
    return traverse_util.flatten_dict(tree, sep="/")


def same(before, after):
    """Equal names, types and bits."""
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype, name
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def weights(model):
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(nnx.state(model))}


@pytest.mark.parametrize("case", ["mini_scan", "defaults", "var_open_preln_rms_headscale"])
def test_a_dallebart_is_written_as_the_original_wrote_it(tmp_path, case):
    source = FIXTURES / f"dallebart_{case}"
    model = load_dallebart(source)
    save_dallebart(model, tmp_path)
    same(read_msgpack(source), read_msgpack(tmp_path))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path))
    before.pop("transformers_version")
    assert before.items() <= after.items()
    assert load_dallebart(tmp_path).config == model.config


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.float16])
def test_a_dallebart_of_single_layers_is_written_stacked(tmp_path, param_dtype):
    model = load_dallebart(FIXTURES / "dallebart_var_open_preln_ffn_bias", param_dtype=param_dtype)
    save_dallebart(model, tmp_path)
    again = load_dallebart(tmp_path)
    same(weights(model), weights(again))
    assert not model.config.use_scan and again.config.use_scan


@pytest.mark.parametrize("case", ["basic", "shortcut", "f16"])
def test_a_vqgan_is_written_as_vqgan_jax_wrote_it(tmp_path, case):
    source = FIXTURES / f"vqgan_jax_{case}"
    file = read_msgpack(source)
    model = load_vqgan(source, param_dtype=next(iter(file.values())).dtype)
    save_vqgan_jax(model, tmp_path)
    same(file, read_msgpack(tmp_path))
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path))
    assert {name: value for name, value in before.items() if name in after} == after


def test_a_vqgan_is_written_as_taming_wrote_it(tmp_path):
    source = FIXTURES / "taming_shortcut/model.ckpt"
    save_taming(load_vqgan(source), tmp_path / "model.ckpt")
    before, after = (torch.load(file, weights_only=True)["state_dict"] for file in (source, tmp_path / "model.ckpt"))
    same({k: v.float() for k, v in before.items() if not k.startswith("loss.")}, after)


@pytest.mark.parametrize("quantizer", ["nearest", "ema", "gumbel"])
def test_a_new_vqgan_comes_back_from_taming(tmp_path, drawn, quantizer):
    config = VQGANConfig(**SMALL, quantizer=quantizer)
    model = drawn(lambda: VQGANTwin(config, rngs=nnx.Rngs(0), param_dtype=jnp.float16))
    save_taming(model, tmp_path / "model.ckpt")
    again = load_vqgan(tmp_path / "model.ckpt", config=model.config, param_dtype=jnp.float16)
    before, after = ({k: v for k, v in weights(m).items() if not k.startswith(STATISTICS)} for m in (model, again))
    same(before, after)
    if quantizer != "ema":  # in use the same as "nearest", which is what the file shows
        assert load_vqgan(tmp_path / "model.ckpt").config == model.config


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"norm_groups": 16}, {}, "no norm_groups=16, always 32"),
        ({"quantizer": "fsq", "fsq_levels": (5, 4), "embed_dim": 2}, {}, "no quantizer='fsq'"),
        ({}, {"normalize": True}, "no normalized codebook"),
        ({}, {"with_encoder": False}, "no place for a decoder without its encoder"),
    ],
)
def test_a_vqgan_that_the_originals_cannot_hold_is_refused_by_name(tmp_path, drawn, changes, options, message):
    model = drawn(lambda: VQGANTwin(VQGANConfig(**SMALL | changes), rngs=nnx.Rngs(0), **options))
    for save, target in ((save_vqgan_jax, tmp_path), (save_taming, tmp_path / "model.ckpt")):
        with pytest.raises(ValueError, match=message):
            save(model, target)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_is_written_as_transformers_wrote_it(tmp_path):
    model = load_clip(FIXTURES / "hf_clip")
    save_clip(model, tmp_path)
    same(load_file(FIXTURES / "hf_clip/model.safetensors"), load_file(tmp_path / "model.safetensors"))
    assert load_clip(tmp_path).config == model.config


def test_transformers_opens_what_is_written(tmp_path):
    from transformers import CLIPModel

    save_clip(load_clip(FIXTURES / "hf_clip"), tmp_path)
    recorded = np.load(FIXTURES / "hf_clip/io.npz")
    with torch.no_grad():
        found = CLIPModel.from_pretrained(tmp_path).eval()(
            input_ids=torch.from_numpy(recorded["input_ids"]).long(),
            attention_mask=torch.from_numpy(recorded["attention_mask"]),
            pixel_values=torch.from_numpy(recorded["pixel_values"]),
        )
    np.testing.assert_allclose(found.logits_per_image, recorded["logits_per_image"], rtol=1e-5, atol=1e-5)


def test_a_clip_that_transformers_would_read_otherwise_is_refused(tmp_path, drawn):
    config = load_clip(FIXTURES / "hf_clip").config.to_dict()
    config["text_config"]["pooling"] = "eos"
    with pytest.raises(ValueError, match="by 'argmax' where eos_token_id is 2, this CLIP by 'eos'"):
        save_clip(drawn(lambda: CLIP(CLIPConfig.from_dict(config), rngs=nnx.Rngs(0))), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_our_own_format_keeps_every_bit(tmp_path):
    for load, source, load_ours in (
        (load_dallebart, "dallebart_mini_scan", native.load_bart),
        (load_clip, "hf_clip", native.load_clip),
        (load_vqgan, "vqgan_jax_f16", native.load_vqgan),
    ):
        model = load(FIXTURES / source)
        native.save(model, tmp_path / source)
        again = load_ours(tmp_path / source)
        same(weights(model), weights(again))
        assert model.config == again.config
