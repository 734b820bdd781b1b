"""What a measure says of ever larger samples, and where it would end."""

from collections.abc import Mapping, Sequence

import numpy as np

from minidalle.show.plots import _name_ends
from minidalle.show.style import DASHES, FAINT, INK, PALETTE, WIDTH, Picture, new_figure, styled

__all__ = ["extrapolation"]


@styled
def extrapolation(
    panels: Mapping[str, Mapping[str, object]], n: Sequence[int], *, ticks: Sequence[int] | None = None
) -> Picture:
    """Estimates over 1/n, so that a bias of the form b/n is a straight line, carried on to infinitely many at the left edge.

    panels: title → (label → values `(runs, points)`), one panel below the other; each has its own vertical axis. Drawn
    are the means, the range that holds 95 % of the runs, and the line of least squares through the means, which ends in a
    diamond at 1/n = 0.
    n: `(points,)` sample sizes. ticks: those that are written at the axis, by default all.
    """
    n = np.asarray(n, float)
    figure, axes = new_figure(WIDTH, 2.3 * len(panels) + 0.3, len(panels), 1, sharex=True)
    ends: list[list[tuple[float, float, str, str]]] = []
    for axis, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        ends.append([])
        for index, (label, values) in enumerate(lines.items()):
            runs = np.atleast_2d(np.asarray(values, float))
            if runs.shape[1] != len(n):
                raise ValueError(f"line {label!r} has {runs.shape[1]} values for {len(n)} sizes; give one for each")
            colour, mean = PALETTE[index % len(PALETTE)], runs.mean(0)
            slope, limit = np.polyfit(1 / n, mean, 1)
            if len(runs) > 1:
                axis.fill_between(
                    1 / n, *np.percentile(runs, [2.5, 97.5], axis=0), color=colour, alpha=0.2, linewidth=0
                )
            right = 1 / n.min()
            axis.plot([0, right], [limit, limit + slope * right], color=colour, linestyle=DASHES[index % len(DASHES)])
            axis.plot(1 / n, mean, "o", color=colour, markersize=5)
            axis.plot(0, limit, "D", color=colour, markersize=7, clip_on=False, zorder=3)
            ends[-1].append((right, limit + slope * right, label, colour))
        axis.set_title(title)
        axis.axhline(0, color=FAINT, linewidth=1)
        axis.set_xlim(0, 1.02 / n.min())
        axis.grid(axis="y")
    shown = sorted(ticks if ticks is not None else n, reverse=True)
    axes[-1, 0].set_xticks([0, *(1 / np.asarray(shown, float))], ["∞", *(f"{size:,.0f}" for size in shown)])
    axes[-1, 0].set_xlabel("pictures in each set, n (the axis is even in 1/n)", color=INK)
    for axis, named in zip(axes[:, 0], ends, strict=True):  # last: where names go depends on the scales
        _name_ends(axis, named)
    return figure
