"""Curves, bars and maps: what a chapter shows of numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from minidalle.show.style import DASHES, FAINT, INK, PALETTE, WIDTH, Picture, add_title, new_figure, styled

__all__ = ["bars", "chances", "codebook_usage", "curves", "heatmap", "loss_curve", "rate_distortion", "stacks"]


@styled
def curves(
    lines: Mapping[str, object],
    x=None,
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    logx: bool = False,
    logy: bool = False,
    markers: bool = False,
    height: float = 3.0,
) -> Picture:
    """One or more lines over a shared axis, told apart by colour and by dash, named at their right ends.

    lines: label → values `(points,)`, or → `(x, values)` where each line has its own axis. Values `(runs, points)` are
    drawn as their mean, with the range of the runs behind it.
    x: the shared axis; by default 0, 1, 2, ….
    """
    figure, ((axis,),) = new_figure(WIDTH, height)
    ends, places = [], []
    for index, (label, values) in enumerate(lines.items()):
        across, up = values if isinstance(values, tuple) else (x, values)
        runs = np.atleast_2d(np.asarray(up, float))
        up = runs.mean(0)
        across = np.arange(len(up)) if across is None else np.asarray(across, float)
        if len(across) != len(up):
            raise ValueError(f"line {label!r} has {len(up)} values over {len(across)} points; give one for each point")
        places.append(across)
        colour = PALETTE[index % len(PALETTE)]
        if len(runs) > 1:
            axis.fill_between(across, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)
        axis.plot(
            across,
            up,
            color=colour,
            linestyle=DASHES[index % len(DASHES)],
            marker="o" if markers else None,
            markersize=5,
        )
        finite = np.flatnonzero(np.isfinite(up))
        if len(finite):
            ends.append((across[finite[-1]], up[finite[-1]], label, colour))
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    places = np.unique(np.concatenate(places)) if places else np.zeros(0)
    if not logx and (places == places.round()).all():
        axis.xaxis.get_major_locator().set_params(integer=True)  # there is no step 2.5
    _finish(axis, ends, logx, logy, places if markers else None)
    return figure


@styled
def loss_curve(
    log, names: Sequence[str] | None = None, *, smooth: int | None = None, title: str = "", logy: bool = False
) -> Picture:
    """Losses over training steps; the noisy course stays faint behind its running mean.

    log: the path of a run's `log.jsonl`, its rows as a list of dictionaries, an array `(steps,)`, or label → array.
    names: the entries of the log to draw, by default `loss` and what ends in it. smooth: steps in the running mean,
    by default a fiftieth of the run; 1 shows the course as it is.
    Raises ValueError when the log holds none of the names, naming those it holds.
    """
    series = _series(log, names)
    figure, ((axis,),) = new_figure(WIDTH, 3.0)
    ends = []
    for index, (label, (steps, values)) in enumerate(series.items()):
        colour, dash = PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)]
        window = max(1, len(values) // 50) if smooth is None else smooth
        mean = _running_mean(values, window)
        if window > 1:
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(steps, mean, color=colour, linestyle=dash, marker="o" if len(values) < 12 else None, markersize=4)
        ends.append((steps[-1], mean[-1], label, colour))
    axis.set(xlabel="step", ylabel="loss", title=title)
    _finish(axis, ends, False, logy)
    return figure


@styled
def codebook_usage(counts, *, title: str = "") -> Picture:
    """How often each code is used, most used first, with the share in use and the perplexity.

    counts: `(n_embed,)` uses of each code, or label → counts, drawn one beside the other on the same scale.
    Perplexity is `exp(−Σ p ln p)`: the number of equally used codes that would be as hard to guess.
    """
    groups = dict(counts) if isinstance(counts, Mapping) else {"": counts}
    groups = {label: _shares(label, values) for label, values in groups.items()}
    figure, (axes,) = new_figure(WIDTH, 3.0, 1, len(groups), sharey=True)
    for index, (axis, (label, shares)) in enumerate(zip(axes, groups.items(), strict=True)):
        ordered = np.sort(shares)[::-1] * 100
        axis.stairs(ordered, np.arange(len(ordered) + 1) - 0.5, fill=True, color=PALETTE[index], alpha=0.85)
        even = 100 / len(ordered)
        axis.axhline(even, color=INK, linestyle="--", linewidth=1)
        used = np.count_nonzero(shares)
        text = f"{used:,} of {len(shares):,} codes in use\nperplexity {perplexity(shares):,.1f}"
        axis.text(0.97, 0.95, text, transform=axis.transAxes, ha="right", va="top", fontsize=10, color=INK)
        axis.set(xlabel="codes, most used first", title=label)
        axis.set_xlim(-0.5, len(ordered) - 0.5)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("share of uses (%)")
    axes[0].annotate(
        "if all were used alike", (axes[0].get_xlim()[1], even), xytext=(-4, 3), textcoords="offset points",
        ha="right", va="bottom", fontsize=9, color=INK,
    )  # fmt: skip
    add_title(figure, title)
    return figure


def perplexity(counts) -> float:
    """`exp` of the entropy of the shares that `counts (n,)` describe; between 1 and n."""
    shares = _shares("", counts)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


@styled
def bars(
    values: Mapping[str, float | Mapping[str, float]],
    *,
    xlabel: str = "",
    title: str = "",
    digits: int = 2,
    floor: float | None = None,
) -> Picture:
    """Horizontal bars with their values written beside them.

    values: label → number, or label → (series → number) for several bars each.
    digits: decimals of the written values. floor: a line that the bars should pass.
    """
    if not values:
        raise ValueError("bars got no values; give a mapping from label to number")
    first = next(iter(values.values()))
    names = list(first) if isinstance(first, Mapping) else [""]
    table = np.array([[row[name] for name in names] if isinstance(row, Mapping) else [row] for row in values.values()])
    thick, thick_row = 0.8 / len(names), max(0.36, 0.24 * len(names))
    figure, ((axis,),) = new_figure(
        WIDTH, (0.95 if len(names) > 1 else 0.7) + len(values) * thick_row + (0.3 if title else 0)
    )
    for index, name in enumerate(names):
        places = np.arange(len(values)) + (index - (len(names) - 1) / 2) * thick
        drawn = axis.barh(places, table[:, index], thick * 0.92, color=PALETTE[index % len(PALETTE)], label=name)
        axis.bar_label(drawn, fmt=f"%.{digits}f", padding=3, fontsize=10, color=INK)
    axis.set_yticks(np.arange(len(values)), list(values))
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.axvline(0, color=FAINT, linewidth=1)
    axis.set(xlabel=xlabel, title=title)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if floor is not None:
        axis.axvline(floor, color=INK, linestyle="--", linewidth=1)
    if len(names) > 1:
        figure.legend(loc="outside upper left", ncols=len(names), borderaxespad=0)
    return figure


@styled
def stacks(
    values: Mapping[str, Mapping[str, float]],
    *,
    limits: Mapping[str, float] | None = None,
    xlabel: str = "",
    title: str = "",
    digits: int = 1,
) -> Picture:
    """Horizontal bars made of parts laid end to end, each bar's sum written beside it.

    values: label → (part → number); every label has the same parts. limits: name → where a line is drawn that the bars
    are compared with, such as a device's memory. The axis is linear and begins at 0.
    """
    if not values:
        raise ValueError("stacks got no values; give a mapping from label to parts")
    parts = list(next(iter(values.values())))
    if any(list(row) != parts for row in values.values()):
        raise ValueError(f"every bar needs the parts {', '.join(parts)}, in this order")
    table = np.array([[row[part] for part in parts] for row in values.values()], float)
    figure, ((axis,),) = new_figure(WIDTH, 1.6 + 0.36 * len(values))
    ends = table.cumsum(1)
    for index, part in enumerate(parts):
        drawn = axis.barh(
            np.arange(len(values)), table[:, index], 0.7, left=ends[:, index] - table[:, index],
            color=PALETTE[index % len(PALETTE)], edgecolor="white", linewidth=0.6, label=part,
        )  # fmt: skip
    axis.bar_label(drawn, labels=[f"{end:.{digits}f}" for end in ends[:, -1]], padding=3, fontsize=10, color=INK)
    for name, limit in (limits or {}).items():
        axis.axvline(limit, color=INK, linestyle="--", linewidth=1, zorder=0)
        axis.text(
            limit, 1.01, name, transform=axis.get_xaxis_transform(), ha="left", va="bottom", rotation=35, fontsize=9,
            color=INK,
        )  # fmt: skip
    axis.set_yticks(np.arange(len(values)), list(values))
    axis.invert_yaxis()
    axis.set_xlim(0, 1.06 * max([*ends[:, -1], *(limits or {}).values()]))
    axis.set(xlabel=xlabel)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    add_title(figure, title)
    return figure


@styled
def heatmap(
    values,
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    label: str = "",
    xticks: Sequence[str] | None = None,
    yticks: Sequence[str] | None = None,
    write: int | None = None,
    centred: bool = False,
) -> Picture:
    """A matrix `(rows, columns)` as colours, with the scale beside it.

    label: what the colours measure. xticks, yticks: a name for each column and row.
    write: put the numbers into the cells with that many decimals. centred: white stands for 0 (for signed values).
    """
    values = np.asarray(values, float)
    if values.ndim != 2:
        raise ValueError(f"heatmap got shape {values.shape}; give a matrix (rows, columns)")
    rows, columns = values.shape
    cell = min(0.5, (WIDTH - 1.7) / columns, 5.0 / rows)
    figure, ((axis,),) = new_figure(max(3.4, columns * cell + 1.7), max(2.2, rows * cell + 0.9))
    limit = np.nanmax(np.abs(values)) or 1.0
    drawn = axis.imshow(
        values, cmap="RdBu_r" if centred else "viridis",
        vmin=-limit if centred else None, vmax=limit if centred else None, interpolation="nearest",
    )  # fmt: skip
    axis.spines[:].set_visible(False)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    for numbers in (axis.xaxis, axis.yaxis):
        numbers.get_major_locator().set_params(integer=True)  # there is no row 0.5
    if xticks is not None:
        axis.set_xticks(range(columns), xticks)
        if 0.083 * max(len(str(name)) for name in xticks) + 0.1 > cell:  # inches of a letter, and of the gap
            axis.set_xticks(range(columns), xticks, rotation=45, ha="right", rotation_mode="anchor")
    if yticks is not None:
        axis.set_yticks(range(rows), yticks)
    if write is not None:
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            ink = "white" if dark else INK
            axis.text(column, row, f"{value:.{write}f}", ha="center", va="center", fontsize=9, color=ink)
    figure.colorbar(drawn, ax=axis, label=label, shrink=0.85)
    return figure


@styled
def chances(
    panels: Mapping[str, object], *, most: int = 24, columns: int = 3, xlabel: str = "code, likeliest first"
) -> Picture:
    """Several distributions over the same codes, beside each other; a cross marks a code that cannot be drawn.

    panels: title → probabilities `(V,)`. The codes shown, and their order, are the `most` likeliest of the first panel.
    """
    if not panels:
        raise ValueError("chances got no panels; give a mapping from title to probabilities")
    drawn = {title: np.asarray(values, float) for title, values in panels.items()}
    order = np.argsort(-next(iter(drawn.values())), kind="stable")[:most]
    columns = min(columns, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, axes = new_figure(WIDTH, 1.6 * rows + 0.3, rows, columns, sharex=True, sharey=True)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    places = np.arange(len(order))
    for axis, (title, values) in zip(axes.flat, drawn.items(), strict=False):
        shown = values[order]
        axis.bar(places, shown, 0.85, color=PALETTE[0])
        out = places[shown == 0]
        (crosses,) = axis.plot(out, np.zeros(len(out)), "x", color=PALETTE[1], markersize=3.5, clip_on=False)
        crosses.set_in_layout(False)  # unclipped and empty, it would leave no room for the axes
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.grid(axis="y")
    figure.supxlabel(xlabel, fontsize=11)
    figure.supylabel("probability", fontsize=11)
    return figure


@styled
def rate_distortion(
    lines: Mapping[str, Mapping[object, tuple[float, float]]] | Mapping[object, tuple[float, float]],
    *,
    xlabel: str = "bits per picture",
    ylabel: str = "PSNR (dB)",
    title: str = "",
) -> Picture:
    """What a picture costs in bits against how well it comes back, each point named by its setting.

    lines: setting → (rate, quality), or label → such a mapping, one line each. The rate axis is logarithmic.
    """
    first = next(iter(lines.values()))
    groups = lines if isinstance(first, Mapping) else {"": lines}
    figure, ((axis,),) = new_figure(WIDTH, 3.6)
    for index, (label, points) in enumerate(groups.items()):
        rates, quality = np.array(list(points.values()), float).T
        colour = PALETTE[index % len(PALETTE)]
        axis.plot(rates, quality, color=colour, linestyle=DASHES[index % len(DASHES)], marker="o", label=label)
        for setting, rate, height in zip(points, rates, quality, strict=True):
            axis.annotate(
                str(setting), (rate, height), xytext=(-4, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize=9, color=colour,  # to the upper left, free where lines rise
            )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.margins(x=0.08, y=0.1)
    axis.grid(axis="y")
    if len(groups) > 1:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(groups)))
    return figure


def _finish(axis, ends: list[tuple[float, float, str, str]], logx: bool, logy: bool, marked=None) -> None:
    """Set the scales first: where names go depends on them. marked: places to write at a logarithmic x axis, if few."""
    if logx:
        axis.set_xscale("log")
        _write_numbers(axis.xaxis, *axis.get_xlim())
        marked = np.zeros(0) if marked is None else marked[marked > 0]
        if 1 < len(marked) <= 8 and np.diff(np.log(marked)).min() > 0.08 * np.ptp(np.log(marked)):
            axis.set_xticks(marked, [f"{place:,g}" for place in marked])
            axis.xaxis.set_minor_locator(NullLocator())
    if logy:
        axis.set_yscale("log")
        _write_numbers(axis.yaxis, *axis.get_ylim())
    axis.grid(axis="y")
    _name_ends(axis, ends)


def _write_numbers(numbers, low: float, high: float) -> None:
    """Let a logarithmic axis say 1, 10, 100 rather than powers of ten, where the numbers are short and there are three."""
    if low < 1e-4 or high > 2e5:
        return
    marks = LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,))
    if sum(low <= mark <= high for mark in marks.tick_values(low, high)) > 2:
        numbers.set_major_locator(marks)
        numbers.set_major_formatter(lambda value, _: f"{value:,g}")
        numbers.set_minor_formatter(NullFormatter())


def _name_ends(axis, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name at its right end, pushed apart where two would overlap."""
    ends = [end for end in ends if end[2]]
    if not ends:
        return
    axis.figure.draw_without_rendering()  # only then does the layout give the axes their place
    transform, inverse = axis.transData, axis.transAxes.inverted()
    heights = [inverse.transform(transform.transform((x, y)))[1] for x, y, _, _ in ends]
    order, step, placed = np.argsort(heights), 0.085, {}
    lowest = -np.inf
    for index in order:
        lowest = max(heights[index], lowest + step)
        placed[index] = lowest
    excess = max(0.0, lowest - 1.0)  # the pushed-up column may leave the axes at the top
    for index, (_, _, label, colour) in enumerate(ends):
        axis.annotate(
            label, (1.01, placed[index] - excess), xycoords="axes fraction",
            va="center", ha="left", fontsize=10, color=colour, fontweight="bold",
        )  # fmt: skip


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    if window < 1:
        raise ValueError(f"smooth={window}; the running mean needs at least 1 step")
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _series(log, names: Sequence[str] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if isinstance(log, (str, Path)):
        log = [json.loads(line) for line in Path(log).read_text().splitlines() if line.strip()]
    if isinstance(log, Mapping):
        series = {name: np.asarray(values, float) for name, values in log.items()}
        series = {name: (np.arange(1, len(values) + 1), values) for name, values in series.items()}
    elif len(log) and isinstance(log[0], Mapping):
        found = list(dict.fromkeys(key for row in log for key, value in row.items() if isinstance(value, (int, float))))
        wanted = names or [name for name in found if name.split("_")[-1].split("/")[-1] == "loss"]
        series = {}
        for name in wanted:
            rows = [(row.get("step", index), row[name]) for index, row in enumerate(log, 1) if name in row]
            if rows:
                series[name] = tuple(np.array(rows, float).T)
        if not series:
            raise ValueError(f"the log holds {', '.join(found) or 'nothing'}; choose from these with names=[…]")
        return series
    else:
        values = np.asarray(log, float)
        series = {"": (np.arange(1, len(values) + 1), values)}
    if not series or any(len(values) == 0 for _, values in series.values()):
        raise ValueError("the log is empty; train some steps first")
    return series


def _shares(label: str, counts) -> np.ndarray:
    counts = np.asarray(counts, float).ravel()
    if counts.size == 0 or counts.min() < 0 or counts.sum() == 0:
        raise ValueError(f"counts {label!r} need at least one use and none below 0")
    return counts / counts.sum()
