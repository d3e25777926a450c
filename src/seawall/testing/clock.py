"""Virtual time for synchronous code: what would sleep returns at once, and the clock has moved by as much."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import TracebackType

from seawall.runtime import clock
from seawall.units import Duration, duration_ns

__all__ = ["VirtualClock"]


class VirtualClock:
    """A clock that only moves when told to, or when the library sleeps; in place of the real one inside its block.

    `start` is its first reading, in seconds or as a string such as `"1.5s"`, from 0 to 100 years. It takes the place of
    the clock of every policy in the process, and may be used from several threads: a sleeping thread moves the time
    of all. For asyncio use `seawall.testing.run`. Entering it twice at once raises `RuntimeError`.

    >>> from seawall.runtime import clock as library_clock
    >>> with VirtualClock() as time:
    ...     library_clock.sleep_ns(250_000_000)
    ...     time.advance("10s")
    ...     time.now, time.sleeps
    (10.25, [0.25])
    """

    def __init__(self, start: Duration = 0) -> None:
        self._now_ns = duration_ns(start, "start")
        self._lock = Lock()
        self._restore: Callable[[], None] | None = None
        self.sleeps: list[float] = []
        """Every sleep asked for since the clock was made, in seconds, in order; those of 0 too."""

    @property
    def now_ns(self) -> int:
        """The reading in whole nanoseconds."""
        return self._now_ns

    @property
    def now(self) -> float:
        """The reading in seconds."""
        return self._now_ns / 1e9

    def advance(self, duration: Duration) -> None:
        """Let time pass: seconds, or a string such as `"150ms"`. A negative one is a `ConfigError`."""
        self._add(duration_ns(duration, "duration"))

    def _add(self, span_ns: int) -> None:
        with self._lock:
            self._now_ns += span_ns

    def _sleep_ns(self, span_ns: int) -> None:
        self.sleeps.append(span_ns / 1e9)
        self._add(max(0, span_ns))

    def __enter__(self) -> VirtualClock:
        if self._restore is not None:
            raise RuntimeError("this VirtualClock is already in place; make another one")
        self._restore = clock.install(lambda: self._now_ns, self._sleep_ns)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()
