"""Draw the diagrams of the chapter on JAX: `python book/figures/make_crossing.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

BART, CODES, VQGAN, TEXT = (KINDS[kind] for kind in ("bart", "codes", "vqgan", "text"))
CHANNELS = (("R", "#f7c4bb"), ("G", "#c0e3c4"), ("B", "#bcd4f3"))
PIXELS = "abcdef"  # row by row: 2 rows of 3
MARKED = "e"  # row 1, column 1
CODE = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def layouts() -> Drawing:
    """The same six pixels on two tapes: plane by plane, and pixel by pixel."""
    drawing = Drawing(
        700, 436, "One picture, two orders in memory",
        "A picture of 2 rows and 3 columns has six pixels, a to f, each with a red, a green and a blue number. Channels first, "
        "N C H W, memory holds all six reds, then all greens, then all blues: the three numbers of pixel e lie six places "
        "apart. Channels last, N H W C, memory holds pixel after pixel: the three numbers of e are neighbours.",
    )  # fmt: skip
    left, top, side = 246, 44, 66
    drawing.text(left + 1.5 * side, 26, "a picture of 2 × 3 pixels", 16, INK, bold=True)
    for index, pixel in enumerate(PIXELS):
        x, y = left + index % 3 * side, top + index // 3 * side
        for channel, (_, colour) in enumerate(CHANNELS):
            drawing.rectangle(
                x + channel * side / 3, y, side / 3, side, colour, colour, 0.5, 0
            )
        drawing.text(x + side / 2, y + side / 2, pixel, 22, INK, bold=True)
        drawing.rectangle(x, y, side, side, "none", PAPER, 3, 2)
    x, y = left + side, top + side
    drawing.rectangle(x, y, side, side, "none", INK, 3, 4)
    drawing.text(left - 16, top + side / 2, "row 0", 15, FAINT, anchor="end")
    drawing.text(left - 16, top + side * 1.5, "row 1", 15, FAINT, anchor="end")
    tape(
        drawing,
        218,
        "channels first: N C H W",
        "PyTorch's order",
        [(channel, pixel) for channel in range(3) for pixel in PIXELS],
        "place of (c, y, x) = (c · 2 + y) · 3 + x",
        6,
    )
    tape(
        drawing,
        332,
        "channels last: N H W C",
        "Flax's order",
        [(channel, pixel) for pixel in PIXELS for channel in range(3)],
        "place of (y, x, c) = (y · 3 + x) · 3 + c",
        3,
    )
    return drawing


def tape(drawing: Drawing, top, name, who, cells, formula, group) -> None:
    """Eighteen numbers in the order of memory, those of the marked pixel framed."""
    width, height = 34, 38
    gap = 6 if group == 6 else 3
    drawing.text(31, top, name, 16, INK, bold=True, anchor="start")
    drawing.text(669, top, who, 15, FAINT, anchor="end")
    for index, (channel, pixel) in enumerate(cells):
        x = 351 + (index - 9) * width
        x += (index // group - (len(cells) // group - 1) / 2) * gap
        drawing.rectangle(
            x, top + 16, width - 2, height, CHANNELS[channel][1], PAPER, 1, 3
        )
        drawing.text(x + width / 2 - 1, top + 16 + height / 2, pixel, 18, INK)
        if pixel == MARKED:
            drawing.rectangle(x, top + 16, width - 2, height, "none", INK, 2.5, 3)
    drawing.text(350, top + 74, formula, 15, FAINT, family=CODE)


def compilation() -> Drawing:
    """What jit does at the first call, and what it does afterwards."""
    drawing = Drawing(
        700, 372, "What jit does",
        "At the first call the Python function runs once with stand-ins that have a shape and a type but no values. What it "
        "does is written down as a jaxpr, one line for each operation. XLA fuses the operations and plans memory, and makes "
        "machine code for the device, which is kept. A later call with the same shapes and types goes straight to the machine "
        "code; another shape or type goes through all of it again.",
    )  # fmt: skip
    steps = (
        (
            "Python",
            ["def f(x):", "\u00a0\u00a0y = x * x", "\u00a0\u00a0return y + 1"],
            (PAPER, LINE),
        ),
        ("jaxpr", ["a: f32[3]", "b = mul a a", "c = add b 1.0"], TEXT),
        ("XLA", ["one loop:", "\u00a0\u00a0a·a + 1", "no array b"], VQGAN),
        ("machine code", ["0101 1100", "1101 0010", "0110 1011"], BART),
    )
    width, top, height = 140, 62, 104
    lefts = [24 + index * 171 for index in range(4)]
    words = ("trace", "fuse, plan", "compile")
    for left, (name, lines, (fill, edge)) in zip(lefts, steps, strict=True):
        drawing.text(left + width / 2, top - 20, name, 17, INK, bold=True)
        drawing.rectangle(left, top, width, height, fill, edge, 2)
        drawing.text(
            left + 14, top + height / 2, lines, 14, INK, anchor="start", family=CODE
        )
    for left, word in zip(lefts[:-1], words, strict=True):
        drawing.arrow((left + width + 2, top + 52), (left + 169, top + 52))
        drawing.text(left + width + 15.5, top + height + 22, word, 15, FAINT)
    drawing.rectangle(24, 266, 140, 74, PAPER, LINE, 2)
    drawing.text(94, 303, ["a call with", "arrays"], 16, INK)
    middle = 350
    diamond = [(middle - 130, 303), (middle, 254), (middle + 130, 303), (middle, 352)]
    drawing.polygon(diamond, CODES[0], CODES[1], 2)
    drawing.text(middle, 303, ["these shapes and", "types seen before?"], 15, INK)
    drawing.arrow((166, 303), (middle - 132, 303))
    drawing.arrow(
        (middle + 132, 303), (607, 303), (607, top + height + 3), colour=BART[1]
    )
    drawing.text(548, 288, "yes", 16, BART[1], bold=True)
    drawing.text(612, 326, "microseconds", 15, FAINT)
    drawing.arrow(
        (middle, 252), (middle, 218), (94, 218), (94, top + height + 3), colour=TEXT[1]
    )
    drawing.text(middle + 22, 234, "no", 16, TEXT[1], bold=True)
    drawing.text(190, 234, "milliseconds to minutes", 15, FAINT)
    return drawing


def main() -> None:
    folder = Path(__file__).parent
    layouts().save(folder / "crossing-layouts.svg")
    compilation().save(folder / "crossing-jit.svg")


if __name__ == "__main__":
    main()
