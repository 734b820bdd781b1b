"""HTML that carries everything with it: pictures, script and style, so that it works without kernel and network."""

import base64
import html
import itertools
import json
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from PIL import Image

from minidalle.data.pictures import to_uint8

_numbers = itertools.count(1)


class Fragment:
    """A piece of a page that notebooks and the rendered book show as it is; `html` holds its source."""

    def __init__(self, source: str):
        self.html = source

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"<interactive figure, {len(self.html) / 1024:,.0f} KB of HTML>"


def fragment(name: str, body: str, data: dict, label: str) -> Fragment:
    """Wrap `body` in a labelled region with its own id and run the script `static/<name>.js` on it and on `data`."""
    identity = f"minidalle-{name}-{next(_numbers)}"
    # "<" would let a caption end the script; U+2028 and U+2029 are escaped by json already
    stored = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Fragment(
        f'<div class="minidalle" id="{identity}" role="group" aria-label="{escape(label)}">\n'
        f"<style>{asset('widgets.css')}</style>\n{body}\n"
        f'<script>({asset(name + ".js")})(document.getElementById("{identity}"), {stored});</script>\n</div>'
    )


def pictures_list(pictures: list[dict]) -> str:
    """Pictures as list items with alt text and score; each is `{"source", "alt", "score"}`."""
    items = "".join(
        f'<li><img src="{picture["source"]}" alt="{escape(picture["alt"])}">{escape(picture["score"])}</li>'
        for picture in pictures
    )
    few = " few" if len(pictures) <= 5 else ""
    return f'<ul class="pictures{few}">{items}</ul>'


def data_uri(image, quality: int = 90) -> str:
    """A picture `(height, width, 3)` as a `data:` address in WebP, about 2 KB at 64 × 64; quality 100 is lossless."""
    stored = BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(to_uint8(image)))
    picture.save(stored, format="WEBP", quality=quality, lossless=quality >= 100, method=4)
    return "data:image/webp;base64," + base64.b64encode(stored.getvalue()).decode()


def escape(text) -> str:
    """Text made safe for HTML content and quoted attributes."""
    return html.escape(str(text), quote=True)


@cache
def asset(name: str) -> str:
    """The text of a file in `show/static/`, comments of the first line and all."""
    return files("minidalle.show").joinpath("static", name).read_text(encoding="utf-8").strip()
