import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from minidalle.data.pictures import contact_sheet, save_grid, to_float, to_uint8


def test_bytes_survive_the_way_to_float_and_back():
    every_byte = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=-1)
    floats = to_float(every_byte)
    assert floats.dtype == np.float32 and floats.min() == 0 and floats.max() == 1
    np.testing.assert_array_equal(to_uint8(floats), every_byte)


def test_rounding_is_to_the_nearest_byte_and_overshoot_is_cut():
    values = np.array([-0.2, 0.0, 0.4999 / 255, 0.51 / 255, 1.0, 1.3], np.float32)
    picture = values[None, :, None].repeat(3, axis=-1)
    assert to_uint8(picture)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, torch.as_tensor])
def test_numpy_jax_and_torch_pictures_are_the_same(make):
    floats = np.random.default_rng(0).random((2, 4, 5, 3), dtype=np.float32)
    np.testing.assert_array_equal(to_uint8(make(floats)), np.round(floats * 255).astype(np.uint8))


def test_half_precision_and_gradients_are_taken():
    assert to_uint8(jnp.ones((2, 2, 3), jnp.bfloat16)).max() == 255
    assert to_uint8(torch.ones((2, 2, 3), dtype=torch.bfloat16, requires_grad=True)).max() == 255


def test_pillow_pictures_of_any_mode_are_taken():
    assert (
        to_uint8([Image.new("L", (5, 4), 7), Image.new("RGBA", (5, 4), (7, 7, 7, 255))]).tolist()
        == [[[[7, 7, 7]] * 5] * 4] * 2
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.zeros((3, 8, 8)), "channels first"),
        (np.full((2, 2, 3), np.nan), "NaN"),
        (np.full((2, 2, 3), 255.0), "0–255"),
        (np.zeros((2, 2, 3), np.int64), "int64"),
        ([np.zeros((2, 2, 3)), np.zeros((3, 2, 3))], "differ in shape"),
        (np.zeros(7), "height, width, 3"),
    ],
)
def test_wrong_pictures_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        to_uint8(wrong)


def test_a_sheet_puts_every_picture_in_its_place():
    pictures = np.stack([np.full((4, 6, 3), 10 * index, np.uint8) for index in range(5)])
    sheet = np.asarray(contact_sheet(pictures, columns=3, scale=2, gap=1))
    assert sheet.shape == (2 * 9 - 1, 3 * 13 - 1, 3)
    for index in range(5):
        row, column = divmod(index, 3)
        assert (sheet[row * 9 : row * 9 + 8, column * 13 : column * 13 + 12] == 10 * index).all()
    assert (sheet[9:, 26:] == 255).all(), "the place without a picture is background"
    assert (sheet[8] == 255).all(), "the gap is background"


@pytest.mark.parametrize("count, columns", [(1, 1), (8, 8), (9, 3), (16, 4), (20, 5)])
def test_columns_are_chosen_by_count(count, columns):
    sheet = contact_sheet(np.zeros((count, 2, 2, 3), np.uint8), gap=0)
    assert sheet.width == columns * 2


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_a_saved_sheet_reads_back_exactly(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    path = save_grid(tmp_path / "new" / "cats.png", pictures, gap=0)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.concatenate(list(pictures), axis=1))
    assert [file.name for file in path.parent.iterdir()] == ["cats.png"]


def test_places_that_cannot_be_written_are_named_and_left_clean(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*cats.png"):
        save_grid(tmp_path / "file" / "cats.png", np.zeros((1, 2, 2, 3), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        save_grid(tmp_path / "folder.png", np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="use .png"):
        save_grid(tmp_path / "cats.docx", np.zeros((1, 2, 2, 3), np.uint8))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.png"]
