"""Draw the diagrams of the attention chapter: `python book/figures/make_attention.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

TEXT, BART, CODES, VQGAN = (KINDS[kind] for kind in ("text", "bart", "codes", "vqgan"))
WEIGHTS = (0.1, 0.6, 0.05, 0.25)
SCORES = ("0.9", "2.7", "0.2", "1.8")  # their softmax is 0.1, 0.6, 0.05, 0.25
VALUES = ("#e9a6c6", "#9fc9ec", "#a6dcc5", "#f3cf8e")


def attention() -> Drawing:
    """One query finds its keys, and the values are averaged."""
    drawing = Drawing(
        680, 392, "Attention of one query",
        "A query is compared with four keys by dot products divided by the root of d. The softmax turns the four scores, "
        "0.9, 2.7, 0.2 and 1.8, into weights 0.10, 0.60, 0.05 and 0.25, drawn as bars. The output is the sum of the four "
        "values times their weights.",
    )  # fmt: skip
    drawing.text(62, 152, "query", 16, INK, bold=True)
    vector(drawing, 34, 174, TEXT, "#f6d9a2")
    drawing.text(62, 250, ["what am I", "looking for?"], 15, FAINT)
    heads = (("keys", 206), ("scores", 312), ("weights", 420), ("values", 531))
    for words, x in heads:
        drawing.text(x, 28, words, 16, INK, bold=True)
    drawing.text(312, 372, "q · k / √d", 15, FAINT)
    drawing.text(420, 372, "softmax", 15, FAINT)
    drawing.text(206, 372, "find me by this", 15, FAINT)
    drawing.text(532, 372, "what I hand over", 15, FAINT)
    for index, (score, weight, colour) in enumerate(
        zip(SCORES, WEIGHTS, VALUES, strict=True)
    ):
        y = 60 + index * 78
        drawing.arrow((98, 190), (168, y + 20), colour=LINE, thick=1 + 4 * weight)
        vector(drawing, 178, y, BART, "#c9def0")
        drawing.arrow((240, y + 20), (286, y + 20), colour=LINE)
        drawing.text(312, y + 20, score, 16, INK)
        drawing.arrow((336, y + 20), (372, y + 20), colour=LINE)
        drawing.rectangle(378, y + 6, 92, 28, PAPER, LINE, 1.2, 4)
        drawing.rectangle(378, y + 6, 85 * weight, 28, TEXT[0], TEXT[1], 1.2, 4)
        drawing.text(450, y + 20, f"{weight:.2f}", 15, INK)
        drawing.text(487, y + 20, "×", 18, INK)
        vector(drawing, 503, y, VQGAN, colour)
        drawing.arrow((562, y + 20), (592, 190), colour=LINE, thick=1 + 4 * weight)
    drawing.text(628, 146, "output", 16, INK, bold=True)
    vector(drawing, 600, 170, CODES, "#c3cddd")
    drawing.text(630, 232, "their mean", 15, FAINT)
    return drawing


def vector(drawing: Drawing, x: float, y: float, kind, fill: str) -> None:
    """Four cells in a row with the strong edge of their kind around them."""
    for cell, opacity in enumerate((1, 0.55, 0.8, 0.4)):
        drawing.rectangle(
            x + cell * 14, y, 14, 40, fill, PAPER, 1, 1, f'fill-opacity="{opacity}"'
        )
    drawing.rectangle(x, y, 56, 40, "none", kind[1], 2, 4)


def encoder_decoder() -> Drawing:
    """Both stacks with their norms, and the mask of each of the three attentions."""
    drawing = Drawing(
        680, 872, "Encoder and decoder of DALL·E mini",
        "Left, the encoder layer: self-attention over the caption, then a feed-forward block. Right, the decoder layer: "
        "causal self-attention over the codes, cross-attention whose keys and values come from the encoder, then a "
        "feed-forward block. Each attention has a norm before and after it; the feed-forward has one before and one in its "
        "middle. What a block computes is added to what passes by it. Below, the three masks: the encoder may look at all "
        "words but padding, the decoder at what is written so far, and at all words but padding.",
    )  # fmt: skip
    drawing.text(170, 30, "encoder", 18, INK, bold=True)
    drawing.text(510, 30, "decoder", 18, INK, bold=True)
    drawing.text(170, 56, "caption tokens + places", 15, FAINT)
    drawing.text(510, 56, "start, codes so far + places", 15, FAINT)
    stack(drawing, 60, (("self-attention", True, BART), ("feed-forward", False, TEXT)))
    stack(
        drawing,
        400,
        (
            ("causal self-attention", True, CODES),
            ("cross-attention", True, BART),
            ("feed-forward", False, TEXT),
        ),
    )
    drawing.arrow((170, 386), (170, 436), (316, 436), (316, 300), (418, 300))
    drawing.text(
        170,
        462,
        ["states of the caption, read as", "keys and values at every layer"],
        15,
        FAINT,
    )
    drawing.text(510, 602, "scores of the next code", 15, FAINT)
    drawing.arrow((510, 562), (510, 588))
    for x, words, cells in (
        (58, ["encoder: every", "word but padding"], lambda i, j: j < 4),
        (268, ["decoder: the codes", "written so far"], lambda i, j: j <= i),
        (478, ["cross: every word", "but padding"], lambda i, j: j < 4),
    ):
        mask(drawing, x, 640, words, cells)
    return drawing


def stack(drawing: Drawing, x: float, blocks) -> None:
    """Blocks below each other along the line of what passes by them, each with its norms."""
    middle, y = x + 110, 84
    for words, closing, kind in blocks:
        drawing.arrow((middle, y - 14), (middle, y + 4))
        norm(drawing, x + 20, y + 6, "norm")
        drawing.rectangle(x + 20, y + 34, 180, 44, kind[0], kind[1], 2)
        drawing.text(middle, y + 56, words, 14, INK, bold=True)
        if closing:
            norm(drawing, x + 20, y + 82, "norm")
        else:
            drawing.text(middle, y + 93, "norm in its middle", 15, FAINT)
        drawing.circle(middle, y + 130, 11, PAPER, INK, 1.5)
        drawing.text(middle, y + 129, "+", 18, INK)
        drawing.arrow((middle, y + 106), (middle, y + 118), colour=LINE)
        drawing.arrow(
            (middle, y - 8),
            (x + 214, y - 8),
            (x + 214, y + 130),
            (middle + 13, y + 130),
        )
        y += 160
    drawing.arrow((middle, y - 18), (middle, y - 4), head=False)


def norm(drawing: Drawing, x: float, y: float, words: str) -> None:
    drawing.rectangle(x, y, 180, 22, PAPER, LINE, 1.2, 6)
    drawing.text(x + 90, y + 11, words, 14, FAINT)


def mask(drawing: Drawing, x: float, y: float, words, seen) -> None:
    """A table of 6 × 6 cells, those filled that may be looked at."""
    drawing.text(x + 72, y + 8, words, 15, INK)
    for row in range(6):
        for column in range(6):
            fill = "#f0b48a" if seen(row, column) else PAPER
            drawing.rectangle(
                x + column * 24, y + 40 + row * 24, 24, 24, fill, LINE, 1, 0
            )
    drawing.text(x + 72, y + 204, "key →", 14, FAINT)
    drawing.text(x - 26, y + 112, "query", 14, FAINT)


def main() -> None:
    folder = Path(__file__).parent
    attention().save(folder / "attention.svg")
    encoder_decoder().save(folder / "encoder-decoder.svg")


if __name__ == "__main__":
    main()
