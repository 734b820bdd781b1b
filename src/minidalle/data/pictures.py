"""Pictures as arrays: one range check, one rounding rule, one contact sheet.

Everything that shows or stores pictures goes through here, so that a picture looks the same in a chapter, in the
file that `minidalle generate` writes, and in a test.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from minidalle.files import replacing

WHITE = (255, 255, 255)


def to_uint8(images) -> np.ndarray:
    """Pictures as bytes, `round(255 · x)`.

    images: `(…, height, width, 3)`, uint8 or float in [0, 1]; NumPy, JAX or PyTorch. Floats a little outside the range
    (a decoder overshoots) are cut to it. A grey picture `(height, width)` becomes three equal channels.
    Raises ValueError for NaN, for floats that look like 0–255, and for PyTorch's channels-first layout.
    """
    array = _as_array(images)
    if array.dtype == np.uint8:
        return array
    if np.issubdtype(array.dtype, np.floating):
        return np.round(_checked(array) * 255).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    raise ValueError(f"pictures have dtype {array.dtype}; give uint8 in 0–255 or floats in [0, 1]")


def to_float(images) -> np.ndarray:
    """Pictures as float32 in [0, 1]; shapes and errors as `to_uint8`, of which it is the inverse on bytes."""
    array = _as_array(images)
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if np.issubdtype(array.dtype, np.floating):
        return _checked(array)
    if array.dtype == bool:
        return array.astype(np.float32)
    raise ValueError(f"pictures have dtype {array.dtype}; give uint8 in 0–255 or floats in [0, 1]")


def contact_sheet(
    images, columns: int | None = None, *, scale: int = 1, gap: int = 2, background: tuple[int, int, int] = WHITE
) -> Image.Image:
    """Several pictures laid out row by row on one sheet.

    images: `(count, height, width, 3)` (or one picture), as `to_uint8` takes them.
    columns: pictures in a row; by default all in one row up to 8, otherwise nearly square.
    scale: each pixel becomes a block of `scale × scale`. gap: pixels between pictures, none around them.
    Returns an RGB `PIL.Image` of `columns·(width·scale + gap) − gap` by `rows·(height·scale + gap) − gap`.
    """
    pictures = to_uint8(images)
    if pictures.ndim == 3:
        pictures = pictures[None]
    if pictures.ndim != 4 or len(pictures) == 0:
        raise ValueError(f"got pictures of shape {pictures.shape}; give at least one, as (count, height, width, 3)")
    if scale < 1 or gap < 0:
        raise ValueError(f"scale {scale} and gap {gap} must be at least 1 and 0")
    pictures = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = pictures.shape
    columns = choose_columns(count, columns)
    rows = math.ceil(count / columns)
    sheet = np.empty((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    sheet[:] = np.asarray(background, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


def choose_columns(count: int, columns: int | None = None) -> int:
    """The number of columns for `count` pictures: as asked, else one row up to 8 and a near square beyond."""
    if columns is None:
        columns = count if count <= 8 else math.ceil(math.sqrt(count))
    if columns < 1:
        raise ValueError(f"columns={columns}; a sheet needs at least 1")
    return min(columns, count)


def save_grid(path: str | Path, images, columns: int | None = None, *, scale: int = 1, gap: int = 2) -> Path:
    """Write a contact sheet of `images` to `path` and return the path; the suffix names the format (PNG, WebP, JPEG).

    The file appears whole or not at all: it is written beside its place and then moved there.
    Raises OSError when the place cannot be written, ValueError when the suffix names no picture format.
    """
    path = Path(path)
    sheet = contact_sheet(images, columns, scale=scale, gap=gap)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path.name!r} does not end like a picture; use .png, .webp or .jpg")
    try:
        with replacing(path) as temporary:
            sheet.save(temporary, format=kind)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; choose a place you may write to") from error
    return path


def _as_array(images) -> np.ndarray:
    if isinstance(images, Image.Image):
        images = images.convert("RGB")
    if hasattr(images, "detach"):  # a PyTorch tensor may carry a graph and live on a GPU
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if isinstance(images, (list, tuple)):
        images = _stacked(images)
    array = np.asarray(images)
    if array.dtype.kind == "V" or array.dtype.name == "bfloat16":  # NumPy knows JAX's bfloat16 only as an extension
        array = array.astype(np.float32)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim < 3 or array.shape[-1] != 3:
        hint = ""
        if array.ndim >= 3 and array.shape[-3] == 3:
            hint = "; this looks like PyTorch's channels first, so move them last with .movedim(-3, -1)"
        raise ValueError(f"pictures have shape {array.shape}, expected (…, height, width, 3){hint}")
    return array


def _stacked(images: list | tuple) -> np.ndarray:
    arrays = [_as_array(image) for image in images]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ValueError(f"the pictures differ in shape: {', '.join(map(str, shapes))}; resize them to one size first")
    if len({array.dtype for array in arrays}) > 1:
        arrays = [to_float(array) for array in arrays]
    return np.stack(arrays) if arrays else np.zeros((0, 1, 1, 3), np.uint8)


def _checked(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("the pictures hold NaN or infinity; look at the step that made them")
    if array.size and array.max() > 16:
        raise ValueError(f"float pictures reach {array.max():.0f}; give floats in [0, 1] or convert 0–255 to uint8")
    return array.clip(0, 1)
