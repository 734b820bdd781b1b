"""Any picture file as a square of bytes: turned upright, in RGB, cropped and resized.

Notable:
- transparency is laid on white, 16-bit values are scaled (not cut) to 8, the turn that a camera noted is carried out;
- crop and resize are one step, so that a picture of 1×10,000 pixels cannot grow on the way;
- Pillow's limit on the number of pixels is an error here, not a warning: a small file may unfold to gigabytes;
- it may run in several threads: Pillow decodes and resizes outside of Python's lock.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class PictureError(ValueError):
    """A picture that cannot be used; `kind` is the report's word for why."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def decode(data: bytes, size: int, random: np.random.Generator | None = None) -> tuple[np.ndarray, str | None]:
    """Decodes a picture file to `(size, size, 3)` uint8, and says which mode it was converted from (None: it was RGB).

    The largest square is cut from the centre, or from a place chosen by `random`, and resized with Lanczos' filter.
    Raises `PictureError` with kind "unreadable", or "too large" (beyond `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    try:
        with _quiet(), Image.open(io.BytesIO(data)) as image:
            # Pillow only warns up to twice the limit; a warning could not be made an error for one thread alone.
            pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:
                raise Image.DecompressionBombError(f"a picture of {pixels:,} pixels exceeds limit of {limit:,}")
            return _square(image, size, random)
    except Image.DecompressionBombError as error:
        raise PictureError("too large", f"{error}; shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS") from None
    except UnidentifiedImageError as error:  # its message names an object in memory, another one in each run
        raise PictureError("unreadable", "UnidentifiedImageError: no picture format that Pillow knows") from error
    except Exception as error:  # a broken file may raise anything: OSError, SyntaxError, struct.error, zlib.error
        raise PictureError("unreadable", f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No remarks about odd metadata: what matters is whether a picture decodes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the filters belong to the whole process, so threads would restore each other's
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _square(image: Image.Image, size: int, random: np.random.Generator | None) -> tuple[np.ndarray, str | None]:
    mode = image.mode
    image.draft("RGB", (2 * size, 2 * size))  # lets JPEG skip detail that resizing would throw away
    image.load()
    image = to_rgb(ImageOps.exif_transpose(image))
    side = min(image.size)
    room = np.array(image.size) - side
    left, top = (room / 2 if random is None else random.integers(room + 1)).tolist()
    box = (left, top, left + side, top + side)
    square = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.array(square), None if mode == "RGB" else mode


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a Pillow picture of any mode to RGB: transparency on white, high bit depths scaled to 8 bits."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("La", "RGBa"):  # colours already multiplied by their opacity
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        scale = 255 if values.max(initial=0) <= 1 else 1
        return Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
