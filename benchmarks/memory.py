"""How much memory a call takes at most, as Linux counts it for this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def with_peak(call: Callable[[], Any]) -> tuple[Any, int | None]:
    """What a call returns, and the bytes it took at most beyond those held before (None where Linux does not count)."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return call(), None
    reset.write_text("5")  # the peak counts anew: imports take up to 400 MB of their own
    before = status("VmRSS")
    result = call()
    return result, status("VmHWM") - before


def status(key: str) -> int:
    """Bytes in this process's memory: "VmRSS" now, "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
