"""The sampling controls: every state is inside the page, is what the sampler computes, and moves without a kernel."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle import show
from minidalle.bart import DalleBart, DalleBartConfig, sample
from tests.show.test_widgets import Page, opened, picture, stored_data  # noqa: F401 - `opened` is a fixture

CODEBOOK, LENGTH = 12, 16


def grey_cells(codes):
    """A decoder whose code c is a 4 × 4 block of grey 20 c."""
    grey = np.asarray(codes, np.uint8).reshape(-1, 4, 4).repeat(4, 1).repeat(4, 2) * 20
    return grey[..., None].repeat(3, axis=-1)


@pytest.fixture(scope="module")
def pipe():
    config = DalleBartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_vocab_size=20, image_vocab_size=CODEBOOK, image_length=LENGTH,
        max_text_length=6, init_std=0.4, use_scan=True,
    )  # fmt: skip

    def read(captions):
        ids = np.array([[0, 3 + len(caption), 2, 1, 1, 1] for caption in captions], np.int32)
        return ids, np.array([[1, 1, 1, 0, 0, 0]] * len(captions), np.int32)

    return types.SimpleNamespace(
        bart=DalleBart(config, rngs=nnx.Rngs(0)), read=read, decode=grey_cells, white_code=CODEBOOK - 1,
        vqgan=types.SimpleNamespace(config=types.SimpleNamespace(n_embed=CODEBOOK)),
    )  # fmt: skip


PREFIX = np.array([1, 2, 3, 4, 5, 6], np.int32)
KNOBS = {"guidance": (1.0, 3.0), "temperature": (0.5, 1.0), "top_k": (1, 4, CODEBOOK)}


@pytest.fixture(scope="module")
def turns(pipe):
    return show.explore_sampling(pipe, "cat", PREFIX, **KNOBS, n=2, seed=5)


def find(turns, *knobs):
    return next(turn for turn in turns if (turn.guidance, turn.temperature, turn.top_k) == knobs)


def test_every_combination_is_drawn_once(turns):
    assert len({(turn.guidance, turn.temperature, turn.top_k) for turn in turns}) == len(turns) == 12


def test_probabilities_are_those_of_the_step_after_the_beginning(pipe, turns):
    ids, mask = pipe.read(["cat", ""])
    codes = np.tile(np.pad(PREFIX, (0, LENGTH - len(PREFIX)), constant_values=9), (2, 1))  # what follows cannot matter
    given, blank = np.asarray(pipe.bart(ids, mask, codes))[:, len(PREFIX), :CODEBOOK]
    expected = jax.nn.softmax((blank + 3 * (given - blank)) / 0.5)
    np.testing.assert_allclose(find(turns, 3.0, 0.5, CODEBOOK).probabilities, expected, atol=1e-5)
    assert [np.count_nonzero(find(turns, 1.0, 1.0, k).probabilities) for k in (1, 4, CODEBOOK)] == [1, 4, CODEBOOK]


def test_pictures_are_those_that_sample_draws(pipe, turns):
    (ids, blank), (mask, blank_mask) = ((each[:1], each[1:]) for each in pipe.read(["cat", ""]))
    drawn = sample(
        pipe.bart, ids.repeat(2, 0), mask.repeat(2, 0), blank, blank_mask, key=jax.random.key(5), guidance=3.0,
        temperature=1.0, top_k=4, prefix_codes=jnp.asarray(PREFIX),
    )  # fmt: skip
    np.testing.assert_array_equal(find(turns, 3.0, 1.0, 4).images, grey_cells(drawn))


def test_a_whole_picture_leaves_nothing_to_explore(pipe):
    with pytest.raises(ValueError, match="leave at least one to draw"):
        show.explore_sampling(pipe, "cat", np.zeros(LENGTH, np.int32))


def test_the_page_holds_bars_patches_and_pictures_of_every_state(pipe, turns):
    data = stored_data(show.sampling_controls(pipe, PREFIX, turns, most=5))
    assert data["values"] == [["1", "3"], ["0.5", "1"], ["1", "4", "12"]]
    state, turn = data["states"]["1,0,2"], find(turns, 3.0, 0.5, CODEBOOK)
    assert [code for code, _ in state["bars"]] == np.argsort(-turn.probabilities)[:5].tolist()
    np.testing.assert_allclose([chance for _, chance in state["bars"]], -np.sort(-turn.probabilities)[:5], atol=1e-4)
    np.testing.assert_allclose(picture(state["pictures"][1]["source"]), turn.images[1], atol=12)
    for code, source in data["patches"].items():
        np.testing.assert_array_equal(picture(source), np.full((4, 4, 3), 20 * int(code)))
    assert data["states"]["0,0,0"]["note"] == "1 code is left to draw from; perplexity 1.0."
    assert len(data["states"]["0,0,0"]["bars"]) == 1


def test_a_missing_or_double_turn_is_named(pipe, turns):
    with pytest.raises(ValueError, match=r"lacks guidance 3.0, temperature 1.0, top_k 12"):
        show.sampling_controls(pipe, PREFIX, turns[:-1])
    with pytest.raises(ValueError, match="twice"):
        show.sampling_controls(pipe, PREFIX, [*turns, turns[0]])
    with pytest.raises(ValueError, match="no states"):
        show.sampling_controls(pipe, PREFIX, [])


def test_without_a_script_the_model_as_trained_is_there(pipe, turns):
    page = Page(show.sampling_controls(pipe, PREFIX, turns).html)
    likeliest = np.sort(find(turns, 1.0, 1.0, CODEBOOK).probabilities)[-1]
    assert f"{100 * likeliest:.1f} %" in page.words
    assert [each["value"] for each in page.all("input")] == ["0", "1", "2"]


def test_turning_a_knob_changes_chances_and_pictures(opened, pipe, turns):  # noqa: F811
    fragment = show.sampling_controls(pipe, PREFIX, turns)
    data, page = stored_data(fragment), opened(fragment)

    def shown():
        codes = page.eval_on_selector_all(
            ".chances li > span:nth-child(2)", "found => found.map(one => one.textContent)"
        )
        sources = page.eval_on_selector_all(".pictures img", "images => images.map(image => image.src)")
        return codes, sources

    def wanted(key):
        state = data["states"][key]
        return [str(code) for code, _ in state["bars"]], [each["source"] for each in state["pictures"]]

    assert shown() == wanted("0,1,2")
    page.focus("input >> nth=2")
    page.keyboard.press("Home")
    assert shown() == wanted("0,1,0")
    page.focus("input >> nth=0")
    page.keyboard.press("ArrowRight")
    assert shown() == wanted("1,1,0")
    assert page.get_attribute("input >> nth=2", "aria-valuetext") == "1"
    assert "guidance 3, temperature 1, top-k 1: 1 code is left" in page.text_content(".status")


def test_it_fits_a_phone(opened, pipe, turns):  # noqa: F811
    page = opened(show.sampling_controls(pipe, PREFIX, turns), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
