"""Every kind of picture file becomes an upright RGB square, and a broken one becomes one clear error."""

import io

import numpy as np
import pytest
from PIL import Image

from minidalle.data.decode import PictureError, decode, to_rgb


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_an_rgb_picture_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image, mode = decode(encoded(Image.fromarray(pixels)), 24)
    np.testing.assert_array_equal(image, pixels)
    assert mode is None and image.dtype == np.uint8 and image.flags.writeable


@pytest.mark.parametrize(
    ("color", "mode", "kind", "expected"),
    [
        ((200, 0, 0, 255), "RGBA", "PNG", (200, 0, 0)),
        ((200, 0, 0, 0), "RGBA", "PNG", (255, 255, 255)),
        ((0, 0, 0, 128), "RGBA", "WEBP", (127, 127, 127)),
        ((100, 0), "LA", "PNG", (255, 255, 255)),
        (90, "L", "PNG", (90, 90, 90)),
        (1, "1", "PNG", (255, 255, 255)),
        (128 * 257, "I;16", "PNG", (128, 128, 128)),
        (0.5, "F", "TIFF", (128, 128, 128)),
        ((0, 0, 0, 255), "CMYK", "TIFF", (0, 0, 0)),
        ((0, 255, 255, 0), "CMYK", "JPEG", (255, 0, 0)),
        (5, "P", "GIF", (0, 160, 40)),
    ],
)
def test_modes_are_converted_and_named(color, mode, kind, expected):
    picture = Image.new(mode, (20, 20), color)
    if mode == "P":
        picture.putpalette([0, 0, 0] * 5 + [0, 160, 40])
    options = {"lossless": True} if kind == "WEBP" else {}
    image, converted_from = decode(encoded(picture, kind, **options), 16)
    assert converted_from is not None
    np.testing.assert_allclose(image, np.broadcast_to(expected, (16, 16, 3)), atol=2)


def test_a_palette_with_a_transparent_entry_lies_on_white():
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([10, 20, 30])
    assert to_rgb(Image.open(io.BytesIO(encoded(picture, transparency=0)))).getpixel((4, 4)) == (255, 255, 255)


def test_the_camera_turn_is_carried_out():
    pixels = np.full((32, 32, 3), 255, dtype=np.uint8)
    pixels[:8] = (200, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise, so that the top comes to the right
    image, _ = decode(encoded(Image.fromarray(pixels), "JPEG", quality=95, exif=exif), 32)
    assert image[:, 28:, 1].max() < 40 and image[:, :20, 1].min() > 200


def test_damaged_camera_data_does_not_cost_the_picture():
    data = encoded(Image.new("RGB", (20, 20), (9, 8, 7)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert decode(data, 16)[0].shape == (16, 16, 3)


def test_the_largest_square_is_cut_from_the_centre_or_at_random():
    stripes = np.zeros((10, 40, 3), dtype=np.uint8)
    stripes[:, :, 0] = np.arange(40) * 6
    data = encoded(Image.fromarray(stripes))
    image, _ = decode(data, 10)
    np.testing.assert_array_equal(image, stripes[:, 15:25])
    lefts = {decode(data, 10, np.random.default_rng(seed))[0][0, 0, 0] // 6 for seed in range(200)}
    assert lefts == set(range(31))


def test_resizing_averages_rather_than_skips():
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    image, _ = decode(encoded(Image.fromarray(checkers.astype(np.uint8)).convert("RGB")), 8)
    assert abs(int(image[4, 4, 0]) - 127) <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes_stay_small(shape):
    assert decode(encoded(Image.new("RGB", shape, (1, 2, 3))), 16)[0].tolist() == [[[1, 2, 3]] * 16] * 16


def test_a_picture_beyond_pillows_limit_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for side in (35, 300):  # Pillow warns about the first and refuses the second
        with pytest.raises(PictureError, match="exceeds limit of") as caught:
            decode(encoded(Image.new("RGB", (side, side))), 16)
        assert caught.value.kind == "too large"
    assert decode(encoded(Image.new("RGB", (30, 30))), 16)[0].shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_cut_and_garbled_files_give_one_kind_of_error(kind):
    random = np.random.default_rng(0)
    whole = encoded(Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)
    with pytest.raises(PictureError) as caught:
        decode(whole[: len(whole) // 3], 16)
    assert caught.value.kind == "unreadable"
    for _ in range(150):
        garbled = np.frombuffer(whole, np.uint8).copy()
        garbled[random.integers(0, len(garbled), 20)] = random.integers(0, 256, 20)
        try:
            assert decode(garbled.tobytes(), 16)[0].shape == (16, 16, 3)
        except PictureError as error:
            assert error.kind in ("unreadable", "too large")


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_picture_is_unreadable(data):
    with pytest.raises(PictureError, match="Error") as caught:
        decode(data, 16)
    assert caught.value.kind == "unreadable"
