"""The one place that reads the monotonic clock and blocks a thread; tests put virtual time in its place.

Everything else asks `clock.now_ns()` and `clock.sleep_ns()` through the module, at each use and never by
a name bound earlier, so that `install` takes effect for policies that were made long before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["EPOCH_NS", "install", "now_ns", "sleep_ns", "wait_for", "wall_ns", "wall_time"]

EPOCH_NS = 1_767_225_600_000_000_000
"""The civil time at which virtual clocks begin: midnight UTC of 1 January 2026."""


def _sleep_ns(duration_ns: int) -> None:
    if duration_ns > 0:
        time.sleep(duration_ns / 1e9)


wall_time = time.time
"""Seconds of the civil calendar: for people to read, never for decisions."""
wall_ns: Callable[[], int] = time.time_ns
"""Nanoseconds of the civil calendar: for what must survive a restart. It may jump; `now_ns` does not."""
now_ns: Callable[[], int] = time.monotonic_ns
sleep_ns: Callable[[int], None] = _sleep_ns


def wait_for(lock: threading.Lock, timeout_ns: int | None) -> bool:
    """Acquire `lock` within `timeout_ns` (None: however long it takes); tell whether it was acquired."""
    if timeout_ns is None:
        return lock.acquire()
    if sleep_ns is _sleep_ns:
        return lock.acquire(timeout=max(0, timeout_ns) / 1e9)
    if not lock.acquire(blocking=False):
        sleep_ns(max(0, timeout_ns))
        return lock.acquire(blocking=False)
    return True


def is_real() -> bool:
    """Whether time passes by itself; false while a test has put a clock of its own in place."""
    return sleep_ns is _sleep_ns


def install(
    now: Callable[[], int], sleep: Callable[[int], None], wall: Callable[[], int] | None = None
) -> Callable[[], None]:
    """Put another clock in place for the whole process; return the function that puts the old one back.

    `now` returns integer nanoseconds that never go back; `sleep` takes nanoseconds. `wall` is the civil clock; without
    it, it begins at `EPOCH_NS` and goes as `now` does. For tests only.
    """
    global now_ns, sleep_ns, wall_ns
    before = now_ns, sleep_ns, wall_ns
    now_ns, sleep_ns = now, sleep
    wall_ns = (lambda: EPOCH_NS + now()) if wall is None else wall

    def restore() -> None:
        global now_ns, sleep_ns, wall_ns
        now_ns, sleep_ns, wall_ns = before

    return restore
