"""Draw the diagrams of the VQGAN chapters: `python book/figures/make_diagrams.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

GREEN, PINK, ORANGE = KINDS["vqgan"], KINDS["codes"], KINDS["text"]
CODE_ROWS = ("#e9a6c6", "#9fc9ec", "#a6dcc5", "#f3cf8e", "#c6b4ec")


def quantization() -> Drawing:
    """One vector finds its nearest codebook entry; the gradient goes round the choice."""
    drawing = Drawing(
        680, 372, "Quantizing one vector",
        "A vector from the encoder is compared with every entry of the codebook. The nearest entry, here number 2, goes on "
        "to the decoder, and its index is the code. Going back, the gradient is copied past the choice, from the entry to "
        "the vector: the straight-through estimator.",
    )  # fmt: skip
    middle = 150
    drawing.text(74, 46, ["vector z from", "the encoder"], 16, INK, bold=True)
    drawing.text(340, 28, "codebook", 16, INK, bold=True)
    drawing.text(606, 46, ["entry e for", "the decoder"], 16, INK, bold=True)
    column(
        drawing,
        50,
        middle - 64,
        ("#f6d9a2", "#efc27b", "#f9e7c6", "#f3cf8e"),
        GREEN[1],
        names="z",
    )
    for index, colour in enumerate(CODE_ROWS):
        y = 54 + index * 40
        chosen = index == 2
        shades = (
            ("#f6d9a2", "#f3cf8e", "#f9e7c6", "#efc27b") if chosen else (colour,) * 4
        )
        for cell, shade in enumerate(shades):
            opacity = 1 if chosen else (0.95, 0.55, 0.75, 0.4)[(cell + index) % 4]
            drawing.rectangle(
                274 + cell * 36,
                y,
                36,
                30,
                shade,
                PAPER,
                1,
                2,
                f'fill-opacity="{opacity}"',
            )
        drawing.rectangle(
            274,
            y,
            144,
            30,
            "none",
            PINK[1] if chosen else LINE,
            3 if chosen else 1.2,
            4,
        )
        drawing.text(
            256, y + 15, str(index), 16, PINK[1] if chosen else FAINT, bold=chosen
        )
    column(
        drawing,
        582,
        middle - 64,
        ("#f6d9a2", "#f3cf8e", "#f9e7c6", "#efc27b"),
        PINK[1],
        names="e",
    )
    drawing.arrow((102, middle), (238, middle))
    drawing.text(170, middle - 30, ["which is", "nearest?"], 15, FAINT)
    drawing.arrow((422, middle), (578, middle))
    drawing.text(500, middle - 14, "take its row", 15, FAINT)
    drawing.arrow((346, 250), (346, 276))
    drawing.rectangle(286, 279, 120, 34, PINK[0], PINK[1], 2, 17)
    drawing.text(346, 296, "code = 2", 16, INK, bold=True)
    drawing.arrow(
        (606, middle + 68),
        (606, 342),
        (74, 342),
        (74, middle + 69),
        dashed=True,
        colour=ORANGE[1],
    )
    drawing.text(340, 328, "gradient: copied past the choice", 15, ORANGE[1])
    return drawing


def column(
    drawing: Drawing, left: float, top: float, shades, edge: str, names: str
) -> None:
    for index, shade in enumerate(shades):
        drawing.rectangle(left, top + index * 32, 48, 32, shade, PAPER, 1, 2)
        drawing.text(
            left + 24,
            top + index * 32 + 16,
            f"{names}{'₁₂₃₄'[index]}",
            16,
            INK,
            italic=True,
        )
    drawing.rectangle(left, top, 48, 128, "none", edge, 2.5, 4)


def vqgan() -> Drawing:
    """The whole autoencoder with the shape at every scale, for the shipped 64 × 64 pictures."""
    drawing = Drawing(
        700, 404, "The VQGAN and its shapes",
        "A picture of 64 by 64 pixels with 3 channels passes the encoder: 64 by 64, 32 by 32, 16 by 16 and 8 by 8, with more "
        "channels at each scale. The quantizer replaces each of the 8 by 8 vectors by a codebook entry, which gives 64 codes. "
        "The decoder goes the same way up again to a picture.",
    )  # fmt: skip
    heights = (150, 112, 80, 54)
    sides = (64, 32, 16, 8)
    floor = 222
    left = [92, 140, 188, 236]
    right = [432, 480, 528, 576]
    drawing.text(178, 30, "encoder", 17, GREEN[1], bold=True)
    drawing.text(350, 30, "quantizer", 17, PINK[1], bold=True)
    drawing.text(518, 30, "decoder", 17, GREEN[1], bold=True)
    face(drawing, 22, 147 - 26, 52)
    face(drawing, 626, 147 - 26, 52)
    drawing.text(48, 194, "picture", 15, INK)
    drawing.text(652, 194, "picture", 15, INK)
    for place, height, side in (
        *zip(left, heights, sides, strict=True),
        *zip(right, heights[::-1], sides[::-1], strict=True),
    ):
        drawing.rectangle(place, 147 - height / 2, 32, height, *GREEN, 2, 5)
        drawing.text(place + 16, floor + 20, str(side), 16, INK)
    for before, after in (
        (76, 92),
        *zip([x + 32 for x in left[:-1]], left[1:], strict=True),
    ):
        drawing.arrow((before + 1, 147), (after - 2, 147), thick=1.8)
    for before, after in (
        *zip([x + 32 for x in right[:-1]], right[1:], strict=True),
        (608, 625),
    ):
        drawing.arrow((before + 1, 147), (after - 2, 147), thick=1.8)
    for index in range(64):
        colour = CODE_ROWS[(index * 3 + index // 8 * 2 + index // 11) % 5]
        drawing.rectangle(
            317.5 + index % 8 * 8,
            114.5 + index // 8 * 8,
            7.2,
            7.2,
            colour,
            colour,
            0,
            1,
        )
    drawing.rectangle(312, 109, 75, 75, "none", PINK[1], 2.5, 6)
    drawing.text(350, floor + 20, "8 × 8", 16, INK)
    drawing.arrow((269, 147), (309, 147))
    drawing.arrow((388, 147), (429, 147))
    drawing.text(46, floor + 20, "64 × 64", 15, INK)
    drawing.text(654, floor + 20, "64 × 64", 15, INK)
    drawing.arrow((350, floor + 34), (350, floor + 60))
    drawing.rectangle(240, floor + 63, 220, 36, PINK[0], PINK[1], 2, 18)
    drawing.text(350, floor + 81, "64 codes: 417 8 903 …", 16, INK, bold=True)
    words = (
        ("residual blocks,", "then half the side"), ("nearest entry", "of the codebook"), ("residual blocks,", "then twice the side"),
    )  # fmt: skip
    for x, lines in zip((150, 350, 550), words, strict=True):
        drawing.text(x, floor + 144, lines, 15, FAINT)
    return drawing


def face(drawing: Drawing, left: float, top: float, side: float) -> None:
    drawing.rectangle(left, top, side, side, PAPER, LINE, 1.5, 5)
    x, y = left + side / 2, top + side / 2
    drawing.circle(x, y, side * 0.38, "#f3c44f", "#f3c44f", 0)
    for sign in (-1, 1):
        drawing.circle(
            x + sign * side * 0.14, y - side * 0.08, side * 0.05, INK, INK, 0
        )
    drawing.add(
        f'<path d="M{x - side * 0.17:g} {y + side * 0.1:g} Q{x:g} {y + side * 0.28:g} {x + side * 0.17:g} {y + side * 0.1:g}"'
        f' fill="none" stroke="{INK}" stroke-width="2.2" stroke-linecap="round"/>'
    )


def residual_block() -> Drawing:
    """Norm, swish, convolution, twice, added to what came in."""
    drawing = Drawing(
        680, 200, "The residual block",
        "What comes in takes two ways. One passes group normalisation, swish and a 3 by 3 convolution, and then the same "
        "three again. The other goes past them, through a 1 by 1 convolution where the number of channels changes. Both are "
        "added.",
    )  # fmt: skip
    y = 54
    names = (("group", "norm"), ("swish",), ("conv", "3 × 3")) * 2
    kinds = (ORANGE, (PAPER, LINE), GREEN) * 2
    starts = [84, 166, 242, 336, 418, 494]
    widths = [62, 56, 62, 62, 56, 62]
    drawing.text(32, y, "x", 20, INK, italic=True)
    drawing.arrow((46, y), (81, y))
    for index, (start, width, words, (fill, edge)) in enumerate(
        zip(starts, widths, names, kinds, strict=True)
    ):
        drawing.rectangle(start, y - 32, width, 64, fill, edge, 2)
        drawing.text(start + width / 2, y, words, 15, INK)
        if index < 5:
            drawing.arrow((start + width + 1, y), (starts[index + 1] - 2, y))
    drawing.arrow((557, y), (589, y))
    drawing.circle(606, y, 15, PAPER, INK, 2)
    drawing.text(606, y, "+", 20, INK, bold=True)
    drawing.arrow((622, y), (660, y))
    drawing.arrow((62, y), (62, 148), (606, 148), (606, y + 18))
    drawing.circle(62, y, 3.5, FAINT, FAINT, 0)
    drawing.rectangle(
        237, 123, 190, 50, "#f6f8fa", LINE, 1.5, 8, 'stroke-dasharray="5 4"'
    )
    drawing.text(332, 148, ["conv 1 × 1, where the", "channels change"], 14, FAINT)
    return drawing


def main() -> None:
    folder = Path(__file__).parent
    quantization().save(folder / "quantization.svg")
    vqgan().save(folder / "vqgan.svg")
    residual_block().save(folder / "residual-block.svg")


if __name__ == "__main__":
    main()
