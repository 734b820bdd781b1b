"""Training CLIP on emoji: never on held-out pictures, on hard groups, and it learns."""

import json

import numpy as np
import pytest

from minidalle.clip import train as training
from minidalle.clip.augment import augment, soften
from minidalle.clip.config import CLIPConfig
from minidalle.data import emoji
from minidalle.hub import native
from minidalle.hub.folders import find_checkpoint
from minidalle.text import Tokenizer
from minidalle.training import load_recipe, log


@pytest.fixture(scope="module")
def data():
    return emoji.load()


def recipe_for(folder, **train):
    return {
        "kind": "clip",
        "name": "tiny",
        "seed": 1,
        "data": {"tokenizer": str(folder / "tokenizer.json"), "vocab_size": 600},
        "model": {
            "projection_dim": 32,
            "text_config": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                "max_position_embeddings": 40,
            },
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 64, "patch_size": 16,
            },
        },
        "train": {"steps": 60, "batch_size": 48, "warmup_steps": 5, "log_every": 10, "learning_rate": 0.005, **train},
        "output": {"path": str(folder / "clip")},
    }  # fmt: skip


def test_batches_never_hold_a_held_out_picture_nor_one_twice(data):
    choose = training.make_chooser(data, 128, 0.5)
    held_out = set(data.split("valid")) | set(data.split("test"))
    seen = set()
    for step in range(200):
        chosen = choose(np.random.default_rng([0, step]))
        assert len(set(chosen.tolist())) == 128
        seen.update(chosen.tolist())
    assert not seen & held_out
    assert len(seen) > 0.98 * len(data.split("train"))


def test_half_of_a_batch_is_groups_that_are_easily_confused(data):
    choose = training.make_chooser(data, 128, 0.5)
    for seed in range(5):
        parts = [data.parts[i] for i in choose(np.random.default_rng(seed))]
        figures, tones = parts[:24], parts[32:56]
        assert len({p.role for p in figures}) <= 8  # a quarter: groups of up to six of the same figure
        assert len({p.tones for p in tones}) <= 6
        assert len({p.role for p in parts[64:]}) > 45
    assert len({data.parts[i].role for i in training.make_chooser(data, 128, 0.0)(np.random.default_rng(0))}) > 90
    with pytest.raises(ValueError, match="hard_share is 2"):
        training.make_chooser(data, 128, 2)


def test_spoiling_is_seeded_keeps_the_ground_white_and_can_be_turned_off(data):
    images = data.images[:16]
    spoiled = augment(images, np.random.default_rng(0))
    np.testing.assert_array_equal(spoiled, augment(images, np.random.default_rng(0)))
    assert spoiled.shape == images.shape and spoiled.dtype == np.uint8
    assert (spoiled[:, :2, :2].mean(axis=(1, 2, 3)) > 240).all()
    difference = np.abs(spoiled.astype(float) - images).mean(axis=(1, 2, 3))
    assert (difference > 0.1).all() and difference.mean() < 40
    np.testing.assert_array_equal(augment(images, np.random.default_rng(0), 0), images)


def test_softening_keeps_the_mean_and_takes_the_edges(data):
    images = data.images[100:110]
    soft = soften(images, 1.5)
    np.testing.assert_allclose(soft.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=2)
    edges = [np.abs(np.diff(x.astype(float), axis=1)).mean() for x in (soft, images)]
    assert edges[0] < 0.8 * edges[1]


def test_a_short_run_learns_resumes_and_leaves_a_checkpoint(tmp_path):
    clip = training.train(recipe_for(tmp_path), run_dir=tmp_path / "run", progress=False)
    losses = [r["loss"] for r in log.read(tmp_path / "run" / "log.jsonl") if "loss" in r]
    assert losses[0] > 3.7 and losses[-1] < losses[0] - 0.4
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["recall@5"] > 10 * 5 / 3655  # ten times what guessing gives
    assert set(metrics) == {"valid", "test"}

    loaded = native.load_clip(tmp_path / "clip")
    assert loaded.config == clip.config
    picture = np.full((1, 64, 64, 3), 0.3, np.float32)
    np.testing.assert_allclose(loaded.encode_image(picture), clip.encode_image(picture), rtol=0.02, atol=0.02)
    assert loaded.config.text_config.vocab_size == Tokenizer.load(tmp_path / "tokenizer.json").vocab_size
    assert loaded.config.text_config.eos_token_id == 2 and loaded.config.text_config.pooling == "eos"
    assert (tmp_path / "clip" / "model.safetensors").stat().st_size < 1_000_000
    again = training.train(recipe_for(tmp_path), run_dir=tmp_path / "run", progress=False)
    assert [r["loss"] for r in log.read(tmp_path / "run" / "log.jsonl") if "loss" in r] == losses
    np.testing.assert_array_equal(again.visual_projection.kernel[...], clip.visual_projection.kernel[...])


def test_reconstructions_are_made_once_and_learned_from(tmp_path, data, monkeypatch):
    calls = []

    def black(images, folder, **settings):
        calls.append(folder)
        return np.zeros_like(images)

    monkeypatch.setattr(training, "reconstruct", black)
    assert training.reconstructions(data.images, "", tmp_path) is None
    for _ in range(2):
        soft = training.reconstructions(data.images[:9], "some/vqgan", tmp_path)
    assert calls == ["some/vqgan"] and soft.shape == (9, 64, 64, 3)

    settings = {"batch_size": 100, "hard_share": 0.5, "augmentation": 0.0, "reconstructed": 0.3}
    ids = np.zeros((len(data), 4), np.int32)
    batches = training.make_batches(data, np.zeros_like(data.images), ids, ids, settings, seed=0)
    shares = [(batches(step)["images"].max(axis=(1, 2, 3)) == 0).mean() for step in range(10)]
    assert 0.2 < np.mean(shares) < 0.4


def test_a_picture_through_the_shipped_vqgan_is_nearly_itself(data):
    folder = find_checkpoint("emoji") / "vqgan"
    soft = training.reconstruct(data.images[:8], folder, progress=False)
    difference = np.abs(soft.astype(float) - data.images[:8]).mean()
    assert soft.dtype == np.uint8 and 0.5 < difference < 20


def test_the_recipe_that_ships_is_valid_and_within_its_size():
    recipe = load_recipe("recipes/emoji/clip.toml")
    for name, defaults in (("data", training.DATA), ("train", training.TRAIN), ("output", training.OUTPUT)):
        training.section(recipe, name, defaults)
    config = CLIPConfig.from_dict(recipe["model"])
    assert config.vision_config.image_size == emoji.SIZE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bart"}, "kind 'bart'; expected clip"),
        ({"data": {"source": "cats"}}, "source is 'cats'"),
        ({"train": {"precision": "int8"}}, "precision is 'int8'"),
        ({"train": {"batchsize": 3}}, "'batchsize'.*did you mean 'batch_size'"),
        ({"model": {"text_config": {"layers": 3}}}, "unknown keys layers"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_done(tmp_path, change, message):
    recipe = recipe_for(tmp_path)
    for key, value in change.items():
        recipe[key] = {**recipe[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        training.train(recipe, run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
