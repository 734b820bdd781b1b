"""Contestants that stay alive, each in a process and an environment of its own, asked and answered over a pipe.

Only the standard library: a peer's environment has no minidalle in it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Contestant:
    """A child process that answers requests one at a time, JSON line for JSON line.

    Args:
        command: interpreter and arguments; the child calls `serve`.
        environment: variables set for it beside ours.

    Raises RuntimeError when it fails, with the last lines that it wrote.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """What the child's function named `request` returns for these arguments."""
        try:
            self.process.stdin.write(json.dumps([request, arguments]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: reading says so
        line = self.process.stdout.readline()
        if not line:
            command = " ".join(self.process.args)
            raise RuntimeError(
                f"{command} ended with {self.process.wait()} when asked to {request}; its error is above"
            )
        return json.loads(line)

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until the pipe is closed; whatever else is printed goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        answers.write(json.dumps(functions[request](**arguments)) + "\n")
        answers.flush()
