"""What the TPU compiler said: asked anew where libtpu is, remembered where it is not.

A chapter asks by name, and so shows the same numbers on a machine without libtpu. The names are all that memory goes by:
whoever changes a question and has no libtpu still hears the old answer.

    compiler = Answers()
    compiler.ask("product", jnp.dot, shaped((1024, 1024)), shaped((1024, 1024))).cycles
"""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ..files import write_json
from . import tpu
from .hlo import Collective, Program
from .mesh import on_mesh

STORED = Path(__file__).with_name("answers.json")  # written by `python -m tools.answers`
ROWS = Path(__file__).with_name("tpu_rows.jsonl")  # benchmarks/tpu.jsonl, copied for readers without a clone
LONGEST = 40_000  # letters of a program's text that are kept

# What XLA writes behind an instruction for itself.
_ASIDES = re.compile(r", (?:metadata|backend_config|frontend_attributes|sharding)=\{")
_TABLES = re.compile(r"^(?:FileNames|FunctionNames|FileLocations|StackFrames)\n(?:.+\n)*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What the compiler says of one program. All bytes and cycles are those of one device.

    Attributes:
        arguments, results, temporaries: bytes of memory, each array with what its tiles leave empty.
        operations, bytes, roofline: XLA's own floating-point operations, bytes between memory and processor, and seconds
            that these need at the peak; the body of a loop is counted once.
        cycles: the estimate for all instructions; bodies as often as their loops turn, communication left out.
        collectives: what devices send to each other.
        text: the optimized program without XLA's notes to itself; of a very long one the beginning.
    """

    arguments: int
    results: int
    temporaries: int
    operations: float
    bytes: float
    roofline: float
    cycles: int
    collectives: tuple[Collective, ...]
    text: str


@dataclass(frozen=True)
class Shaped:
    """An argument that has a shape, a type and a place on the mesh, and no numbers.

    Attributes:
        shape, dtype: of the whole array.
        axes: the mesh axis that cuts each dimension, from the first on; None cuts nothing.
    """

    shape: tuple[int, ...]
    dtype: Any = jnp.bfloat16
    axes: tuple[Any, ...] = ()


class Answers:
    """Asks the compiler, or memory.

    Args:
        compiling: whether to compile; None does so where libtpu is installed.
        stored: the JSON file of what was said before.
    """

    def __init__(self, compiling: bool | None = None, stored: Path = STORED):
        self.compiling = importlib.util.find_spec("libtpu") is not None if compiling is None else compiling
        self.before: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
        self.heard: dict[str, Any] = {}

    def recall(self, name: str, compute: Callable[[], Any]) -> Any:
        """The JSON value of `compute()`, or what it was when the answers were stored.

        Raises:
            LookupError: nothing is stored by this name, and there is no compiler.
        """
        if self.compiling:
            self.heard[name] = compute()
            return self.heard[name]
        if name not in self.before:
            raise LookupError(f"no answer to {name!r} is stored; pip install libtpu (Linux) asks the compiler itself")
        return self.before[name]

    def ask(
        self,
        name: str,
        function: Callable,
        *arguments: Shaped,
        on: str = "v3-8",
        mesh: Mapping[str, int] | None = None,
        results: tuple[Any, ...] | None = None,
    ) -> Answer:
        """Compile a function for a slice and read the report.

        Args:
            name: of the question, one for each question.
            function: of arrays.
            arguments: what it gets.
            on: the slice.
            mesh: devices along "data", "fsdp" and "model" of `minidalle.scale.mesh`; None takes the slice's first device.
            results: the axes that cut the result; None leaves it to the compiler.

        Raises:
            jax.errors.JaxRuntimeError: the program needs more memory than there is.
            LookupError: as `recall`.
        """
        said = self.recall(name, lambda: asdict(_compile(function, arguments, on, mesh, results)))
        collectives = tuple(Collective(*each) for each in said["collectives"])
        return Answer(**{**said, "collectives": collectives})

    def refusal(self, name: str, function: Callable, *arguments: Shaped, on: str = "v3-8") -> str:
        """The first sentence of the compiler's refusal, or "" if it refuses nothing; arguments as for `ask`."""

        def compute() -> str:
            try:
                _compile(function, arguments, on, None, None)
            except jax.errors.JaxRuntimeError as error:
                return str(error).splitlines()[0]
            return ""

        return self.recall(name, compute)

    def save(self, path: Path = STORED) -> None:
        """Write down all that the compiler said in this process."""
        write_json(path, self.heard)


def rows() -> list[dict[str, Any]]:
    """What `benchmarks/tpu.py` recorded of mini and mega, which take the compiler minutes each."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


def _compile(function: Callable, arguments: tuple[Shaped, ...], on: str, mesh: Any, results: Any) -> Answer:
    devices = tpu.devices(on)
    placement = on_mesh(devices=devices[:1]) if mesh is None else on_mesh(**dict(mesh), devices=devices)

    def placed(axes: tuple[Any, ...]) -> NamedSharding:
        return NamedSharding(placement.mesh, PartitionSpec(*axes))

    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=placed(each.axes)) for each in arguments]
    options = {} if results is None else {"out_shardings": placed(results)}
    compiled = jax.jit(function, **options).lower(*shapes).compile()
    memory, costs, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    program = Program(text)
    return Answer(
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        operations=costs["flops"],
        bytes=costs["bytes accessed"],
        roofline=costs.get("optimal_seconds", 0.0),
        cycles=program.cycles(),
        collectives=tuple(program.collectives()),
        text=readable(text)[:LONGEST],
    )


def readable(text: str) -> str:
    """A compiled program's text without what XLA notes for itself: places in the source, settings of each instruction."""
    head, _, body = _TABLES.sub("", text).partition("\n")
    lines = [head.split(", is_scheduled")[0]]
    for line in body.splitlines():
        while found := _ASIDES.search(line):
            depth, end = 1, found.end()
            while depth and end < len(line):
                depth += (line[end] == "{") - (line[end] == "}")
                end += 1
            line = line[: found.start()] + line[end:]
        lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
