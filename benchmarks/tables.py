"""What a section gives back: tables of measured rows, each with its ratio to the bare call and to Seawall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .measure import Role, Timing, middle_ratio, quartiles

# By name, because linters take the sign for a letter.
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(slots=True)
class Row:
    """One subject: the middle figure with its quartiles, or the error that stands in their place."""

    subject: str
    role: Role
    middle: float | None = None
    low: float | None = None
    high: float | None = None
    # `middle` in units of the bare call (or await) of the same rounds; None where there is no such thing.
    of_bare: float | None = None
    # How many times dearer than Seawall's row; in tables of growth, than the first row.
    of_first: float | None = None
    note: str = ""
    error: str | None = None


@dataclass(slots=True)
class Table:
    """`key` names the table in the JSON output and for the targets."""

    key: str
    title: str
    rows: list[Row]
    unit: str = "ns"
    bare: str = "bare call"
    first: str = "Seawall is faster by"
    notes: list[str] = field(default_factory=list)

    def row(self, subject: str) -> Row | None:
        """The row of that subject, if the table has one."""
        return next((row for row in self.rows if row.subject == subject), None)


def compared(timings: Sequence[Timing]) -> list[Row]:
    """Rows of timings that shared their rounds: ratios to the bare subject, and to the first of Seawall's."""
    bare = next((timing.samples for timing in timings if timing.subject.role == "bare" and not timing.error), None)
    ours = next((timing.samples for timing in timings if timing.subject.role == "ours" and not timing.error), None)
    return [_compared(timing, bare, ours) for timing in timings]


def _compared(timing: Timing, bare: list[float] | None, ours: list[float] | None) -> Row:
    row = Row(timing.subject.name, timing.subject.role, note=timing.subject.note, error=timing.error)
    if timing.error or not timing.samples:
        row.error = timing.error or "no samples"
        return row
    row.low, row.middle, row.high = quartiles(timing.samples)
    if bare:
        row.of_bare = middle_ratio(timing.samples, bare)
    if ours and timing.samples is not ours and timing.subject.role == "peer":
        row.of_first = middle_ratio(timing.samples, ours)
    return row
