"""Captions cut into tokens: boxes around pieces, as a figure and as a part to play with."""

from collections.abc import Mapping, Sequence

from matplotlib.patches import FancyBboxPatch

from minidalle.show.fragment import Fragment, escape, fragment
from minidalle.show.style import FAINT, INK, Picture, new_figure, styled
from minidalle.text import Tokenizer, byte_names

__all__ = ["merge_slider", "merge_stages", "pieces", "readable"]

# Pale, so that dark letters read on each; equal pieces get equal colours, and nothing more is meant by them.
PALE = ("#cfe3f3", "#fbd9c0", "#c6e9dc", "#f2d9e8", "#fae3b5", "#d9d3ee")
BYTES = {name: byte for byte, name in byte_names().items()}


def readable(token: str) -> str:
    """A token of a byte-level vocabulary for people: "Ġskin" as "␣skin", bytes that are no whole character as "⟨F0⟩"."""
    if any(name not in BYTES for name in token):
        return token  # a special token
    text = bytes(BYTES[name] for name in token).decode("utf-8", errors="surrogateescape")
    written = (f"⟨{ord(sign) - 0xDC00:02X}⟩" if 0xDC80 <= ord(sign) <= 0xDCFF else sign for sign in text)
    return "".join(written).replace(" ", "␣")


def merge_stages(tokenizer: Tokenizer, caption: str) -> list[tuple[int, list[str]]]:
    """How a caption is cut while merges come into force: pairs (number of merges, tokens), one for each change.

    The first is (0, single bytes), the last is what `tokenizer.encode` cuts. Merge number n is tried after all before it;
    the tokens are the vocabulary's own names, see `readable`.
    """
    text = tokenizer.backend.normalizer.normalize_str(caption) if tokenizer.backend.normalizer else caption
    words = [list(word) for word, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str(text)]
    stages = [(0, [name for word in words for name in word])]
    for number, pair in enumerate(tokenizer.merges, 1):
        merged = [_merge(word, pair) for word in words]
        if merged != words:
            words = merged
            stages.append((number, [token for word in words for token in word]))
    return stages


@styled
def pieces(rows: Mapping[str, Sequence[str]], *, title: str = "", width: int = 44) -> Picture:
    """Captions as rows of boxes, one for each token, with the number of tokens at the right.

    rows: label → tokens, as `readable` writes them. width: characters that fit into a line; longer rows are wrapped.
    Raises ValueError when there are no rows.
    """
    if not rows:
        raise ValueError("pieces got no rows; give a mapping from label to tokens")
    lines = [(label, line, len(row)) for label, row in rows.items() for line in _wrap(list(row), width)]
    figure, ((axis,),) = new_figure(0.11 * (width + 4), 0.4 * len(lines) + 0.32 * len(rows) + (0.3 if title else 0.0))
    axis.set(xlim=(0, width + 4), title=title)
    axis.axis("off")
    palette: dict[str, str] = {}
    height, previous = 0.0, None
    for label, line, count in lines:
        if label != previous:
            height -= 0.8
            axis.text(0, height + 0.46, label, fontsize=9.5, color=FAINT, va="bottom")
            axis.text(width + 4, height + 0.46, f"{count} tokens", fontsize=9.5, color=FAINT, va="bottom", ha="right")
        _draw_line(axis, line, height, palette)
        height, previous = height - 1.0, label
    axis.set_ylim(height + 0.35, 0.1)
    return figure


def merge_slider(tokenizer: Tokenizer, captions: Sequence[str]) -> Fragment:
    """Cut captions yourself, merge by merge: a list of captions, a slider for the number of merges, and the tokens.

    Every cut is computed beforehand and travels with the page. Raises ValueError when there are no captions.
    """
    if not captions:
        raise ValueError("the slider got no captions; give at least one")
    merges = tokenizer.merges
    stages = [merge_stages(tokenizer, caption) for caption in captions]
    tokens = list(dict.fromkeys(token for each in stages for _, cut in each for token in cut))
    place = {token: index for index, token in enumerate(tokens)}
    data = {
        "tokens": [readable(token) for token in tokens],
        "ids": [tokenizer.backend.token_to_id(token) for token in tokens],
        "merges": [[readable(left), readable(right)] for left, right in merges],
        "stages": [[[number, [place[token] for token in cut]] for number, cut in each] for each in stages],
    }
    options = "".join(f'<option value="{index}">{escape(caption)}</option>' for index, caption in enumerate(captions))
    whole = "".join(
        f"<li>{escape(readable(token))}<small>{tokenizer.backend.token_to_id(token)}</small></li>"
        for token in stages[0][-1][1]
    )
    body = (
        f'<div class="controls" hidden><label class="wide">Caption <select>{options}</select></label>'
        f'<label class="wide">Merges <output>{len(merges)}</output>'
        f'<input type="range" min="0" max="{len(merges)}" value="{len(merges)}" step="1"></label></div>\n'
        '<p class="steps" hidden><button type="button">← change before</button> '
        '<button type="button">next change →</button></p>\n'
        f'<ol class="pieces">{whole}</ol>\n'
        f'<p class="status" role="status">All {len(merges)} merges: {len(stages[0][-1][1])} tokens.</p>'
    )
    return fragment("merges", body, data, "How a caption is cut into tokens as merges come into force")


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged, place = [], 0
    while place < len(word):
        found = tuple(word[place : place + 2]) == pair
        merged.append("".join(word[place : place + 2]) if found else word[place])
        place += 2 if found else 1
    return merged


def _wrap(row: list[str], width: int) -> list[list[str]]:
    lines, used = [[]], 0.0
    for piece in row:
        if lines[-1] and used + _room(piece) > width + 4:
            lines, used = [*lines, []], 0.0
        lines[-1].append(piece)
        used += _room(piece)
    return lines


def _room(piece: str) -> float:
    return len(piece) + 0.75  # characters, and the box around them


def _draw_line(axis, line: list[str], height: float, palette: dict[str, str]) -> None:
    left = 0.0
    for piece in line:
        colour = palette.setdefault(piece, PALE[len(palette) % len(PALE)])
        box = "round,pad=0,rounding_size=0.25"
        axis.add_patch(
            FancyBboxPatch((left, height - 0.36), _room(piece) - 0.2, 0.72, boxstyle=box, facecolor=colour, linewidth=0)
        )
        middle = left + (_room(piece) - 0.2) / 2
        axis.text(middle, height, piece, family="monospace", fontsize=11, color=INK, ha="center", va="center")
        left += _room(piece)
