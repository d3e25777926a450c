"""Attempts that run side by side until one succeeds or all have failed: one text for tasks and for threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from seawall.runtime import clock

__all__ = ["Attempt", "Ending", "Leg", "Legs", "Race"]

Ending = tuple[Any, BaseException | None]
Attempt = Callable[[], Awaitable[Ending]]


class Leg(Protocol):
    """One attempt on its way."""

    @property
    def done(self) -> bool: ...
    def end(self) -> Ending:
        """How it ended, once it is done."""
        ...

    def abandon(self, kept: object) -> None:
        """Nobody waits for it any more: it is cancelled if it can be, and what it brings all the same is closed, unless
        it is the very object that is `kept`."""
        ...


class Legs(Protocol):
    """Where attempts run: in tasks, or on threads."""

    def start(self, attempt: Attempt) -> Leg: ...
    async def wait(self, running: Sequence[Leg], timeout_ns: int | None) -> None:
        """Until one of them is done, or for `timeout_ns`."""
        ...


class Race:
    """A growing set of attempts. The first success wins; if all fail, the failure of the earliest started stands.

    An error that is `final` (an exit, a cancellation, an error of the program) decides at once: it is not waited over.
    """

    def __init__(self, legs: Legs, final: Callable[[BaseException], bool]) -> None:
        self._where = legs
        self._final = final
        self._legs: list[Leg] = []
        self._decided = False
        self.decisive = 0
        """The number of the attempt whose ending is that of the race, once it is decided."""
        self.settled = False
        """Whether one has succeeded, or ended with an error that is final."""
        self.winner: int | None = None
        """The number of the attempt that succeeded, from 0."""
        self.failures = 0
        """How many had failed when it was looked at last."""

    def start(self, attempt: Attempt) -> None:
        """Begin one more attempt."""
        self._decided = False
        self._legs.append(self._where.start(attempt))

    async def decided(self, timeout_ns: int | None, *, failures: int | None = None) -> bool:
        """Wait until one has succeeded or all have failed, at most for `timeout_ns`; tells whether it is so.

        With `failures` it returns as well, false, once more attempts than that have failed.
        """
        end = None if timeout_ns is None else clock.now_ns() + timeout_ns
        while not self._look():
            if failures is not None and self.failures > failures:
                return False
            if not await self._wait(end):
                return False
        return True

    async def all_ended(self, timeout_ns: int | None) -> bool:
        """Wait until all have ended, or an error that is final; at most for `timeout_ns`."""
        end = None if timeout_ns is None else clock.now_ns() + timeout_ns
        while not all(leg.done for leg in self._legs):
            self._look()
            if (self.settled and self.winner is None) or not await self._wait(end):
                return False
        return True

    async def _wait(self, end: int | None) -> bool:
        """Wait for one more to end; tells whether there was time left."""
        left = None if end is None else end - clock.now_ns()
        if left is not None and left <= 0:
            return False
        await self._where.wait([leg for leg in self._legs if not leg.done], left)
        return True

    def _look(self) -> bool:
        failed = 0
        for number, leg in enumerate(self._legs):
            if not leg.done:
                continue  # and so not asked again below: it may have succeeded by then
            error = leg.end()[1]
            if error is None or self._final(error):
                self.decisive = number
                self.settled = self._decided = True
                self.winner = number if error is None else None
                return True
            failed += 1
        self.failures = failed
        self._decided = failed == len(self._legs)
        return self._decided

    @property
    def ending(self) -> Ending:
        """How the race ended, once it is decided."""
        return self._legs[self.decisive].end()

    @property
    def endings(self) -> list[Ending | None]:
        """How each attempt ended, in the order in which they were started; None for those still running."""
        return [leg.end() if leg.done else None for leg in self._legs]

    def end(self, *, unwanted: bool = True) -> None:
        """Abandon all but the one whose `ending` is that of the race, if it is decided: an error is somebody's answer
        too. With `unwanted=False` those who have ended keep what they brought."""
        kept = self._legs[self.decisive].end()[0] if self._decided and self._legs else None
        for number, leg in enumerate(self._legs):
            if not (self._decided and number == self.decisive) and (unwanted or not leg.done):
                leg.abandon(kept)
        # The error of a failed attempt knows the frame of its task, and that frame knows this race.
        self._legs = []
