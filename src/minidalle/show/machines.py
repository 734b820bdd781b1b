"""Pictures of the machines that compute: a systolic array at work, chips side by side, and what bounds a program."""

from collections.abc import Mapping, Sequence

import numpy as np

from minidalle.show.style import FAINT, INK, PALETTE, WIDTH, Picture, new_figure, styled

__all__ = ["chips", "roofline", "systolic"]


@styled
def systolic(inputs, weights, sums, cycles: Sequence[int], *, title: str = "") -> Picture:
    """A systolic array at some of its cycles: which cells multiply, what they multiply, and the sums they pass down.

    inputs: `(cycles, rows, columns)`, the number that has come into each cell, nan where there is none.
    weights: `(rows, columns)`, what each cell holds.
    sums: `(cycles, rows, columns)`, what each cell hands to the one below. cycles: which to draw, at most three beside
    each other.
    """
    inputs, weights, sums = (np.asarray(part, float) for part in (inputs, weights, sums))
    if inputs.ndim != 3 or inputs.shape != sums.shape:
        raise ValueError(f"inputs {inputs.shape} and sums {sums.shape} must both be (cycles, rows, columns)")
    across = min(3, len(cycles))
    down = -(-len(cycles) // across)
    rows, columns = inputs.shape[1:]
    figure, axes = new_figure(WIDTH, down * (0.45 + WIDTH / across / columns * rows), down, across)
    for axis, cycle in zip(axes.flat, cycles, strict=False):
        for row in range(rows):
            for column in range(columns):
                busy = np.isfinite(inputs[cycle, row, column])
                axis.add_patch(
                    _box(
                        column - 0.46,
                        row - 0.46,
                        0.92,
                        0.92,
                        "#dbeaf7" if busy else "white",
                        PALETTE[0] if busy else FAINT,
                    )
                )
                if busy:
                    axis.text(
                        column,
                        row - 0.17,
                        f"{inputs[cycle, row, column]:g}×{weights[row, column]:g}",
                        ha="center",
                        va="center",
                        fontsize=11,
                    )
                    axis.text(
                        column, row + 0.22, f"{sums[cycle, row, column]:g} ↓", ha="center", va="center", fontsize=9.5,
                        color=PALETTE[1],
                    )  # fmt: skip
        axis.set(xlim=(-0.55, columns - 0.45), ylim=(rows - 0.45, -0.55), aspect="equal", title=f"cycle {cycle}")
        axis.set_axis_off()
    for axis in axes.flat[len(cycles) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


@styled
def chips(places: Sequence[tuple[int, int]], cores: Sequence[Sequence[int]], *, title: str = "") -> Picture:
    """Chips where they stand, the cores of each with their numbers, and the links between neighbours.

    places: `(x, y)` of each chip, from 0. cores: the devices of each chip, by JAX's number.
    """
    if len(places) != len(cores) or not places:
        raise ValueError(f"{len(places)} places and {len(cores)} groups of cores; give one group for each place")
    wide, high = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    figure, ((axis,),) = new_figure(min(WIDTH, 1.0 + 1.5 * wide), 0.9 + 1.25 * high)
    for x, y in places:
        for dx, dy in ((1, 0), (0, 1)):
            if (x + dx, y + dy) in places:
                axis.plot([x, x + dx], [y, y + dy], color=INK, linewidth=2.5, zorder=1)
    for (x, y), inside in zip(places, cores, strict=True):
        axis.add_patch(_box(x - 0.36, y - 0.3, 0.72, 0.6, "#f2f4f6", INK, zorder=2))
        axis.text(x, y - 0.2, f"chip ({x}, {y})", ha="center", va="center", fontsize=9.5, color=INK, zorder=4)
        width = 0.62 / len(inside)
        for index, core in enumerate(inside):
            left = x - 0.31 + index * width
            axis.add_patch(_box(left + 0.01, y - 0.1, width - 0.02, 0.34, "#dbeaf7", PALETTE[0], zorder=3))
            axis.text(
                left + width / 2, y + 0.07, f"{core}", ha="center", va="center", fontsize=13, fontweight="bold",
                color=PALETTE[0], zorder=4,
            )  # fmt: skip
    axis.set(xlim=(-0.55, wide - 0.45), ylim=(high - 0.5, -0.5), aspect="equal", title=title)
    axis.set_axis_off()
    return figure


@styled
def roofline(
    programs: Mapping[str, tuple[float, float, float]], operations: float, bandwidth: float, *, title: str = ""
) -> Picture:
    """The roof that a device puts over programs, by how often each uses a byte, and how far below it they stay.

    programs: name → (floating-point operations, bytes, seconds). operations, bandwidth: the device's, in a second.
    """
    if not programs or min(min(numbers) for numbers in programs.values()) <= 0:
        raise ValueError("roofline needs programs whose operations, bytes and seconds are above 0")
    figure, ((axis,),) = new_figure(WIDTH, 3.4)
    uses = {name: numbers[0] / numbers[1] for name, numbers in programs.items()}
    low, high = min(0.3, *uses.values()) / 2, max(1e4, *uses.values()) * 2
    line = np.geomspace(low, high, 200)
    axis.plot(line, np.minimum(operations, line * bandwidth) / 1e12, color=INK, linewidth=1.6)
    ridge = operations / bandwidth
    axis.plot([ridge, ridge], [operations / 1e12, 1e-9], color=FAINT, linewidth=1, linestyle="--")
    crowded = 0
    for index, (name, (done, _, seconds)) in enumerate(programs.items()):
        colour, reached = PALETTE[index % len(PALETTE)], done / seconds / 1e12
        axis.plot(uses[name], reached, "osD^vPX"[index % 7], color=colour, markersize=7)
        right = uses[name] > ridge  # there all lie at one height, so their names hang at different ones
        crowded += right
        axis.annotate(
            name, (uses[name], reached), xytext=(0, -15 * crowded) if right else (9, -9), textcoords="offset points",
            fontsize=10, ha="center" if right else "left", va="center", color=colour, fontweight="bold",
        )  # fmt: skip
    lowest = min(done / seconds / 1e12 for done, _, seconds in programs.values())
    axis.set(
        xscale="log", yscale="log", xlim=(low, high), ylim=(min(lowest, low * bandwidth / 1e12) / 2, operations / 3e11)
    )
    axis.set(xlabel="operations for each byte of memory", ylabel="10¹² operations a second", title=title)
    axis.text(
        ridge * 0.85, axis.get_ylim()[0] * 1.4, f"{ridge:.0f} ", ha="right", va="bottom", fontsize=10, color=FAINT
    )
    axis.grid(axis="y")
    return figure


def _box(x: float, y: float, width: float, height: float, fill: str, edge: str, zorder: int = 1):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=fill, edgecolor=edge, linewidth=1.3,
        zorder=zorder,
    )  # fmt: skip
