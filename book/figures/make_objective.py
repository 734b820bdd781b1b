"""Draw the diagram of the chapter on the objective: `python book/figures/make_objective.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import CARD, FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

BLUE, ORANGE = KINDS["bart"], KINDS["text"]
CODES = (
    ("17", "#e9a6c6"),
    ("4", "#9fc9ec"),
    ("88", "#a6dcc5"),
    ("31", "#f3cf8e"),
    ("9", "#c6b4ec"),
)
LEFT, STEP, WIDE, HIGH = 232, 82, 66, 46


def shift() -> Drawing:
    """Inputs and targets of the decoder: the same codes, one place apart, behind the start token."""
    drawing = Drawing(
        680, 330, "The shift: inputs and targets of the decoder",
        "A table with two rows around the BART decoder. Below go in the start token and the codes 17, 4, 88, 31. Above shall "
        "come out the codes 17, 4, 88, 31, 9. Each code of the upper row stands one place further right in the lower one; "
        "the last code does not go in. The caption goes through the BART encoder and enters the decoder from the side, by "
        "cross attention.",
    )  # fmt: skip
    targets, bar, inputs = 46, 122, 236
    drawing.text(112, targets + HIGH / 2, "targets", 18, INK, bold=True)
    drawing.text(112, inputs + HIGH / 2, "inputs", 18, INK, bold=True)
    drawing.text(
        LEFT + 2 * STEP + WIDE / 2, 22, "the codes of the picture, in order", 15, FAINT
    )
    drawing.rectangle(LEFT - 14, bar, 4 * STEP + WIDE + 28, 64, *BLUE, 2)
    drawing.text(
        LEFT + 2 * STEP + WIDE / 2,
        bar + 32,
        ["BART decoder", "each place sees the inputs up to its own"],
        15,
        INK,
    )
    drawing.rectangle(22, bar, 150, 64, *ORANGE, 2)
    drawing.text(97, bar + 32, ["caption, read by", "the BART encoder"], 15, INK)
    drawing.arrow((174, bar + 32), (LEFT - 15, bar + 32))
    row = [("start", PAPER), *CODES]
    for place in range(5):
        left = LEFT + place * STEP
        middle = left + WIDE / 2
        cell(drawing, left, targets, *CODES[place])
        cell(drawing, left, inputs, *row[place])
        drawing.arrow((middle, inputs - 2), (middle, bar + 66))
        drawing.arrow((middle, bar - 2), (middle, targets + HIGH + 2))
    drawing.text(
        LEFT + 2 * STEP + WIDE / 2, 306, "the same codes, one place to the right; the last one stays out", 15, FAINT
    )  # fmt: skip
    return drawing


def cell(drawing: Drawing, left: float, top: float, words: str, fill: str) -> None:
    start = fill == PAPER
    drawing.rectangle(
        left, top, WIDE, HIGH, CARD if start else fill, INK if start else LINE, 2
    )
    drawing.text(
        left + WIDE / 2, top + HIGH / 2, words, 18, INK, bold=not start, italic=start
    )


def main() -> None:
    shift().save(Path(__file__).parent / "shift.svg")


if __name__ == "__main__":
    main()
