"""What codes look like: maps of codes, palettes, Voronoi cells, receptive fields, ladders of scales."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm, hsv_to_rgb, to_rgb
from matplotlib.patches import Rectangle

from minidalle.data.pictures import to_float, to_uint8
from minidalle.show.style import FAINT, INK, PALETTE, WIDTH, Picture, add_title, new_figure, styled

__all__ = ["code_colours", "code_map", "ladder", "overlay", "palette", "receptive_field", "voronoi"]


def code_colours(codes) -> np.ndarray:
    """A light colour for every code, the same in every figure: `codes (…)` → `(…, 3)` uint8, dark text reads on all.

    Neighbouring indices get distant hues (the golden angle), since neighbours in a codebook have nothing in common.
    """
    codes = np.asarray(codes, np.int64)
    hue = (codes * 0.61803398875) % 1.0
    saturation = 0.20 + 0.20 * ((codes * 0.7548776662) % 1.0)
    return np.round(hsv_to_rgb(np.stack([hue, saturation, np.full(hue.shape, 0.97)], -1)) * 255).astype(np.uint8)


def square(codes, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Codes `(code_length,)` or `(height, width)` as a map `(height, width)`, square unless `shape` says otherwise."""
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes have dtype {codes.dtype}; give integer indices into the codebook")
    if codes.ndim == 2 and shape is None and 1 not in codes.shape:
        return codes
    codes = codes.ravel()
    if shape is None:
        side = int(round(len(codes) ** 0.5))
        shape = (side, side)
    if shape[0] * shape[1] != len(codes):
        raise ValueError(f"{len(codes)} codes do not fill {shape[0]} × {shape[1]}; give shape=(height, width)")
    return codes.reshape(shape)


@styled
def code_map(
    codes, shape: tuple[int, int] | None = None, image=None, *, labels: bool | None = None, title: str = ""
) -> Picture:
    """The grid of codes of one picture, equal codes in equal colours; beside the picture when it is given.

    codes: `(code_length,)` or `(height, width)` integers. image: `(height, width, 3)`, drawn with the same grid.
    labels: write the indices into the cells, by default where they can be read.
    """
    codes = square(codes, shape)
    height, width = codes.shape
    panels = 1 if image is None else 2
    side = 3.6 if image is None else WIDTH / 2
    # points that fit into a cell
    size = min(11.0, (side - 0.2) * 72 / max(codes.shape) / (0.66 * len(str(codes.max())) + 0.2))
    labels = size >= 5 if labels is None else labels
    figure, (axes,) = new_figure(side * panels, side * height / width + (0.35 if title else 0.05), 1, panels)
    if image is not None:
        picture = to_uint8(image)
        axes[0].imshow(picture, interpolation="nearest")
        for edge in range(1, height):
            axes[0].axhline(edge * picture.shape[0] / height - 0.5, color=FAINT, linewidth=0.6)
        for edge in range(1, width):
            axes[0].axvline(edge * picture.shape[1] / width - 0.5, color=FAINT, linewidth=0.6)
    axis = axes[-1]
    axis.imshow(code_colours(codes), interpolation="nearest")
    if labels:
        for (row, column), code in np.ndenumerate(codes):
            axis.text(column, row, str(code), ha="center", va="center", fontsize=size, color=INK)
    for each in axes:
        each.set_xticks([])
        each.set_yticks([])
        each.spines[:].set_visible(False)
    add_title(figure, title)
    return figure


@styled
def palette(colours, counts=None, *, columns: int = 8, title: str = "") -> Picture:
    """A codebook of colours as numbered swatches.

    colours: `(n_embed, 3)`, float in [0, 1] or uint8. counts: `(n_embed,)`, written under the index as a share.
    """
    colours = to_float(np.asarray(colours)[None])[0]
    counts = None if counts is None else np.asarray(counts, float)
    shares = None if counts is None else counts / max(1.0, counts.sum())
    columns = min(columns, len(colours))
    rows = -(-len(colours) // columns)
    figure, ((axis,),) = new_figure(columns * 0.7, rows * 0.52 + (0.35 if title else 0))
    board = np.ones((rows * columns, 3), np.float32)
    board[: len(colours)] = colours
    axis.imshow(board.reshape(rows, columns, 3), interpolation="nearest", aspect=0.72)
    for index, colour in enumerate(colours):
        row, column = divmod(index, columns)
        ink = "white" if colour @ (0.299, 0.587, 0.114) < 0.55 else INK
        text = str(index) if shares is None else f"{index}\n{shares[index]:.0%}"
        axis.text(column, row, text, ha="center", va="center", fontsize=9, color=ink)
    for edge in range(1, columns):
        axis.axvline(edge - 0.5, color="white", linewidth=2)
    for edge in range(1, rows):
        axis.axhline(edge - 0.5, color="white", linewidth=2)
    axis.set_axis_off()
    axis.set_title(title)
    return figure


@styled
def voronoi(
    points,
    centres,
    *,
    history: Sequence | None = None,
    colours=None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
) -> Picture:
    """Points of the plane, the nearest centre of each, and the cells in which every point has the same answer.

    points: `(count, 2)`. centres: `(n_embed, 2)`, the codebook, numbered. history: earlier `(n_embed, 2)` centres, oldest
    first, drawn as the way each centre came. colours: one for each centre, by default the palette.
    """
    points, centres = np.asarray(points, float), np.asarray(centres, float)
    for name, array in (("points", points), ("centres", centres)):
        if array.ndim != 2 or array.shape[1] != 2:
            raise ValueError(f"{name} have shape {array.shape}; this figure draws the plane, so give (count, 2)")
    colours = [PALETTE[index % len(PALETTE)] for index in range(len(centres))] if colours is None else colours
    figure, ((axis,),) = new_figure(5.2, 4.6)
    path = np.stack([*map(np.asarray, history), centres]) if history is not None else centres[None]
    everything = np.concatenate([points, path.reshape(-1, 2)])
    low, high = everything.min(0), everything.max(0)
    pad = 0.06 * (high - low).max()
    low, high = low - pad, high + pad
    across, up = np.linspace(low[0], high[0], 400), np.linspace(low[1], high[1], 400)
    plane = np.stack(np.meshgrid(across, up), -1).reshape(-1, 2)
    cells = _nearest(plane, centres).reshape(400, 400)
    paint = np.array([to_rgb(colour) for colour in colours])
    axis.imshow(
        1 - (1 - paint[cells]) * 0.22, origin="lower", extent=(low[0], high[0], low[1], high[1]),
        interpolation="nearest", aspect="equal",
    )  # fmt: skip
    axis.scatter(*points.T, s=9, c=paint[_nearest(points, centres)], linewidths=0)
    if history is not None:
        for index in range(len(centres)):
            axis.plot(*path[:, index].T, color=INK, linewidth=1, linestyle=":")
            axis.plot(*path[:-1, index].T, "o", markerfacecolor="white", markeredgecolor=INK, markersize=3.5)
    for index, centre in enumerate(centres):
        ink = "white" if np.array(to_rgb(colours[index])) @ (0.299, 0.587, 0.114) < 0.6 else INK
        axis.text(
            *centre, str(index), ha="center", va="center", fontsize=9, color=ink, fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": colours[index], "edgecolor": "white", "linewidth": 1.5},
        )  # fmt: skip
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


@styled
def receptive_field(
    sensitivity, image=None, *, box: tuple[int, int, int, int] | None = None, title: str = ""
) -> Picture:
    """How much each pixel moves one code's vector: a heat map, over the picture when it is given.

    sensitivity: `(height, width)`, not negative, for example the norm of the gradient; colours run on a logarithmic scale,
    since it falls off by orders of magnitude. box: `(top, left, height, width)` of the code's own patch in pixels.
    """
    values = np.asarray(sensitivity, float)
    if values.ndim != 2 or values.min() < 0 or values.max() <= 0:
        raise ValueError(f"sensitivity has shape {values.shape}; give (height, width), at least one pixel above 0")
    panels = 1 if image is None else 2
    figure, (axes,) = new_figure(2.4 * panels + 0.8, 2.4 + (0.3 if title else 0), 1, panels)
    if image is not None:
        axes[0].imshow(
            to_uint8(image), interpolation="nearest", extent=(-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)
        )
    peak = values.max()
    drawn = axes[-1].imshow(
        values.clip(peak * 1e-4) / peak, norm=LogNorm(1e-4, 1), interpolation="nearest", cmap="magma"
    )
    figure.colorbar(drawn, ax=axes[-1], label="influence, strongest = 1", shrink=0.95)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        if box is not None:
            top, left, height, width = box
            axis.add_patch(
                Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=PALETTE[5], linewidth=2)
            )
    add_title(figure, title)
    return figure


@styled
def overlay(images, values, *, label: str, captions: Sequence[str] | None = None, size: float = 1.45) -> Picture:
    """Pictures, and below each the same with a number of every code laid over it as colour.

    images: `(count, height, width, 3)`. values: `(count, code_length)` or `(count, h, w)`, on one scale from 0.
    label: what the colours mean. captions: one for each picture.
    """
    pictures = [to_uint8(image) for image in images]
    maps = [np.asarray(each, float) for each in values]
    if len(pictures) != len(maps):
        raise ValueError(f"{len(maps)} maps for {len(pictures)} pictures; give one for each")
    maps = [each if each.ndim == 2 else each.reshape(round(each.size**0.5), -1) for each in maps]
    count, top = len(pictures), max(each.max() for each in maps)
    cell = min(size, WIDTH / count - 0.06)
    figure, axes = new_figure(count * (cell + 0.06), 2 * (cell + 0.06) + 0.65 + (0.25 if captions else 0), 2, count)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for index, (picture, each) in enumerate(zip(pictures, maps, strict=True)):
        height, width = picture.shape[:2]
        grey = (picture @ np.array([0.299, 0.587, 0.114])).repeat(3).reshape(picture.shape) / 255
        axes[0, index].imshow(picture)
        axes[1, index].imshow(0.5 + 0.5 * grey)
        drawn = axes[1, index].imshow(
            each, cmap="magma_r", vmin=0, vmax=top, alpha=0.7, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
        )
        if captions is not None:
            axes[0, index].set_title(captions[index], fontsize=9, fontweight="normal", loc="center", color=FAINT, pad=3)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label=label, location="bottom", shrink=0.6, aspect=30, pad=0.03)
    return figure


@styled
def ladder(steps: Mapping[str, object], *, title: str = "", size: float = 1.35) -> Picture:
    """The way through scales, drawn at one height, so that coarser pixels are visibly larger.

    steps: label → picture `(height, width, 3)` in [0, 1], or feature maps `(height, width)` (any range, drawn in grey).
    Every label gets its resolution written under it.
    """
    if not steps:
        raise ValueError("ladder got no steps; give a mapping from label to picture or map")
    cell = min(size, WIDTH / len(steps) - 0.08)
    names = [textwrap.fill(label, max(8, int(cell * 14)), break_long_words=False) for label in steps]
    lines = 2 + max(name.count("\n") for name in names)
    figure, (axes,) = new_figure(
        len(steps) * (cell + 0.08), cell + 0.19 * lines + 0.15 + (0.3 if title else 0), 1, len(steps)
    )
    for axis, name, values in zip(axes, names, steps.values(), strict=True):
        values = np.asarray(values)
        if values.ndim == 2:
            axis.imshow(values.astype(float), cmap="gray", interpolation="nearest")
        else:
            axis.imshow(to_uint8(values), interpolation="nearest")
        axis.set_axis_off()
        axis.text(
            0.5, -0.05, f"{name}\n{values.shape[0]} × {values.shape[1]}", transform=axis.transAxes,
            ha="center", va="top", fontsize=9,
        )  # fmt: skip
    add_title(figure, title)
    return figure


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    # |p − c|² = |p|² − 2 p·c + |c|², and |p|² is the same for every centre
    return np.argmin((centres**2).sum(-1) - 2 * points @ centres.T, axis=-1)
