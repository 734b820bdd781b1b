"""`minidalle convert`: every road there and back, and what is said where there is none."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import nnx, serialization, traverse_util
from safetensors.numpy import load_file

from minidalle.cli import main
from minidalle.hub.convert import NETWORKS, SAVERS, Kind, convert, recognise
from minidalle.hub.detoker import load_detoker
from minidalle.hub.vqgan import save_vqgan_jax
from minidalle.vqgan import VQGANConfig
from minidalle.vqgan.twin import VQGANTwin

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = {
    "dallebart_mini_scan": Kind("dalle-mini", "bart"),
    "hf_clip": Kind("huggingface", "clip"),
    "min_dalle_bart": Kind("min-dalle", "bart"),
    "min_dalle_bart/encoder.pt": Kind("min-dalle", "bart"),
    "min_dalle_detoker": Kind("min-dalle", "vqgan"),
    "min_dalle_detoker/detoker.pt": Kind("min-dalle", "vqgan"),
    "taming_shortcut/model.ckpt": Kind("taming", "vqgan"),
    "vqgan_jax_shortcut": Kind("vqgan-jax", "vqgan"),
    "../../src/minidalle/checkpoints/emoji/vqgan": Kind("minidalle", "vqgan"),
}


def read_msgpack(folder):
    tree = serialization.msgpack_restore((folder / "flax_model.msgpack").read_bytes())
    return traverse_util.flatten_dict(tree, sep="/")


def contents(path):
    """All weights of a checkpoint by name, as NumPy arrays, whatever its format."""
    if path.is_file():
        state = torch.load(path, weights_only=True)
        state = state.get("state_dict", state)
        return {name: value.float().numpy() for name, value in state.items() if not name.startswith("loss.")}
    if (path / "flax_model.msgpack").exists():
        return read_msgpack(path)
    if (path / "model.safetensors").exists():
        return load_file(path / "model.safetensors")
    return {f"{file.name}:{name}": array for file in path.glob("*.pt") for name, array in contents(file).items()}


@pytest.mark.parametrize("source", KINDS)
def test_every_format_is_recognised(source):
    assert recognise(FIXTURES / source) == KINDS[source]


def test_every_network_has_a_format_of_its_own_and_ours():
    assert {name for networks in SAVERS.values() for name in networks} == set(NETWORKS) == set(SAVERS["minidalle"])


def test_the_command_offers_every_format(capsys):
    assert main(["convert", "a", "b", "--to", "minidalle"]) == 1  # a is not there
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "{" + ",".join(SAVERS) + "}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "road"),
    [
        ("dallebart_mini_scan", ["minidalle", "dalle-mini"]),
        ("dallebart_mini_scan", ["min-dalle", "minidalle", "dalle-mini"]),
        ("min_dalle_bart", ["dalle-mini", "minidalle", "min-dalle"]),
        ("vqgan_jax_shortcut", ["taming", "minidalle", "vqgan-jax"]),
        ("taming_shortcut/model.ckpt", ["vqgan-jax", "minidalle", "taming"]),
        ("hf_clip", ["minidalle", "huggingface"]),
    ],
)
def test_every_road_leads_back_to_the_same_bits(tmp_path, source, road):
    path = FIXTURES / source
    for index, to in enumerate(road):
        target = tmp_path / f"{index}{'.ckpt' if to == 'taming' else ''}"
        convert(path, target, to, heads=4)
        path = target
    before, after = contents(FIXTURES / source), contents(path)
    assert before.keys() == after.keys()
    if source.startswith("vqgan_jax"):  # kept in half precision there, in float32 on the way
        before = {name: array.astype("float32") for name, array in before.items()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert {array.dtype for array in before.values()} == {array.dtype for array in after.values()}


def test_the_command_converts_and_tells(tmp_path, capsys):
    source, target = FIXTURES / "dallebart_mini_scan", tmp_path / "out"
    assert main(["convert", str(source), str(target), "--to", "min-dalle", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"target": str(target), "was": "dalle-mini", "network": "bart", "is": "min-dalle"}
    text = {"tokenizer.json", "vocab.json", "merges.txt", "enwiki-words-frequency.txt"}
    assert {file.name for file in target.iterdir()} == {"encoder.pt", "decoder.pt", "config.json", *text}


def test_of_a_whole_pipeline_the_part_is_taken_that_fits(tmp_path, capsys):
    assert main(["convert", "emoji", str(tmp_path / "bart"), "--to", "dalle-mini"]) == 0
    assert "a DalleBart in the format minidalle is now in the format dalle-mini" in capsys.readouterr().out
    assert recognise(tmp_path / "bart") == Kind("dalle-mini", "bart")
    assert (tmp_path / "bart/tokenizer.json").exists()
    assert next(iter(read_msgpack(tmp_path / "bart").values())).dtype == "float16"
    assert main(["convert", "emoji", str(tmp_path / "all"), "--to", "minidalle"]) == 1
    assert "it is a whole pipeline, give one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "to", "message"),
    [
        (
            "vqgan_jax_shortcut",
            "dalle-mini",
            "is a VQGAN in the format vqgan-jax; dalle-mini holds a DalleBart. It can",
        ),
        (
            "dallebart_mini_scan",
            "taming",
            "is a DalleBart in the format dalle-mini; taming holds a VQGAN. It can become",
        ),
        ("hf_clip", "min-dalle", "is a CLIP in the format huggingface; min-dalle holds a DalleBart or a VQGAN"),
        ("min_dalle_detoker", "vqgan-jax", "no place for a decoder without its encoder"),
        ("min_dalle_detoker", "minidalle", "has no encoder, it only draws"),
        ("min_dalle_bart/decoder.pt", "dalle-mini", "half of a DalleBart of min-dalle; give its folder"),
        ("min_dalle_bart", "dalle-mini", "does not say how many attention heads"),
        ("hf_clip/model.safetensors", "minidalle", "is one file of a checkpoint; give its folder"),
        ("text_normalizer", "minidalle", "is no checkpoint of one network: it has no config.json; found"),
        ("vqgan_jax_shortcut", "taming", "would be a single file in the format taming; give a name such as"),
        ("nowhere", "minidalle", "no checkpoint"),
    ],
)
def test_what_cannot_be_converted_says_what_it_is(tmp_path, capsys, source, to, message):
    assert main(["convert", str(FIXTURES / source), str(tmp_path / "out"), "--to", to]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "weights").write_text("mine")
    assert main(["convert", str(FIXTURES / "hf_clip"), str(tmp_path), "--to", "minidalle"]) == 1
    assert "exists already; give a new name" in capsys.readouterr().err


def exchange(folder, name):
    shutil.copyfile(FIXTURES / "vqgan_jax_shortcut/flax_model.msgpack", folder / name)


@pytest.mark.parametrize(
    ("source", "damage", "message"),
    [
        ("dallebart_mini_scan", lambda f: exchange(f, "flax_model.msgpack"), "missing .*decoder"),
        ("hf_clip", lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "describes 'bert'; expected"),
        ("hf_clip", lambda f: (f / "config.json").write_text("[1]"), "describes 'nothing known'; expected a VQGAN"),
        ("hf_clip", lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
        ("hf_clip", lambda f: exchange(f, "model.safetensors"), "not a whole safetensors file"),
        ("hf_clip", lambda f: (f / "model.safetensors").unlink(), "no weights in"),
        (
            "dallebart_mini_scan",
            lambda f: (f / "flax_model.msgpack").write_bytes(pickle.dumps(Path("/"), protocol=2)),
            "flax_model.msgpack is damaged or cut off",
        ),
    ],
)
def test_a_source_that_is_not_what_it_says_is_refused(tmp_path, source, damage, message):
    folder = tmp_path / "source"
    shutil.copytree(FIXTURES / source, folder)
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(folder, tmp_path / "out", "minidalle")
    assert not (tmp_path / "out").exists()


def test_a_file_of_no_known_ending_says_what_it_looks_like(tmp_path):
    (tmp_path / "weights.dat").write_bytes(pickle.dumps([1], protocol=2))
    with pytest.raises(ValueError, match=r"is no checkpoint known here \(.* a Python pickle\)"):
        recognise(tmp_path / "weights.dat")


def test_a_vqgan_of_dalle_minis_shape_becomes_a_detokenizer(tmp_path, drawn):
    config = VQGANConfig(ch=32, ch_mult=(1, 1, 1, 1, 2), attn_resolutions=(4,), resolution=64, z_channels=8, n_embed=8)
    save_vqgan_jax(drawn(lambda: VQGANTwin(config, rngs=nnx.Rngs(0))), tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "half", "min-dalle")
    assert load_detoker(tmp_path / "half").config.ch_mult == config.ch_mult
