"""Our CLIP computes what the installed transformers' CLIP computes; what an older one recorded is in `test_parity`."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import serialization, traverse_util
from safetensors.numpy import load_file, save_file

from minidalle.clip import CLIPConfig, normalize, preprocess
from minidalle.hub.clip import load_clip
from minidalle.training import flatten_parameters

FIXTURE = Path(__file__).parents[1] / "fixtures" / "hf_clip"


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURE / "io.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def clip():
    return load_clip(FIXTURE)


def close(actual, wanted):
    """Equal to 1e-5 of the array's own size: what float32 leaves after a dozen matrix products in another order."""
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def pixels(expected):
    return jnp.asarray(expected["pixel_values"].transpose(0, 2, 3, 1))


def test_what_stands_behind_the_end_token_has_no_influence(clip, expected):
    ids = expected["input_ids"].copy()
    with_rest = clip.encode_text(jnp.asarray(ids), jnp.asarray(expected["attention_mask"]))
    ids[expected["attention_mask"] == 0] = 5
    np.testing.assert_array_equal(
        clip.encode_text(jnp.asarray(ids), jnp.asarray(expected["attention_mask"])), with_rest
    )


TEXT = {
    "vocab_size": 99, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3,
    "max_position_embeddings": 10, "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": 98, "pad_token_id": 1,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 12,
    "patch_size": 4, "hidden_act": "gelu",
}  # fmt: skip
VARIANTS = {
    "a real end token": ({}, {}, 7),
    "the old end token": ({"eos_token_id": 2}, {}, 7),
    "quick gelu": ({"hidden_act": "quick_gelu"}, {"hidden_act": "quick_gelu"}, 12),
    "two activations": ({"hidden_act": "quick_gelu", "num_hidden_layers": 1}, {"num_hidden_layers": 2}, 1),
    "patches of 14": ({"num_attention_heads": 4}, {"image_size": 42, "patch_size": 14, "hidden_size": 20}, 33),
    "one patch": ({"intermediate_size": 7}, {"image_size": 8, "patch_size": 8, "layer_norm_eps": 1e-3}, 16),
}


def save_as(theirs, folder, form):
    """A CLIPModel of transformers in one of its three formats; the oldest as FlaxCLIPModel laid it out."""
    theirs.save_pretrained(folder)
    if form == "safetensors":
        return
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if form == "bin":
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, folder / "pytorch_model.bin")
        return
    flat = {}
    for name, array in arrays.items():
        path, _, kind = name.rpartition(".")
        if kind == "weight":
            kind = "embedding" if "embedding" in path else "scale" if "norm" in path or "layrnorm" in path else "kernel"
            if array.ndim == 4:
                kind, array = "kernel", array.transpose(2, 3, 1, 0)
            elif kind == "kernel":
                array = array.T
        flat["/".join([*path.split("."), kind]) if path else kind] = np.array(array, order="C")
    tree = traverse_util.unflatten_dict(flat, sep="/")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))


@pytest.mark.parametrize("form", ["safetensors", "bin", "msgpack"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_random_tiny_clip_of_the_installed_transformers_agrees(tmp_path, variant, form):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    text, vision, width = VARIANTS[variant]
    config = transformers.CLIPConfig(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=width)
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_as(theirs, tmp_path, form)
    ours = load_clip(tmp_path)
    old = form == "msgpack" or "eos_token_id" in text
    assert ours.config.text_config.pooling == ("argmax" if old else "eos")

    ids = np.full((2, 10), 1)  # the end token, 98, is the largest id of each caption: both rules read there
    ids[0, :5], ids[1, :8] = [0, 7, 33, 4, 98], [0, 9, 9, 60, 61, 62, 3, 98]
    size = ours.config.vision_config.image_size
    mask, images = (ids != 1).astype(np.int64), torch.randn(3, 3, size, size)
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), pixel_values=images)
    image = ours.encode_pixels(jnp.asarray(images.numpy().transpose(0, 2, 3, 1)))
    text_features = ours.encode_text(jnp.asarray(ids), jnp.asarray(mask))
    close(normalize(image), out.image_embeds.numpy())
    close(normalize(text_features), out.text_embeds.numpy())


def test_old_flax_weights_are_read_at_the_largest_id_whatever_the_config_says(clip, tmp_path):
    """As FlaxCLIPModel of transformers 4.25.1 did, see quirk 28 of the fixtures."""
    config = json.loads((FIXTURE / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 98
    transformers = pytest.importorskip("transformers")
    save_as(transformers.CLIPModel.from_pretrained(FIXTURE), tmp_path, "msgpack")
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = jnp.asarray([[0, 5, 98, 7], [0, 97, 7, 5]])
    np.testing.assert_array_equal(load_clip(tmp_path).encode_text(ids), clip.encode_text(ids))


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 1e-2), ("float16", 2e-3)])
@pytest.mark.parametrize("kept", ["float32", "half"])
def test_half_precision_keeps_two_digits(expected, dtype, limit, kept):
    half = load_clip(FIXTURE, dtype=dtype, param_dtype=dtype if kept == "half" else kept)
    ids, mask = jnp.asarray(expected["input_ids"]), jnp.asarray(expected["attention_mask"])
    for actual, wanted in (
        (half.encode_text(ids, mask), expected["text_features"]),
        (half.encode_pixels(pixels(expected)), expected["image_features"]),
    ):
        assert actual.dtype == dtype
        assert np.abs(np.asarray(actual, np.float32) - wanted).max() < limit * np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(40, 40), (70, 50), (20, 33), (32, 32)])
def test_pictures_are_prepared_as_by_clip_image_processor(shape):
    transformers = pytest.importorskip("transformers")
    processor_class = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    processor = processor_class(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    coarse = np.random.default_rng(0).uniform(size=(2, 6, 6, 3))
    pictures = np.asarray(jax.image.resize(coarse, (2, *shape, 3), "cubic").clip(0, 1) * 255).round().astype(np.uint8)
    theirs = np.asarray(processor(images=list(pictures), return_tensors="np")["pixel_values"]).transpose(0, 2, 3, 1)
    ours = preprocess(jnp.asarray(pictures / 255, jnp.float32), _vision(32))
    # Pillow rounds to bytes, after each direction; divided by the standard deviation that is up to 2/255/0.26.
    np.testing.assert_allclose(ours, theirs, atol=0.035)
    assert np.abs(np.asarray(ours) - theirs).mean() < 0.006


def _vision(size):
    return CLIPConfig.from_dict({"vision_config": {"image_size": size, "patch_size": 8}}).vision_config


def test_old_weights_files_and_half_precision_load_too(clip, tmp_path):
    arrays = load_file(FIXTURE / "model.safetensors")
    arrays["text_model.embeddings.position_ids"] = np.arange(16)[None]
    for name in ("config.json",):
        shutil.copy(FIXTURE / name, tmp_path / name)
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, tmp_path / "pytorch_model.bin")
    for name, array in flatten_parameters(load_clip(tmp_path)).items():
        np.testing.assert_array_equal(array, flatten_parameters(clip)[name])

    halves = {name: np.asarray(jnp.asarray(a, jnp.bfloat16)) for name, a in arrays.items() if "ids" not in name}
    from safetensors.flax import save_file as save_bfloat16

    save_bfloat16({name: jnp.asarray(array) for name, array in halves.items()}, tmp_path / "model.safetensors")
    half = load_clip(tmp_path)
    assert flatten_parameters(half)["text.layers.fc1.kernel"].dtype == jnp.float32
    np.testing.assert_allclose(half.logit_scale[...], clip.logit_scale[...], rtol=1e-2)


def test_the_processors_mean_and_deviation_are_taken(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURE / name, tmp_path / name)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1]}')
    vision = load_clip(tmp_path).config.vision_config
    assert vision.image_mean == (0.5, 0.5, 0.5) and vision.image_std == (0.25, 0.5, 1.0)


def _broken(tmp_path, change):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FIXTURE / name, tmp_path / name)
    change(tmp_path)
    return tmp_path


def _truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _other_size(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))


def _missing_layer(folder):
    arrays = {
        n: a for n, a in load_file(folder / "model.safetensors").items() if "vision_model.encoder.layers.0" not in n
    }
    save_file(arrays, folder / "model.safetensors")


def _unknown_weight(folder):
    save_file({**load_file(folder / "model.safetensors"), "lm_head.weight": np.ones(3)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_truncate, ValueError, "not a whole safetensors file"),
        (_other_size, ValueError, r"text.layers.fc1.* has shape .* but the model expects .*config"),
        (_missing_layer, ValueError, "do not count up from 0"),
        (_unknown_weight, ValueError, "lm_head.weight is no weight of a CLIPModel"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "no weights in"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, "no config.json in"),
        (lambda folder: (folder / "config.json").write_text("{"), ValueError, "is not valid JSON"),
    ],
)
def test_broken_checkpoints_are_told_apart(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        load_clip(_broken(tmp_path, change))
