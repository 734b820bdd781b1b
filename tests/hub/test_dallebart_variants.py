"""Configurations that no published checkpoint has, against what the original computed (tests/fixtures/dallebart_variants)."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.bart import loss, sample
from minidalle.hub.dallebart import load_dallebart, native_name, save_dallebart
from minidalle.hub.files import write_msgpack
from minidalle.training.tree import flatten_names, flatten_parameters

VARIANTS = Path(__file__).parents[1] / "fixtures" / "dallebart_variants"
CASES = sorted(path.stem for path in VARIANTS.glob("*.json"))
UNSTACKED = ("postln_unscanned", "quick_gelu", "subln_unscanned", "swin_positions", "swinv2")


def drawing():
    spec = importlib.util.spec_from_file_location("make_variants", VARIANTS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.draw_parameters


@pytest.fixture
def case(request, tmp_path):
    """A folder with a checkpoint in the original's format, what the original computed, and each gradient's norm."""
    made = json.loads((VARIANTS / f"{request.param}.json").read_text())
    shapes = {name: shape for name, (shape, _) in made["parameters"].items()}
    (tmp_path / "config.json").write_text(json.dumps(made["config"]))
    write_msgpack(tmp_path / "flax_model.msgpack", drawing()(shapes, made["seed"]))
    norms = {name: norm for name, (_, norm) in made["parameters"].items()}
    return tmp_path, dict(np.load(VARIANTS / f"{request.param}.npz")), norms


def relative_error(found, wanted):
    return np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()


def test_all_variants_are_there():
    assert len(CASES) == 15 and set(UNSTACKED) <= set(CASES)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_states_logits_loss_and_gradients_are_the_originals(case):
    folder, recorded, norms = case
    model = load_dallebart(folder)
    text = recorded["text_ids"], recorded["text_mask"]
    assert relative_error(model.encode(*text), recorded["states"]) < 1e-5
    assert relative_error(model(*text, recorded["codes"]), recorded["logits"]) < 1e-5

    structure, state = nnx.split(model)
    value, gradients = jax.value_and_grad(lambda state: loss(nnx.merge(structure, state), *text, recorded["codes"]))(
        state
    )
    assert value == pytest.approx(float(recorded["loss"]), rel=1e-5)
    gradients, seen = flatten_names(gradients)[0], set()
    for name, norm in norms.items():
        here = native_name(model.config, name)
        gradient = gradients.get(here)
        if gradient is None:  # of one layer, which is a part of the stacked parameter here
            *head, number, tail = (
                here.replace("between_norms.", "between_norms. ").replace("layers.", "layers. ").partition(" ")
            )
            index, _, rest = tail.partition(".")
            here = "".join(head).strip() + rest
            gradient = gradients[here][int(index)]
        seen.add(here)
        # Where keys get the same addition, softmax takes it out again, and what is left of the gradient is rounding.
        assert float(jnp.linalg.norm(gradient.ravel())) == pytest.approx(norm, rel=1e-4, abs=2e-6), name
    unscaled = {"encoder.layers.feed_forward.sum_norm.scale", "decoder.layers.feed_forward.sum_norm.scale"}
    assert gradients.keys() - seen <= unscaled


@pytest.mark.parametrize("case", [name for name in CASES if name != "swin_positions"], indirect=True)
def test_the_likeliest_codes_are_the_originals(case):
    folder, recorded, _ = case
    codes = sample(
        load_dallebart(folder),
        recorded["text_ids"],
        recorded["text_mask"],
        None,
        None,
        key=jax.random.key(0),
        temperature=0,
    )
    known = recorded["greedy"] < 20  # the original may write its end token, which is no code, and stops there
    before_end = np.cumprod(known, axis=1).astype(bool)
    np.testing.assert_array_equal(np.asarray(codes)[before_end], recorded["greedy"][before_end])


@pytest.mark.parametrize("case", ["swin_positions"], indirect=True)
def test_relative_positions_are_drawn_from_too(case):
    """The original cannot draw with them: its cache and their table do not fit each other."""
    folder, recorded, _ = case
    model, text = load_dallebart(folder), (recorded["text_ids"], recorded["text_mask"])
    codes = sample(model, *text, None, None, key=jax.random.key(0), temperature=0)
    np.testing.assert_array_equal(np.asarray(model(*text, codes))[..., :20].argmax(-1), codes)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_what_is_saved_loads_as_the_same_weights(case, tmp_path_factory):
    folder, _, _ = case
    model, target = load_dallebart(folder), tmp_path_factory.mktemp("saved")
    save_dallebart(model, target)
    before, after = flatten_parameters(model), flatten_parameters(load_dallebart(target))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_tied_tables_need_no_head_of_their_own(tmp_path):
    """The original fails to build this one, so it is compared with itself: an untied model whose head is the table."""
    from minidalle.bart import DalleBart, DalleBartConfig

    sizes = {"encoder_vocab_size": 30, "image_vocab_size": 20, "image_length": 6, "max_text_length": 7, "d_model": 16}
    sizes |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}
    tied = DalleBart(DalleBartConfig(**sizes, tie_word_embeddings=True), rngs=nnx.Rngs(0))
    untied = DalleBart(DalleBartConfig(**sizes), rngs=nnx.Rngs(0))
    untied.lm_head.kernel[...] = tied.decoder.embed_tokens.embedding[...].T
    ids, mask, codes = np.array([[0, 5, 2]]), np.ones((1, 3), int), np.array([[1, 2, 3]])
    np.testing.assert_allclose(tied(ids, mask, codes), untied(ids, mask, codes), rtol=1e-6, atol=1e-7)
    save_dallebart(tied, tmp_path)
    loaded = load_dallebart(tmp_path)
    np.testing.assert_array_equal(loaded(ids, mask, codes), tied(ids, mask, codes))
    assert sample(loaded, ids, mask, ids, mask, key=jax.random.key(0), guidance=2.0).shape == (1, 6)
