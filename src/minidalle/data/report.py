"""What went wrong while reading other people's data, named one by one, and what was done about it."""

from collections import Counter
from dataclasses import dataclass, field

DETAILS = 1000  # problems kept with their text; beyond that they are only counted


@dataclass(frozen=True)
class Problem:
    """One thing that was found: its `kind`, the `source` it is about, a `message`, and whether it cost a pair."""

    kind: str
    source: str
    message: str
    dropped: bool = True

    def __str__(self) -> str:
        return f"{self.kind}: {self.source}: {self.message}"


@dataclass
class Report:
    """How many pairs were read and every problem on the way; `str(report)` is the summary for a person.

    `problems` keeps the first 1,000 (`details`) in full, `counts` counts all by kind. With `strict`, the first problem
    that would drop a pair is raised as `ValueError` instead.
    """

    strict: bool = False
    read: int = 0
    dropped: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    details: int = DETAILS

    def add(self, kind: str, source: object, message: object, *, dropped: bool = True) -> None:
        """Notes a problem; raises `ValueError` with its text when the report is strict and a pair is lost."""
        problem = Problem(kind, str(source), " ".join(str(message).split())[:300], dropped)
        if self.strict and dropped:
            raise ValueError(f"{problem}; repair it, or read with strict=False to leave it out")
        self.dropped += dropped
        self.counts[kind] += 1
        if len(self.problems) < self.details:
            self.problems.append(problem)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))
        head = f"{self.read:,} pairs read, {self.dropped:,} left out" + (f" ({kinds})" if kinds else "")
        shown = [f"  {problem}" for problem in self.problems[:20]]
        more = sum(self.counts.values()) - len(shown)
        return "\n".join([head, *shown] + ([f"  and {more:,} more"] if more > 0 else []))
