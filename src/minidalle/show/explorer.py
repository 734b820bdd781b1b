"""The ranking explorer: how many candidates, in which order, and what CLIP's pick of them is worth.

All captions and all candidates travel inside the page; the script only sorts, counts and lights what is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minidalle.show.fragment import Fragment, data_uri, escape, fragment

__all__ = ["Judged", "ranking_explorer"]
ORDERS = ("as drawn", "by CLIP’s score", "by the judge, then CLIP")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 190, 46, 132, 12, 38  # of the plot, in its own units
COLOURS = ("#555555", "#0072B2", "#007A58", "#B34A00")
DASHES = ("2 3", "", "6 4", "8 3 2 3")


@dataclass(frozen=True)
class Judged:
    """The candidates of one caption, in the order in which they were drawn.

    Attributes:
        caption: as it was given.
        images: `(N, height, width, 3)`.
        scores: `(N,)`, CLIP's.
        right: `(N,)` bool, what the judge says.
        seen: N names, what the judge takes each picture for.
    """

    caption: str
    images: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    seen: Sequence[str]


def ranking_explorer(
    shown: Sequence[Judged], curves: Mapping[str, object] | None = None, *, start: int | None = None, quality: int = 85
) -> Fragment:
    """Choose a caption, a number n and an order; the best-scored of the first n drawn is lit, and the verdict told.

    shown: the captions, each with the same number N of candidates. curves: name → `(N,)` shares in [0, 1] over
    n = 1, …, N, drawn below the pictures with a point at the chosen n; at most four. start: n at first, by default N.
    quality: of the stored pictures, as `data_uri` takes it; about 2 KB each at 64 × 64.
    Raises ValueError where captions, candidates or curves do not belong together.
    """
    if not shown:
        raise ValueError("the explorer got no captions; give a list of Judged")
    count = len(shown[0].images)
    for each in shown:
        sizes = {len(each.images), len(each.scores), len(each.right), len(each.seen)}
        if sizes != {count} or not count:
            raise ValueError(
                f"{each.caption!r} has {len(each.images)} images, {len(each.scores)} scores, {len(each.right)} verdicts "
                f"and {len(each.seen)} names; every caption needs {max(count, 1)} of each"
            )
    lines = {name: np.asarray(values, float) for name, values in (curves or {}).items()}
    if len(lines) > len(COLOURS):
        raise ValueError(f"{len(lines)} curves were given; at most {len(COLOURS)} can be told apart")
    for name, values in lines.items():
        if values.shape != (count,) or not (0 <= values.min() and values.max() <= 1):
            raise ValueError(f"curve {name!r} has shape {values.shape}; give {count} shares in [0, 1]")
    start = count if start is None else start
    if not 1 <= start <= count:
        raise ValueError(f"start is {start}; expected 1 to {count} candidates")
    data = {
        "captions": [each.caption for each in shown],
        "candidates": [_entries(each, quality) for each in shown],
        "curves": {name: [[round(place, 1) for place in point] for point in _points(each)] for name, each in lines.items()},
        "shares": {name: [f"{100 * value:.0f} %" for value in values] for name, values in lines.items()},
    }  # fmt: skip
    return fragment("explorer", _body(data, start), data, "Ranking explorer: candidates, their scores and the verdict")


def _entries(each: Judged, quality: int) -> list[dict]:
    return [
        {"source": data_uri(image, quality), "score": round(float(score), 6), "right": bool(right), "seen": str(seen)}
        for image, score, right, seen in zip(each.images, each.scores, each.right, each.seen, strict=True)
    ]


def _body(data: dict, start: int) -> str:
    candidates, count = data["candidates"][0], len(data["candidates"][0])
    by_score = sorted(range(count), key=lambda place: -candidates[place]["score"])
    picked = max(range(start), key=lambda place: candidates[place]["score"])
    items = "".join(_item(candidates[place], place, place == picked, place < start) for place in by_score)
    captions = "".join(
        f'<option value="{place}">{escape(each)}</option>' for place, each in enumerate(data["captions"])
    )
    orders = "".join(
        f'<option value="{place}"{" selected" if place == 1 else ""}>{name}</option>'
        for place, name in enumerate(ORDERS)
    )
    right = sum(each["right"] for each in candidates[:start])
    verdict = "right" if candidates[picked]["right"] else f"wrong, the judge sees “{candidates[picked]['seen']}”"
    return (
        '<div class="controls three" hidden>'
        f'<label class="wide">Caption <select class="explorer-caption">{captions}</select></label>'
        f'<label class="explorer-half">Candidates drawn, n <output>{start}</output>'
        f'<input type="range" min="1" max="{count}" value="{start}" step="1"></label>'
        f'<label class="explorer-rest">Shown <select class="explorer-order">{orders}</select></label></div>\n'
        f'<p class="heading">“{escape(data["captions"][0])}”</p>\n'
        f'<ol class="pictures explorer-pictures">{items}</ol>\n'
        f'<p class="status" role="status">Of {start} drawn, {right} {"is" if right == 1 else "are"} right. CLIP picks the '
        f"framed one, with {candidates[picked]['score']:.2f}: {escape(verdict)}.</p>\n"
        f"{_plot(data, start)}"
    )


def _item(entry: dict, place: int, picked: bool, drawn: bool) -> str:
    words = "right" if entry["right"] else f"wrong, looks like {entry['seen']}"
    classes = " ".join(name for name, on in (("explorer-pick", picked), ("explorer-later", not drawn)) if on)
    return (
        f'<li class="{classes}"><img src="{entry["source"]}" alt="{escape(f"number {place + 1}, {words}")}">'
        f"<span>{entry['score']:.2f} {'✓' if entry['right'] else '✗'}</span></li>"
    )


def _points(values: np.ndarray) -> list[tuple[float, float]]:
    """Places of a curve in the plot; n runs on a logarithmic axis, the share from 0 to 1."""
    number = np.arange(1, len(values) + 1)
    across = np.log(number) / max(np.log(len(values)), 1e-9)
    return list(zip(LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1 - values) * (HEIGHT - TOP - BOTTOM), strict=True))


def _plot(data: dict, start: int) -> str:
    if not data["curves"]:
        return ""
    count = len(next(iter(data["curves"].values())))
    base, marks = HEIGHT - BOTTOM, []
    for share in (0, 0.5, 1):
        height = TOP + (1 - share) * (base - TOP)
        marks.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}" stroke="#ddd"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{height + 4}" text-anchor="end">{100 * share:.0f} %</text>')
    ticks = sorted({1, count, *(2**power for power in range(count.bit_length()) if 2**power <= count)})
    first = next(iter(data["curves"].values()))
    marks += [f'<text x="{first[n - 1][0]}" y="{base + 16}" text-anchor="middle">{n}</text>' for n in ticks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(f'<text x="{middle}" y="{base + 33}" text-anchor="middle">candidates n, all captions together</text>')
    names, lowest = {}, -np.inf
    for name, points in sorted(data["curves"].items(), key=lambda item: item[1][-1][1]):
        lowest = names[name] = max(points[-1][1], lowest + 15)  # names must not lie on each other
    for place, (name, points) in enumerate(data["curves"].items()):
        colour, dash = COLOURS[place], DASHES[place]
        path = " ".join(f"{x},{y}" for x, y in points)
        marks.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        marks.append(f'<circle cx="{points[start - 1][0]}" cy="{points[start - 1][1]}" r="4.5" fill="{colour}"/>')
        text = f"{escape(name)} {data['shares'][name][start - 1]}"
        marks.append(
            f'<text class="explorer-name" x="{WIDTH - RIGHT + 8}" y="{names[name] + 4}" style="fill:{colour}">{text}</text>'
        )
    label = "; ".join(f"{name} from {each[0]} to {each[-1]}" for name, each in data["shares"].items())
    return (
        f'<svg class="explorer-plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="'
        f'{escape(f"Share of captions got right over n = 1 to {count}: {label}")}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>{"".join(marks)}</svg>'
    )
