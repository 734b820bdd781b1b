import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization, traverse_util

from minidalle.hub.dallebart import load_dallebart

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def copied(tmp_path):
    """A copy of the original's checkpoint that may be spoiled."""
    for name in ("config.json", "flax_model.msgpack"):
        shutil.copyfile(FIXTURES / "dallebart_mini_scan" / name, tmp_path / name)
    return tmp_path


def rewrite_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite_weights(folder, change):
    file = folder / "flax_model.msgpack"
    flat = traverse_util.flatten_dict(serialization.msgpack_restore(file.read_bytes()), sep="/")
    change(flat)
    file.write_bytes(serialization.msgpack_serialize(traverse_util.unflatten_dict(flat, sep="/")))


@pytest.mark.parametrize(
    "case",
    [
        "dallebart_mini_scan",
        "dallebart_defaults",
        "dallebart_var_open_preln_ffn_bias",
        "dallebart_var_open_preln_rms_headscale",
    ],
)
def test_original_checkpoints_give_the_originals_numbers(case):
    recorded = np.load(FIXTURES / case / "io.npz")
    model = load_dallebart(FIXTURES / case)
    states = model.encode(recorded["input_ids"], recorded["attention_mask"])
    np.testing.assert_allclose(states, recorded["encoder_last_hidden_state"], rtol=1e-5, atol=1.5e-5)
    logits = model(recorded["input_ids"], recorded["attention_mask"], recorded["labels"])
    np.testing.assert_allclose(logits, recorded["logits"], rtol=1e-5, atol=1.5e-5)


def test_stacked_and_numbered_layers_are_the_same_weights(unstacked):
    scan, noscan = (nnx.state(load_dallebart(path)) for path in (FIXTURES / "dallebart_mini_scan", unstacked))
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(scan), nnx.to_pure_dict(noscan))


def test_half_precision_files_load_in_either_precision(copied):
    def halve(flat):
        flat.update({name: value.astype(np.float16) for name, value in flat.items()})

    rewrite_weights(copied, halve)
    recorded = np.load(FIXTURES / "dallebart_mini_scan" / "io.npz")
    inputs = recorded["input_ids"], recorded["attention_mask"], recorded["labels"]
    for param_dtype, kept in ((None, jnp.float16), (jnp.float32, jnp.float32)):
        model = load_dallebart(copied, param_dtype=param_dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(kept)}
        np.testing.assert_allclose(model(*inputs), recorded["logits"], atol=5e-2)


def test_missing_files_are_named(copied):
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        load_dallebart(copied / "nowhere")
    (copied / "flax_model.msgpack").unlink()
    with pytest.raises(FileNotFoundError, match="flax_model.msgpack is missing"):
        load_dallebart(copied)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"<html>" + data]
)
def test_a_damaged_file_is_named(copied, damage):
    file = copied / "flax_model.msgpack"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="flax_model.msgpack is damaged"):
        load_dallebart(copied)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 32}, "has shape"),
        ({"decoder_layers": 3}, "has shape"),
        ({"image_vocab_size": 128}, "has shape"),
        ({"force_ln_scale": True}, "missing .*decoder.final_norm.scale"),
        ({"use_bias": True}, "missing .*decoder.layers.cross_attention.key.bias"),
        ({"use_swin_position_embeddings": True}, "missing .*decoder.layers.cross_attention.position_bias"),
        ({"ln_positions": "cogview"}, "missing .*decoder.layers.feed_forward.post_norm"),
        ({"use_alibi": True}, "use_alibi"),
        ({"ln_positions": "sandwich"}, "ln_positions"),
        ({"model_type": "bart"}, "model_type"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused_by_name(copied, changes, message):
    rewrite_config(copied, **changes)
    with pytest.raises(ValueError, match=message):
        load_dallebart(copied)


def test_missing_and_unknown_parameters_are_named(copied):
    rewrite_weights(copied, lambda flat: flat.update({"model/decoder/rel_bias": flat.pop("lm_head/kernel")}))
    with pytest.raises(ValueError, match=r"1 missing \['lm_head.kernel'\]"):
        load_dallebart(copied)
    rewrite_weights(copied, lambda flat: flat.update({"lm_head/kernel": np.zeros((64, 65), np.float32)}))
    with pytest.raises(ValueError, match=r"1 unknown \['decoder.rel_bias'\]"):
        load_dallebart(copied)


@pytest.mark.parametrize("positions", [257, 259])
def test_checkpoints_of_2021_are_told_apart(copied, positions):
    rewrite_config(copied, model_type="bart")
    table = np.zeros((positions, 64), np.float32)
    rewrite_weights(copied, lambda flat: flat.update({"model/decoder/embed_positions/embedding": table}))
    with pytest.raises(ValueError, match=f"from before 2022: its decoder has {positions} positions"):
        load_dallebart(copied)


def test_a_folder_of_another_kind_is_named_with_its_reader():
    with pytest.raises(
        ValueError, match=r"is a VQGAN in the format vqgan-jax; expected a DalleBart .*load_vqgan reads it"
    ):
        load_dallebart(FIXTURES / "vqgan_jax_basic")


def test_a_lost_layer_is_noticed(unstacked, tmp_path):
    shutil.copytree(unstacked, tmp_path, dirs_exist_ok=True)

    def lose_one(flat):
        del flat["model/decoder/layers/FlaxBartDecoderLayer_0/GLU_0/Dense_1/kernel"]

    rewrite_weights(tmp_path, lose_one)
    with pytest.raises(ValueError, match="decoder.layers.feed_forward.value.kernel are incomplete"):
        load_dallebart(tmp_path)
