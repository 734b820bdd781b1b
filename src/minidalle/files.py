"""Files that appear whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and is deleted when it does not.

    The folder of `path` is made where it is missing. Ctrl-C counts as an end that is not well. Two writers at once do
    not meet: each has a temporary path of its own, and the last to end wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Write an object as JSON, two spaces a level, its keys in their order or sorted."""
    write_text(path, json.dumps(values, indent=2, sort_keys=sort_keys) + "\n")
