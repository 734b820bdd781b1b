"""Store what the TPU compiler says to the questions of the chapters, for machines without libtpu: `python -m tools.answers`.

Every chapter that asks through `minidalle.scale.answers` is run here, with libtpu, and what its `compiler` heard is written
to `src/minidalle/scale/answers.json`.
"""

import sys

import nbformat
from nbclient import NotebookClient

from tools import chapters

ASKING = ("book/scale/tpu.ipynb",)


def main() -> int:
    """Run the chapters and keep the answers."""
    for name in ASKING:
        path = chapters.ROOT / name
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell("assert compiler.compiling\ncompiler.save()"))
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": path.parent}}).execute()
    return 0


if __name__ == "__main__":
    sys.exit(main())
