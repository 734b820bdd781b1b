"""Draw the diagram of the sampling chapter: `python book/figures/make_sampling.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

TEXT, BART = KINDS["text"], KINDS["bart"]
STEPS, CELL, TOKENS = 6, 27, 3


def cache() -> Drawing:
    """What each step computes, without a cache and with one."""
    drawing = Drawing(
        680, 336, "What a step computes, without and with a cache",
        "Two tables with one row for each of six steps. Left, without a cache: step i computes the keys and values of three "
        "caption tokens and of codes 1 to i, so that the filled cells form a growing triangle. Right, with a cache: the "
        "caption's are computed once, before the first step; each step computes those of one code, the diagonal, and finds "
        "the others kept.",
    )  # fmt: skip
    for left, words, kept in (
        (66, "without a cache", False),
        (404, "with a cache", True),
    ):
        table(drawing, left, words, kept)
    legend = (
        (96, "computed: caption", TEXT, True),
        (290, "computed: codes", BART, True),
        (468, "kept from before", BART, False),
    )
    for x, words, kind, filled in legend:
        mark(drawing, x, 302, kind, filled)
        drawing.text(x + 32, 313.5, words, 15, INK, anchor="start")
    return drawing


def table(drawing: Drawing, left: float, words: str, kept: bool) -> None:
    codes = left + TOKENS * CELL + 14
    drawing.text((left + codes + STEPS * CELL) / 2, 22, words, 18, INK, bold=True)
    drawing.text(left + TOKENS * CELL / 2, 52, "caption", 15, FAINT)
    drawing.text(codes + STEPS * CELL / 2, 52, "codes so far", 15, FAINT)
    for step in range(STEPS):
        top = 70 + step * 36
        drawing.text(left - 10, top + 11.5, f"step {step + 1}", 15, FAINT, anchor="end")
        for token in range(TOKENS):
            mark(drawing, left + token * CELL, top, TEXT, not kept or step == 0)
        for code in range(STEPS):
            if code <= step:
                mark(drawing, codes + code * CELL, top, BART, not kept or code == step)
            else:
                drawing.rectangle(codes + code * CELL, top, 23, 23, PAPER, LINE, 0.8, 4)


def mark(drawing: Drawing, x: float, y: float, kind, computed: bool) -> None:
    fill, edge = kind
    if computed:
        drawing.rectangle(x, y, 23, 23, edge, edge, 1.5, 4)
    else:
        drawing.rectangle(x, y, 23, 23, fill, edge, 1.2, 4)


if __name__ == "__main__":
    cache().save(Path(__file__).parent / "cache.svg")
