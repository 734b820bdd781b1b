"""Draw the diagrams of the chapters on words: `python book/figures/make_text_diagrams.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

ORANGE, BLUE = KINDS["text"], KINDS["bart"]
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"
LEFT, CELL = 126, 54  # where the columns begin, and how wide each is
TOKENS = ("<s>", "␣g", "oo", "se", "␣with", "␣red", "␣hair", "</s>", "<pad>", "<pad>")
IDS = (0, 318, 364, 450, 312, 481, 356, 2, 1, 1)


def tokens() -> Drawing:
    """A caption on its way to two rows of numbers."""
    drawing = Drawing(
        680, 356, "From a caption to the two rows that the encoder reads",
        "The caption “Goose with RED hair!!!” is cleaned to “goose with red hair”, cut into four words, each with the space "
        "before it. Merges cut goose into three tokens and keep the other words whole. A start token and an end token are put "
        "around, two padding tokens fill the row of ten ids, and the mask is one on the first eight and zero on the padding.",
    )  # fmt: skip
    rows = {
        "caption": 36,
        "cleaned": 92,
        "words": 148,
        "tokens": 204,
        "text_ids": 260,
        "text_mask": 316,
    }
    for label, y in rows.items():
        family = MONO if "_" in label else None
        drawing.text(14, y, label, 15, FAINT, anchor="start", family=family)
    for label, words in (
        ("caption", "Goose with RED hair!!!"),
        ("cleaned", "␣goose with red hair"),
    ):
        box(
            drawing,
            rows[label],
            1,
            6,
            words,
            ORANGE if label == "cleaned" else (PAPER, LINE),
        )
    for start, count, word in (
        (1, 3, "␣goose"),
        (4, 1, "␣with"),
        (5, 1, "␣red"),
        (6, 1, "␣hair"),
    ):
        box(drawing, rows["words"], start, count, word, ORANGE, 13.5)
    for column, (token, index) in enumerate(zip(TOKENS, IDS, strict=True)):
        special = token.startswith("<")
        kind = (PAPER, LINE) if special else ORANGE
        box(drawing, rows["tokens"], column, 1, token, kind, 13.5)
        box(drawing, rows["text_ids"], column, 1, str(index), BLUE)
        seen = token != "<pad>"
        box(
            drawing,
            rows["text_mask"],
            column,
            1,
            str(int(seen)),
            BLUE if seen else (PAPER, LINE),
        )
    steps = list(rows.values())
    for above, below in zip(steps[:4], steps[1:5], strict=True):
        x = LEFT + 4 * CELL - 2
        drawing.arrow((x, above + 18), (x, below - 18))
    drawing.text(LEFT + 4 * CELL + 12, 64, "normalize", 14, FAINT, anchor="start")
    drawing.text(
        LEFT + 4 * CELL + 12,
        120,
        "split at spaces and marks",
        14,
        FAINT,
        anchor="start",
    )
    drawing.text(
        LEFT + 4 * CELL + 12, 176, "merge, in learned order", 14, FAINT, anchor="start"
    )
    return drawing


def box(
    drawing: Drawing,
    y: float,
    column: int,
    columns: int,
    words: str,
    kind: tuple,
    size: float = 15,
) -> None:
    """A cell over some columns, with words in letters of one width."""
    left, width = LEFT + column * CELL, columns * CELL - 4
    drawing.rectangle(left, y - 16, width, 32, *kind, 1.5, 5)
    drawing.text(left + width / 2, y, words, size, INK, family=MONO)


def main() -> None:
    tokens().save(Path(__file__).parent / "tokens.svg")


if __name__ == "__main__":
    main()
