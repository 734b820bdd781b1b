"""Reading a compiled program: what XLA's text says about loops, time and communication.

XLA's own totals count the body of a loop once, however often it runs. Here bodies are taken as often as their loops turn.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "bf16": 2,
    "f16": 2,
    "c64": 8,
    "c128": 16,
}  # others: by the digits in the name

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*)")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(condition|body|calls|to_apply|branch_computations)=(\{[^}]*\}|%[\w.\-]+)")


class Instruction(NamedTuple):
    """One line of the program."""

    name: str
    opcode: str
    type: str  # of its result, as "bf16[8,1024]{1,0}" or a tuple of such
    rest: str  # operands and attributes
    called: dict[str, list[str]]  # computations it runs, by role


class Collective(NamedTuple):
    """Communication of one kind over one group size, added up over a whole run.

    Attributes:
        kind: one of `COLLECTIVES`.
        devices: that talk to each other.
        times: how often in a run.
        bytes: of the whole arrays on one device, all times together: what goes into a reduction, what a gathering gives.
    """

    kind: str
    devices: int
    times: int
    bytes: float

    @property
    def sent(self) -> float:
        """Bytes that each device sends, if they stand in a ring (Patarasuk and Yuan 2009); fewer cannot do."""
        if self.kind == "collective-permute":
            return self.bytes
        return self.bytes * (self.devices - 1) / self.devices * (2 if self.kind == "all-reduce" else 1)


class Program:
    """A compiled program, taken from its text.

    Args:
        text: `compiled.as_text()`.
        turns: how often loops turn whose bound is not in the text, because it is an argument of the program.
    """

    def __init__(self, text: str, turns: int = 1):
        self.turns = turns
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if current is None:
                if header := _HEADER.match(line):
                    current = self.computations.setdefault(header[2], [])
                    self.entry = header[2] if header[1] else self.entry
            elif line.startswith("}"):
                current = None
            elif found := _INSTRUCTION.match(line):
                current.append(_read(found[1], found[2]))

    def run(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that is run by itself (what is fused into one counts as one), and how often."""
        yield from self._run(self.entry, 1)

    def _run(self, computation: str, times: int) -> Iterator[tuple[Instruction, int]]:
        for instruction in self.computations[computation]:
            yield instruction, times
            if instruction.opcode == "while":
                for body in instruction.called["body"]:
                    yield from self._run(body, times * self.loop_turns(instruction))
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for called in sum(instruction.called.values(), []):
                    yield from self._run(called, times)

    def loop_turns(self, loop: Instruction) -> int:
        """How often a while loop's body runs: the number that its counter, from 0 on, is compared with."""
        condition = self.computations[loop.called["condition"][0]]
        numbers = [c for c in condition if c.opcode == "constant" and c.type.startswith("s32[]")]
        return int(re.match(r"\((-?\d+)\)", numbers[0].rest)[1]) if len(numbers) == 1 else self.turns

    def cycles(self) -> int:
        """The compiler's estimate for all instructions together, on one device; communication is not in it."""
        total = 0
        for instruction, times in self.run():
            if found := re.search(r'"estimated_cycles":"(\d+)"', instruction.rest):
                total += times * int(found[1])
        return total

    def collectives(self) -> list[Collective]:
        """All communication, by kind and by how many devices take part, the largest first."""
        sums: dict[tuple[str, int], tuple[int, float]] = {}
        for instruction, times in self.run():
            for kind, inner in self._communication(instruction):
                key = kind, group_size(inner.rest)
                if key[1] > 1:
                    count, size = sums.get(key, (0, 0.0))
                    sums[key] = count + times, size + times * self._bytes(kind, inner)
        found = [Collective(*key, *numbers) for key, numbers in sums.items()]
        return sorted(found, key=lambda collective: -collective.sent)

    def _communication(self, instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            yield kind, instruction
        elif instruction.opcode == "fusion":
            for called in instruction.called.get("calls", []):
                # TPUs have no reduce-scatter: it is an all-reduce of which each device keeps its part.
                scatters = called.removeprefix("%").startswith("all-reduce-scatter")
                for inner in self.computations.get(called, []):
                    for kind, communication in self._communication(inner):
                        yield ("reduce-scatter" if scatters and kind == "all-reduce" else kind), communication

    def _bytes(self, kind: str, instruction: Instruction) -> float:
        arrays = array_bytes(instruction.type)
        if instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
            return max(arrays)  # the operand and the result stand beside each other
        total = sum(arrays)
        if kind == "reduce-scatter" and instruction.opcode == "reduce-scatter":
            return total * group_size(instruction.rest)
        return total


def group_size(attributes: str) -> int:
    """How many devices take part in one communication, by its `replica_groups` or its pairs."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"source_target_pairs=\{([\d,{}]*)\}", attributes):
        return len(found[1].split("},{"))
    return 1


def array_bytes(type: str) -> list[float]:
    """Bytes of each array of an instruction's type."""
    sizes = []
    for element, shape in _ARRAY.findall(type):
        digits = re.search(r"\d+", element)
        if element in BYTES or digits:
            each = BYTES.get(element) or int(digits[0]) / 8
            sizes.append(each * math.prod(int(side) for side in shape.split(",") if side))
    return sizes


def _read(name: str, text: str) -> Instruction:
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[end:].strip().partition("(")
    called = {
        role: [computation.strip().lstrip("%") for computation in which.strip("{}").split(",")]
        for role, which in _CALLED.findall(rest)
    }
    return Instruction(name, opcode, text[:end], "(" + rest, called)


def _closing(text: str) -> int:
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text) - 1
