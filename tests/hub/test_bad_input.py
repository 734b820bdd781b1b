"""Every loader, given what it cannot read: it says what it is and what to do, and runs nothing."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import serialization
from safetensors.numpy import load_file

from minidalle.hub import load_clip, load_min_dalle, load_vqgan, native
from minidalle.hub.assemble import is_original
from minidalle.hub.folders import SHIPPED
from minidalle.hub.recognise import check_age
from minidalle.hub.stored import stored_msgpack

FIXTURES = Path(__file__).parents[1] / "fixtures"
VQGAN, BART, CLIP = (FIXTURES / name for name in ("vqgan_jax_f16", "dallebart_mini_scan", "hf_clip"))
TAMING, DETOKER = FIXTURES / "taming_shortcut/model.ckpt", FIXTURES / "min_dalle_detoker/detoker.pt"


@pytest.mark.parametrize(
    ("load", "path", "message"),
    [
        (load_vqgan, CLIP, "is a CLIP in the format huggingface; expected a VQGAN .*load_clip reads it"),
        (load_vqgan, BART, "is a DalleBart in the format dalle-mini; expected a VQGAN .*load_dallebart reads it"),
        (load_vqgan, FIXTURES / "min_dalle_bart", "is a DalleBart in the format min-dalle; .*load_min_dalle reads it"),
        (load_vqgan, FIXTURES / "min_dalle_bart/encoder.pt", "is a DalleBart in the format min-dalle"),
        (load_vqgan, SHIPPED / "emoji/vqgan", "a VQGAN in the format minidalle; .*native.load_vqgan reads it"),
        (load_vqgan, SHIPPED / "emoji", "is a whole pipeline of minidalle; Pipeline.load reads it, or give .*vqgan"),
        (load_clip, VQGAN, "is a VQGAN in the format vqgan-jax; expected a CLIP .*load_vqgan reads it"),
        (load_clip, BART, "is a DalleBart in the format dalle-mini; expected a CLIP"),
        (load_clip, TAMING, "is a VQGAN in the format taming; expected a CLIP"),
        (load_clip, SHIPPED / "emoji/clip", "a CLIP in the format minidalle; .*native.load_clip reads it"),
        (load_min_dalle, DETOKER, "is a VQGAN in the format min-dalle; expected a DalleBart .*load_vqgan reads it"),
        (load_min_dalle, BART, "is a DalleBart in the format dalle-mini; .*load_dallebart reads it"),
        (native.load_vqgan, VQGAN, "is a VQGAN in the format vqgan-jax; expected a VQGAN in the format minidalle"),
        (native.load_bart, BART, "is a DalleBart in the format dalle-mini; .*load_dallebart reads it"),
        (native.load_clip, CLIP, "is a CLIP in the format huggingface; .*load_clip reads it"),
        (native.load_bart, SHIPPED / "emoji/clip", "is a CLIP in the format minidalle; expected a DalleBart"),
    ],
)
def test_another_kind_of_checkpoint_is_named_with_what_reads_it(load, path, message):
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_text_model_given_as_a_clip_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    for load, message in ((load_clip, "describes a 'bart'; expected a CLIP"), (load_vqgan, "of model_type 'bart'")):
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


@pytest.mark.parametrize("positions", [257, 259])
def test_a_dallebart_from_before_2022_is_named(tmp_path, positions):
    tree = {"model": {"decoder": {"embed_positions": {"embedding": np.zeros((positions, 4), np.float32)}}}}
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    file = tmp_path / "flax_model.msgpack"
    for call in (lambda: check_age(file, stored_msgpack(file)), lambda: is_original(tmp_path)):
        with pytest.raises(
            ValueError, match=f"from before 2022: its decoder has {positions} positions.*take dalle-mini"
        ):
            call()
    check_age(BART, stored_msgpack(BART / "flax_model.msgpack"))


LOOKS = [
    (b"", "an empty file"),
    (b"<!DOCTYPE html><html>Not found</html>", "a page of HTML"),
    (b"\n <html>", "a page of HTML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    (b'{"error": "Entry not found"}', "JSON"),
]
LOADERS = {
    "flax_model.msgpack": (load_vqgan, VQGAN, "flax_model.msgpack is damaged or cut off"),
    "model.ckpt": (lambda folder: load_vqgan(folder / "model.ckpt"), TAMING.parent, "is no file of PyTorch"),
    "detoker.pt": (load_vqgan, DETOKER.parent, "is no file of PyTorch"),
    "model.safetensors": (load_clip, CLIP, "not a whole safetensors file"),
    "config.json": (load_clip, CLIP, "config.json is not valid JSON"),
}


def copy(source, folder, leave=("io.npz", "meta.json")):
    return shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*leave))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(("content", "look"), LOOKS)
def test_what_a_server_sent_instead_of_a_file_is_told(tmp_path, name, content, look):
    load, source, message = LOADERS[name]
    folder = copy(source, tmp_path / "copy")
    (folder / name).write_bytes(content)
    if name == "config.json" and look == "JSON":
        message, look = "unknown|no weight|missing|config", ""
    with pytest.raises(ValueError, match=f"{message}.*{look}"):
        load(folder)


class Danger:
    """Its unpickling would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": {"encoder.conv_in.weight": x}}])
@pytest.mark.parametrize("save", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x, protocol=2))])
def test_code_in_a_file_is_never_run(tmp_path, wrap, save):
    trap = tmp_path / "trap"
    for name in ("model.ckpt", "detoker.pt", "encoder.pt", "decoder.pt", "pytorch_model.bin", "flax_model.msgpack"):
        save(wrap(Danger(trap)), tmp_path / name)
    shutil.copy(CLIP / "config.json", tmp_path)
    (tmp_path / "jax").mkdir()
    shutil.copy(VQGAN / "config.json", tmp_path / "jax")
    shutil.copy(tmp_path / "flax_model.msgpack", tmp_path / "jax")
    (tmp_path / "clip").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(tmp_path / name, tmp_path / "clip")
    for load, path in (
        (load_vqgan, tmp_path / "model.ckpt"),
        (load_vqgan, tmp_path / "detoker.pt"),
        (load_min_dalle, tmp_path / "encoder.pt"),
        (load_clip, tmp_path / "clip"),
    ):
        with pytest.raises(ValueError, match="could run any code, so it is not opened; take a file that holds"):
            load(path)
    with pytest.raises(ValueError, match="flax_model.msgpack is damaged or cut off, .*(a Python pickle|a ZIP archive)"):
        load_vqgan(tmp_path / "jax")
    assert not trap.exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A CLIP's msgpack whose structure, not its numbers, makes up much of it."""
    folder = tmp_path_factory.mktemp("small")
    tree = {
        "text_model": {str(i): {"kernel": np.ones((2, i), np.float32)} for i in range(6)},
        "logit_scale": np.float32(2),
    }
    (folder / "w").write_bytes(serialization.msgpack_serialize(tree))
    return folder / "w"


def test_a_msgpack_cut_off_anywhere_is_refused(small, tmp_path):
    whole = small.read_bytes()
    for end in range(len(whole)):
        (tmp_path / "w").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is damaged or cut off"):
            stored_msgpack(tmp_path / "w")
    (tmp_path / "w").write_bytes(whole + b"\x00")
    with pytest.raises(ValueError, match="something follows the weights"):
        stored_msgpack(tmp_path / "w")


def test_any_byte_of_a_msgpack_may_be_another_without_harm(small, tmp_path):
    whole = small.read_bytes()
    generator = np.random.default_rng(0)
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= int(generator.integers(1, 256))
        (tmp_path / "w").write_bytes(data)
        try:
            found = stored_msgpack(tmp_path / "w")
        except ValueError as error:
            assert "is damaged or cut off" in str(error)
        else:  # in a name or a number
            assert all(np.asarray(array).shape == array.shape for array in found.values())


def test_a_name_with_a_flipped_byte_is_named(tmp_path):
    folder = copy(VQGAN, tmp_path / "copy")
    file = folder / "flax_model.msgpack"
    file.write_bytes(file.read_bytes().replace(b"post_quant_conv", b"post_quant_conw"))
    with pytest.raises(ValueError, match="missing .*post_quant_conv.bias.*unknown .*post_quant_conw.bias"):
        load_vqgan(folder)


def clip_in(folder, form, change):
    """The fixture's CLIP in one of three formats, changed."""
    arrays = load_file(CLIP / "model.safetensors")
    change(arrays)
    shutil.copy(CLIP / "config.json", folder)
    if form == "bin":
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, folder / "pytorch_model.bin")
    else:
        from safetensors.numpy import save_file

        save_file(arrays, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["bin", "safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("logit_scale"), "1 missing .*logit_scale"),
        (lambda a: a.update(extra=np.ones(2, np.float32)), "extra is no weight of a CLIPModel"),
        (lambda a: a.update(logit_scale=np.ones(2, np.float32)), r"logit_scale has shape \(2,\)"),
        (
            lambda a: a.update({"vision_model.embeddings.patch_embedding.weight": np.ones((4, 4), np.float32)}),
            "patch embedding has shape",
        ),
        (
            lambda a: a.update({"text_model.encoder.layers.0.mlp.fc1.bias": np.ones(3, np.float32)}),
            "text.layers.fc1.bias have several shapes",
        ),
    ],
)
def test_weights_of_a_clip_that_do_not_fit_are_named(tmp_path, form, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_clip(clip_in(tmp_path, form, change))
    assert str(tmp_path) in str(raised.value)


def test_a_taming_file_with_more_weights_than_a_vqgan_is_refused_by_name(tmp_path):
    state = torch.load(TAMING, weights_only=True)["state_dict"]
    torch.save({"state_dict": {**state, "first_stage.weight": torch.ones(2)}}, tmp_path / "more.ckpt")
    with pytest.raises(ValueError, match="more.ckpt: .*1 unknown .*first_stage.scale"):
        load_vqgan(tmp_path / "more.ckpt")


def test_a_config_of_a_list_is_refused(tmp_path):
    folder = copy(CLIP, tmp_path / "copy")
    (folder / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="weight|shape|unknown"):
        load_clip(folder)
