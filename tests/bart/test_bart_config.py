import json

import pytest

from minidalle.bart import DalleBartConfig


def test_defaults_are_the_originals():
    config = DalleBartConfig()
    assert (config.encoder_vocab_size, config.image_vocab_size, config.image_length) == (50264, 16384, 256)
    assert (config.d_model, config.encoder_layers, config.decoder_ffn_dim, config.dropout) == (1024, 12, 4096, 0.1)
    assert config.use_scan is True
    assert config.decoder_start_token_id == config.eos_token_id == 16384


def test_survives_a_round_trip_through_json():
    config = DalleBartConfig(d_model=64, decoder_layers=3, ln_positions="preln", eos_token_id=7)
    assert DalleBartConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_mega_draws_only_its_16384_codes():
    config = DalleBartConfig(image_vocab_size=16415, decoder_start_token_id=16384)
    assert config.codebook_size == 16384


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ln_positions", "sandwich"),
        ("ln_type", "batchnorm"),
        ("activation_function", "mish"),
        ("use_alibi", True),
        ("is_encoder_decoder", False),
        ("sinkhorn_iters", 0),
        ("encoder_layerdrop", 0.1),
        ("d_model", 0),
        ("d_model", 100.0),
        ("dropout", 1.0),
        ("init_std", 0.0),
        ("tau_init", 0.0),
        ("decoder_attention_heads", 5),
        ("decoder_start_token_id", 16385),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        DalleBartConfig(**{field: value})


@pytest.mark.parametrize(
    ("switches", "named"),
    [
        ({"ln_positions": "postln", "use_final_ln_decoder": False}, "use_final_ln_decoder"),
        ({"ln_positions": "deepnet", "use_final_ln_encoder": False}, "use_final_ln_encoder"),
        ({"ln_positions": "swinv2", "use_scan": True}, "use_scan"),
    ],
)
def test_switches_that_the_original_refuses_together_are_refused(switches, named):
    with pytest.raises(ValueError, match=named):
        DalleBartConfig(**switches)


def test_deepnet_is_another_word_for_postln():
    assert DalleBartConfig(ln_positions="deepnet").ln_positions == "postln"
    assert DalleBartConfig(ln_positions="swinv2").use_scan is False


def test_unknown_keys_are_refused_or_warned_about():
    with pytest.raises(ValueError, match="d_modle"):
        DalleBartConfig.from_dict({"d_modle": 64})
    with pytest.warns(UserWarning, match="brand_new"):
        assert DalleBartConfig.from_dict({"brand_new": 1, "d_model": 64}, strict=False).d_model == 64


def test_another_models_config_is_refused():
    with pytest.raises(ValueError, match="clip"):
        DalleBartConfig.from_dict({"model_type": "clip"})


def test_a_broken_file_is_named(tmp_path):
    file = tmp_path / "config.json"
    for text in ("{", "[1]", '{"d_model": -1}', '{"d_model": "wide"}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            DalleBartConfig.from_file(file)
