"""Attention that can be read: maps over the picture, and a viewer to click through code by code."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb

from minidalle.data.pictures import to_float, to_uint8
from minidalle.show.codes import square
from minidalle.show.fragment import Fragment, data_uri, escape, fragment
from minidalle.show.style import INK, PALETTE, WIDTH, Picture, add_title, new_figure, styled

__all__ = ["attention_maps", "attention_viewer"]


@styled
def attention_maps(
    image, weights, words: Sequence[str], *, columns: int = 4, size: float = 1.7, title: str = ""
) -> Picture:
    """Which codes look at each word: one pale picture a word, its cells coloured by their weight on that word.

    image: `(height, width, 3)`. weights: `(code_length, words)`, each column drawn on its own scale from 0 to its largest
    value, which is written below with the mean; the codes are a square map.
    """
    weights = np.asarray(weights, float)
    if weights.ndim != 2 or weights.shape[1] != len(words):
        raise ValueError(f"weights have shape {weights.shape} for {len(words)} words; give (code_length, words)")
    if weights.min() < 0 or not np.isfinite(weights).all():
        raise ValueError("weights must be finite and not negative; give what the softmax gave")
    columns = min(columns, len(words))
    rows, cell = -(-len(words) // columns), min(size, WIDTH / columns - 0.1)
    figure, axes = new_figure(columns * (cell + 0.1), rows * (cell + 0.72) + (0.35 if title else 0), rows, columns)
    grey = to_float(to_uint8(image)) @ (0.299, 0.587, 0.114)
    pale = np.repeat(1 - 0.55 * (1 - grey[..., None]), 3, axis=-1)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, column, word in zip(axes.flat, weights.T, words, strict=False):
        cells = square(np.arange(len(column)))
        share = (column / max(column.max(), 1e-12))[cells]
        strength = 0.85 * share.repeat(grey.shape[0] // len(cells), 0).repeat(grey.shape[1] // cells.shape[1], 1)
        strength = strength[..., None]
        axis.imshow(pale * (1 - strength) + np.array(to_rgb(PALETTE[1])) * strength, interpolation="nearest")
        axis.set_title(word.replace("$", r"\$"), loc="center", fontsize=11)
        below = f"mean {column.mean():.0%}\nmost {column.max():.0%}"
        axis.text(0.5, -0.03, below, transform=axis.transAxes, ha="center", va="top", fontsize=10, color=INK)
    add_title(figure, title)
    return figure


def attention_viewer(
    image,
    words: Sequence[str],
    views: Mapping[str, tuple[object, object]],
    *,
    start: int | None = None,
) -> Fragment:
    """Choose a code and see what the decoder looked at before it was written: words, and the codes so far.

    image: the finished picture `(height, width, 3)`. words: one for each token of the caption.
    views: name → `(cross, own)` for each layer, head or mean that can be chosen: `cross (code_length, words)`, and
    `own (code_length, code_length)` with the start token as its first column and code j - 1 as column j; each row sums
    to 1. start: the code chosen at first, by default one in the middle.
    Everything is inside the page, about `code_length² + 2 · code_length · words` bytes for each view.
    """
    views = {name: _checked(name, view, len(words)) for name, view in views.items()}
    if not views:
        raise ValueError("the viewer got no views; give a mapping from a name to (cross, own) weights")
    lengths = {len(cross) for cross, _ in views.values()}
    if len(lengths) > 1:
        raise ValueError(f"the views differ in length: {sorted(lengths)}; all must be of one picture")
    length = lengths.pop()
    rows, columns = square(np.arange(length)).shape
    start = length // 2 + columns // 2 if start is None else start
    if not 0 <= start < length:
        raise ValueError(f"start is {start}; the picture has codes 0 to {length - 1}")
    data = {
        "rows": rows, "columns": columns, "start": start, "words": list(words),
        "views": [
            {
                "name": name,
                "cross": _thousandths(cross).tolist(),
                "own": [row[: index + 1].tolist() for index, row in enumerate(_thousandths(own))],
            }
            for name, (cross, own) in views.items()
        ],
    }  # fmt: skip
    return fragment("attention", _body(image, data), data, "Attention: choose a code and see what it looks at")


def _checked(name: str, view: tuple, words: int) -> tuple[np.ndarray, np.ndarray]:
    cross, own = (np.asarray(weights, float) for weights in view)
    if cross.ndim != 2 or cross.shape[1] != words or own.shape != (len(cross), len(cross)):
        raise ValueError(
            f"view {name!r} has shapes {cross.shape} and {own.shape} for {words} words; "
            "give (code_length, words) and (code_length, code_length)"
        )
    for what, weights in (("cross", cross), ("own", own)):
        if weights.min() < 0 or np.abs(weights.sum(-1) - 1).max() > 1e-2:
            raise ValueError(f"the {what} weights of view {name!r} do not sum to 1 in each row; leave no token out")
    if np.triu(own, 1).max() > 0:
        raise ValueError(f"the own weights of view {name!r} look ahead; column j must be code j - 1")
    return cross, own


def _thousandths(weights: np.ndarray) -> np.ndarray:
    return np.round(weights * 1000).astype(int)


def _body(image, data: dict) -> str:
    """The markup at its start: without the script the words of the first code chosen are there already."""
    start, columns = data["start"], data["columns"]
    chosen = data["views"][0]["cross"][start]
    options = "".join(f'<option value="{i}">{escape(view["name"])}</option>' for i, view in enumerate(data["views"]))
    cells = "".join(
        f'<button type="button" role="radio" aria-checked="{str(index == start).lower()}" tabindex="-1"'
        f' aria-label="row {index // columns + 1}, column {index % columns + 1}"></button>'
        for index in range(data["rows"] * columns)
    )
    words = "".join(
        f'<li><span>{escape(word)}</span><span class="bar" style="width:{share / 10:g}%"></span>'
        f"<output>{share / 10:.0f} %</output></li>"
        for word, share in zip([*data["words"]], chosen, strict=True)
    )
    return (
        f'<div class="controls" hidden><label class="wide">Layer <select>{options}</select></label></div>\n'
        '<div class="panels looks">'
        '<figure><figcaption>Codes so far</figcaption><div class="stage">'
        f'<img src="{data_uri(image, 100)}" alt="The picture whose codes are written">'
        f'<div class="cells over" role="radiogroup" aria-label="The code to be written, arrow keys move"'
        f' style="grid-template-columns:repeat({columns},1fr)">{cells}</div></div></figure>'
        f'<figure><figcaption>Words of the caption</figcaption><ul class="weights">{words}</ul></figure>'
        "</div>\n"
        f'<p class="status" role="status">Row {start // columns + 1}, column {start % columns + 1}</p>'
    )
