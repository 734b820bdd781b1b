"""Draw the map of the road, once for each chapter with that chapter's part lit: `python book/figures/make_road.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from draw import FAINT, INK, KINDS, LINE, PAPER, Drawing  # noqa: E402

COLUMNS, ROWS = (20, 178, 336, 494), (62, 204, 338)
WIDTH, HEIGHT = 134, 86

# part: column, row, kind
PLACES = {
    "caption": (0, 0, "text"),
    "tokens": (1, 0, "text"),
    "bart_encoder": (2, 0, "bart"),
    "bart_decoder": (3, 0, "bart"),
    "codes": (0, 1, "codes"),
    "vqgan_decoder": (1, 1, "vqgan"),
    "pictures": (2, 1, "vqgan"),
    "clip": (3, 1, "clip"),
    "vqgan_encoder": (0, 2, "vqgan"),
    "example": (1, 2, "vqgan"),
    "ranked": (3, 2, "clip"),
}
EVERYTHING = tuple(PLACES)

# one file for each chapter, road-<chapter>.svg
CHAPTERS = {
    "tour": EVERYTHING,
    "codebook": ("codes",),
    "vqgan": ("example", "vqgan_encoder", "codes", "vqgan_decoder", "pictures"),
    "adversarial": ("vqgan_decoder", "pictures"),
    "crossing": ("vqgan_encoder", "vqgan_decoder"),
    "text": ("caption", "tokens"),
    "tokens": ("caption", "tokens"),
    "attention": ("bart_encoder", "bart_decoder"),
    "bart": ("tokens", "bart_encoder", "bart_decoder"),
    "objective": ("bart_encoder", "bart_decoder", "codes", "vqgan_encoder", "example"),
    "sampling": ("bart_decoder", "codes"),
    "clip": ("clip",),
    "ranking": ("pictures", "clip", "ranked"),
    "evaluation": ("caption", "pictures", "example", "ranked"),
    "data": ("caption", "example", "vqgan_encoder", "codes"),
    "cost": ("bart_encoder", "bart_decoder", "codes"),
    "devices": ("tokens", "bart_encoder", "bart_decoder", "codes"),
    "pretrained": tuple(
        part for part in PLACES if part not in ("vqgan_encoder", "example")
    ),
    "tpu": ("bart_encoder", "bart_decoder", "codes"),
}
NAMES = {
    "caption": "the caption", "tokens": "the tokens", "bart_encoder": "the BART encoder",
    "bart_decoder": "the BART decoder", "codes": "the image codes", "vqgan_decoder": "the VQGAN decoder",
    "pictures": "the pictures", "clip": "CLIP", "vqgan_encoder": "the VQGAN encoder",
    "example": "the picture to learn from", "ranked": "the ranked pictures",
}  # fmt: skip
FURS = ("#e3a13c", "#9aa3ad", "#c98a5b", "#6b5b73")
CODE_COLOURS = ("#e9a6c6", "#9fc9ec", "#a6dcc5", "#f3cf8e", "#c6b4ec", "#f2b3a0")


def road(lit: tuple[str, ...]) -> Drawing:
    """The map with the parts `lit` in colour and bold, the others pale."""
    named = (
        "every part in colour"
        if lit == EVERYTHING
        else "lit: " + ", ".join(NAMES[part] for part in lit)
    )
    drawing = Drawing(
        680, 446, "The road from a caption to ranked pictures",
        "A caption becomes tokens; the BART encoder reads them and the BART decoder writes image codes one by one; the "
        "VQGAN decoder paints pictures from codes; CLIP compares them with the caption and ranks them. In training, the "
        f"VQGAN encoder turns a picture into the codes that the BART decoder learns to predict. In this map {named}.",
    )  # fmt: skip
    lines(drawing)
    for part in PLACES:
        place(drawing, part, part in lit)
    legend(drawing)
    return drawing


def box(part: str) -> tuple[float, float, float, float]:
    """Left, top, middle across, middle down."""
    column, row, _ = PLACES[part]
    return (
        COLUMNS[column],
        ROWS[row],
        COLUMNS[column] + WIDTH / 2,
        ROWS[row] + HEIGHT / 2,
    )


def lines(drawing: Drawing) -> None:
    for before, after in (
        ("caption", "tokens"), ("tokens", "bart_encoder"), ("bart_encoder", "bart_decoder"),
        ("codes", "vqgan_decoder"), ("vqgan_decoder", "pictures"), ("pictures", "clip"),
    ):  # fmt: skip
        drawing.arrow(
            (box(before)[0] + WIDTH + 2, box(before)[3]),
            (box(after)[0] - 3, box(after)[3]),
        )
    bend = ROWS[0] + HEIGHT + 34
    drawing.arrow(
        (box("bart_decoder")[2], ROWS[0] + HEIGHT + 2), (box("bart_decoder")[2], bend),
        (box("codes")[2], bend), (box("codes")[2], ROWS[1] - 3),
    )  # fmt: skip
    drawing.text(314, bend - 13, "writes the codes, one by one", 15, FAINT)
    right = COLUMNS[3] + WIDTH + 22
    drawing.arrow(
        (box("caption")[2], ROWS[0] - 2), (box("caption")[2], 34), (right, 34), (right, box("clip")[3]),
        (COLUMNS[3] + WIDTH + 3, box("clip")[3]),
    )  # fmt: skip
    drawing.text(368, 21, "what the pictures should show", 15, FAINT)
    drawing.arrow((box("clip")[2], ROWS[1] + HEIGHT + 2), (box("clip")[2], ROWS[2] - 3))
    drawing.arrow(
        (box("example")[0] - 2, box("example")[3]),
        (COLUMNS[0] + WIDTH + 3, box("example")[3]),
        dashed=True,
    )
    drawing.arrow(
        (box("vqgan_encoder")[2], ROWS[2] + 8),
        (box("codes")[2], ROWS[1] + HEIGHT + 3),
        dashed=True,
    )
    drawing.text(
        box("codes")[2] + 12,
        ROWS[1] + HEIGHT + 25,
        "the codes to predict",
        15,
        FAINT,
        anchor="start",
    )


def place(drawing: Drawing, part: str, lit: bool) -> None:
    column, row, kind = PLACES[part]
    left, top, middle, centre = box(part)
    fill, edge = KINDS[kind] if lit else (PAPER, LINE)
    ink, thick = (INK, 3) if lit else (FAINT, 1.5)
    slope = 14
    if part in ("vqgan_decoder", "vqgan_encoder"):  # wide where the picture is
        corners = [
            (left, top + slope),
            (left + WIDTH, top),
            (left + WIDTH, top + HEIGHT),
            (left, top + HEIGHT - slope),
        ]
        drawing.polygon(corners, fill, edge, thick)
    else:
        drawing.rectangle(left, top, WIDTH, HEIGHT, fill, edge, thick)
    label = top + 20
    if part == "caption":
        drawing.text(middle, label, "caption", 16, ink, lit)
        drawing.text(
            middle, top + 55, ["“a cat with", "sunglasses”"], 16, ink, italic=True
        )
    elif part == "tokens":
        drawing.text(middle, label, "tokens", 16, ink, lit)
        for index, token in enumerate(("0", "61", "8", "2")):
            drawing.rectangle(
                left + 10 + index * 29, top + 42, 27, 27, PAPER, edge, 1.2, 5
            )
            drawing.text(left + 23.5 + index * 29, top + 55.5, token, 15, ink)
    elif part == "codes":
        drawing.text(middle, label, "image codes", 16, ink, lit)
        for index in range(12):
            colour = (
                CODE_COLOURS[(index * 5 + index // 6 * 2) % 6] if lit else "#e3e7eb"
            )
            x, y = left + 30 + index % 4 * 18.5, top + 33 + index // 4 * 15.5
            drawing.rectangle(x, y, 17, 14, colour, colour, 0, 2)
    elif part in ("pictures", "ranked", "example"):
        words = {"pictures": "pictures", "ranked": "ranked", "example": "picture"}[part]
        drawing.text(middle, label, words, 16, ink, lit)
        if part == "pictures":
            for index, fur in enumerate((2, 0, 3, 1)):
                cat(drawing, left + 22 + index * 30, top + 55, 13, fur, lit)
        elif part == "ranked":
            for x, size, fur in ((28, 18, 0), (66, 14, 1), (95, 10.5, 2), (118, 8, 3)):
                cat(drawing, left + x, top + 72 - size, size, fur, lit)
        else:
            cat(drawing, middle, top + 54, 18, 0, lit)
    elif part == "clip":
        drawing.text(middle, centre - 11, "CLIP", 18, ink, lit)
        drawing.text(middle, centre + 14, "does it match?", 15, ink)
    else:
        first, second = NAMES[part].removeprefix("the ").split()
        drawing.text(middle, centre - 11, first, 18, ink, lit)
        drawing.text(middle, centre + 12, second, 16, ink, lit)


def cat(drawing: Drawing, x: float, y: float, size: float, fur: int, lit: bool) -> None:
    """A cat's head with sunglasses, `size` from its middle to its chin."""
    colour, dark = (FURS[fur], INK) if lit else ("#dfe3e7", "#9aa3ad")
    for side in (-1, 1):
        ear = [
            (x + side * size * 0.95, y - size * 0.25),
            (x + side * size * 0.85, y - size * 1.15),
            (x + side * size * 0.2, y - size * 0.8),
        ]
        drawing.polygon(ear, colour, colour, 0.5)
    drawing.add(
        f'<ellipse cx="{x:g}" cy="{y:g}" rx="{size:g}" ry="{size * 0.92:g}" fill="{colour}"/>'
    )
    for side in (-1, 1):
        drawing.rectangle(
            x + side * size * 0.42 - size * 0.36,
            y - size * 0.38,
            size * 0.72,
            size * 0.5,
            dark,
            dark,
            0,
            size * 0.16,
        )
    drawing.add(
        f'<path d="M{x - size * 0.9:g} {y - size * 0.3:g} H{x + size * 0.9:g}" stroke="{dark}" stroke-width="{size * 0.14:g}"/>'
    )
    drawing.add(
        f'<path d="M{x - size * 0.3:g} {y + size * 0.42:g} Q{x:g} {y + size * 0.72:g} {x + size * 0.3:g} {y + size * 0.42:g}"'
        f' fill="none" stroke="{dark}" stroke-width="{size * 0.12:g}" stroke-linecap="round"/>'
    )


def legend(drawing: Drawing) -> None:
    left = COLUMNS[2] + 4
    for row, (words, dashed) in enumerate((("drawing", False), ("training", True))):
        y = ROWS[2] + 31 + row * 26
        drawing.arrow((left, y), (left + 40, y), dashed=dashed)
        drawing.text(left + 50, y, words, 15, FAINT, anchor="start")


def main() -> None:
    folder = Path(__file__).parent
    road(EVERYTHING).save(folder / "road.svg")
    for chapter, lit in CHAPTERS.items():
        road(lit).save(folder / f"road-{chapter}.svg")


if __name__ == "__main__":
    main()
