"""Coloured shapes in relation, drawn on the fly, and an oracle that reads a picture back into its caption.

Notable:
- a caption is "a red circle" or "a red circle above a blue square": 7 colours, 6 shapes, 4 relations, 6,930 captions;
- a picture follows from (caption, size, seed) alone: place and extent vary with the seed, everything else is said;
- six colour-and-shape combinations never appear in the split "train", though each colour and each shape does;
- the oracle works by synthesis: it finds the things, draws its best guess, and says None ("cannot tell") unless that
  drawing explains the picture. It may therefore grade pictures that a model has made.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage  # comes with JAX, and labels connected regions in one fast call

from minidalle.data.pictures import to_float

COLORS = {
    "red": (222, 40, 45),
    "orange": (250, 140, 25),
    "yellow": (250, 218, 40),
    "green": (40, 160, 75),
    "blue": (40, 95, 220),
    "purple": (140, 65, 180),
    "black": (30, 30, 32),
}
BACKGROUND = (255, 255, 255)
OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
RELATIONS = tuple(OPPOSITE)

# Each shape is a polygon around its own centre of mass, y downwards, in units of the thing's radius.
_TURN = np.linspace(0, 2 * np.pi, 64, endpoint=False)
_FIVE = np.linspace(0, 2 * np.pi, 10, endpoint=False)
_STAR_RADIUS = np.where(np.arange(10) % 2 == 0, 1.15, 0.48)
_ARM = 0.36
SHAPES = {
    "circle": np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1),
    "square": np.array([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
    "triangle": np.array([(0, -1.1), (1.02, 0.55), (-1.02, 0.55)]),
    "diamond": np.array([(0, -1.15), (0.8, 0), (0, 1.15), (-0.8, 0)]),
    "star": np.stack([_STAR_RADIUS * np.sin(_FIVE), -_STAR_RADIUS * np.cos(_FIVE)], axis=-1),
    "cross": np.array(
        [(-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)]
        + [(_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)]
    ),
}
SMALLEST = 16  # pixels: below this a star is a blot

HELD_OUT = (
    ("red", "star"),
    ("orange", "diamond"),
    ("yellow", "square"),
    ("green", "triangle"),
    ("blue", "cross"),
    ("purple", "circle"),
)


@dataclass(frozen=True)
class Thing:
    """One coloured shape: `color` from `COLORS`, `shape` from `SHAPES`."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{'an' if self.color[0] in 'aeiou' else 'a'} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a caption says: one thing, or a `first` that stands in `relation` to a `second`."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None

    @property
    def caption(self) -> str:
        return str(self.first) if self.second is None else f"{self.first} {self.relation} {self.second}"

    @property
    def held_out(self) -> bool:
        return any((thing.color, thing.shape) in HELD_OUT for thing in (self.first, self.second) if thing)

    def canonical(self) -> "Scene":
        """The same scene in the words of the oracle: the upper or left thing first."""
        if self.relation in ("below", "right of"):
            return Scene(self.second, OPPOSITE[self.relation], self.first)
        return self


@cache
def _scenes_of(split: str) -> tuple[Scene, ...]:
    if split not in ("train", "test", "all"):
        raise ValueError(f"split is {split!r}; expected 'train', 'test' or 'all'")
    things = [Thing(*words) for words in product(COLORS, SHAPES)]
    pairs = [Scene(*words) for words in product(things, RELATIONS, things) if words[0] != words[2]]
    every = [Scene(thing) for thing in things] + pairs
    return tuple(scene for scene in every if split == "all" or scene.held_out == (split == "test"))


def all_captions(split: str = "all") -> list[str]:
    """Every caption of a split, in a fixed order: "all", "test" (with a held-out combination), "train" (without)."""
    return [scene.caption for scene in _scenes_of(split)]


@cache
def _scene_by_caption() -> dict[str, Scene]:
    return {scene.caption: scene for scene in _scenes_of("all")}


def parse(caption: str) -> Scene:
    """Reads a caption's words; raises `ValueError`, with an example, for a caption that is not in `all_captions()`."""
    found = _scene_by_caption().get(" ".join(caption.split()).lower())
    if found is None:
        raise ValueError(
            f"cannot draw {caption[:80]!r}; expected a caption such as 'a red circle above a blue square', "
            f"with colours {', '.join(COLORS)}, shapes {', '.join(SHAPES)}, relations {', '.join(RELATIONS)}"
        )
    return found


def draw(caption: str, size: int = 64, seed: int | list[int] = 0) -> np.ndarray:
    """Draws a caption as `(size, size, 3)` uint8 on white, edges anti-aliased; the seed gives the places and extents.

    Raises `ValueError` for a caption that `parse` refuses and for `size` below 16.
    """
    if size < SMALLEST:
        raise ValueError(f"size is {size}; shapes can be told apart from {SMALLEST} pixels on")
    scene = parse(caption)
    random = np.random.default_rng(seed)
    image = np.full((size, size, 3), BACKGROUND, dtype=np.float64)
    for thing, center, radius in _place(scene, random):
        coverage = _coverage(thing.shape, np.array(center) * size, radius * size, (size, size))[..., None]
        image += coverage * (np.array(COLORS[thing.color]) - image)
    return np.rint(image).astype(np.uint8)


def scene(seed: int | list[int], size: int = 64, split: str = "all") -> tuple[np.ndarray, str]:
    """Draws a caption of the split chosen by the seed: `(image, caption)`; one caption in ten is a single thing."""
    random = np.random.default_rng(seed)
    scenes = _scenes_of(split)
    singles = sum(found.second is None for found in scenes)
    first, last = (0, singles) if random.random() < 0.1 else (singles, len(scenes))
    caption = scenes[random.integers(first, last)].caption
    return draw(caption, size, [int(number) for number in random.integers(2**32, size=2)]), caption


def scenes(count: int, size: int = 64, seed: int = 0, split: str = "train") -> tuple[np.ndarray, list[str]]:
    """Draws `count` scenes: images `(count, size, size, 3)` uint8 and their captions; scene i follows from (seed, i)."""
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one scene")
    images, captions = zip(*(scene([seed, index], size, split) for index in range(count)), strict=True)
    return np.stack(images), list(captions)


def _place(scene: Scene, random: np.random.Generator) -> list[tuple[Thing, tuple[float, float], float]]:
    """Gives each thing its centre (x, y) and radius as fractions of the picture, with a gap between two things."""
    if scene.second is None:
        return [(scene.first, tuple(random.uniform(0.4, 0.6, 2)), random.uniform(0.2, 0.33))]
    scene = scene.canonical()
    placed = []
    for thing, along in ((scene.first, 0.25), (scene.second, 0.75)):
        center = (random.uniform(0.34, 0.66), along + random.uniform(-0.03, 0.03))
        placed.append((thing, center if scene.relation == "above" else center[::-1], random.uniform(0.14, 0.18)))
    return placed


def _coverage(shape: str, center: np.ndarray, radius: float, extent: tuple[int, int]) -> np.ndarray:
    """How much of each pixel the shape covers, `(height, width)` in [0, 1]; centre (x, y) and radius in pixels."""
    height, width = extent
    fine = 8 if max(extent) <= 64 else 4
    mask = Image.new("L", (width * fine, height * fine))
    corners = (np.asarray(center) + radius * SHAPES[shape]) * fine - 0.5  # Pillow counts from pixel centres
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], fill=255)
    return np.asarray(mask.reduce(fine), dtype=np.float64) / 255


# The oracle. Distances between colours are Euclidean in RGB, 0 to 441.

LARGEST_TINT = 60  # the paper may be this far from white
LARGEST_COLOR_SHIFT = 60  # and a thing this far from its named colour
LARGEST_UNEVEN_PART = 0.25  # of its pixels that may be further than that from its colour
SMALLEST_AREA = 0.008  # of the picture; smaller patches are dirt
LARGEST_AREA = 0.6
LEAST_OVERLAP = 0.72  # intersection over union of a thing with its shape
LEAST_LEAD = 0.04  # by which it beats the next shape
LEAST_EXPLAINED = 0.9  # of the squared difference from paper
SOFTNESS = (0, 1 / 64, 1 / 32)  # of edges, as the standard deviation of a blur, in heights of the picture
LARGEST_GRAIN = 40  # standard deviation of noise that is forgiven


def read(image: np.ndarray) -> str | None:
    """Reads a picture back into its caption, or None: "cannot tell".

    `image` is `(height, width, 3)`, uint8 or float in [0, 1], from 16 pixels on. Since "a red circle above a blue square"
    and "a blue square below a red circle" are the same picture, the answer always uses "above" and "left of"; compare
    with `agrees`. Raises `ValueError` for an array of another shape or range.
    """
    pixels = _pixels(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = np.median(border, axis=0)
    if np.linalg.norm(paper - BACKGROUND) > LARGEST_TINT:
        return None
    patches = _patches(pixels, paper)
    if not 1 <= len(patches) <= 2:
        return None
    for softness in SOFTNESS:
        found = _synthesise(pixels, paper, patches, softness * pixels.shape[0])
        if found:
            return _say(found)
    return None


def agrees(image: np.ndarray, caption: str) -> bool:
    """Whether the oracle reads the picture as what the caption says, in whichever words; False where it cannot tell."""
    return read(image) == parse(caption).canonical().caption


def _pixels(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"the picture has shape {image.shape}; expected (height, width, 3) from {SMALLEST} pixels on")
    return to_float(image).astype(np.float64) * 255


def _mixture(pixels: np.ndarray, paper: np.ndarray, color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Explains each pixel as paper mixed with a colour: the colour's share in [0, 1], and how far off that is."""
    direction = np.asarray(color, dtype=np.float64) - paper
    share = np.clip((pixels - paper) @ direction / (direction @ direction), 0, 1)
    return share, np.linalg.norm(pixels - paper - share[..., None] * direction, axis=-1)


def _patches(pixels: np.ndarray, paper: np.ndarray) -> list[np.ndarray]:
    """Connected patches of one colour, large enough to be things: masks `(height, width)`, largest first."""
    shares, errors = np.stack([_mixture(pixels, paper, np.array(color)) for color in COLORS.values()], axis=1)
    nearest = errors.argmin(axis=0)
    inked = np.take_along_axis(shares, nearest[None], axis=0)[0] > 0.5
    patches = []
    for index in range(len(COLORS)):
        labels, count = ndimage.label(inked & (nearest == index))
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        patches += [labels == label for label in range(1, count + 1) if areas[label] > SMALLEST_AREA * labels.size]
    return sorted(patches, key=np.count_nonzero, reverse=True)


def _synthesise(
    pixels: np.ndarray, paper: np.ndarray, patches: list[np.ndarray], blur: float
) -> list[tuple[Thing, np.ndarray]] | None:
    """Names the thing and centre of each patch, where things drawn with that much blur (in pixels) explain the picture."""
    guess = np.broadcast_to(paper, pixels.shape).copy()
    found = []
    for patch in patches:
        others = sum((other for other in patches if other is not patch), np.zeros_like(patch))
        recognised = _recognise(pixels, paper, patch, others, blur)
        if recognised is None:
            return None
        thing, center, coverage, color = recognised
        guess += coverage[..., None] * (color - guess)
        found.append((thing, center))
    return found if _explained(pixels, guess, paper) >= LEAST_EXPLAINED else None


def _recognise(
    pixels: np.ndarray, paper: np.ndarray, patch: np.ndarray, others: np.ndarray, blur: float
) -> tuple[Thing, np.ndarray, np.ndarray, np.ndarray] | None:
    """Names one patch: the thing, its centre, its coverage if drawn, its colour as found; None where nothing fits well."""
    if patch.mean() > LARGEST_AREA:
        return None
    core = ndimage.binary_erosion(patch)
    inside = pixels[core if core.sum() >= 4 else patch]
    color = np.median(inside, axis=0)
    shifts = {name: np.linalg.norm(color - named) for name, named in COLORS.items()}
    name = min(shifts, key=shifts.get)
    if shifts[name] > LARGEST_COLOR_SHIFT:
        return None
    uneven = np.mean(np.linalg.norm(inside - color, axis=-1) > LARGEST_COLOR_SHIFT)
    if core.sum() >= 16 and uneven > LARGEST_UNEVEN_PART:  # below that even the core is made of edges
        return None
    reach = max(2, round(2 * blur), patch.shape[0] // 32)
    near = ndimage.binary_dilation(patch, iterations=reach) & ~ndimage.binary_dilation(others)
    share, _ = _mixture(pixels, paper, color)
    share = np.where(near, np.clip((share - 0.1) / 0.8, 0, 1), 0)  # cut off the noise of paper and ink
    area = share.sum()
    rows, columns = np.indices(patch.shape) + 0.5
    center = np.array([(share * columns).sum(), (share * rows).sum()]) / area
    drawn = {shape: _coverage(shape, center, np.sqrt(area / _area(shape)), patch.shape) for shape in SHAPES}
    if blur:
        drawn = {shape: ndimage.gaussian_filter(mask, blur) for shape, mask in drawn.items()}
    overlap = {shape: np.minimum(share, mask).sum() / np.maximum(share, mask).sum() for shape, mask in drawn.items()}
    best, second = sorted(overlap, key=overlap.get, reverse=True)[:2]
    if overlap[best] < LEAST_OVERLAP or overlap[best] - overlap[second] < LEAST_LEAD:
        return None
    return Thing(name, best), center, drawn[best], color


@cache
def _area(shape: str) -> float:
    """The area of a shape of radius 1, by the shoelace formula."""
    x, y = SHAPES[shape].T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _explained(pixels: np.ndarray, guess: np.ndarray, paper: np.ndarray) -> float:
    """Which part of the squared difference from paper a guess accounts for, even grain over the whole picture aside."""
    left, whole = ((pixels - against) ** 2 for against in (guess, paper))
    grain = min(np.median(left) / 0.455, LARGEST_GRAIN**2)  # 0.455 is the median of the square of a standard normal
    return 1 - max((left - grain).mean(), 0) / max((whole - grain).mean(), 1e-9)


def _say(found: list[tuple[Thing, np.ndarray]]) -> str | None:
    """Puts recognised things into words, or gives None where two stand askew or are the same thing twice."""
    if len(found) == 1:
        return str(found[0][0])
    (one, here), (two, there) = found
    across, down = there - here
    if one == two or max(abs(across), abs(down)) < 1.1 * min(abs(across), abs(down)):
        return None
    relation = (
        ("left of" if across > 0 else "right of") if abs(across) > abs(down) else "above" if down > 0 else "below"
    )
    return Scene(one, relation, two).canonical().caption
