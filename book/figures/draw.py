"""The pen for the diagrams of the book: boxes, arrows and words as SVG, on a light card that reads on dark pages too.

A picture inside `<img>` does not see the page's colours, so each diagram brings its own background. Coordinates are
pixels at the size of the view box; lengths of text are not measured, so look at the result.
"""

from html import escape
from pathlib import Path

INK, FAINT, LINE, CARD, PAPER = "#22272e", "#5c6670", "#8a949e", "#f6f8fa", "#ffffff"
# pale fill and strong edge of each kind of part; the strong colours are those of the figures made by code
KINDS = {
    "text": ("#fdebd9", "#b34a00"),
    "bart": ("#dbeaf7", "#00609a"),
    "codes": ("#fbe6f1", "#a8447d"),
    "vqgan": ("#d8f0e7", "#00765a"),
    "clip": ("#ece5f8", "#6b46b0"),
    "plain": (PAPER, LINE),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


class Drawing:
    """One diagram: shapes are added in order, `save` writes the file with its title and description for screen readers."""

    def __init__(self, width: int, height: int, title: str, description: str):
        self.width, self.height, self.title, self.description = (
            width,
            height,
            title,
            description,
        )
        self.parts: list[str] = []

    def add(self, source: str) -> None:
        self.parts.append(source)

    def rectangle(
        self, x, y, width, height, fill=PAPER, edge=LINE, thick=1.5, radius=8, extra=""
    ) -> None:
        self.add(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}"'
            f' stroke="{edge}" stroke-width="{thick:g}" {extra}/>'
        )

    def polygon(self, points, fill=PAPER, edge=LINE, thick=1.5) -> None:
        listed = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.add(
            f'<polygon points="{listed}" fill="{fill}" stroke="{edge}" stroke-width="{thick:g}" stroke-linejoin="round"/>'
        )

    def circle(self, x, y, radius, fill=PAPER, edge=LINE, thick=1.5) -> None:
        self.add(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{edge}" stroke-width="{thick:g}"/>'
        )

    def text(
        self,
        x,
        y,
        words,
        size=15,
        colour=INK,
        bold=False,
        anchor="middle",
        italic=False,
        family=None,
    ) -> None:
        """Words with their middle line at `y`; a list of words makes lines around it."""
        lines = [words] if isinstance(words, str) else list(words)
        top = y - (len(lines) - 1) * size * 1.25 / 2
        style = (' font-weight="600"' if bold else "") + (
            ' font-style="italic"' if italic else ""
        )
        style += f' font-family="{family}"' if family else ""
        for index, line in enumerate(lines):
            self.add(
                f'<text x="{x:g}" y="{top + index * size * 1.25 + size * 0.35:.1f}" font-size="{size:g}" fill="{colour}"'
                f' text-anchor="{anchor}"{style}>{escape(line)}</text>'
            )

    def arrow(self, *points, colour=FAINT, dashed=False, thick=2.0, head=True) -> None:
        """A line through the points with rounded bends, ending in a head at the last point."""
        (x0, y0), *rest = points
        path = [f"M{x0:g} {y0:g}"]
        for index, (x, y) in enumerate(rest):
            before = points[index]
            if index + 1 < len(rest):  # a bend: stop short of it and curve round
                after = rest[index + 1]
                path.append(
                    f"L{_towards((x, y), before, 9)} Q{x:g} {y:g} {_towards((x, y), after, 9)}"
                )
            else:
                path.append(f"L{_towards((x, y), before, 7 if head else 0)}")
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self.add(
            f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="{thick:g}"'
            f' stroke-linejoin="round"{dash}/>'
        )
        if head:
            self._head(points[-2], points[-1], colour)

    def _head(self, before, tip, colour) -> None:
        length = max(
            1e-9, ((tip[0] - before[0]) ** 2 + (tip[1] - before[1]) ** 2) ** 0.5
        )
        along = ((tip[0] - before[0]) / length, (tip[1] - before[1]) / length)
        base = (tip[0] - 10 * along[0], tip[1] - 10 * along[1])
        side = (-5.5 * along[1], 5.5 * along[0])
        self.add(
            f'<polygon points="{tip[0]:g},{tip[1]:g} {base[0] + side[0]:g},{base[1] + side[1]:g}'
            f' {base[0] - side[0]:g},{base[1] - side[1]:g}" fill="{colour}"/>'
        )

    def save(self, path: Path) -> None:
        body = "\n".join(self.parts)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            f' height="{self.height}" role="img" font-family="{FONT}">\n'
            f"<title>{escape(self.title)}</title>\n<desc>{escape(self.description)}</desc>\n"
            f'<rect width="{self.width}" height="{self.height}" rx="12" fill="{CARD}"/>\n{body}\n</svg>\n',
            encoding="utf-8",
        )


def _towards(start, end, distance) -> str:
    length = max(1e-9, ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5)
    part = min(distance, length / 2) / length
    return f"{start[0] + part * (end[0] - start[0]):g} {start[1] + part * (end[1] - start[1]):g}"
