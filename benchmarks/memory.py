"""Section `memory`: bytes that one guarded function keeps, as `tracemalloc` sees them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from . import ours, stacks
from .measure import Effort, Role, describe
from .settings import aplain, plain
from .tables import Row, Table

COUNT = 1_000
_windowed = partial(stacks.pyresilience_stack, window=100)

_SUBJECTS: tuple[tuple[str, Role, Callable[[], Any], str], ...] = (
    ("seawall", "ours", lambda: _called(ours.fused()(plain)), "policy, decorated function, called once"),
    ("seawall, policy alone", "ours", ours.fused, "never called"),
    ("pyresilience", "peer", lambda: _called(stacks.pyresilience_stack()(plain)), ""),
    ("pyresilience, last 100 calls", "peer", lambda: _called(_windowed()(plain)), "one call in it"),
    # Its coroutines need a loop, so it is weighed before its first call.
    ("hyx", "peer", lambda: stacks.hyx_stack()(aplain), "not called"),
    ("tenacity + pybreaker + semaphore", "peer", lambda: _called(stacks.tenacity_pybreaker_semaphore(plain)), ""),
)


def memory(_effort: Effort) -> list[Table]:
    """One table; there is no noise in it, so no rounds."""
    rows = [_row(name, role, make, note) for name, role, make, note in _SUBJECTS]
    first = rows[0].middle
    for row in rows:
        if first and row.middle is not None and row.role == "peer":
            row.of_first = row.middle / first
    title = f"Memory of one of {COUNT:,}: retry + breaker + bulkhead"
    return [Table("memory", title, rows, unit="bytes", bare="", first="Seawall is smaller by")]


def _row(name: str, role: Role, make: Callable[[], Any], note: str) -> Row:
    row = Row(name, role, note=note)
    try:
        row.middle = row.low = row.high = bytes_each(make)
    except Exception as error:
        row.error = describe(error)
    return row


def bytes_each(make: Callable[[], Any]) -> float:
    """Bytes one of `COUNT` living results of `make` keeps, the list that holds them not counted."""
    make()  # imports and caches are not part of the answer
    kept: list[Any] = [None] * COUNT
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(COUNT):
            kept[index] = make()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / COUNT


def _called(call: Callable[[], Any]) -> Callable[[], Any]:
    call()
    return call
