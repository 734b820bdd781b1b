"""BART itself, against transformers' BartForConditionalGeneration on the same weights."""

import copy
import json

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from minidalle.bart.denoiser import Bart, BartConfig, denoising_loss, repair
from minidalle.hub import load_bart
from minidalle.hub.files import write_msgpack
from minidalle.training.tree import flatten_names

SIZES = {
    "vocab_size": 60, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "max_position_embeddings": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(**SIZES, dropout=0.0, init_std=0.3, scale_embedding=True)
    )
    model.final_logits_bias.normal_()
    return model.eval()


@pytest.fixture
def folder(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(1)
    ids = random.integers(3, 60, (3, 12))
    mask = (np.arange(12) < np.array([[12], [7], [3]])).astype(int)
    targets, target_mask = random.integers(3, 60, (3, 9)), (np.arange(9) < np.array([[9], [5], [2]])).astype(int)
    return np.where(mask, ids, 1), mask, np.where(target_mask, targets, 1), target_mask


def test_states_logits_loss_and_gradients_are_those_of_transformers(theirs, folder, texts):
    ids, mask, targets, target_mask = texts
    labels = torch.tensor(np.where(target_mask, targets, -100))
    theirs.zero_grad()
    output = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), labels=labels)
    output.loss.backward()

    model = load_bart(folder)
    states = model.encode(ids, mask)
    np.testing.assert_allclose(states, output.encoder_last_hidden_state.detach(), rtol=1e-4, atol=2e-5)
    logits = model(ids, mask, targets)
    np.testing.assert_allclose(logits, output.logits.detach(), rtol=1e-4, atol=1e-4)

    structure, parameters, rest = nnx.split(model, nnx.Param, ...)
    loss, gradients = jax.value_and_grad(
        lambda parameters: denoising_loss(nnx.merge(structure, parameters, rest), ids, mask, targets, target_mask)
    )(parameters)
    assert float(loss) == pytest.approx(output.loss.item(), rel=1e-5)
    gradients = flatten_names(gradients)[0]
    shared = gradients["decoder.embed_tokens.embedding"]
    np.testing.assert_allclose(shared, theirs.model.shared.weight.grad, rtol=1e-3, atol=1e-5)
    kernels = gradients["decoder.layers.cross_attention.value.kernel"]
    for layer, kernel in zip(theirs.model.decoder.layers, kernels, strict=True):
        np.testing.assert_allclose(kernel.T, layer.encoder_attn.v_proj.weight.grad, rtol=1e-3, atol=1e-5)


def test_the_likeliest_text_is_that_of_transformers(theirs, folder, texts):
    ids, mask, *_ = texts
    wanted = theirs.generate(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), max_length=12, min_length=12, num_beams=1,
        do_sample=False, forced_eos_token_id=None, forced_bos_token_id=None, eos_token_id=None,
    ).numpy()  # fmt: skip
    model, written = load_bart(folder), np.zeros((3, 0), int)
    for _ in range(wanted.shape[1] - 1):
        logits = model(ids, mask, np.concatenate([written, np.ones((3, 1), int)], axis=1))
        written = np.concatenate([written, np.argmax(logits[:, -1:], axis=-1)], axis=1)
    np.testing.assert_array_equal(written, wanted[:, 1:])


@pytest.mark.parametrize("end_bias", [-9.0, 4.0, 8.0])
def test_greedy_repairs_are_those_of_transformers(theirs, texts, tmp_path, end_bias):
    ids, mask, *_ = texts
    theirs = copy.deepcopy(theirs)
    theirs.final_logits_bias[0, 2] = end_bias
    theirs.save_pretrained(tmp_path)
    wanted = theirs.generate(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), max_length=16, num_beams=1, do_sample=False,
        forced_eos_token_id=None, forced_bos_token_id=None,
    ).numpy()[:, 1:]  # fmt: skip
    wanted = np.pad(wanted, ((0, 0), (0, 15 - wanted.shape[1])), constant_values=1)
    assert bool((wanted == 2).any()) == (end_bias > 0), "the cases should differ in whether texts end by themselves"
    np.testing.assert_array_equal(repair(load_bart(tmp_path), ids, mask, 15), wanted)


def test_a_repair_longer_than_the_positions_is_refused(folder, texts):
    model, (ids, mask, *_) = load_bart(folder), texts
    for length in (0, 21):
        with pytest.raises(ValueError, match=f"length is {length}.* 20 tokens"):
            repair(model, ids, mask, length)


def test_the_bare_model_loads_as_well(theirs, tmp_path, texts):
    ids, mask, targets, _ = texts
    theirs.model.save_pretrained(tmp_path)
    bare, whole = load_bart(tmp_path), theirs.final_logits_bias.numpy()
    output = theirs(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        decoder_input_ids=torch.tensor(np.concatenate([np.full((3, 1), 2), targets[:, :-1]], axis=1)),
    )
    np.testing.assert_allclose(bare(ids, mask, targets) + whole, output.logits.detach(), rtol=1e-4, atol=1e-4)


def test_older_files_hold_the_same_weights(theirs, folder, tmp_path_factory):
    """`pytorch_model.bin`, and what FlaxBart saved: kernels as ours, names with slashes."""
    wanted = flatten_names(nnx.state(load_bart(folder)))[0]
    older, flax = tmp_path_factory.mktemp("bin"), tmp_path_factory.mktemp("flax")
    state = {
        name: tensor
        for name, tensor in theirs.state_dict().items()
        if "embed_tokens" not in name and "lm_head" not in name
    }
    torch.save(state, older / "pytorch_model.bin")
    tree = {}
    for name, tensor in state.items():
        kind = (
            "embedding"
            if "embed" in name and "norm" not in name or "shared" in name
            else "scale"
            if "norm" in name
            else "kernel"
        )
        array = tensor.numpy().T if kind == "kernel" and name.endswith("weight") else tensor.numpy()
        tree[name.replace("weight", kind).replace(".", "/")] = array
    write_msgpack(flax / "flax_model.msgpack", tree)
    for other in (older, flax):
        (other / "config.json").write_text((folder / "config.json").read_text())
        found = flatten_names(nnx.state(load_bart(other)))[0]
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_half_precision_is_close(theirs, folder, texts):
    ids, mask, targets, _ = texts
    exact, half = (load_bart(folder, dtype=dtype)(ids, mask, targets) for dtype in ("float32", "bfloat16"))
    assert np.abs(half - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mbart"}, "model_type 'mbart'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"d_model": 48}, "has shape"),
        ({"encoder_layers": 3}, "has shape"),
        ({"decoder_attention_heads": 5}, "decoder_attention_heads"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, changes, message):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_bart(folder)


def test_missing_files_and_other_checkpoints_are_named(folder, tmp_path_factory):
    from safetensors.numpy import load_file, save_file

    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_bart(tmp_path_factory.mktemp("empty"))
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays | {"vision_model.weight": np.zeros(3, np.float32)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="vision_model.weight is no weight of a BART"):
        load_bart(folder)


def test_bart_base_has_its_139_million_parameters():
    sizes = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
    sizes |= {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    config = BartConfig(**sizes)
    state = nnx.state(nnx.eval_shape(lambda: Bart(config, rngs=nnx.Rngs(0))), nnx.Param)
    with torch.device("meta"):
        reference = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == sum(p.numel() for p in reference.parameters())
