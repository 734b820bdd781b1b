"""Pictures side by side, each pixel crisp."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from minidalle.data.pictures import choose_columns, to_uint8
from minidalle.show.style import FAINT, INK, WIDTH, Picture, add_title, new_figure, styled

__all__ = ["compare", "grid"]


@styled
def grid(
    images,
    captions: Sequence[str] | None = None,
    scores=None,
    columns: int | None = None,
    size: float = 1.3,
    title: str | None = None,
) -> Picture:
    """Pictures row by row, with a caption and a score below each where given.

    images: `(count, height, width, 3)`, uint8 or float in [0, 1], or a list of pictures of any sizes.
    captions: one for each picture. scores: `(count,)`, shown with two digits.
    size: height of a picture in inches; it shrinks where a row would be wider than the page.
    Raises ValueError when captions or scores do not match the pictures in number.
    """
    pictures = _pictures(images)
    captions = _matching(captions, len(pictures), "captions")
    scores = _matching(scores, len(pictures), "scores")
    columns = choose_columns(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    widest = max((len(word) for caption in captions or [] for word in str(caption).split()), default=0)
    cell = min(size, max(WIDTH / columns - 0.06, min(0.075 * widest, 7.5 / columns)))
    labels = [_label(index, captions, scores, cell) for index in range(len(pictures))]
    lines = max(label.count("\n") + 1 if label else 0 for label in labels)
    height = rows * (cell + 0.19 * lines + 0.06) + (0.35 if title else 0)
    figure, axes = new_figure(columns * (cell + 0.06), height, rows, columns)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    _sharpen(figure)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, label in zip(axes.flat, pictures, labels, strict=False):
        axis.imshow(picture, interpolation="nearest")
        if label:
            axis.text(0.5, -0.04, label, transform=axis.transAxes, ha="center", va="top", fontsize=10, color=INK)
    add_title(figure, _plain(title))
    return figure


@styled
def compare(
    rows: Mapping[str, object], captions: Sequence[str] | None = None, size: float = 0.95, framed: bool = False
) -> Picture:
    """Rows of pictures under each other, one label for each row: originals, reconstructions, and so on.

    rows: label → `(count, height, width, 3)`; every row holds the same number of pictures, sizes may differ by row.
    captions: one for each column, above the first row. framed: a thin line around each, where some are white.
    size: height of a picture in inches; it shrinks where a row would be wider than the page. Labels that would leave the
    pictures too little room stand above their rows, not beside them.
    """
    if not rows:
        raise ValueError("compare got no rows; give a mapping from label to pictures")
    drawn = {label: _pictures(images) for label, images in rows.items()}
    counts = {label: len(pictures) for label, pictures in drawn.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"rows differ in length: {counts}; show the same pictures in every row")
    count = next(iter(counts.values()))
    captions = _matching(captions, count, "captions")
    labels = [_plain(textwrap.fill(str(label), 16)) for label in drawn]
    margin = 0.085 * max(len(line) for label in labels for line in label.split("\n")) + 0.15
    above = captions is None and min(size, (WIDTH - margin) / count) < min(size, 0.53)
    if above:
        labels, margin = [_plain(str(label)) for label in drawn], 0
    cell = min(size, (WIDTH - margin) / count - 0.05)
    heading = 0.19 * max((_wrapped(caption, cell).count("\n") + 1 for caption in captions or []), default=0)
    height = len(drawn) * (cell + 0.05 + 0.22 * above) + heading
    figure, axes = new_figure(count * (cell + 0.05) + margin, height, len(drawn), count)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    _sharpen(figure)
    for row, (label, pictures) in zip(axes, zip(labels, drawn.values(), strict=True), strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set(visible=framed, linewidth=0.6)
        if above:
            row[0].set_title(" ", fontsize=10, pad=3)  # keeps the height of a line free, but not the label's width
            place = {"xycoords": "axes fraction", "xytext": (0, 3), "textcoords": "offset points"}
            row[0].annotate(label, (0, 1), **place, fontsize=10, color=INK).set_in_layout(False)
        else:
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10, labelpad=6)
    for axis, caption in zip(axes[0], captions or [], strict=False):
        axis.set_title(_wrapped(caption, cell), fontsize=9, fontweight="normal", loc="center", color=FAINT, pad=3)
    return figure


def _sharpen(figure: Picture) -> None:
    # many pictures in a row are small; each needs more dots than it has pixels
    if figure.get_figwidth() > 4.5:
        figure.set_dpi(220)


def _pictures(images) -> list[np.ndarray]:
    pictures = [to_uint8(image) for image in images]
    if not pictures:
        raise ValueError("there are no pictures to show; give at least one")
    if pictures[0].ndim != 3:
        raise ValueError(f"each picture should be (height, width, 3), got {pictures[0].shape}")
    return pictures


def _matching(values, count: int, name: str):
    if values is None:
        return None
    values = [values] if isinstance(values, str) else list(values)
    if len(values) != count:
        raise ValueError(f"{len(values)} {name} for {count} pictures; give one for each or none")
    return values


def _plain(text: str | None) -> str | None:
    # matplotlib would read what stands between two dollars as a formula
    return None if text is None else text.replace("$", r"\$")


def _wrapped(text: str, inches: float) -> str:
    lines = textwrap.wrap(str(text), max(8, int(inches * 13)), max_lines=4, placeholder=" …", break_long_words=False)
    return _plain("\n".join(lines))


def _label(index: int, captions, scores, inches: float) -> str:
    lines = []
    if captions is not None:
        lines.append(_wrapped(captions[index], 0.9 * inches))  # its letters are a tenth larger than a row's heading
    if scores is not None:
        lines.append(f"{float(scores[index]):.2f}")
    return "\n".join(lines)
