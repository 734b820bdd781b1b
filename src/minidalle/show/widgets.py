"""Parts of a chapter to play with.

What a reader clicks on the page is computed beforehand and travels inside the page. Only the prompt box itself, where
you type your own words, needs a running kernel; on the page without one it is left out and the gallery remains.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minidalle.data.pictures import to_uint8
from minidalle.show.codes import code_colours, square
from minidalle.show.fragment import Fragment, asset, data_uri, escape, fragment, pictures_list

__all__ = [
    "PromptBox",
    "State",
    "arrange",
    "code_picker",
    "explore",
    "is_live",
    "live_box",
    "prompt_box",
    "prompt_gallery",
    "slider",
]


@dataclass(frozen=True)
class State:
    """What one setting of the sliders gave: pictures `(candidates, height, width, 3)` and, when ranked, their scores."""

    prompt: str
    guidance: float
    temperature: float
    seed: int
    images: np.ndarray
    scores: np.ndarray | None = None


def explore(
    pipe,
    prompts: Sequence[str],
    *,
    guidance: Sequence[float] = (1.0, 3.0),
    temperature: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0,),
    n: int = 4,
) -> list[State]:
    """Draw every prompt at every setting, for `prompt_gallery`.

    The pipeline runs once for each combination of guidance, temperature and seed, with all prompts in one batch.
    """
    states = []
    for seed in seeds:
        for scale in guidance:
            for warmth in temperature:
                found = pipe.generate(list(prompts), n=n, seed=seed, guidance=scale, temperature=warmth)
                for prompt, candidates in zip(prompts, found, strict=True):
                    images, scores = np.asarray(candidates.images), candidates.scores
                    states.append(State(prompt, scale, warmth, seed, images, scores))
    return states


def prompt_gallery(states: Sequence[State]) -> Fragment:
    """A gallery to click through without a kernel: a list of prompts, and sliders for guidance, temperature and seed.

    states: one for each combination of the values that occur in them. The slider for pictures shows the first of each
    state, which are the best where the pipeline ranked them.
    Raises ValueError naming the combination that is missing or given twice.
    """
    names = ("prompt", "guidance", "temperature", "seed")
    values, table = arrange("gallery", states, names, "explore(pipe, prompts)")
    most = min(len(state.images) for state in states)
    data = {
        "axes": [
            {"name": name, "values": [_number(value) for value in each]}
            for name, each in zip(names, values, strict=True)
        ],
        "states": {
            ",".join(map(str, key)): {"pictures": _entries(state), "note": _note(state)} for key, state in table.items()
        },
    }
    first = (0,) * len(names)
    options = "".join(f'<option value="{index}">{escape(prompt)}</option>' for index, prompt in enumerate(values[0]))
    controls = [f'<label class="wide">Prompt <select data-axis="prompt">{options}</select></label>']
    for name, each in zip(names[1:], values[1:], strict=True):
        controls.append(slider(name, name.capitalize(), 0, len(each) - 1, 0, _number(each[0])))
    controls.append(slider("pictures", "Pictures", 1, most, most, str(most)))
    body = (
        f'<div class="controls" hidden>{"".join(controls)}</div>\n'
        f"{pictures_list(data['states'][','.join(map(str, first))]['pictures'])}\n"
        f'<p class="status" role="status">“{escape(values[0][0])}”</p>'
    )
    return fragment("gallery", body, data, "Pictures drawn beforehand for several prompts and settings")


def arrange(what: str, states: Sequence, names: Sequence[str], maker: str) -> tuple[list[list], dict[tuple, object]]:
    """The values that each of the attributes `names` takes, and the state for each combination of their indices.

    Numbers are sorted, words stay in the order in which they come. Raises ValueError, which calls the widget `what`, for
    no states (make some with `maker`) and for a combination that is missing or given twice.
    """
    if not states:
        raise ValueError(f"the {what} got no states; make some with {maker}")
    values = [list(dict.fromkeys(getattr(state, name) for state in states)) for name in names]
    values = [each if isinstance(each[0], str) else sorted(each) for each in values]
    table = {}
    for state in states:
        key = tuple(each.index(getattr(state, name)) for name, each in zip(names, values, strict=True))
        if key in table:
            raise ValueError(f"the {what} got {_setting(names, values, key)} twice; give each combination once")
        table[key] = state
    for key in np.ndindex(*map(len, values)):
        if key not in table:
            raise ValueError(f"the {what} lacks {_setting(names, values, key)}; give a state for every combination")
    return values, table


class PromptBox:
    """The gallery, and below it, where a kernel runs, the box for your own words."""

    def __init__(self, gallery: Fragment | None, box):
        self.gallery, self.box = gallery, box

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for part in (self.gallery, self.box):
            if part is not None:
                display(part)


def prompt_box(pipe, states: Sequence[State] | None = None, *, live: bool | None = None) -> PromptBox:
    """Type a caption and draw it, where a kernel runs; click through what was drawn before, everywhere.

    states: what `explore` gave. live: whether to show the box for your own words, by default what `is_live` says.
    """
    live = is_live() if live is None else live
    if states is None and not live:
        raise ValueError("without a kernel there is nothing to show; give states=explore(pipe, prompts)")
    return PromptBox(prompt_gallery(states) if states is not None else None, live_box(pipe) if live else None)


def is_live() -> bool:
    """Whether someone sits at a kernel: in a notebook, and not while the book is built or tested.

    The build says so by `MINIDALLE_STATIC=1`; pytest is recognised by the variable that it sets itself.
    """
    if os.environ.get("MINIDALLE_STATIC", "0") not in ("", "0") or "PYTEST_CURRENT_TEST" in os.environ:
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def live_box(pipe):
    """The box for your own words as an ipywidgets `VBox` (7.7 and 8): a caption, four sliders and a button."""
    import ipywidgets

    wide = ipywidgets.Layout(width="100%", max_width="46rem")
    named = {"layout": wide, "style": {"description_width": "7rem"}}
    prompt = ipywidgets.Text(value="red heart", description="Prompt", **named)
    candidates = ipywidgets.IntSlider(value=4, min=1, max=16, description="Candidates", **named)
    temperature = ipywidgets.FloatSlider(
        value=pipe.sampling.temperature, min=0.1, max=2.0, step=0.1, description="Temperature", **named
    )
    guidance = ipywidgets.FloatSlider(
        value=pipe.sampling.guidance, min=0.0, max=10.0, step=0.5, description="Guidance", **named
    )
    seed = ipywidgets.IntSlider(value=0, min=0, max=99, description="Seed", **named)
    button = ipywidgets.Button(description="Generate", button_style="primary")
    result = ipywidgets.HTML(layout=wide)

    def generate(_) -> None:
        button.disabled, button.description = True, "Drawing …"
        try:
            found = pipe.generate(
                [prompt.value], n=candidates.value, seed=seed.value, guidance=guidance.value,
                temperature=temperature.value,
            )[0]  # fmt: skip
            state = State(
                prompt.value, guidance.value, temperature.value, seed.value, np.asarray(found.images), found.scores
            )
            body = f'{pictures_list(_entries(state))}<p class="status" role="status">{escape(_note(state))}</p>'
        except Exception as error:  # a traceback in a callback is swallowed by the page; the reader should see why
            body = f'<p class="status" role="alert">{escape(type(error).__name__)}: {escape(error)}</p>'
        finally:
            button.disabled, button.description = False, "Generate"
        result.value = f'<style>{asset("widgets.css")}</style><div class="minidalle">{body}</div>'

    button.on_click(generate)
    return ipywidgets.VBox([prompt, candidates, temperature, guidance, seed, button, result])


def code_picker(
    image,
    codes,
    decode: Callable[[np.ndarray], object],
    alternatives: int | Sequence[int] = 6,
    *,
    shape: tuple[int, int] | None = None,
    batch: int = 64,
    quality: int = 90,
) -> Fragment:
    """Click a cell of the code map and see which code stands there and what the picture becomes with another.

    image: the original `(height, width, 3)`. codes: `(code_length,)` or `(height, width)`, its codes.
    decode: codes `(batch, code_length)` int32 → images `(batch, height, width, 3)`; always called with full batches,
    so that it compiles once. alternatives: the codes to put in, or how many: then the most frequent of this picture.
    Every cell is decoded with every alternative beforehand: `code_length · alternatives` pictures, about 2 KB each.
    The patch of a code is the middle cell of the picture that has this code everywhere.
    """
    codes = square(codes, shape).astype(np.int32)
    rows, columns = codes.shape
    flat = codes.ravel()
    if isinstance(alternatives, (int, np.integer)):
        found, counts = np.unique(flat, return_counts=True)
        alternatives = found[np.argsort(-counts, kind="stable")][:alternatives]
    alternatives = [int(code) for code in alternatives]
    if not alternatives or len(set(alternatives)) < len(alternatives):
        raise ValueError(f"alternatives are {alternatives}; give at least one code, each once")
    shown = sorted({*flat.tolist(), *alternatives})

    changed = np.repeat(flat[None], flat.size * len(alternatives), axis=0)
    changed[np.arange(len(changed)), np.repeat(np.arange(flat.size), len(alternatives))] = np.tile(
        alternatives, flat.size
    )
    plain = np.repeat(np.array(shown, np.int32)[:, None], flat.size, axis=1)
    pictures = _decoded(decode, np.concatenate([flat[None], plain, changed]), batch)
    decoded, plain, changed = pictures[0], pictures[1 : 1 + len(shown)], pictures[1 + len(shown) :]

    high, wide = decoded.shape[0] // rows, decoded.shape[1] // columns
    top, left = high * (rows // 2), wide * (columns // 2)
    patches = plain[:, top : top + high, left : left + wide]
    changed = changed.reshape(flat.size, len(alternatives), *decoded.shape)
    data = {
        "rows": rows, "columns": columns, "codes": flat.tolist(), "alternatives": alternatives,
        "start": int(flat.size // 2 + columns // 2),
        "decoded": data_uri(decoded, quality),
        "patches": {str(code): data_uri(patch, 100) for code, patch in zip(shown, patches, strict=True)},
        "variants": [[data_uri(picture, quality) for picture in cell] for cell in changed],
        "notes": [
            [_change(decoded, picture, index, (rows, columns)) for picture in cell] for index, cell in enumerate(changed)
        ],
    }  # fmt: skip
    return fragment("picker", _picker_body(image, data), data, "Code map: choose a cell and the code that replaces it")


def _picker_body(image, data: dict) -> str:
    start, columns = data["start"], data["columns"]
    cells = []
    for index, code in enumerate(data["codes"]):
        row, column = divmod(index, columns)
        red, green, blue = code_colours(code)
        cells.append(
            f'<button type="button" role="radio" aria-checked="{str(index == start).lower()}" tabindex="-1"'
            f' style="background:rgb({red},{green},{blue})"'
            f' aria-label="row {row + 1}, column {column + 1}, code {code}">{code}</button>'
        )
    keep = data["codes"][start]
    choices = [(keep, f"keep {keep}"), *((code, str(code)) for code in data["alternatives"])]
    buttons = "".join(
        f'<button type="button" role="radio" aria-checked="false" tabindex="-1">'
        f'<img src="{data["patches"][str(code)]}" alt=""><span>{text}</span></button>'
        for code, text in choices
    )
    crowded = " crowded" if columns > 10 else ""
    return (
        '<div class="panels">'
        f'<figure><figcaption>Codes</figcaption><div class="cells{crowded}" role="radiogroup"'
        f' aria-label="Codes of the picture, arrow keys move" style="grid-template-columns:repeat({columns},1fr)">'
        f"{''.join(cells)}</div></figure>"
        '<figure class="result"><figcaption>Decoded</figcaption><div class="stage">'
        f'<img src="{data["decoded"]}" alt="The picture that the decoder draws from the codes as they are">'
        '<div class="frame"></div></div></figure>'
        '<figure><figcaption>Original</figcaption><div class="stage">'
        f'<img src="{data_uri(image, 100)}" alt="The picture that was encoded"><div class="frame"></div></div></figure>'
        "</div>\n"
        '<fieldset hidden><legend>Replace the code by</legend><div class="choices" role="radiogroup"'
        f' aria-label="Replace the code by">{buttons}</div></fieldset>\n'
        '<p class="status" role="status"></p>'
    )


def _decoded(decode: Callable, codes: np.ndarray, batch: int) -> np.ndarray:
    padded = np.concatenate([codes, np.repeat(codes[-1:], -len(codes) % batch, axis=0)])
    pictures = [to_uint8(decode(padded[start : start + batch])) for start in range(0, len(padded), batch)]
    return np.concatenate(pictures)[: len(codes)]


def _change(before: np.ndarray, after: np.ndarray, cell: int, shape: tuple[int, int]) -> str:
    """What share of the pixels differs visibly (by more than 2 of 255), and how much of that lies outside the cell."""
    different = np.abs(before.astype(int) - after.astype(int)).max(-1) > 2
    total = different.sum()
    if total == 0:
        return "no pixel changes visibly"
    row, column = divmod(cell, shape[1])
    high, wide = before.shape[0] // shape[0], before.shape[1] // shape[1]
    inside = different[row * high : (row + 1) * high, column * wide : (column + 1) * wide].sum()
    return f"{total / different.size:.0%} of the pixels change, {1 - inside / total:.0%} of these outside the cell"


def _entries(state: State) -> list[dict]:
    scores = [None] * len(state.images) if state.scores is None else state.scores
    return [
        {
            "source": data_uri(image),
            "alt": f"{state.prompt}, picture {index} of {len(state.images)}",
            "score": "" if score is None else f"{float(score):.2f}",
        }
        for index, (image, score) in enumerate(zip(state.images, scores, strict=True), 1)
    ]


def _note(state: State) -> str:
    if state.scores is None:
        return ""
    return " Best first; the number is CLIP's score."


def slider(name: str, label: str, low: int, high: int, value: int, text: str) -> str:
    """A labelled slider over whole numbers; `text` is what stands beside the label at the start."""
    off = " disabled" if low == high else ""
    return (
        f"<label>{escape(label)} <output>{escape(text)}</output>"
        f'<input type="range" data-axis="{name}" min="{low}" max="{high}" value="{value}" step="1"{off}></label>'
    )


def _number(value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _setting(names, values, key) -> str:
    return ", ".join(f"{name} {each[index]!r}" for name, each, index in zip(names, values, key, strict=True))
