"""Every fully-qualified emoji of Unicode 15 as a captioned picture: real artwork, real captions, and it composes.

The pictures are Noto Color Emoji (SIL Open Font License) drawn at 64×64 on white by `emoji_build.py`; the captions are
the CLDR short names (Unicode licence), such as "woman firefighter: medium skin tone". Both licences stand in `noto/`.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
SHEET_COLUMNS = 61
FOLDER = Path(__file__).parent / "noto"
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
HAIR = ("blond hair", "red hair", "curly hair", "white hair", "bald", "beard")
N_VALID, N_TEST = 80, 240
SPLIT_SEED = 2021


@dataclass(frozen=True)
class Parts:
    """What a caption is composed of: "woman: dark skin tone, red hair" is role "woman", tones ("dark",), hair "red hair"."""

    role: str
    tones: tuple[str, ...]
    hair: str


def parse(caption: str) -> Parts:
    """Split a CLDR short name into role, skin tones (two for couples) and hair ("" where none is named)."""
    head, _, tail = caption.partition(": ")
    rest, tones, hair = [], [], ""
    for part in tail.split(", ") if tail else []:
        if part.endswith(" skin tone"):
            tones.append(part.removesuffix(" skin tone"))
        elif part in HAIR:
            hair = part
        else:
            rest.append(part)
    return Parts(f"{head}: {', '.join(rest)}" if rest else head, tuple(tones), hair)


@dataclass(frozen=True)
class EmojiData:
    """The whole collection, in Unicode's order.

    Attributes:
        images: `(3655, 64, 64, 3)` uint8, on white.
        captions: the CLDR short name of each.
        sequences: the emoji itself, as a string of code points.
        groups: Unicode's group of each ("People & Body", "Flags", …).
    """

    images: np.ndarray
    captions: list[str]
    sequences: list[str]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    @functools.cached_property
    def parts(self) -> list[Parts]:
        """Role, tones and hair of every caption."""
        return [parse(caption) for caption in self.captions]

    def split(self, name: str) -> np.ndarray:
        """Return the sorted indices of a split: "train", "valid", "test" or "all".

        "valid" (80) and "test" (240) are whole combinations that training never sees, each of whose parts it does see:
        the role in other tones, and the tone (and hair) on other roles. Recipes are tuned on "valid"; only "test" is reported.
        """
        if name == "all":
            return np.arange(len(self))
        if name not in ("train", "valid", "test"):
            raise ValueError(f"unknown split {name!r}; choose one of train, valid, test, all")
        held_out = self._held_out
        if name == "train":
            return np.setdiff1d(np.arange(len(self)), held_out)
        return np.sort(held_out[:N_VALID] if name == "valid" else held_out[N_VALID:])

    @functools.cached_property
    def _held_out(self) -> np.ndarray:
        """Indices of the held-out combinations in a fixed random order, at most a fifth of the tones of any role."""
        roles: dict[tuple[str, str], list[int]] = {}
        for index, parts in enumerate(self.parts):
            if parts.tones:
                roles.setdefault((parts.role, parts.hair), []).append(index)
        twins = self._twins
        generator = np.random.default_rng(SPLIT_SEED)
        candidates = []
        for members in roles.values():
            shuffled = generator.permutation(members)
            # A combination whose very picture stands under another name too ("person" and "man") would not be unseen.
            unique = [index for index in shuffled if index not in twins]
            candidates += unique[: len(members) // 5]
        return generator.permutation(np.array(candidates))[: N_VALID + N_TEST]

    @functools.cached_property
    def _twins(self) -> set[int]:
        """Indices of toned pictures that (nearly) coincide with the picture of another caption."""
        toned = np.array([index for index, parts in enumerate(self.parts) if parts.tones])
        small = self.images[toned].reshape(len(toned), 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(toned), -1) / 255
        squares = (small**2).sum(1)
        distances = squares[:, None] + squares[None] - 2 * small @ small.T
        np.fill_diagonal(distances, np.inf)
        return set(toned[distances.min(1) / small.shape[1] < 1e-4].tolist())


@functools.cache
def load() -> EmojiData:
    """Read the shipped sheet and names; about 0.3 s, kept for the next call."""
    rows = [line.split("\t") for line in (FOLDER / "names.tsv").read_text(encoding="utf8").splitlines()]
    with Image.open(FOLDER / "sheet.avif") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    lines = pixels.shape[0] // SIZE
    tiles = pixels.reshape(lines, SIZE, SHEET_COLUMNS, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
    images = np.ascontiguousarray(tiles[: len(rows)])
    images.flags.writeable = False
    sequences = ["".join(chr(int(point, 16)) for point in points.split()) for points, _, _ in rows]
    return EmojiData(images, [row[1] for row in rows], sequences, [row[2] for row in rows])


def faces_left_or_right(caption: str) -> bool:
    """Tell whether a caption names a side, so that mirroring the picture would make it untrue."""
    return re.search(r"\b(left|right|clockwise|counterclockwise)\b|wards\b", caption) is not None
