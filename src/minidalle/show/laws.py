"""A law, the runs that it was fitted to, and how far it can be trusted beyond them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from minidalle.show.plots import _name_ends, _write_numbers
from minidalle.show.style import FAINT, INK, PALETTE, WIDTH, Picture, new_figure, styled

__all__ = ["scaling_law"]

MARKS = ("o", "D", "s", "^")


@styled
def scaling_law(
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    line: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]] | None = None,
    *,
    floor: float | None = None,
    beyond: float | None = None,
    xlabel: str = "",
    ylabel: str = "loss (nats for each code)",
    title: str = "",
    height: float = 3.4,
) -> Picture:
    """Losses over sizes on two logarithmic axes, with a fitted law and the band that it gives.

    runs: name → sizes and losses, one for each run; each name has its own colour and mark, the first is filled.
    line: sizes, the law's loss there, and the low and high of its band. floor: the loss that no size removes, dashed.
    beyond: right of this size the law is extrapolated; the plot is grey there.
    """
    if not runs:
        raise ValueError("scaling_law got no runs; give a mapping from name to (sizes, losses)")
    figure, ((axis,),) = new_figure(WIDTH, height)
    if line is not None:
        across, middle, *band = (np.asarray(values, float) for values in line)
        axis.fill_between(across, *band, color=PALETTE[0], alpha=0.18, linewidth=0)
        axis.plot(across, middle, color=PALETTE[0])
    for index, (name, (sizes, losses)) in enumerate(runs.items()):
        colour = PALETTE[index % len(PALETTE)]
        axis.plot(
            sizes, losses, MARKS[index % len(MARKS)], color=colour, label=name, markersize=5.5,
            markerfacecolor=colour if index == 0 else "white", markeredgewidth=1.4, linestyle="none", zorder=3,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high / low < 8:  # too narrow for powers of ten, and nearly even
        marks = [mark for mark in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= mark <= high]
        axis.set_yticks(marks, [f"{mark:.3g}" for mark in marks])
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        _write_numbers(axis.yaxis, low, high)
    if beyond is not None:
        axis.axvspan(beyond, axis.get_xlim()[1], color="#f2f4f6", linewidth=0, zorder=0)
        axis.set_xlim(right=axis.get_xlim()[1])
        axis.text(
            beyond, 1.0, " extrapolated", transform=axis.get_xaxis_transform(), ha="left", va="bottom", fontsize=9.5,
            color=FAINT,
        )  # fmt: skip
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.grid(axis="y")
    if floor is not None and floor > 0:
        axis.axhline(floor, color=INK, linestyle="--", linewidth=1)
        _name_ends(axis, [(axis.get_xlim()[1], floor, "floor E", INK)])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(runs)))
    return figure
