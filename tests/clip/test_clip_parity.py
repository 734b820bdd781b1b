"""Our CLIP computes what the installed transformers' CLIP computes; what an older one recorded is in `test_parity`."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def test_what_stands_behind_the_end_token_has_no_influence(clip, expected):
    ids = expected["input_ids"].copy()
    with_rest = clip.encode_text(jnp.asarray(ids), jnp.asarray(expected["attention_mask"]))
    ids[expected["attention_mask"] == 0] = 5
    np.testing.assert_array_equal(
        clip.encode_text(jnp.asarray(ids), jnp.asarray(expected["attention_mask"])), with_rest
    )


@pytest.mark.parametrize("eos_token_id", [2, 98])
def test_a_random_tiny_clip_of_the_installed_transformers_agrees(tmp_path, eos_token_id):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(eos_token_id)
    text = {
        "vocab_size": 99, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3,
        "max_position_embeddings": 10, "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": eos_token_id,
        "pad_token_id": 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 12,
        "patch_size": 4, "hidden_act": "gelu",
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=7)
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    ours = load_clip(tmp_path)
    assert ours.config.text_config.pooling == ("argmax" if eos_token_id == 2 else "eos")

    ids = np.full((2, 10), 1)
    ids[0, :5], ids[1, :8] = [0, 7, 33, 4, 98], [0, 9, 9, 60, 61, 62, 3, 98]
    mask, images = (ids != 1).astype(np.int64), torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), pixel_values=images)
    image = ours.encode_pixels(jnp.asarray(images.numpy().transpose(0, 2, 3, 1)))
    text_features = ours.encode_text(jnp.asarray(ids), jnp.asarray(mask))
    close(normalize(image), out.image_embeds.numpy())
    close(normalize(text_features), out.text_embeds.numpy())


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
    torch = pytest.importorskip("torch")
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
