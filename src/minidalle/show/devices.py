"""Arrays on several devices: which block of which array each device has."""

from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Rectangle

from minidalle.scale.mesh import owners
from minidalle.show.style import INK, WIDTH, Picture, new_figure, styled

__all__ = ["device_colours", "sharded"]


def device_colours(ids) -> np.ndarray:
    """A light colour for each device, the same in every figure: whole numbers `(…)` → `(…, 3)` in [0, 1]."""
    ids = np.asarray(ids)
    hue = (ids * 0.61803398875 + 0.55) % 1.0
    return hsv_to_rgb(np.stack([hue, np.full(hue.shape, 0.38), np.full(hue.shape, 0.97)], -1))


@styled
def sharded(arrays: Mapping[str, jax.Array], *, columns: int = 3, to_scale: bool = True) -> Picture:
    """Matrices as rectangles, cut as they are cut, with the numbers of the devices that have each block.

    arrays: title → matrix `(rows, columns)` on any devices. Each block has a stripe for each device that has it, in the
    device's colour. to_scale: all to one scale, otherwise each as large as there is room; at least a quarter as wide as
    high, or as high as wide. Raises ValueError for what is no matrix.
    """
    if not arrays:
        raise ValueError("sharded got no arrays; give a mapping from title to matrix")
    blocks = [owners(array) for array in arrays.values()]
    columns = min(columns, len(arrays))
    longest = max(max(array.shape) for array in arrays.values())
    sizes = [
        [max(0.25 * max(a.shape), side) / (longest if to_scale else max(a.shape)) for side in a.shape]
        for a in arrays.values()
    ]
    heights = [max(high for high, _ in sizes[start : start + columns]) for start in range(0, len(sizes), columns)]
    cell = min(WIDTH / 2, WIDTH / columns)
    figure, axes = new_figure(
        cell * columns, sum(0.94 * cell * high + 0.55 for high in heights), len(heights), columns,
        gridspec_kw={"height_ratios": [high + 0.55 / cell for high in heights]},
    )  # fmt: skip
    for index, axis in enumerate(axes.flat):
        axis.set_axis_off()
        axis.set(xlim=(-0.03, 1.03), ylim=(heights[index // columns] + 0.02, -0.02), aspect="equal", anchor="N")
    for axis, (title, array), having, (high, wide) in zip(axes.flat, arrays.items(), blocks, sizes, strict=False):
        _draw(axis, having, high, wide, 60 * cell)
        axis.set_title(f"{title}\n{array.shape[0]} × {array.shape[1]}", fontsize=10, fontweight="normal", loc="center")
    return figure


def _draw(axis, blocks: np.ndarray, high: float, wide: float, points: float) -> None:
    """points: how many of them one unit of the axis is."""
    down, across, sharing = blocks.shape
    height, width = high / down, wide / across
    for row, column in np.ndindex(down, across):
        x, y = (1 - wide) / 2 + column * width, row * height
        step = (
            (0, height / sharing) if height > width else (width / sharing, 0)
        )  # stripes side by side along the longer side
        size = (width, step[1]) if height > width else (step[0], height)
        # A digit is 0.62 of its size wide; of two there may be.
        letters = min(10.0, points * size[0] / (0.62 * len(str(blocks.max())) + 0.3), points * size[1] / 1.2)
        for index, device in enumerate(blocks[row, column]):
            left, top = x + index * step[0], y + index * step[1]
            axis.add_patch(Rectangle((left, top), *size, facecolor=device_colours(device), linewidth=0))
            axis.text(
                left + size[0] / 2, top + size[1] / 2, str(device), ha="center", va="center", fontsize=letters, color=INK
            )  # fmt: skip
        axis.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=INK, linewidth=1.2))
