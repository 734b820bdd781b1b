"""Candidates in the order of their scores, and whose fault it is when the one that was picked is wrong."""

from collections.abc import Mapping

import numpy as np

from minidalle.data.pictures import to_uint8
from minidalle.show.style import FAINT, INK, PALETTE, WIDTH, Picture, new_figure, styled

__all__ = ["blame", "ranked"]
RIGHT, WRONG = PALETTE[0], PALETTE[1]


@styled
def ranked(rows: Mapping[str, tuple[object, object, object]], *, most: int | None = None) -> Picture:
    """One row of candidates for each caption, best score first; a frame and a mark tell which are right.

    rows: caption → (images `(N, height, width, 3)`, scores `(N,)`, right `(N,)` bool), in any order.
    most: how many of the best are shown; None shows all. Raises ValueError where a row's parts differ in length, or the
    rows do.
    """
    if not rows:
        raise ValueError("ranked got no rows; give a mapping from caption to (images, scores, right)")
    sorted_rows = {caption: _sorted(caption, *parts, most) for caption, parts in rows.items()}
    counts = {caption: len(scores) for caption, (_, scores, _) in sorted_rows.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"rows differ in length: {counts}; rank the same number of candidates in every row")
    count = next(iter(counts.values()))
    cell = min(0.95, WIDTH / count - 0.06)
    above, below = 0.24, 0.28  # inches for the caption and for the scores
    width, height = count * (cell + 0.06), len(sorted_rows) * (above + cell + below)
    figure, axes = new_figure(width, height, len(sorted_rows), count)
    figure.set_layout_engine("none")  # it would make the first column as wide as its captions
    for row, (line, (caption, (images, scores, right))) in enumerate(zip(axes, sorted_rows.items(), strict=True)):
        bottom = height - (row + 1) * (above + cell + below) + below
        for column, (axis, image, score, good) in enumerate(zip(line, images, scores, right, strict=True)):
            left = column * (cell + 0.06) + 0.03
            axis.set_position((left / width, bottom / height, cell / width, cell / height))
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(  # a spine's ends project by default, which would fill the gaps of the dashes
                visible=True, edgecolor=RIGHT if good else WRONG, linewidth=2.2, capstyle="butt",
                linestyle="-" if good else (0, (2.5, 1.5)),
            )  # fmt: skip
            axis.set_xlabel(
                f"{score:.2f} {'✓' if good else '✗'}", fontsize=9, labelpad=2, color=INK, fontfamily="DejaVu Sans"
            )
        line[0].set_title(str(caption).replace("$", r"\$"), fontsize=10, fontweight="normal", loc="left", pad=4)
    return figure


@styled
def blame(chance, picked, possible, *, interval=None, best: str = "CLIP's pick", height: float = 3.8) -> Picture:
    """Shares of captions over the number of candidates n = 1, …, N: drawn right, found by ranking, missed, never drawn.

    chance: share of right ones among all candidates. picked: `(N,)`, share of captions whose best-scored of n candidates
    is right. possible: `(N,)`, share with at least one right candidate among n. interval: `(2, N)`, the low and high ends
    around `picked`, drawn where n is a power of two. best: what `picked` is called.
    Between `picked` and `possible` lies what the ranker misses, above `possible` what the generator never drew.
    Raises ValueError when the curves differ in length, or one leaves [0, 1].
    """
    chance, picked, possible = float(chance), np.asarray(picked, float), np.asarray(possible, float)
    if picked.shape != possible.shape or picked.ndim != 1 or (interval is not None and len(interval[0]) != len(picked)):
        raise ValueError(f"picked has shape {picked.shape} and possible {possible.shape}; give (N,) of each, same N")
    if min(chance, picked.min(), possible.min()) < 0 or max(chance, picked.max(), possible.max()) > 1:
        raise ValueError("blame shows shares of captions; give numbers in [0, 1]")
    number = np.arange(1, len(picked) + 1)
    figure, ((axis,),) = new_figure(WIDTH, height)
    axis.fill_between(number, 0, picked, color=PALETTE[5], alpha=0.35, linewidth=0)
    axis.fill_between(number, picked, possible, color=PALETTE[4], alpha=0.45, linewidth=0)
    axis.fill_between(number, possible, 1, color=PALETTE[6], alpha=0.16, linewidth=0)
    axis.plot(number, possible, color=PALETTE[2], linestyle="--", marker="s", markersize=4)
    axis.plot(number, picked, color=PALETTE[0], marker="o", markersize=4)
    axis.axhline(chance, color=INK, linestyle=":", linewidth=1.4)
    if interval is not None:  # at powers of two, which stand at equal distances
        low, high = np.asarray(interval, float)
        some = np.array([n - 1 for n in number if n & (n - 1) == 0])
        ends = [picked[some] - low[some], high[some] - picked[some]]
        axis.errorbar(number[some], picked[some], ends, fmt="none", ecolor=PALETTE[0], elinewidth=1.2, capsize=3)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    axis.set(xlim=(0.97, 1.03 * len(picked)), ylim=(0, 1), xlabel="candidates n", ylabel="share of captions")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    inside = {"fontsize": 9, "color": INK, "va": "center"}
    axis.text(1.08, (1 + possible[0]) / 2 + 0.12, "no right one was drawn:\nthe generator's fault", ha="left", **inside)
    late = 0.8 * len(picked)
    between = (np.interp(late, number, picked) + np.interp(late, number, possible)) / 2
    axis.text(0.93 * len(picked), between, "passed over:\nthe ranker's fault", ha="right", **inside)
    axis.text(len(picked) ** 0.5, min(chance, picked.min()) / 2, "the pick is right", ha="center", **inside)
    for name, end, colour in (
        ("the oracle picks", possible[-1], PALETTE[2]), (best, picked[-1], PALETTE[0]), ("chance picks", chance, INK),
    ):  # fmt: skip
        axis.annotate(
            name, (1.01, end), xycoords=("axes fraction", "data"), va="center", fontsize=10, color=colour,
            fontweight="bold",
        )  # fmt: skip
    axis.tick_params(color=FAINT)
    return figure


def _sorted(caption: str, images, scores, right, most: int | None):
    images, scores, right = to_uint8(images), np.asarray(scores, float), np.asarray(right, bool)
    if not len(images) == len(scores) == len(right):
        raise ValueError(
            f"{caption!r} has {len(images)} images, {len(scores)} scores and {len(right)} verdicts; give as many of each"
        )
    order = np.argsort(-scores, kind="stable")[:most]
    return images[order], scores[order], right[order]
