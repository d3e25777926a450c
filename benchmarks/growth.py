"""Section `growth`: a call must not cost more with many policies alive, nor with many calls in the window."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

from . import ours, stacks
from .layers import BARE, our_sync
from .measure import Call, Effort, Role, Subject, Timing, describe, middle_ratio, quartiles, sync_timings, time_calls
from .settings import plain
from .tables import Row, Table

ALIVE = (1, 100, 10_000)
FEW, MANY = 10, 100_000
# Short, so that a window that starts with FEW calls stays small while it is timed.
_BATCH = 200
# pyresilience walks its window on each call, so a window of MANY would take minutes to fill.
_PEER_MANY = 1_000
_pyresilience = partial(stacks.pyresilience_stack, window=_PEER_MANY)


def growth(effort: Effort) -> list[Table]:
    """Two tables: by policies alive, and by calls in the window."""
    return [_alive(effort), _window(effort)]


def _alive(effort: Effort) -> Table:
    """Each stage is compared with the bare call of its own rounds: 10,000 policies cannot be made in each round."""
    alive: list[Call] = []
    rows: list[Row] = []
    base: float | None = None
    for count in ALIVE:
        row = Row(f"seawall, {count:,} alive", "ours")
        rows.append(row)
        try:
            while len(alive) < count - 1:
                call = ours.fused()(plain)
                call()  # so that whatever a policy makes on its first call is alive too
                alive.append(call)
            bare, timed = sync_timings([BARE, our_sync(ours.fused)], effort)
            if timed.error or bare.error:
                row.error = timed.error or bare.error
                continue
        except Exception as error:
            row.error = describe(error)
            continue
        row.low, row.middle, row.high = quartiles(timed.samples)
        row.of_bare = middle_ratio(timed.samples, bare.samples)
        base = base or row.of_bare
        row.of_first = row.of_bare / base
    del alive
    gc.collect()
    return Table("growth policies", "Growth with policies alive (fused, sync)", rows, first="of the first row")


def _window(effort: Effort) -> Table:
    """A fresh breaker for each batch, so that its window is small, beside one that was filled once."""
    rows = [
        *_window_rows("seawall", "ours", lambda: ours.fused()(plain), MANY, effort),
        *_window_rows("pyresilience", "peer", lambda: _pyresilience()(plain), _PEER_MANY, effort),
    ]
    return Table(
        "growth window",
        "Growth with calls in the breaker's window (fused, sync)",
        rows,
        first="of the small window",
        notes=["Batches here are short and caches cold: compare a row with its neighbour, not with `fused`."],
    )


def _window_rows(name: str, role: Role, make: Callable[[], Call], many: int, effort: Effort) -> list[Row]:
    small = Timing(Subject(f"{name}, {FEW} to {FEW + _BATCH} calls in the window", make, role))
    large = Timing(Subject(f"{name}, {many:,} calls in the window", make, role))
    bare: list[float] = []
    try:
        full = _filled(make, many)
        for _ in range(effort.window_rounds):
            fresh = _filled(make, FEW)
            gc.disable()
            try:
                bare.append(time_calls(plain, _BATCH) / _BATCH)
                small.samples.append(time_calls(fresh, _BATCH) / _BATCH)
                large.samples.append(time_calls(full, _BATCH) / _BATCH)
            finally:
                gc.enable()
    except Exception as error:
        reason = describe(error)
        return [Row(timing.subject.name, timing.subject.role, error=reason) for timing in (small, large)]
    return [_window_row(timing, bare, small.samples) for timing in (small, large)]


def _window_row(timing: Timing, bare: list[float], small: list[float]) -> Row:
    low, middle, high = quartiles(timing.samples)
    return Row(
        timing.subject.name,
        timing.subject.role,
        middle=middle,
        low=low,
        high=high,
        of_bare=middle_ratio(timing.samples, bare),
        of_first=middle_ratio(timing.samples, small),
    )


def _filled(make: Callable[[], Call], calls: int) -> Call:
    call = make()
    for _ in range(calls):
        call()
    return call
