"""Pictures of `shapes` as codes without a network: the colour of each quarter, then how each small patch is inked.

Colours stand on a coarse grid and forms on a fine one, as in JPEG's chroma subsampling or the two code maps of VQ-VAE-2
(Razavi et al. 2019). It fits these pictures alone: two things of different colours never share a quarter.
"""

import numpy as np

from minidalle.data.pictures import to_float
from minidalle.data.shapes import BACKGROUND, COLORS

PALETTE = np.array([BACKGROUND, *COLORS.values()], np.float32) / 255  # code 0 is a quarter without ink
QUARTERS = 4
LEAST_INK = 1.0  # of a quarter, summed over pixels and channels: below that it is paper


class ShapeCodes:
    """A codebook for pictures of `shapes`: 8 codes for colours, then one for each form of a patch.

    Args:
        forms: (K, patch · patch) in [0, 1], how much ink each pixel of a patch holds; `ink` gives patches to cluster.
        size: side of the pictures in pixels.

    Raises:
        ValueError: forms are no square patches, or patches and quarters do not divide the side.
    """

    def __init__(self, forms: np.ndarray, size: int):
        self.forms, self.size = np.asarray(forms, np.float32), size
        self.patch = round(self.forms.shape[-1] ** 0.5) if self.forms.ndim == 2 else 0
        if self.patch**2 != self.forms.shape[-1]:
            raise ValueError(f"forms have shape {self.forms.shape}; expected (count, patch · patch)")
        _check_size(size, self.patch)

    @property
    def codebook_size(self) -> int:
        """Codes there are: colours, then forms."""
        return len(PALETTE) + len(self.forms)

    @property
    def code_length(self) -> int:
        """Codes a picture: its quarters', then its patches', both row by row."""
        return QUARTERS + (self.size // self.patch) ** 2

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Codes (N, code_length) int32 of pictures (N, size, size, 3), uint8 or float in [0, 1]: the nearest forms."""
        rows = [self._encode(images[start : start + 256]) for start in range(0, len(images), 256)]
        return np.concatenate(rows)

    def _encode(self, images: np.ndarray) -> np.ndarray:
        colours, patches = ink(images, self.patch)
        if images.shape[1:3] != (self.size, self.size):
            raise ValueError(f"pictures are {images.shape[1]} × {images.shape[2]}; this codebook has side {self.size}")
        # |patch − form|² without |patch|², which is the same for every form
        distances = (self.forms**2).sum(axis=1) - 2 * patches @ self.forms.T
        return np.concatenate([colours, len(PALETTE) + distances.argmin(axis=-1)], axis=1).astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Pictures (N, size, size, 3), float32 in [0, 1], of codes (N, code_length).

        A model may put a form where a colour belongs, or the other way round: both are drawn as paper.

        Raises:
            ValueError: another length, or codes outside of [0, codebook_size).
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.code_length:
            raise ValueError(f"codes have shape {codes.shape}; expected (pictures, {self.code_length})")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(f"codes run from {codes.min()} to {codes.max()}; expected [0, {self.codebook_size})")
        colours, forms = codes[:, :QUARTERS], codes[:, QUARTERS:] - len(PALETTE)
        ink_color = _spread(PALETTE[np.where(colours < len(PALETTE), colours, 0)], self.size)
        patches = np.where(forms[..., None] < 0, 0, self.forms[forms])
        side, patch = self.size // self.patch, self.patch
        share = patches.reshape(-1, side, side, patch, patch).transpose(0, 1, 3, 2, 4)
        return 1 + share.reshape(-1, self.size, self.size, 1).astype(np.float32) * (ink_color - 1)


def ink(images: np.ndarray, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """The colour of each quarter, and how much ink each pixel holds.

    Args:
        images: (N, side, side, 3), uint8 or float in [0, 1].
        patch: side of a patch in pixels.

    Returns:
        Rows of `PALETTE` (N, 4), 0 where a quarter is paper; and shares of ink in [0, 1], (N, patches, patch · patch).

    Raises:
        ValueError: pictures of another shape, or with sides that patches and quarters do not divide.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise ValueError(f"pictures have shape {images.shape}; expected (count, side, side, 3)")
    count, size = images.shape[:2]
    _check_size(size, patch)
    darkness = to_float(images) - 1
    half = size // 2
    total = darkness.reshape(count, 2, half, 2, half, 3).sum(axis=(2, 4)).reshape(count, QUARTERS, 3)
    directions = PALETTE[1:] - 1
    cosines = total @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    colours = np.where(-total.sum(axis=-1) > LEAST_INK, 1 + cosines.argmax(axis=-1), 0)
    full = _spread(PALETTE[colours], size) - 1
    share = np.clip((darkness * full).sum(-1) / np.maximum((full**2).sum(-1), 1e-3), 0, 1)
    side = size // patch
    patches = share.reshape(count, side, patch, side, patch).transpose(0, 1, 3, 2, 4)
    return colours, patches.reshape(count, side * side, patch * patch).astype(np.float32)


def _spread(quarters: np.ndarray, size: int) -> np.ndarray:
    """Colours (N, 4, 3) over the pixels of their quarters, (N, size, size, 3)."""
    half = size // 2
    return quarters.reshape(-1, 2, 2, 3).repeat(half, axis=1).repeat(half, axis=2)


def _check_size(size: int, patch: int) -> None:
    if patch < 1 or size % patch or size % 2:
        raise ValueError(f"pictures have side {size} and patches {patch}; both patches and halves must divide the side")
