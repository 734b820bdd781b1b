"""min-dalle's files give what min-dalle recorded, and are written so that it finds in them what it expects."""

import json
import pickle
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from minidalle.bart import DalleBart, DalleBartConfig, sample
from minidalle.hub.dallebart import load_dallebart
from minidalle.hub.detoker import load_detoker, save_detoker
from minidalle.hub.min_dalle import load_min_dalle, save_min_dalle
from minidalle.training.tree import flatten_parameters
from minidalle.vqgan import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin

FIXTURES = Path(__file__).parents[1] / "fixtures"


def close(actual, wanted):
    """Equal to 1e-5 of the array's own size."""
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def recorded(case):
    return dict(np.load(FIXTURES / case / "io.npz"))


@pytest.fixture
def copied(tmp_path):
    """A copy of min-dalle's files that may be spoiled."""
    for name in ("encoder.pt", "decoder.pt"):
        shutil.copyfile(FIXTURES / "min_dalle_bart" / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The original's weights in float16 in min-dalle's files, as its converter makes them; written by us."""
    folder = tmp_path_factory.mktemp("converted")
    save_min_dalle(load_dallebart(FIXTURES / "dallebart_mini_scan", param_dtype=jnp.float16), folder)
    return folder


def change(file, function):
    state = torch.load(file, weights_only=True)
    function(state)
    torch.save(state, file)


def test_min_dalles_own_weights_give_its_numbers():
    model, io = load_min_dalle(FIXTURES / "min_dalle_bart", heads=4), recorded("min_dalle_bart")
    ids, mask = io["text_tokens"], io["text_tokens"] != 1
    states = model.encode(ids, mask)
    close(states, io["encoder_state"])
    logits = model.decode(states, mask, np.broadcast_to(io["prev_tokens"], (2, 24)))
    close(logits, io["step_logits"])
    close(logits[:, -1], io["all_logits_last"])


def test_converted_weights_give_min_dalles_numbers(converted):
    model, io = load_min_dalle(converted), recorded("min_dalle_bart_converted")
    ids = io["text_tokens"].reshape(8, 12)  # caption after caption: unconditional, conditional
    mask = ids != 1
    states = model.encode(ids, mask)
    close(states, io["encoder_state"].reshape(states.shape))
    logits = model.decode(states, mask, io["prev_tokens"].repeat(2, axis=0))
    close(logits, io["logits"].reshape(logits.shape))


@pytest.mark.parametrize("guidance", [1, 10, 16])
def test_the_likeliest_codes_are_min_dalles(converted, guidance):
    model, io = load_min_dalle(converted), recorded("min_dalle_bart_converted")
    empty, ids = io["text_tokens"].swapaxes(0, 1)
    codes = sample(
        model, ids, ids != 1, empty, empty != 1, key=nnx.Rngs(0).params(), guidance=float(guidance), temperature=0.0
    )
    np.testing.assert_array_equal(codes, io[f"top1_tokens_cond{guidance}"])


def test_our_files_hold_the_names_and_shapes_of_min_dalles_converter(converted):
    expected = json.loads((FIXTURES / "min_dalle_bart_converted/meta.json").read_text())["state_dict"]
    for stack, shapes in expected.items():
        state = torch.load(converted / f"{stack}.pt", weights_only=True)
        assert {name: list(tensor.shape) for name, tensor in state.items()} == shapes
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}


def test_a_round_trip_leaves_every_bit(tmp_path):
    save_min_dalle(load_min_dalle(FIXTURES / "min_dalle_bart", heads=4), tmp_path)
    for name in ("encoder.pt", "decoder.pt"):
        before = torch.load(FIXTURES / "min_dalle_bart" / name, weights_only=True)
        after = torch.load(tmp_path / name, weights_only=True)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert not list(tmp_path.glob(".*")), "a temporary file was left"


def test_the_config_beside_the_files_is_kept(converted):
    original = load_dallebart(FIXTURES / "dallebart_mini_scan")
    assert load_min_dalle(converted).config == original.config


def test_sizes_of_mini_and_mega_need_no_config(tmp_path, drawn):
    config = DalleBartConfig(
        encoder_vocab_size=8, image_vocab_size=6, image_length=4, max_text_length=3, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=5, decoder_ffn_dim=7, d_model=1024, normalize_text=True, dropout=0.0, bos_token_id=7,
        eos_token_id=7, pad_token_id=7,
    )  # fmt: skip
    save_min_dalle(drawn(lambda: DalleBart(config, rngs=nnx.Rngs(0))), tmp_path)
    (tmp_path / "config.json").unlink()
    for stack in ("encoder", "decoder"):
        (tmp_path / f"{stack}.pt").rename(tmp_path / f"{stack}_mini.pt")
    assert load_min_dalle(tmp_path).config == config
    assert load_min_dalle(tmp_path / "encoder_mini.pt").config == config


def test_scales_that_a_file_leaves_out_are_ones_as_in_min_dalle(copied):
    change(copied / "decoder.pt", lambda state: state.pop("layers.1.glu.ln0.weight"))
    scale = load_min_dalle(copied, heads=4).decoder.layers.feed_forward.pre_norm.scale[...]
    assert (scale[1] == 1).all() and not (scale[0] == 1).all()


def test_unknown_heads_and_both_sizes_are_asked_for(copied):
    with pytest.raises(ValueError, match="does not say how many attention heads"):
        load_min_dalle(copied)
    shutil.copyfile(copied / "encoder.pt", copied / "encoder_mini.pt")
    with pytest.raises(ValueError, match="both mini and mega; give one of"):
        load_min_dalle(copied, heads=4)
    with pytest.raises(FileNotFoundError, match="decoder_mini.pt is missing"):
        load_min_dalle(copied / "encoder_mini.pt", heads=4)
    with pytest.raises(FileNotFoundError, match="holds neither encoder.pt nor encoder_mini.pt"):
        load_min_dalle(FIXTURES / "text_normalizer")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda state: state.pop("lm_head.weight"), "1 missing .*lm_head.kernel"),
        (lambda state: state.pop("layers.0.self_attn.q_proj.weight"), "layers of .*query.kernel are incomplete"),
        (lambda state: state.pop("embed_tokens.weight"), "decoder.embed_tokens.embedding is missing"),
        (lambda state: state.update({"layers.0.fc3.weight": torch.ones(1)}), "layers.0.fc3.weight is no weight of"),
        (lambda state: state.update({"final_ln.weight": torch.ones(3)}), "decoder.final_norm.scale has shape"),
        (lambda state: state.update(step=7), "holds no plain state dict"),
    ],
)
def test_weights_that_do_not_fit_are_named(copied, function, message):
    change(copied / "decoder.pt", function)
    with pytest.raises(ValueError, match=message):
        load_min_dalle(copied, heads=4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "encoder.pt is damaged or cut off .*ZIP archive"),
        (lambda data: b"", "encoder.pt is no file of PyTorch .an empty file"),
        (lambda data: b"<html>" + data, "a page of HTML"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (lambda data: pickle.dumps(Path("/"), protocol=2), "a Python pickle.*could run any code"),
    ],
)
def test_a_file_that_is_none_says_what_it_looks_like(copied, damage, message):
    file = copied / "encoder.pt"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_min_dalle(copied, heads=4)


def test_what_min_dalle_cannot_hold_is_refused_by_name(tmp_path):
    for case, message in (("ffn_bias", "use_glu=False, use_bias=True"), ("rms_headscale", "with ln_type='rmsnorm'")):
        model = load_dallebart(FIXTURES / f"dallebart_var_open_preln_{case}")
        with pytest.raises(ValueError, match=message):
            save_min_dalle(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def detoker():
    return load_detoker(FIXTURES / "min_dalle_detoker")


def test_the_detokenizer_draws_the_originals_picture(detoker):
    io = recorded("min_dalle_detoker")
    close(detoker.decode_unclipped(io["tokens"][:1]), io["vqgan_jax_dec_first"])
    # min-dalle's own GroupNorms have another epsilon, which it records as 0.022 of 255.
    drawn = np.asarray(detoker.decode(io["tokens"][:1]))[0] * 255
    np.testing.assert_allclose(drawn, io["single_image"], rtol=0, atol=0.025)


def test_a_decoder_alone_says_that_it_cannot_encode(detoker):
    for call in (detoker.encode, detoker.features):
        with pytest.raises(ValueError, match="has no encoder, it only draws"):
            call(np.zeros((1, 64, 64, 3), np.float32))


def test_a_round_trip_of_the_detokenizer_leaves_every_bit(tmp_path):
    save_detoker(load_detoker(FIXTURES / "min_dalle_detoker/detoker.pt", param_dtype=jnp.float16), tmp_path)
    before, after = (
        torch.load(folder / "detoker.pt", weights_only=True) for folder in (FIXTURES / "min_dalle_detoker", tmp_path)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


def test_a_detokenizer_that_is_none_is_refused(tmp_path):
    shutil.copyfile(FIXTURES / "min_dalle_bart/encoder.pt", tmp_path / "detoker.pt")
    with pytest.raises(ValueError, match="no detokenizer of min-dalle: embedding.weight is missing"):
        load_detoker(tmp_path)
    with pytest.raises(FileNotFoundError, match="detoker.pt does not exist"):
        load_detoker(tmp_path / "nowhere/detoker.pt")
    shutil.copyfile(FIXTURES / "min_dalle_detoker/detoker.pt", tmp_path / "detoker.pt")
    change(tmp_path / "detoker.pt", lambda state: state.pop("decoder.mid.attn_1.q.bias"))
    with pytest.raises(ValueError, match="1 missing .*decoder.mid.attn_1.q.bias"):
        load_detoker(tmp_path)


def test_a_vqgan_that_min_dalle_cannot_hold_is_refused_by_name(tmp_path, drawn):
    config = VQGANConfig(
        ch=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=8, z_channels=8, n_embed=8, embed_dim=4
    )
    with pytest.raises(ValueError, match=r"with num_res_blocks=1, attn_resolutions=\(\), 2 resolutions"):
        save_detoker(drawn(lambda: VQGANTwin(config, rngs=nnx.Rngs(0))), tmp_path)


def test_flattened_parameters_keep_the_files_type(converted):
    assert {value.dtype for value in flatten_parameters(load_min_dalle(converted)).values()} == {jnp.dtype("float16")}
