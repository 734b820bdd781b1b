"""What every benchmark says beside its numbers: their spread, the machine, the versions."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratio(these: Sequence[float], those: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of these over those, pair by pair."""
    return spread([a / b for a, b in zip(these, those, strict=True)])


def in_words(spread: dict[str, float], form: str = ".3g", unit: float = 1) -> str:
    """`median (lowest to highest)`, in units such as 1e-3 for milliseconds."""
    median, lowest, highest = (spread[name] / unit for name in ("median", "lowest", "highest"))
    return f"{median:{form}} ({lowest:{form}} to {highest:{form}})"


def machine() -> dict[str, Any]:
    """Processor, cores, load before the run, and the day."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "date": date.today().isoformat(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of these packages, and Python's."""
    return {"python": platform.python_version(), **{package: metadata.version(package) for package in packages}}


def where(machine: dict[str, Any], versions: dict[str, str]) -> str:
    """Day, machine and versions in one line."""
    about = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['date']}, {machine['cores']} cores of {machine['processor']}; {about}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
