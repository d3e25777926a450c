"""The promises on speed that Seawall makes in its documentation, checked against the tables of this run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .entrances import SEAWALL as SEAWALL_ASGI
from .entrances import SLOWAPI
from .fused import PYRESILIENCE, TENACITY_SYNC
from .growth import ALIVE
from .imports import SEAWALL, SEAWALL_NAMES
from .limiter_memory import GROWN, KEY, KNOWN, NEW
from .limiters import DICT_MANY, DICT_ONE, LIMITS, OURS, OURS_MANY, OURS_ONE, OURS_THREADS
from .tables import TIMES, Row, Table
from .valkey import REDIS_PY


@dataclass(frozen=True, slots=True)
class Target:
    """`limit` is an upper bound, or a lower one with `at_least`."""

    promise: str
    table: str
    measure: Callable[[Table], float | None]
    limit: float
    unit: str
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """A target beside what was measured; `measured` is None when the rows it needs have no figure."""

    target: Target
    measured: float | None

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.target.limit if self.target.at_least else self.measured <= self.target.limit


def _of_bare(subject: str) -> Callable[[Table], float | None]:
    return lambda table: _figure(table.row(subject), "of_bare")


def _of_first(subject: str) -> Callable[[Table], float | None]:
    return lambda table: _figure(table.row(subject), "of_first")


def _middle(subject: str) -> Callable[[Table], float | None]:
    return lambda table: _figure(table.row(subject), "middle")


def _microseconds(subject: str) -> Callable[[Table], float | None]:
    def measure(table: Table) -> float | None:
        middle = _figure(table.row(subject), "middle")
        return None if middle is None else middle / 1_000

    return measure


def _largest_growth(count: int) -> Callable[[Table], float | None]:
    """The largest growth of Seawall's rows; None unless all `count` of them were measured."""

    def measure(table: Table) -> float | None:
        grown = [row.of_first for row in table.rows if row.role == "ours" and row.of_first is not None]
        return max(grown) if len(grown) == count else None

    return measure


def _of_one_key(table: Table) -> float | None:
    """What a hit takes with many keys, less what they cost a plain dict, beside one key."""
    middles = [_middle(subject)(table) for subject in (OURS_MANY, DICT_MANY, DICT_ONE, OURS_ONE)]
    if any(middle is None for middle in middles):
        return None
    many, dict_many, dict_one, one = (middle or 0.0 for middle in middles)
    return (many - (dict_many - dict_one)) / one


def _figure(row: Row | None, name: str) -> float | None:
    figure: float | None = getattr(row, name) if row is not None else None
    return figure


# pyresilience is judged by its faster form, which counts failures in a row and keeps no window.
TARGETS: tuple[Target, ...] = (
    Target("fused, sync", "fused sync", _of_bare("seawall"), 20, f"{TIMES} bare call"),
    Target("fused, async", "fused async", _of_bare("seawall"), 8, f"{TIMES} bare await"),
    Target("fused + timeout, async", "fused async timeout", _of_bare("seawall"), 20, f"{TIMES} bare await"),
    Target("faster than pyresilience, sync", "fused sync", _of_first(PYRESILIENCE), 5, TIMES, at_least=True),
    Target("faster than pyresilience, async", "fused async", _of_first(PYRESILIENCE), 5, TIMES, at_least=True),
    Target(f"faster than {TENACITY_SYNC}, sync", "fused sync", _of_first(TENACITY_SYNC), 30, TIMES, at_least=True),
    Target("import seawall", "import", _middle(SEAWALL), 20, "ms"),
    Target("from seawall import Policy, …", "import", _middle(SEAWALL_NAMES), 20, "ms"),
    Target("a limiter in memory, one hot key", "limiter one key", _of_bare(OURS), 16, f"{TIMES} bare call"),
    Target(f"faster than {LIMITS}, one hot key", "limiter one key", _of_first(LIMITS), 4, TIMES, at_least=True),
    Target("100,000 keys, beside one", "limiter many keys", _of_one_key, 1.5, TIMES),
    Target("4 threads, beside one", "limiter threads", _of_bare(OURS_THREADS), 2, TIMES),
    Target("added by the ASGI middleware, called directly", "asgi added", _microseconds(SEAWALL_ASGI), 15, "µs"),
    Target("added by the ASGI middleware, uvicorn", "asgi wrk added", _microseconds(SEAWALL_ASGI), 15, "µs"),
    Target(f"faster than {SLOWAPI}, uvicorn", "asgi wrk", _of_first(SLOWAPI), 1.5, TIMES, at_least=True),
    Target(f"checks a second, beside {REDIS_PY}", "valkey gather", _of_first(REDIS_PY), 3, TIMES, at_least=True),
    Target("growth under a flood of keys", "limiter memory", _of_first(GROWN), 1.05, TIMES),
    Target(f"good hits refused, {KNOWN}", "limiter memory good", _middle(KNOWN), 1_000, "of a million"),
    Target(f"good hits refused, {NEW}", "limiter memory good", _middle(NEW), 1_000, "of a million"),
    Target("a key of a limiter in memory", "limiter memory key", _middle(KEY), 150, "bytes"),
    Target("growth with policies alive", "growth policies", _largest_growth(len(ALIVE)), 1.3, TIMES),
    Target("growth with calls in the window", "growth window", _largest_growth(2), 1.3, TIMES),
)


def check(tables: Sequence[Table]) -> list[Checked]:
    """The targets of the sections that ran."""
    by_key = {table.key: table for table in tables}
    return [Checked(target, target.measure(by_key[target.table])) for target in TARGETS if target.table in by_key]
