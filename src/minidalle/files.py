"""Files that appear whole or not at all, and folders that one process writes at a time."""

import json
import os
import secrets
import socket
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


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of `folder`, which is made where it is missing.

    The lock is the operating system's (`flock`) on the file `.lock` in it and ends with its process, however that ends:
    a `.lock` that a killed process left behind locks nothing. Where there is no `flock` (Windows), nothing is locked.

    Raises:
        BlockingIOError: another process holds it; the message names it.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BlockingIOError(f"{holder} is writing into {folder}; wait until it has ended, or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)
