"""Draw the diagrams of the chapter on BART: `python book/figures/make_bart.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

BLUE, PINK, ORANGE = KINDS["bart"], KINDS["codes"], KINDS["text"]


def bart_and_dallebart() -> Drawing:
    """Encoder and decoder with the tables around them: one table for BART, two and an output layer for DalleBart."""
    drawing = Drawing(
        520, 664, "BART and DalleBart",
        "Above, BART: the encoder reads a damaged text, the decoder attends to its states and writes the whole text. One "
        "table of tokens turns the tokens of both into vectors, and the same table turns the decoder's states into scores. "
        "Below, DalleBart: the encoder reads a caption through a table of tokens, the decoder reads and writes image codes "
        "through a table of codes and an output layer of its own.",
    )  # fmt: skip
    network(
        drawing, 0, "BART repairs a text",
        ["woman : ▮ skin tone"], ["</s> woman : dark …"], ["woman : dark skin tone"],
    )  # fmt: skip
    part(drawing, 30, 258, 460, 36, ORANGE, "one table of tokens")
    part(drawing, 280, 106, 210, 36, ORANGE, "the same table")
    drawing.arrow((20, 332), (500, 332), colour=LINE, thick=1.2, head=False)
    network(
        drawing, 326, "DalleBart draws a caption",
        ["woman : dark skin tone"], ["start 417 8 903 …"], ["417 8 903 12 …"],
    )  # fmt: skip
    part(drawing, 30, 584, 210, 36, ORANGE, "table of tokens")
    part(drawing, 280, 584, 210, 36, PINK, "table of codes")
    part(drawing, 280, 432, 210, 36, PINK, "output layer")
    return drawing


def network(drawing: Drawing, top: float, title: str, read, written, output) -> None:
    """Both stacks with their arrows; the tables between them are drawn by the caller."""
    drawing.text(30, top + 32, title, 19, INK, bold=True, anchor="start")
    drawing.text(385, top + 72, output, 16, INK)
    part(drawing, 30, top + 166, 210, 68, BLUE, "encoder")
    part(drawing, 280, top + 166, 210, 68, BLUE, "decoder")
    drawing.arrow((241, top + 200), (278, top + 200))
    for x in (135, 385):
        drawing.arrow((x, top + 257), (x, top + 236))
        drawing.arrow((x, top + 310 - 6), (x, top + 296))
    drawing.arrow((385, top + 165), (385, top + 144))
    drawing.arrow((385, top + 105), (385, top + 86))
    drawing.text(135, top + 314, read, 16, INK)
    drawing.text(385, top + 314, written, 16, INK)


def part(drawing: Drawing, left, top, width, height, kind, words: str) -> None:
    drawing.rectangle(left, top, width, height, *kind, 2)
    drawing.text(left + width / 2, top + height / 2, words, 17, INK)


def bart_blocks() -> Drawing:
    """One encoder layer in the arrangement of BART, and in that of DALL·E mini."""
    drawing = Drawing(
        520, 640, "A layer of BART and a layer of DALL·E mini",
        "From top to bottom. BART: attention, a sum with what came in, a norm; then a dense layer, gelu, a dense layer, a sum "
        "and a norm. DALL·E mini: norm, attention, norm, sum; then norm, a gated hidden layer, norm, a dense layer, sum. In "
        "BART every way through the layer passes the norms; in DALL·E mini the stream goes past all of them.",
    )  # fmt: skip
    drawing.text(140, 30, "BART", 19, INK, bold=True)
    drawing.text(385, 30, "DALL·E mini", 19, INK, bold=True)
    flow(
        drawing, 140,
        [
            [("attention", BLUE, 151)],
            [("dense", BLUE, 342), ("gelu", (PAPER, LINE), 388), ("dense", BLUE, 434)],
        ],
        sums=[206, 489], norms=[251, 534],
    )  # fmt: skip
    flow(
        drawing, 385,
        [
            [("norm", ORANGE, 105), ("attention", BLUE, 151), ("norm", ORANGE, 197)],
            [("norm", ORANGE, 342), ("gelu(gate) × value", BLUE, 388), ("norm", ORANGE, 434), ("dense", BLUE, 480)],
        ],
        sums=[250, 535], norms=[],
    )  # fmt: skip
    drawing.text(
        260,
        615,
        "the line at the side is the stream: what a block leaves as it was",
        15,
        FAINT,
    )
    return drawing


def flow(drawing: Drawing, x: float, branches, sums, norms) -> None:
    """A column: branches of (words, kind, middle) ending in sums, norms on the stream behind them."""
    bottom, start = 586, 48
    boxes = sorted(
        (
            *((y, words, kind) for branch in branches for words, kind, y in branch),
            *((y, "norm", ORANGE) for y in norms),
        ),
        key=lambda box: box[0],
    )
    stops = sorted(
        [*((y - 17, y + 17) for y, *_ in boxes), *((y - 13, y + 13) for y in sums)]
    )
    for (_, before), (after, _) in zip(
        [(0, start), *stops], [*stops, (bottom, 0)], strict=True
    ):
        drawing.arrow((x, before), (x, after))
    for branch, total in zip(branches, sums, strict=True):
        above = branch[0][2] - 17
        leave = max([start, *(end for _, end in stops if end < above)]) + 9
        drawing.arrow((x, leave), (x - 104, leave), (x - 104, total), (x - 14, total))
        drawing.circle(x, leave, 3.5, FAINT, FAINT, 0)
    for y, words, kind in boxes:
        drawing.rectangle(x - 84, y - 17, 168, 34, *kind, 2)
        drawing.text(x, y, words, 16, INK)
    for y in sums:
        drawing.circle(x, y, 13, PAPER, INK, 2)
        drawing.text(x, y, "+", 19, INK, bold=True)


def main() -> None:
    folder = Path(__file__).parent
    bart_and_dallebart().save(folder / "bart-dallebart.svg")
    bart_blocks().save(folder / "bart-blocks.svg")


if __name__ == "__main__":
    main()
