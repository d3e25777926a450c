"""A line on stderr that shows how far long work is; only on a terminal, and gone when it has ended."""

import sys
from types import TracebackType

from seawall.runtime import clock

__all__ = ["Progress"]

FIRST_NS = 500_000_000
"""What is done sooner needs no progress shown."""
EVERY_NS = 100_000_000
BAR = 30


class Progress:
    """`with Progress("retrying", 1_000) as progress: ... progress.at(200)`; without a total it only counts."""

    def __init__(self, doing: str, total: int | None) -> None:
        self._doing = doing
        self._total = total
        self._next_ns = clock.now_ns() + FIRST_NS
        self._shows = sys.stderr is not None and sys.stderr.isatty()  # None: it was closed before the start
        self._drawn = False

    def at(self, done: int) -> None:
        """So much is done."""
        if not self._shows or clock.now_ns() < self._next_ns:
            return
        self._next_ns = clock.now_ns() + EVERY_NS
        self._drawn = True
        if self._total is None:
            self._write(f"\r{self._doing}: {done:,}")
            return
        done = min(done, self._total)
        filled = BAR * done // max(1, self._total)
        self._write(f"\r{self._doing} [{'#' * filled}{'.' * (BAR - filled)}] {done:,} of {self._total:,}")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._shows = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
