import json
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch

from minidalle.bart import sample
from minidalle.bart.train import Pairs, make_batches, move, single_weights, train, train_dalle_bart
from minidalle.data.emoji import Parts
from minidalle.data.encoded import Encoded
from minidalle.training import TrainingInterrupted, flatten_parameters, log
from minidalle.training.export import read_arrays, read_config, save_arrays
from minidalle.vqgan.config import VQGANConfig
from minidalle.vqgan.export import export
from minidalle.vqgan.model import VQGAN

QUICK = {"batch_size": 8, "warmup_steps": 0, "save_every": 1000, "log_every": 10, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def toy() -> Pairs:
    """Two words decide the picture: the first its first half, the second its second half; two codings of each."""
    first, second = np.divmod(np.arange(16), 4)
    text_ids = np.stack([np.zeros(16), first + 5, second + 10, np.full(16, 2)], axis=1).astype(np.int32)
    codes = np.where(np.arange(9) < 4, first[:, None] * 2, second[:, None] * 2 + 8)[:, None].repeat(2, axis=1)
    codes[:, 1, 0] += 1
    return Pairs(
        text_ids, np.ones_like(text_ids), codes.astype(np.int32), np.array([[0, 2, 1, 1]]), np.array([[1, 1, 0, 0]])
    )


def records(run_dir):
    lines = log.read(run_dir / "log.jsonl")
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_mapping_is_learned_and_drawn_also_for_pairs_of_words_never_seen(toy, tiny_config, tmp_path):
    seen = np.array([index for index in range(16) if index not in (6, 9)])
    pairs = toy._replace(text_ids=toy.text_ids[seen], text_mask=toy.text_mask[seen], codes=toy.codes[seen, :1])
    settings = QUICK | {"steps": 200, "code_corruption": 0.2, "batch_size": 14}
    config = tiny_config(init_std=0.1, encoder_layers=1, decoder_layers=1)
    model = train_dalle_bart(config, pairs, run_dir=tmp_path, settings=settings, progress=False)
    drawn = sample(
        model, toy.text_ids, toy.text_mask, toy.blank_ids, toy.blank_mask, key=jax.random.key(0), temperature=0
    )
    right = (np.asarray(drawn) == toy.codes[:, 0]).mean(axis=1)
    assert (right[seen] == 1).all()
    assert right[[6, 9]].mean() > 0.8
    losses = [record["loss"] for record in records(tmp_path)]
    assert losses[-1] < 0.5 < 2 < losses[0]


def test_a_run_killed_and_resumed_is_the_run_left_alone(toy, tiny_config, tmp_path):
    spoiling = {"blank_probability": 0.2, "hide_probability": 0.2, "code_corruption": 0.2}
    settings = QUICK | spoiling | {"steps": 6, "log_every": 1, "save_every": 2}
    config = tiny_config(dropout=0.1, encoder_layers=1, decoder_layers=1)

    def run(folder, **options):
        return train_dalle_bart(config, toy, run_dir=folder, settings=settings | options, progress=False)

    run(tmp_path / "whole")

    def stop_after_three(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(TrainingInterrupted):
        train_dalle_bart(
            config,
            toy,
            run_dir=tmp_path / "killed",
            settings=settings | {"evaluate_every": 3},
            evaluate=stop_after_three,
            progress=False,
        )
    run(tmp_path / "killed")
    losses = [
        [(record["step"], record["loss"]) for record in records(tmp_path / name) if "loss" in record]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_batches_show_every_pair_once_an_epoch_and_depend_on_the_step_alone(toy):
    batches = make_batches(toy, 6, seed=3)
    shown = np.concatenate([batches(step)["text_ids"] for step in range(8)])  # three epochs of 16
    for epoch in range(3):
        np.testing.assert_array_equal(
            np.unique(shown[epoch * 16 : (epoch + 1) * 16], axis=0), np.unique(toy.text_ids, axis=0)
        )
    again = make_batches(toy, 6, seed=3)(5)
    for name, values in batches(5).items():
        np.testing.assert_array_equal(values, again[name])
    assert set(np.concatenate([batches(step)["codes"][:, 0] % 2 for step in range(8)])) == {0, 1}, "one coding only"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blank_probability": 1.0}, "blank_probability"),
        ({"precision": "float8"}, "precision"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rat": 0.1}, "did you mean 'learning_rate'"),
        ({"optimizer": "sgd"}, "sgd"),
    ],
)
def test_wrong_settings_are_refused(toy, tiny_config, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train_dalle_bart(tiny_config(), toy, run_dir=tmp_path, settings=settings, progress=False)


def test_pairs_are_drawn_in_proportion_to_their_weights(toy):
    weights = np.where(np.arange(16) < 4, 3.0, 1.0)
    batches = make_batches(toy, 64, 0, weights)
    rows = np.concatenate([batches(step)["text_ids"][:, 1] for step in range(40)])
    assert (rows == 5).mean() == pytest.approx(12 / 24, abs=0.04)  # the first four pairs have first word 5
    np.testing.assert_array_equal(batches(7)["codes"], make_batches(toy, 64, 0, weights)(7)["codes"])


def test_emoji_without_parts_get_their_share():
    parts = [Parts("cat", (), ""), Parts("man", ("dark",), ""), Parts("man", ("light",), ""), Parts("dog", (), "")]
    data = SimpleNamespace(parts=parts)
    np.testing.assert_allclose(single_weights(data, np.arange(4), 0.8), [0.4, 0.1, 0.1, 0.4])
    np.testing.assert_allclose(single_weights(data, np.array([0, 1, 2]), 0.5), [0.5, 0.25, 0.25])
    assert single_weights(data, np.arange(4), 0.0) is None
    with pytest.raises(ValueError, match="single_share must lie in"):
        single_weights(data, np.arange(4), 1.0)


def test_a_run_can_stop_early_and_another_can_start_from_it(toy, tiny_config, tmp_path):
    config = tiny_config(dropout=0.0, encoder_layers=1, decoder_layers=1)
    settings = QUICK | {"steps": 4, "log_every": 1, "ema_decay": 0.0}
    first = train_dalle_bart(config, toy, run_dir=tmp_path / "a", settings=settings | {"stop_at": 2}, progress=False)
    assert [record["step"] for record in records(tmp_path / "a")] == [1, 2]
    whole = train_dalle_bart(config, toy, run_dir=tmp_path / "b", settings=settings, progress=False)
    assert records(tmp_path / "b")[:2] == records(tmp_path / "a")  # the schedule is that of the whole run
    save_arrays(tmp_path / "weights", "bart", config.to_dict(), flatten_parameters(first), half=False)
    going_on = settings | {"start_from": str(tmp_path / "weights"), "steps": 1, "learning_rate": 1e-12}
    second = train_dalle_bart(config, toy, run_dir=tmp_path / "c", settings=going_on, progress=False)
    for name, array in flatten_parameters(first).items():
        np.testing.assert_allclose(flatten_parameters(second)[name], array, atol=1e-6)
    moved = [np.abs(a - flatten_parameters(whole)[n]).max() for n, a in flatten_parameters(first).items()]
    assert max(moved) > 1e-4


def test_arrays_that_do_not_fit_are_refused(toy, tiny_config, tmp_path):
    for spoiled, message in (
        (toy._replace(codes=toy.codes + 30), "codes run from"),
        (toy._replace(text_ids=toy.text_ids + 30), "text_ids run from"),
        (toy._replace(codes=toy.codes[:, :, :5]), "image_length is 9"),
        (toy._replace(codes=toy.codes[:3]), "one row for each"),
        (toy._replace(codes=toy.codes[:, 0]), "one row for each"),
    ):
        with pytest.raises(ValueError, match=message):
            train_dalle_bart(tiny_config(), spoiled, run_dir=tmp_path, progress=False)


def test_a_moved_picture_leaves_white_behind():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(move(picture, 0, 0), picture)
    moved = move(picture, 1, -2)
    np.testing.assert_array_equal(moved[1:, :2], picture[:-1, 2:])
    assert (moved[0] == 255).all()
    assert (moved[:, 2:] == 255).all()


MODEL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_text_length": 12,
}


def recipe(folder, **data):
    return {
        "kind": "bart",
        "name": "toy",
        "seed": 1,
        "data": {"tokenizer": str(folder / "tokenizer.json"), "vocab_size": 270, **data},
        "model": MODEL,
        "train": QUICK | {"steps": 2, "evaluate_every": 1, "log_every": 1, "best": "valid_loss"},
        "output": {"path": str(folder / "bart")},
    }


def test_a_recipe_for_emoji_encodes_trains_judges_and_exports(tmp_path, monkeypatch):
    torch.manual_seed(0)
    vqgan = VQGAN(VQGANConfig(ch=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=8, z_channels=8,
                              n_embed=16, embed_dim=4, norm_groups=4))  # fmt: skip
    export(vqgan, tmp_path / "vqgan")
    random = np.random.default_rng(0)
    data = SimpleNamespace(
        images=random.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        captions=[f"a picture of {number}" for number in range(12)],
        split=lambda name: {"train": np.arange(9), "valid": np.arange(9, 12)}[name],
        parts=[Parts("picture", (), "")] * 12,
    )
    monkeypatch.setattr("minidalle.bart.train.emoji.load", lambda: data)
    emoji_recipe = recipe(tmp_path, source="emoji", vqgan=str(tmp_path / "vqgan"), variants=3, max_shift=1)
    model = train(emoji_recipe, run_dir=tmp_path / "run", progress=False)

    (file,) = (tmp_path / "run").glob("codes-*.npy")
    codes = np.load(file)
    assert codes.shape == (12, 3, 16)
    own = vqgan.half().float().eval().encode(torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255)
    assert (codes[:, 0] == own.numpy()).mean() > 0.95
    assert (codes[:, 0] != codes[:, 1]).any()
    assert model.config.image_length == 16
    assert model.config.image_vocab_size == 16
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["role"] == metrics["tone"] == 1
    assert 0 < metrics["valid_loss"] < 10
    assert read_config(tmp_path / "bart", "bart")["d_model"] == 16
    arrays = read_arrays(tmp_path / "bart")
    assert arrays["decoder.layers.self_attention.query.kernel"].shape == (1, 16, 16)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    np.testing.assert_allclose(arrays["lm_head.kernel"], model.lm_head.kernel[...], atol=1e-3)


def test_a_recipe_for_encoded_pictures_needs_no_vqgan(tmp_path):
    random = np.random.default_rng(0)
    captions = [f"picture {number}" for number in range(10)]
    encoded = Encoded(random.integers(0, 7, (10, 9)).astype(np.int32), captions, captions, 7)
    encoded.save(tmp_path / "pictures.parquet")
    model = train(recipe(tmp_path, source=str(tmp_path / "pictures.parquet")), run_dir=tmp_path / "run", progress=False)
    assert (model.config.image_vocab_size, model.config.image_length) == (7, 9)
    assert {"valid_loss", "blank_loss"} <= set(json.loads((tmp_path / "run" / "metrics.json").read_text()))


def test_recipes_that_cannot_be_followed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="kind 'clip'"):
        train({"kind": "clip"}, run_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="minidalle encode"):
        train(recipe(tmp_path, source=str(tmp_path / "nothing.npz")), run_dir=tmp_path)
    with pytest.raises(ValueError, match="variants"):
        train(recipe(tmp_path, source="emoji", variants=0), run_dir=tmp_path)
