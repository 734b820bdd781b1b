"""The model's own promises: config, shapes, pooling, stacking, errors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.clip import CLIP, CLIPConfig, CLIPTextConfig, CLIPVisionConfig, contrastive_loss, normalize, preprocess
from minidalle.clip.model import patches, run_layers
from minidalle.training import flatten_parameters

FIXTURE = Path(__file__).parents[1] / "fixtures" / "hf_clip"
TEXT = CLIPTextConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=8, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
VISION = CLIPVisionConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
)
TINY = CLIPConfig(TEXT, VISION, projection_dim=12)
IDS = jnp.array([[0, 5, 6, 2, 1, 1, 1, 1], [0, 49, 6, 7, 8, 9, 10, 2]])


@pytest.fixture(scope="module")
def clip():
    return CLIP(TINY, rngs=nnx.Rngs(0))


def test_features_have_one_row_for_each_input_whatever_the_size_of_the_picture(clip):
    assert clip.encode_text(IDS, (IDS != 1).astype(jnp.int32)).shape == (2, 12)
    for height, width in ((16, 16), (40, 24), (9, 30)):
        assert clip.encode_image(jnp.full((3, height, width, 3), 0.5)).shape == (3, 12)


def test_layers_are_stacked_layer_axis_first_and_start_differently(clip):
    kernels = flatten_parameters(clip)["vision.layers.query.kernel"]
    assert kernels.shape == (3, 16, 16)
    assert not np.allclose(kernels[0], kernels[1])


def test_the_scan_over_depth_is_the_loop_over_layers(clip):
    graph, state = nnx.split(clip.vision.layers)
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    looped = x
    for index in range(3):
        looped = nnx.merge(graph, jax.tree.map(lambda a, index=index: a[index], state))(looped, None)
    np.testing.assert_allclose(run_layers(clip.vision.layers, x, None), looped, atol=1e-5)


def test_the_caption_is_read_at_its_first_end_token(clip):
    mask = (IDS != 1).astype(jnp.int32)
    states, pooled = clip.text(IDS, mask)
    np.testing.assert_array_equal(pooled, jnp.stack([states[0, 3], states[1, 7]]))
    # With </s> = 2 the largest id is some word: the old rule of transformers would read the caption there.
    legacy = CLIPConfig.from_dict(
        {**TINY.to_dict(), "text_config": {**TINY.to_dict()["text_config"], "pooling": "argmax"}}
    )
    states, pooled = CLIP(legacy, rngs=nnx.Rngs(0)).text(IDS, mask)
    np.testing.assert_array_equal(pooled, jnp.stack([states[0, 2], states[1, 1]]))


def test_no_word_sees_the_words_after_it(clip):
    changed = IDS.at[:, 5:].set(30)
    before, after = clip.text(IDS, None)[0], clip.text(changed, None)[0]
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_patches_are_cut_row_by_row():
    picture = np.arange(4 * 6 * 3).reshape(1, 4, 6, 3)
    cut = patches(jnp.asarray(picture), 2)
    assert cut.shape == (1, 6, 12)
    np.testing.assert_array_equal(cut[0, 4].reshape(2, 2, 3), picture[0, 2:4, 2:4])


def test_preparing_leaves_a_picture_of_the_right_size_alone_but_for_mean_and_deviation():
    picture = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
    ready = preprocess(picture, VISION) * np.array(VISION.image_std) + np.array(VISION.image_mean)
    np.testing.assert_allclose(ready, picture, atol=1e-6)


def test_half_precision_computes_in_half_and_keeps_parameters_whole(clip):
    half = CLIP(TINY, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    assert {p.dtype for p in flatten_parameters(half).values()} == {jnp.dtype("float32")}
    image = jax.random.uniform(jax.random.key(2), (2, 16, 16, 3))
    assert half.encode_image(image).dtype == jnp.bfloat16
    np.testing.assert_allclose(normalize(half.encode_image(image)), normalize(clip.encode_image(image)), atol=0.05)


def test_features_that_know_nothing_cost_log_of_the_batch_and_right_ones_nearly_nothing():
    same = jnp.ones((8, 4))
    loss, metrics = contrastive_loss(same, same, jnp.log(10.0))
    assert float(loss) == pytest.approx(np.log(8), rel=1e-5)
    loss, metrics = contrastive_loss(jnp.eye(8), 3 * jnp.eye(8), jnp.log(50.0))
    assert float(loss) < 1e-6 and float(metrics["image_accuracy"]) == 1.0 == float(metrics["text_accuracy"])


def test_the_loss_is_the_mean_of_both_directions_and_its_scale_stops_at_100():
    images, texts = jax.random.normal(jax.random.key(3), (2, 5, 6))
    logits = np.asarray(100 * normalize(images) @ normalize(texts).T, np.float64)
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    loss, metrics = contrastive_loss(images, texts, jnp.asarray(9.0))
    assert float(loss) == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-4)
    assert float(metrics["scale"]) == 100.0


def test_a_config_survives_the_way_out_and_back():
    assert CLIPConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    assert CLIPConfig.from_dict({}).text_config.pooling == "eos"


def test_configs_of_old_transformers_are_read_although_they_say_much_else():
    old = json.loads((FIXTURE / "config.json").read_text())
    old |= {"_commit_hash": None, "transformers_version": None}
    old["text_config"] |= {"bad_words_ids": None, "num_beams": 1, "torchscript": False, "dropout": 0.0}
    old["vision_config"] |= {"bos_token_id": None, "label2id": {"LABEL_0": 0}}
    old["text_config_dict"] = {"num_hidden_layers": 1}
    old["vision_config_dict"] = None
    config = CLIPConfig.from_dict(old)
    assert config.text_config.num_hidden_layers == 1 and config.vision_config.num_hidden_layers == 2
    assert config.text_config.pooling == "argmax" and config.projection_dim == 24


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_config": {"hiden_size": 3}}, "text_config has unknown keys hiden_size"),
        ({"d_model": 3}, "unknown keys d_model"),
        ({"text_config": {"hidden_size": 10, "num_attention_heads": 4}}, "not a multiple of num_attention_heads"),
        ({"vision_config": {"image_size": 60, "patch_size": 8}}, "not a multiple of patch_size"),
        ({"vision_config": {"num_channels": 1}}, "only RGB"),
        ({"vision_config": {"image_std": [1, 0, 1]}}, "image_std"),
        ({"vision_config": {"hidden_act": "relu6"}}, "'relu6'; expected one of quick_gelu"),
        ({"vision_config": {"num_hidden_layers": 0}}, "num_hidden_layers is 0"),
        ({"text_config": {"attention_dropout": 0.1}}, "attention_dropout"),
        ({"text_config": {"pooling": "last"}}, "pooling is 'last'"),
        ({"projection_dim": 0}, "projection_dim is 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CLIPConfig.from_dict(values)


def test_wrong_inputs_are_named(clip):
    with pytest.raises(ValueError, match=r"expected \(batch, length\) with length <= 8"):
        clip.encode_text(jnp.ones((1, 9), jnp.int32))
    with pytest.raises(ValueError, match="divide bytes by 255"):
        clip.encode_image(jnp.ones((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"shape \(1, 3, 16, 16\)"):
        clip.encode_image(jnp.ones((1, 3, 16, 16)))
