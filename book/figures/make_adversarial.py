"""Draw the diagrams of the chapter on adversarial training: `python book/figures/make_adversarial.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

GREEN, PINK, ORANGE, PURPLE = (
    KINDS[kind] for kind in ("vqgan", "codes", "text", "clip")
)

# stride of each 4-wide convolution of a discriminator with n_layers=2
STRIDES = (2, 2, 1, 1)
PIXELS = 64


def losses() -> Drawing:
    """What a reconstruction is judged by, and where the gradients go."""
    drawing = Drawing(
        640, 438, "Three judges of one reconstruction",
        "A picture passes encoder, codes and decoder and becomes a reconstruction. Three judges look at it. Pixels: the "
        "mean difference from the picture. Features: the difference in the features of a frozen network. Discriminator: a "
        "verdict for each patch, without the picture beside it, from the start step on, times the adaptive weight. The "
        "gradients of all three go back to the decoder. The discriminator itself is trained on pictures and "
        "reconstructions, each with its true name.",
    )  # fmt: skip
    for left, width, words, kind in (
        (20, 92, "picture", KINDS["plain"]),
        (140, 92, "encoder", GREEN),
        (260, 80, "codes", PINK),
        (368, 92, "decoder", GREEN),
        (488, 134, "reconstruction", KINDS["plain"]),
    ):
        part(drawing, left, 28, width, 52, kind, words, 16)
    for left, right in ((112, 140), (232, 260), (340, 368), (460, 488)):
        drawing.arrow((left, 54), (right - 1, 54))
    judges(drawing)
    drawing.text(138, 368, ["only while", "it learns"], 14, FAINT)
    drawing.text(20, 410, "dashed: gradients", 15, ORANGE[1], anchor="start")
    drawing.text(
        620, 410, "before the start step the lowest row is missing", 15, FAINT, anchor="end"
    )  # fmt: skip
    return drawing


def judges(drawing: Drawing) -> None:
    """Three rows: what is compared, by whom, and the way of its gradient back to the decoder."""
    rows = (
        (154, "pixels", KINDS["plain"], "|x − y| or (x − y)²", True),
        (248, "features", PURPLE, "perceptual loss", True),
        (342, "discriminator", ORANGE, "− verdict of each patch", False),
    )
    drawing.arrow((555, 81), (555, 347), (472, 347), head=False, colour=FAINT)
    drawing.arrow((66, 81), (66, 347), (208, 347), colour=FAINT, head=True)
    for y, words, kind, loss, both in rows:
        part(drawing, 210, y - 22, 130, 54, kind, words, 16)
        drawing.arrow((555 if both else 472, y + 5), (342, y + 5), colour=FAINT)
        if both:
            drawing.arrow((66, y + 5), (208, y + 5), colour=FAINT)
        drawing.text(461, y - 10, loss, 14, INK)
    drawing.text(461, 368, "× adaptive weight", 14, ORANGE[1], bold=True)
    # one line for the gradients of all three
    for y, *_ in rows:
        drawing.arrow((340, y + 22), (368, y + 22), colour=ORANGE[1], dashed=True, head=False)  # fmt: skip
    drawing.arrow((368, 364), (368, 114), (414, 114), (414, 82), colour=ORANGE[1], dashed=True)  # fmt: skip


def part(drawing: Drawing, left, top, width, height, kind, words, size) -> None:
    drawing.rectangle(left, top, width, height, *kind, 2)
    drawing.text(left + width / 2, top + height / 2, words, size, INK)


def patches() -> Drawing:
    """From the side: the cone of pixels under one verdict."""
    drawing = Drawing(
        640, 420, "What one verdict of the discriminator sees",
        "Seen from the side, five rows. At the bottom 64 pixels. Above them four rows of values, 32, 16, 15 and 14, each "
        "made by a convolution of width 4, the first two with stride 2. Below one verdict of the top row a cone widens: 4 "
        "values, 7, 16, and at the bottom 34 pixels.",
    )  # fmt: skip
    left, pitch, top, gap = 24, 6.6, 80, 76
    counts, starts, steps = rows()
    heights = [top + gap * (len(counts) - 1 - row) for row in range(len(counts))]
    chosen = counts[-1] // 2
    low = high = chosen
    cone = []
    for row in range(len(counts) - 1, -1, -1):
        cone.append((row, low, high))
        if row:
            stride = STRIDES[row - 1]
            low, high = low * stride - 1, high * stride + 2
    drawing.text(24, 32, "from the side: the cone under one verdict", 17, INK, bold=True, anchor="start")  # fmt: skip
    sides = [
        [(left + pitch * (starts[row] + steps[row] * ends[side]), heights[row]) for row, *ends in cone]
        for side in (0, 1)
    ]  # fmt: skip
    drawing.polygon([*sides[0], *reversed(sides[1])], ORANGE[0], ORANGE[0], 1)
    for row, first, last in cone:
        values(drawing, left, pitch, heights[row], row, counts, starts, steps, first, last)  # fmt: skip
        seen = (
            f"{last - first + 1} under the verdict"
            if row < len(STRIDES)
            else "one of them chosen"
        )
        size = f"{counts[row]} {'pixels' if not row else 'verdicts' if row == len(STRIDES) else 'values'}"
        drawing.text(476, heights[row] - 10, size, 16, INK, bold=True, anchor="start")
        drawing.text(476, heights[row] + 12, seen, 15, ORANGE[1], anchor="start")  # fmt: skip
        if row:
            drawing.text(476, heights[row] + gap / 2 + 2, f"4 wide, stride {STRIDES[row - 1]}", 14, FAINT, anchor="start")  # fmt: skip
    return drawing


def rows() -> tuple[list[int], list[float], list[float]]:
    """How many values each row has, where its first one stands in pixels, and how far apart they are."""
    counts, starts, steps = [PIXELS], [0.0], [1.0]
    for stride in STRIDES:
        counts.append((counts[-1] + 2 - 4) // stride + 1)
        starts.append(
            starts[-1] + 0.5 * steps[-1]
        )  # padding 1: the first kernel covers −1 to 2
        steps.append(steps[-1] * stride)
    return counts, starts, steps


def values(drawing, left, pitch, y, row, counts, starts, steps, first, last) -> None:
    for index in range(counts[row]):
        x = left + pitch * (starts[row] + steps[row] * index)
        inside = first <= index <= last
        width = pitch * min(steps[row], 2.2) * 0.78
        kind = (ORANGE[1], ORANGE[1]) if inside else (PAPER, LINE)
        drawing.rectangle(x - width / 2, y - 9, width, 18, *kind, 1, radius=1.5)


def main() -> None:
    folder = Path(__file__).parent
    losses().save(folder / "adversarial-losses.svg")
    patches().save(folder / "adversarial-patches.svg")


if __name__ == "__main__":
    main()
