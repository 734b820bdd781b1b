"""The log of a run, one JSON object a line, that never shows a step twice."""

import json
from pathlib import Path
from typing import Any

from minidalle.files import write_text


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record as a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: str | Path) -> list[dict[str, Any]]:
    """All whole records of a log, in order; a line cut short by a kill is left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def truncate(path: Path, step: int) -> None:
    """Drop the records after `step`: the resumed run will write them again."""
    kept = [record for record in read(path) if record["step"] <= step] if path.exists() else []
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
