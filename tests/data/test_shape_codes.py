"""Codes of shapes say the colour of quarters and the form of patches, and the oracle reads what they paint."""

import numpy as np
import pytest
import torch

from minidalle.data import shapes
from minidalle.data.shape_codes import PALETTE, ShapeCodes, ink
from minidalle.vqgan.quantize import k_means


def pictures(split: str, count: int) -> tuple[np.ndarray, list[str]]:
    captions = list(np.random.default_rng(0).choice(shapes.all_captions(split), count))
    return np.stack([shapes.draw(caption, 24, seed % 4) for seed, caption in enumerate(captions)]), captions


@pytest.fixture(scope="module")
def codebook() -> ShapeCodes:
    patches = ink(pictures("train", 1000)[0], 4)[1].reshape(-1, 16)
    inked = torch.tensor(patches[patches.max(axis=1) > 0.02])
    forms = k_means(inked, 255, generator=torch.Generator().manual_seed(0)).numpy()
    return ShapeCodes(np.concatenate([np.zeros((1, 16)), forms]), 24)


def test_the_oracle_reads_nearly_every_coded_picture_with_colours_and_shapes_never_seen_together(codebook):
    images, captions = pictures("test", 200)
    drawn = codebook.decode(codebook.encode(images))
    assert drawn.shape == images.shape and drawn.dtype == np.float32 and 0 <= drawn.min() <= drawn.max() <= 1
    assert np.mean([shapes.agrees(image, caption) for image, caption in zip(drawn, captions, strict=True)]) > 0.95


def test_coding_a_painted_picture_again_changes_nothing(codebook):
    codes = codebook.encode(pictures("test", 100)[0])
    assert np.mean(codebook.encode(codebook.decode(codes)) == codes) > 0.99


def test_the_first_four_codes_are_the_colours_of_the_quarters(codebook):
    names = ["paper", *shapes.COLORS]
    above = codebook.encode(shapes.draw("a red star above a blue circle", 24)[None])[0, :4]
    beside = codebook.encode(shapes.draw("a red star left of a blue circle", 24)[None])[0, :4]
    assert [names[code] for code in above] == ["red", "red", "blue", "blue"]
    assert [names[code] for code in beside] == ["red", "blue", "red", "blue"]
    assert codebook.encode(np.full((1, 24, 24, 3), 255, np.uint8)).tolist() == [[0] * 4 + [8] * 36]


def test_colour_and_form_are_apart_so_that_equal_forms_have_equal_codes(codebook):
    red, blue = (codebook.encode(shapes.draw(f"a {color} cross", 24, 3)[None])[0] for color in ("red", "blue"))
    assert (red[4:] == blue[4:]).mean() > 0.9 and (red[:4] != blue[:4]).all()


def test_a_code_of_the_other_kind_is_drawn_as_paper(codebook):
    codes = codebook.encode(shapes.draw("a green square", 24)[None])
    colours_lost, forms_lost = codes.copy(), codes.copy()
    colours_lost[:, :4], forms_lost[:, 4:] = 20, 3
    assert (codebook.decode(colours_lost) == 1).all() and (codebook.decode(forms_lost) == 1).all()


def test_sizes_follow_from_forms_and_side(codebook):
    assert codebook.codebook_size == len(PALETTE) + 256 == 264 and codebook.code_length == 4 + 36


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda book: ShapeCodes(np.zeros((4, 15)), 24), "patch · patch"),
        (lambda book: ShapeCodes(np.zeros((4, 25)), 24), "must divide"),
        (lambda book: book.encode(np.zeros((1, 32, 32, 3), np.uint8)), "side 24"),
        (lambda book: book.decode(np.zeros((1, 64), int)), "expected \\(pictures, 40\\)"),
        (lambda book: book.decode(np.full((1, 40), 264)), "run from 264"),
        (lambda book: ink(np.zeros((24, 24, 3)), 4), "count, side, side, 3"),
    ],
)
def test_what_does_not_fit_is_refused(codebook, call, message):
    with pytest.raises(ValueError, match=message):
        call(codebook)
