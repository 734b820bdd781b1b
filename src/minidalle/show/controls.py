"""Temperature, guidance and top-k to turn by hand: what one step may draw, and what becomes of the picture.

Every state is computed beforehand and travels inside the page, so that the sliders move without a kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from minidalle.bart import sample
from minidalle.bart.sampling import check_settings, guide, warp
from minidalle.show.fragment import Fragment, data_uri, escape, fragment, pictures_list
from minidalle.show.widgets import arrange

__all__ = ["Turn", "explore_sampling", "sampling_controls"]
AXES = ("guidance", "temperature", "top_k")
LABELS = ("Guidance", "Temperature", "Top-k")


@dataclass(frozen=True)
class Turn:
    """One position of the three knobs, and what it gave.

    Attributes:
        guidance, temperature, top_k: as `minidalle.bart.sample` takes them.
        probabilities: `(V,)` of each code at the step in question.
        images: `(n, height, width, 3)`, pictures drawn from this step on.
    """

    guidance: float
    temperature: float
    top_k: int
    probabilities: np.ndarray
    images: np.ndarray


def explore_sampling(
    pipe,
    prompt: str,
    prefix_codes: np.ndarray,
    *,
    guidance: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    temperature: Sequence[float] = (0.5, 1.0, 1.5),
    top_k: Sequence[int] = (1, 8, 1024),
    n: int = 8,
    seed: int = 0,
) -> list[Turn]:
    """Draw one caption with every combination of settings, for `sampling_controls`.

    prefix_codes: `(P,)`, the beginning that all pictures share; the step whose probabilities are kept is the one after it.
    Raises ValueError when nothing is left to draw, or a setting is out of its range.
    """
    length, codebook = pipe.bart.config.image_length, pipe.vqgan.config.n_embed
    if len(prefix_codes) >= length:
        raise ValueError(f"{len(prefix_codes)} codes are given of {length}; leave at least one to draw")
    text_ids, text_mask = pipe.read([prompt, ""])
    codes = np.zeros((2, length), np.int32)
    codes[:, : len(prefix_codes)] = prefix_codes
    logits = pipe.bart(text_ids, text_mask, codes)[:, len(prefix_codes), :codebook]
    rows = np.repeat(text_ids[:1], n, 0), np.repeat(text_mask[:1], n, 0)
    turns = []
    for knobs in [(s, t, k) for s in guidance for t in temperature for k in top_k]:
        settings = check_settings(*knobs, None, codebook)
        probabilities = jax.nn.softmax(warp(guide(*logits, settings.guidance), settings))
        drawn = sample(
            pipe.bart, *rows, text_ids[1:], text_mask[1:], key=jax.random.key(seed), prefix_codes=prefix_codes,
            codebook_size=codebook, **dict(zip(AXES, knobs, strict=True)),
        )  # fmt: skip
        turns.append(Turn(*knobs, np.asarray(probabilities), pipe.decode(drawn)))
    return turns


def sampling_controls(pipe, prefix_codes: np.ndarray, turns: Sequence[Turn], *, most: int = 8) -> Fragment:
    """Three sliders, the likeliest codes of one step as bars beside the patch that each would paint, and the pictures.

    prefix_codes: `(P,)`, the beginning that `turns` share. turns: one for each combination of the values that occur in
    them. most: bars that are shown. The patch of a code is cut from the beginning continued by it, all else white.
    Raises ValueError naming the combination that is missing or given twice.
    """
    values, table = arrange("set of controls", turns, AXES, "explore_sampling(pipe, prompt, prefix_codes)")
    likeliest = {key: _likeliest(turn.probabilities, most) for key, turn in table.items()}
    shown = sorted({code for codes in likeliest.values() for code in codes})
    data = {
        "values": [[f"{value:g}" if axis < 2 else str(value) for value in each] for axis, each in enumerate(values)],
        "patches": dict(zip(map(str, shown), _patches(pipe, np.asarray(prefix_codes), shown), strict=True)),
        "states": {",".join(map(str, key)): _entry(turn, likeliest[key]) for key, turn in table.items()},
    }
    start = [_nearest(each, wanted) for each, wanted in zip(values, (1, 1, np.inf), strict=True)]
    return fragment("controls", _body(data, start), data, "Turn guidance, temperature and top-k")


def _likeliest(probabilities: np.ndarray, most: int) -> list[int]:
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [int(code) for code in order if probabilities[code] > 0]


def _entry(turn: Turn, codes: list[int]) -> dict:
    chances = turn.probabilities[turn.probabilities > 0].astype(np.float64)
    perplexity = np.exp(-(chances * np.log(chances)).sum())
    count = len(chances)
    allowed = "1 code is" if count == 1 else f"{count:,} codes are"
    return {
        "bars": [[code, round(float(turn.probabilities[code]), 4)] for code in codes],
        "note": f"{allowed} left to draw from; perplexity {perplexity:.1f}.",
        "pictures": [
            {"source": data_uri(image), "alt": f"picture {index + 1} of {len(turn.images)}", "score": ""}
            for index, image in enumerate(turn.images)
        ],
    }


def _patches(pipe, prefix: np.ndarray, codes: list[int]) -> list[str]:
    """What each code would paint at the place after the beginning, as `data:` addresses."""
    length = pipe.bart.config.image_length
    whole = np.full((-(-len(codes) // 8) * 8, length), pipe.white_code, np.int32)  # full batches, compiled once
    whole[:, : len(prefix)] = prefix
    whole[: len(codes), len(prefix)] = codes
    images = np.concatenate([pipe.decode(whole[start : start + 8]) for start in range(0, len(whole), 8)])
    columns = round(length**0.5)
    row, column = divmod(len(prefix), columns)
    side = images.shape[1] // columns
    cut = images[: len(codes), row * side : (row + 1) * side, column * side : (column + 1) * side]
    return [data_uri(patch, 100) for patch in cut]


def _body(data: dict, start: list[int]) -> str:
    state = data["states"][",".join(map(str, start))]
    sliders = "".join(
        f"<label>{label} <output>{escape(each[index])}</output>"
        f'<input type="range" min="0" max="{len(each) - 1}" value="{index}" step="1"'
        f"{' disabled' if len(each) == 1 else ''}></label>"
        for label, each, index in zip(LABELS, data["values"], start, strict=True)
    )
    bars = "".join(
        f'<li><img src="{data["patches"][str(code)]}" alt="patch of code {code}"><span>{code}</span>'
        f'<span class="track"><span style="width:{100 * chance:.1f}%"></span></span><span>{100 * chance:.1f} %</span></li>'
        for code, chance in state["bars"]
    )
    return (
        f'<div class="controls three" hidden>{sliders}</div>\n'
        f'<div class="halves"><div><p class="heading">The next code</p><ol class="chances">{bars}</ol></div>'
        f'<div><p class="heading">Pictures drawn from there on</p>{pictures_list(state["pictures"])}</div></div>\n'
        f'<p class="status" role="status">{escape(state["note"])}</p>'
    )


def _nearest(values: list[float], wanted: float) -> int:
    return len(values) - 1 if np.isinf(wanted) else int(np.abs(np.asarray(values) - wanted).argmin())
