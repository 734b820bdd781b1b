"""`describe` on originals, and the sizes of the published models by abstract evaluation."""

import json
import math
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx, serialization
from huggingface_hub import constants
from safetensors.torch import load_file

from minidalle.bart import DalleBart, DalleBartConfig
from minidalle.cli import main
from minidalle.hub import load_clip, load_dallebart, load_vqgan
from minidalle.hub.info import describe
from minidalle.hub.stored import stored_msgpack
from minidalle.vqgan.config import VQGANConfig
from minidalle.vqgan.port import VQGANTwin

FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MINI = {"encoder_ffn_dim": 2730, "decoder_ffn_dim": 2730, "eos_token_id": 16385, "decoder_start_token_id": 16384}
MEGA = MINI | {
    "d_model": 2048, "encoder_layers": 24, "decoder_layers": 24, "encoder_attention_heads": 32,
    "decoder_attention_heads": 32, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_vocab_size": 50272,
    "image_vocab_size": 16415,
}  # fmt: skip


def count(build):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build))))


@pytest.mark.parametrize(
    ("sizes", "parameters"), [(MINI, 437_833_712), (MEGA, 2_587_521_024)], ids=["mini-1", "mega-1"]
)
def test_the_published_models_have_their_number_of_parameters(sizes, parameters):
    assert count(lambda: DalleBart(DalleBartConfig(**sizes), rngs=nnx.Rngs(0))) == parameters


def test_the_published_vqgan_has_its_number_of_parameters():
    assert count(lambda: VQGANTwin(VQGANConfig(n_embed=16384), rngs=nnx.Rngs(0))) == 76_073_859


@pytest.mark.parametrize(
    ("case", "part", "load"),
    [
        ("dallebart_mini_scan", "bart", load_dallebart),
        ("unstacked", "bart", load_dallebart),
        ("dallebart_var_open_preln_rms_headscale", "bart", load_dallebart),
        ("vqgan_jax_basic", "vqgan", load_vqgan),
        ("hf_clip", "clip", load_clip),
    ],
)
def test_originals_are_described_as_they_load(case, part, load, unstacked):
    folder = unstacked if case == "unstacked" else FIXTURES / case
    (found,) = describe(folder).items()
    leaves = jax.tree.leaves(nnx.state(load(folder)))
    assert found[0] == part and found[1]["parameters"] == sum(leaf.size for leaf in leaves)
    stored = next(folder.glob("*.[ms][sa][gf]*"), folder / "model.safetensors")
    assert 0 <= stored.stat().st_size - found[1]["bytes"] < 30_000
    assert found[1]["config"] == json.loads((folder / "config.json").read_text())
    assert found[1]["types"] == ["F32"]


def test_older_clip_weights_are_counted_without_their_storage(tmp_path):
    shutil.copy(FIXTURES / "hf_clip/config.json", tmp_path)
    torch.save(load_file(FIXTURES / "hf_clip/model.safetensors"), tmp_path / "pytorch_model.bin")
    assert describe(tmp_path) == describe(FIXTURES / "hf_clip")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ValueError, match="pytorch_model.bin is no file of PyTorch"):
        describe(tmp_path)


def test_a_cached_hub_name_is_described_without_network_or_torch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    repository = tmp_path / "models--openai--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    shutil.copytree(FIXTURES / "hf_clip", repository / "snapshots" / COMMIT)
    assert main(["info", "openai/clip"]) == 0
    assert (
        capsys.readouterr().out.startswith("clip: 70,945 parameters, 0.3 MiB as F32")
        and main(["info", "openai/other"]) == 1
    )
    assert "run `minidalle generate` with it once" in capsys.readouterr().err


def test_arrays_in_pieces_are_one_array(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    tree = {"a": {"b": np.arange(60, dtype=np.float32).reshape(5, 12)}, "c": np.float32(2), "d": {}}
    (tmp_path / "w.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    found = stored_msgpack(tmp_path / "w.msgpack")
    assert set(found) == {"a/b", "c"} and len(found["a/b"].pieces) == 4
    np.testing.assert_array_equal(found["a/b"], tree["a"]["b"])
    np.testing.assert_array_equal(found["c"], 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_file_spoiled_anywhere_in_its_structure_is_refused_or_reads_as_numbers(tmp_path, seed):
    file = shutil.copy(FIXTURES / "dallebart_mini_scan/flax_model.msgpack", tmp_path)
    data = bytearray(Path(file).read_bytes())
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, 400, 3):
        data[place] = generator.integers(0, 256)
    Path(file).write_bytes(data)
    try:
        found = stored_msgpack(Path(file))
    except ValueError as error:
        assert "is damaged or cut off" in str(error)
    else:
        assert all(np.asarray(array).shape == array.shape for array in found.values())
