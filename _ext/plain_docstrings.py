"""Show docstrings as they read in the source: sentences, lists and entries with code in single backticks.

The package's docstrings are written for people in an editor. Sphinx reads docstrings as reStructuredText, where
`name_`, `|x|`, a lone `*` or a hanging line mean something else. So each docstring is translated on its way in:
paragraphs stay paragraphs, lists stay lists, and lines such as `name: what it is` become a list.
Google's sections (`Args:`, `Returns:`, `Raises:`) are left to napoleon.
"""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
_SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes|Warning):\s*$")
_MARKER = re.compile(r"(?:[-*•]|\d+[.)]) +")
# `name: what`, `first, second: what`, `call(argument) -> what: …`
_ENTRY = re.compile(r"[\w.]+(\(.*?\))?((, [\w.]+)*|\s*->.*?): \S")


def inline(text: str) -> str:
    """Return prose in which `code` is literal and nothing else is markup."""
    pieces = []
    for piece in _CODE.split(text):
        if _CODE.fullmatch(piece):
            code = piece.strip("`")
            # A literal may neither begin nor end with a space.
            pieces.append(f"``{code.strip()}``" if code.strip() else piece)
        else:
            pieces.append(re.sub(r"[\\*|`]|_(?=\W|$)", lambda found: "\\" + found.group(0), piece))
    return _separate("".join(pieces))


def _separate(text: str) -> str:
    """Keep a literal apart from letters right before or after it, as in `code`s; markup has to stand alone."""
    parts = re.split(r"(``.+?``)", text, flags=re.DOTALL)
    for index in range(1, len(parts), 2):
        if parts[index - 1][-1:].isalnum():
            parts[index] = "\\ " + parts[index]
        if index + 1 < len(parts) and (parts[index + 1][:1].isalnum()):
            parts[index] += "\\ "
    return "".join(parts)


def entries_of(block: list[str]) -> list[str] | None:
    """Split a block into list entries, each joined to one line; None when it is an ordinary paragraph."""
    base = min(len(line) - len(line.lstrip()) for line in block)
    starts = [index for index, line in enumerate(block) if len(line) - len(line.lstrip()) == base]
    marked = [index for index in starts if _MARKER.match(block[index].lstrip())]
    named = [index for index in starts if _ENTRY.match(block[index].lstrip())]
    hanging = len(starts) < len(block)
    if marked:
        heads = marked
    elif len(named) >= 2 or named and hanging:
        heads = starts if hanging else named
    else:
        return None
    heads = sorted({0, *heads})
    ends = [*heads[1:], len(block)]
    joined = [" ".join(line.strip() for line in block[start:end]) for start, end in zip(heads, ends, strict=True)]
    return [_MARKER.sub("", entry, count=1) if marked else entry for entry in joined]


def block_to_rst(block: list[str]) -> list[str]:
    """Return one block of consecutive lines as reStructuredText."""
    if block[0].lstrip().startswith(">>>"):
        return block
    if _SECTION.match(block[0].strip()):
        body = []
        for line in block[1:]:
            head, colon, rest = line.partition(": ")
            body.append(head + colon + inline(rest) if colon and "`" not in head else inline(line))
        return [block[0], *body]
    entries = entries_of(block)
    if entries is None:
        return [inline(" ".join(line.strip() for line in block))]
    return [f"- {inline(entry)}" for entry in entries]


def lines_to_rst(lines: list[str]) -> list[str]:
    """Return a whole docstring, translated block by block."""
    result: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            result += [*block_to_rst(block), ""]
            block = []
    return result


def translate(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Replace a docstring's lines, before napoleon reads its sections."""
    lines[:] = lines_to_rst(lines)


def setup(app: Sphinx) -> dict:
    """Register with Sphinx, ahead of napoleon (priority 500)."""
    app.connect("autodoc-process-docstring", translate, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
