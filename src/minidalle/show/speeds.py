"""Who is faster, and by how much."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator

from minidalle.show.style import FAINT, INK, PALETTE, WIDTH, Picture, new_figure, styled

__all__ = ["speeds"]

MARKERS = ("o", "s", "D", "^", "v", "P", "X")


@styled
def speeds(tasks: Mapping[str, Mapping[str, float]], base: str, *, title: str = "") -> Picture:
    """How many times as fast as `base` each contestant is, on a logarithmic scale: right of 1 is faster, left is slower.

    tasks: task → (contestant → seconds). A task may lack a contestant, but not the base.
    Raises ValueError where there is no task, where the base is missing, and for times that are not above 0.
    """
    if not tasks:
        raise ValueError("speeds got no tasks; give a mapping from task to contestants and their seconds")
    for task, times in tasks.items():
        if base not in times or min(times.values()) <= 0:
            raise ValueError(f"task {task!r} needs a time of {base!r}, and all its times above 0; got {dict(times)}")
    names = list(dict.fromkeys(name for times in tasks.values() for name in times if name != base))
    figure, ((axis,),) = new_figure(WIDTH, 1.3 + 0.2 * sum(max(2, len(times)) for times in tasks.values()))
    place, middles, reached = 0.0, [], [1.0]
    for index, times in enumerate(tasks.values()):
        shown = [name for name in names if name in times]
        height = max(1, len(shown))
        if index % 2 == 0:
            axis.axhspan(place - 0.9, place + height - 0.1, color="#f2f4f6", linewidth=0, zorder=0)
        middles.append(place + (height - 1) / 2)
        for row, name in enumerate(shown):
            ratio, colour = times[base] / times[name], PALETTE[names.index(name) % len(PALETTE)]
            axis.plot([1, ratio], [place + row] * 2, color=colour, linewidth=1.6, zorder=2)
            axis.plot(ratio, place + row, MARKERS[names.index(name) % len(MARKERS)], color=colour, markersize=6.5)
            axis.annotate(
                _times(ratio), (ratio, place + row), xytext=(7 if ratio >= 1 else -7, 0), textcoords="offset points",
                ha="left" if ratio >= 1 else "right", va="center", fontsize=9.5, color=INK,
            )  # fmt: skip
            reached.append(ratio)
        place += height + 0.8
    axis.axvline(1, color=INK, linewidth=1.2, zorder=1)
    axis.set_xscale("log")
    room = max(2.2, (max(reached) / min(reached)) ** 0.2)  # for the numbers beyond the outermost points
    axis.set_xlim(min(0.4, min(reached) / room), max(2.5, max(reached) * room))
    axis.set_ylim(place - 0.9, -0.9)
    axis.xaxis.set_major_locator(LogLocator(base=10))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _times(value)))
    axis.set_yticks(middles, list(tasks))
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set(xlabel=f"times as fast as {base}", title=title)
    axis.text(0.99, 1.01, "faster →", transform=axis.transAxes, ha="right", va="bottom", fontsize=9.5, color=FAINT)
    axis.text(0.01, 1.01, "← slower", transform=axis.transAxes, ha="left", va="bottom", fontsize=9.5, color=FAINT)
    handles = [
        axis.plot([], [], MARKERS[index % len(MARKERS)], color=PALETTE[index % len(PALETTE)], label=name)[0]
        for index, name in enumerate(names)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=9.5)
    return figure


def _times(ratio: float) -> str:
    """1.8×, 24×, 0.6×, and 1/24× where a decimal would hide how many times slower it is."""
    if ratio >= 9.95 or np.isclose(ratio, 1, rtol=1e-9):
        return f"{ratio:,.0f}×"
    return f"{ratio:.1f}×" if ratio > 0.15 else f"1/{1 / ratio:,.0f}×"
