"""What a file looks like by its first bytes, for messages about files that are not what their names say."""

from pathlib import Path

STARTS = {
    b"PK\x03\x04": "a ZIP archive, as PyTorch writes",
    b"version https://git-lfs": "a Git LFS pointer instead of the weights; run `git lfs pull`",
    b"<": "a page of HTML or XML",
    b"{": "JSON",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}
OF_TORCH = (STARTS[b"PK\x03\x04"], "a Python pickle")


def look(file: Path) -> str:
    """What a file looks like: one of the values of `STARTS`, "an empty file" or "of no known kind"."""
    with file.open("rb") as opened:
        start = opened.read(32).lstrip(b"\xef\xbb\xbf \r\n\t")
    if not start:
        return "an empty file"
    return next((kind for magic, kind in STARTS.items() if start.startswith(magic)), "of no known kind")


def describe(file: Path) -> str:
    """The size of a file and what it looks like."""
    kind = look(file)
    return kind if kind == "an empty file" else f"{file.stat().st_size:,} bytes, {kind}"
