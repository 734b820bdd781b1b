"""Run the chapters, each once, and write down the time and the memory that each took.

`python -m tools.execute` copies `book/` to `.executed/book/`, runs there through nbmake every notebook whose sources
changed since it last passed, and leaves `.executed/measured/<chapter>.json` for each. The tests call it to check the
chapters, the book calls it to have outputs to show; whichever comes second finds nothing left to do.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import nbformat

from tools import chapters

# Runs last in every chapter's kernel, is taken out again, and is never seen by a reader. VmHWM is the peak of this
# process alone; getrusage would start from the peak of the process that started the kernel.
PROBE = """
import json as _json, pathlib as _pathlib, platform as _platform, resource as _resource, sys as _sys
from importlib.metadata import version as _version
_status = _pathlib.Path("/proc/self/status")
if _status.exists():
    _peak = next(int(_line.split()[1]) * 1024 for _line in _status.read_text().splitlines() if _line.startswith("VmHWM"))
else:
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * (1 if _sys.platform == "darwin" else 1024)
import jax as _jax
_devices = sorted({_device.device_kind for _device in _jax.devices()})
print(_json.dumps({"peak_bytes": _peak, "python": _platform.python_version(), "jax": _version("jax"),
                   "flax": _version("flax"), "torch": _version("torch"), "devices": _devices}))
"""
_TAG = "minidalle-probe"


def machine() -> str:
    """Return this machine in words: the processor's name and how many cores this process may use."""
    name = ""
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = lines[0] if lines else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores" + (f" ({name})" if name and name != "unknown" else "")


def add_probe(notebook: nbformat.NotebookNode) -> None:
    """Append the cell that reports peak memory and versions."""
    cell = nbformat.v4.new_code_cell(PROBE.strip(), metadata={"tags": [_TAG]})
    notebook.cells.append(cell)


def take_probe(notebook: nbformat.NotebookNode) -> dict:
    """Remove the probe from an executed notebook and return what it printed."""
    cell = notebook.cells.pop()
    if _TAG not in cell.metadata.get("tags", []):
        raise ValueError("the notebook's last cell is not the probe; was it added before the notebook ran?")
    # Warnings may share the stream with the report; the report is the last line of it.
    text = "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
    return json.loads(text.strip().splitlines()[-1])


def seconds_of(notebook: nbformat.NotebookNode) -> float:
    """Return how long the notebook's cells ran, in seconds, from the times that nbclient noted."""
    total = 0.0
    for cell in notebook.cells:
        times = cell.metadata.get("execution", {})
        if "iopub.execute_input" in times and "shell.execute_reply" in times:
            start, end = (
                datetime.fromisoformat(times[name]) for name in ("iopub.execute_input", "shell.execute_reply")
            )
            total += (end - start).total_seconds()
    return total


def paths_of(notebook: Path) -> tuple[Path, Path]:
    """Return where a chapter's executed copy and its measurements lie."""
    name = notebook.relative_to(chapters.ROOT)
    return chapters.EXECUTED / name, (chapters.EXECUTED / "measured" / name).with_suffix(".json")


def measured(notebook: Path) -> dict | None:
    """Return what was measured when the chapter last passed, or None where it never did."""
    path = paths_of(notebook)[1]
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def stale(notebook: Path, key: str) -> bool:
    """Tell whether the chapter has to run: it never passed, or something it depends on changed since."""
    copy, _ = paths_of(notebook)
    found = measured(notebook)
    return found is None or found["key"] != key or not copy.exists()


def lay_out(stale_notebooks: list[Path]) -> None:
    """Copy all that stands beside the chapters, and the chapters about to run with the probe added."""
    for path in chapters.BOOK.rglob("*"):
        if path.is_file() and path.suffix != ".ipynb" and ".ipynb_checkpoints" not in path.parts:
            target = chapters.EXECUTED / path.relative_to(chapters.ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    for path in stale_notebooks:
        copy, record = paths_of(path)
        record.unlink(missing_ok=True)
        copy.parent.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.read(path, as_version=4)
        add_probe(notebook)
        nbformat.write(notebook, copy)


def run(copies: list[Path], timeout: int) -> bool:
    """Run notebooks in place through nbmake, one after the other, and tell whether all passed."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", f"--nbmake-timeout={timeout}"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(chapters.EXECUTED), "-c", os.devnull, "-v", "--durations=0"]
    # The kernel is this environment's, whatever kernels the person has installed for herself. PyTorch's threads stay awake
    # while they wait for each other: on a machine that does anything else that costs up to ten times the time. Asleep at
    # once they lose half as much again on a quiet one. 10,000 turns of waiting, then sleep, come near the best of both.
    environment = {"GOMP_SPINCOUNT": "10000"} | os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run([*command, *map(str, copies)], env=environment, cwd=chapters.EXECUTED).returncode == 0


def collect(notebook: Path, key: str) -> bool:
    """Write down what an executed chapter took; return False, writing nothing, where a cell failed."""
    copy, record = paths_of(notebook)
    executed = nbformat.read(copy, as_version=4)
    probe = executed.cells[-1]
    # nbmake stops at the first error, so a probe that never ran means that a cell before it failed.
    if _TAG not in probe.metadata.get("tags", []) or probe.get("execution_count") is None:
        return False
    found = take_probe(executed)
    found |= {"key": key, "seconds": seconds_of(executed), "machine": machine()}
    found["date"] = datetime.now().date().isoformat()
    nbformat.write(executed, copy)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(found, indent=1), encoding="utf8")
    return True


def forget_removed() -> None:
    """Delete executed copies of chapters that no longer exist, so that they cannot reach the pages."""
    for copy in (chapters.EXECUTED / "book").rglob("*.ipynb"):
        if not (chapters.ROOT / copy.relative_to(chapters.EXECUTED)).exists():
            copy.unlink()


def main() -> int:
    """Run what has to run; return 0 when every chapter stands executed from the present sources."""
    parser = argparse.ArgumentParser(description="Run the chapters whose sources changed since they last passed.")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds that one cell may take (default 1200)")
    parser.add_argument("--force", action="store_true", help="run every chapter, changed or not")
    arguments = parser.parse_args()
    around = chapters.surroundings()
    keys = {path: chapters.key_of(path, around) for path in chapters.notebooks()}
    due = [path for path, key in keys.items() if arguments.force or stale(path, key)]
    print(f"{len(keys)} chapters run; {len(due)} changed since they last passed", flush=True)
    lay_out(due)
    forget_removed()
    passed = run([paths_of(path)[0] for path in due], arguments.timeout) if due else True
    failed = [path for path in due if not collect(path, keys[path])]
    for path in failed:
        print(f"failed: {path.relative_to(chapters.ROOT)}", file=sys.stderr)
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
