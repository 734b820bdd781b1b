"""Draw the emoji sheet that ships with minidalle: `python -m minidalle.data.emoji_build`.

Needs the Debian/Ubuntu packages `fonts-noto-color-emoji` and `unicode-data`, and a Pillow with raqm (the wheels have it):
without raqm's shaping a joined sequence such as "woman firefighter" comes out as two separate pictures.
"""

import argparse
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from .emoji import SHEET_COLUMNS, SIZE

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
STRIKE = 109  # the one bitmap size that the font holds
FULLY_QUALIFIED = re.compile(r"([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E[\d.]+ (.*)")


def read_sequences(path: Path) -> list[tuple[str, str, str]]:
    """Return `(code points in hexadecimal, CLDR short name, group)` of every fully-qualified sequence, in Unicode's order."""
    rows, group = [], ""
    for line in path.read_text(encoding="utf8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif found := FULLY_QUALIFIED.match(line):
            rows.append((found[1], found[2], group))
    return rows


def draw(sequence: str, font: ImageFont.FreeTypeFont, size: int) -> Image.Image:
    """Draw one emoji sequence in colour on white, `(size, size)` RGB; a sequence the font does not join is an error."""
    left, top, right, bottom = font.getbbox(sequence)
    if right - left > 140:
        raise ValueError(f"{sequence!r} is drawn as several pictures; install a font and a libraqm that join it")
    side = max(right - left, bottom - top)
    canvas = Image.new("RGB", (side, side), "white")
    offset = ((side - right + left) // 2 - left, (side - bottom + top) // 2 - top)
    ImageDraw.Draw(canvas).text(offset, sequence, font=font, embedded_color=True)
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


def build(folder: Path, font_path: Path = FONT, emoji_test: Path = EMOJI_TEST) -> int:
    """Write `sheet.avif` and `names.tsv` into `folder`; return the number of emoji drawn."""
    if not features.check("raqm"):
        raise RuntimeError("this Pillow lacks raqm, which joins emoji sequences; install libraqm0 or a Pillow wheel")
    font = ImageFont.truetype(str(font_path), STRIKE, layout_engine=ImageFont.Layout.RAQM)
    rows = read_sequences(emoji_test)
    lines = -(-len(rows) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * SIZE, lines * SIZE), "white")
    for index, (points, _, _) in enumerate(rows):
        sequence = "".join(chr(int(point, 16)) for point in points.split())
        line, column = divmod(index, SHEET_COLUMNS)
        sheet.paste(draw(sequence, font, SIZE), (column * SIZE, line * SIZE))
    folder.mkdir(parents=True, exist_ok=True)
    # AVIF keeps colour at full resolution (4:4:4): 38.9 dB in 3.5 MB; lossy WebP halves it and stays at 31 dB, lossless takes 10 MB.
    sheet.save(folder / "sheet.avif", quality=85, subsampling="4:4:4", speed=5)
    (folder / "names.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf8")
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "noto")
    print(build(parser.parse_args().folder), "emoji drawn")
