"""The whole road on a toy: what goes in, what comes out, and what is refused."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import minidalle
from minidalle.bart import sample
from minidalle.pipeline import Pipeline, Sampling


def test_the_package_shows_its_face():
    assert minidalle.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="no attribute 'Pipline'"):
        minidalle.Pipline  # noqa: B018


def test_candidates_have_the_promised_shapes_and_order(pipe):
    (found,) = pipe.generate(["a red heart"], n=5, seed=1)
    assert found.images.shape == (5, 8, 8, 3) and found.images.dtype == np.uint8
    assert found.codes.shape == (5, 16) and found.codes.dtype == np.int32
    assert found.scores.shape == (5,) and (np.diff(found.scores) <= 0).all() and len(found) == 5
    assert sorted(found.order.tolist()) == [0, 1, 2, 3, 4]


def test_ranking_only_reorders(pipe):
    (ranked,) = pipe.generate(["cat"], n=4, seed=3)
    (plain,) = pipe.generate(["cat"], n=4, seed=3, rank=False)
    assert plain.scores is None and plain.order.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(ranked.codes, plain.codes[ranked.order])
    np.testing.assert_array_equal(ranked.images, plain.images[ranked.order])
    np.testing.assert_allclose(pipe.score("cat", ranked.images), ranked.scores, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_codes_and_another_does_not(pipe):
    codes = [pipe.generate(["cat"], n=3, seed=seed, rank=False)[0].codes for seed in (0, 0, 1)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()


def test_a_checkpoint_says_how_it_is_best_drawn_from(folder, pipe, tmp_path):
    assert pipe.sampling == Sampling(guidance=3.0, temperature=1.0)  # this folder says nothing
    said = shutil.copytree(folder, tmp_path / "said")
    (said / "sampling.json").write_text('{"guidance": 1.5, "temperature": 0}')
    other = Pipeline.load(said)
    assert other.sampling == Sampling(guidance=1.5, temperature=0.0)
    codes = other.generate(["cat"], n=2, rank=False)[0].codes
    told = pipe.generate(["cat"], n=2, guidance=1.5, temperature=0, rank=False)[0].codes
    np.testing.assert_array_equal(codes, told)
    assert (codes != pipe.generate(["cat"], n=2, rank=False)[0].codes).any()
    *_, last = other.stream("cat", n=2)
    np.testing.assert_array_equal(last.codes, codes)


@pytest.mark.parametrize("text", ['{"guidance": ', '{"guidence": 3}', '{"temperature": -1}', '{"guidance": "x"}', "[]"])
def test_damaged_advice_is_refused(folder, tmp_path, text):
    said = shutil.copytree(folder, tmp_path / "said")
    (said / "sampling.json").write_text(text)
    with pytest.raises(ValueError, match="sampling.json is damaged; expected an object such as"):
        Pipeline.load(said)


def test_a_caption_is_drawn_the_same_in_any_company(pipe):
    alone = pipe.generate(["cat"], n=2, rank=False)[0]
    for found in pipe.generate(["a red heart", "cat", "a blue square"], n=2, rank=False):
        if found.caption == "cat":
            np.testing.assert_array_equal(found.codes, alone.codes)


def test_many_pictures_are_drawn_in_turns_with_the_same_result(pipe, monkeypatch):
    whole = pipe.generate(["cat", "a red heart"], n=3, rank=False)
    monkeypatch.setattr("minidalle.pipeline.ROWS", 4)
    parts = pipe.generate(["cat", "a red heart"], n=3, rank=False)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)


def test_the_pipeline_is_the_sum_of_its_parts(pipe):
    """What a chapter does by hand: tokens, codes, pictures."""
    ids, mask = pipe.tokenizer.encode(["cat"] * 2, 12)
    codes = sample(pipe.bart, ids, mask, pipe.blank_ids, pipe.blank_mask, key=jax.random.key(7), guidance=3.0)
    (found,) = pipe.generate(["cat"], n=2, seed=7, rank=False)
    np.testing.assert_array_equal(found.codes, codes)
    by_hand = np.round(np.clip(np.asarray(pipe.vqgan.decode(codes)), 0, 1) * 255)
    np.testing.assert_array_equal(found.images, by_hand)


def test_streaming_ends_where_generate_does(pipe):
    steps = list(pipe.stream("cat", 2, seed=5, every=5))
    assert [step.step for step in steps] == [5, 10, 15, 16]
    for step in steps:
        assert step.codes.shape == (2, step.step) and step.images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(steps[-1].codes, pipe.generate(["cat"], n=2, seed=5, rank=False)[0].codes)
    np.testing.assert_array_equal(steps[0].codes, steps[-1].codes[:, :5])


def test_pictures_in_8_bits_are_others_and_streamed_alike(pipe):
    (exact,), (found,) = (pipe.generate(["cat"], n=8, seed=5, int8=int8, rank=False) for int8 in (False, True))
    assert 0.2 < (found.codes == exact.codes).mean() < 1
    *_, last = pipe.stream("cat", 8, seed=5, every=16, int8=True)
    np.testing.assert_array_equal(last.codes, found.codes)


def test_codes_and_pictures_have_one_shape_on_both_ways(pipe):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    codes = pipe.encode(images)
    assert codes.shape == (3, 16) and pipe.decode(codes).shape == images.shape
    np.testing.assert_array_equal(codes, pipe.encode(images.astype(np.float32) / 255))


def test_saving_writes_a_sheet_best_first(pipe, tmp_path):
    (found,) = pipe.generate(["cat"], n=2)
    path = found.save(tmp_path / "new" / "cat.png", scale=1)
    with Image.open(path) as sheet:
        np.testing.assert_array_equal(np.asarray(sheet)[:, :8], found.images[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "at least one caption"),
        ({"n": 0}, "at least 1; got 0"),
        ({"n": -2}, "at least 1; got -2"),
        ({"seed": -1}, "0 or more; got -1"),
        ({"temperature": -0.5}, "temperature must be 0"),
        ({"top_k": 33}, r"top_k must be a whole number in \[1, 32 codes\]"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must lie in"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(pipe, arguments, message):
    arguments = {"prompts": ["cat"], "n": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        pipe.generate(arguments.pop("prompts"), **arguments)


def test_a_single_string_is_not_a_list_of_captions(pipe):
    with pytest.raises(TypeError, match="list of captions"):
        pipe.generate("cat")
    with pytest.raises(TypeError, match="prompt 1 is a int"):
        pipe.generate(["cat", 3])


def test_a_long_caption_is_cut_with_a_warning_that_quotes_the_rest(pipe):
    with pytest.warns(UserWarning, match="heart"):
        (found,) = pipe.generate(["heart " * 1700], n=1)
    assert len(found) == 1


def test_control_characters_are_spaces_and_nothing_is_still_a_caption(pipe):
    a, b = (pipe.generate([caption], n=1, rank=False)[0] for caption in ("a red\x00\n\x1bheart\x7f", "a red heart"))
    np.testing.assert_array_equal(a.codes, b.codes)
    assert len(pipe.generate([""], n=1)[0]) == 1


def test_zero_temperature_is_the_likeliest_picture(pipe):
    codes = pipe.generate(["cat"], n=3, temperature=0, rank=False)[0].codes
    assert (codes == codes[0]).all()


def test_an_unknown_checkpoint_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"neither a shipped name \(.*emoji.*\) nor a folder"):
        Pipeline.load("no-such-thing")


def broken(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    return copy


def test_missing_parts_are_named(folder, tmp_path):
    copy = broken(folder, tmp_path)
    shutil.rmtree(copy / "bart")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="lacks bart, tokenizer.json"):
        Pipeline.load(copy)


@pytest.mark.parametrize("part", ["vqgan", "bart", "clip"])
def test_truncated_weights_are_named(folder, tmp_path, part):
    copy = broken(folder, tmp_path)
    path = copy / part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{part}.model.safetensors is truncated or corrupt"):
        Pipeline.load(copy)


@pytest.mark.parametrize(
    ("part", "field", "value"), [("vqgan", '"ch": 8', '"ch": 16'), ("bart", '"d_model": 16', '"d_model": 32')]
)
def test_a_config_that_does_not_fit_its_weights_is_refused(folder, tmp_path, part, field, value):
    copy = broken(folder, tmp_path)
    path = copy / part / "config.json"
    assert field in path.read_text()
    path.write_text(path.read_text().replace(field, value))
    with pytest.raises(ValueError, match="config"):
        Pipeline.load(copy)


def test_weights_that_are_not_numbers_are_refused(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    copy = broken(folder, tmp_path)
    path = copy / "bart" / "model.safetensors"
    arrays = load_file(path)
    name = next(iter(arrays))
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, path)
    with pytest.raises(ValueError, match=f"{name} holds NaN"):
        Pipeline.load(copy)


def test_parts_that_do_not_belong_together_are_refused(folder, tmp_path, pipe):
    with pytest.raises(ValueError, match="reads|trained together"):
        Pipeline(pipe.tokenizer, pipe.bart, type("Other", (), {"config": type("C", (), {"n_embed": 64})}))


def test_without_clip_nothing_is_ranked(folder, tmp_path):
    copy = broken(folder, tmp_path)
    shutil.rmtree(copy / "clip")
    pipe = Pipeline.load(copy)
    assert pipe.generate(["cat"], n=2)[0].scores is None
    with pytest.raises(ValueError, match="no CLIP"):
        pipe.score("cat", np.zeros((1, 8, 8, 3), np.uint8))
