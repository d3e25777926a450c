"""Outboxes with a handler that does as it is told, and what it saw: for the tests of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from seawall.outbox import MemoryOutbox, Work, current
from seawall.runtime import clock

__all__ = ["Yard", "place_of"]

Act = Callable[[str, int], Any]
"""Given the name of the work and the number of the attempt: raise, return, or return seconds to take."""


class Yard:
    """An outbox with one operation, `"do"`, whose handler notes each attempt and then acts."""

    def __init__(self, act: Act = lambda name, attempt: None, **settings: Any) -> None:
        box = {key: settings.pop(key) for key in ("backlog", "when_full") if key in settings}
        self.outbox = MemoryOutbox(**box)
        self.act = act
        self.tries: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.done: list[str] = []
        self.running: list[str] = []
        self.most_running = 0
        self._settings = settings
        self.begun_ns = clock.now_ns()

        async def do(name: str, order: str | None = None) -> None:
            self._begin(name)
            try:
                took = self.act(name, self._attempt())
                if took:
                    await asyncio.sleep(took)
                self.done.append(name)
            finally:
                self.running.remove(name)

        self.do = self.outbox.operation("do", order=lambda name, order=None: order, **settings)(do)

    def in_threads(self) -> Yard:
        """With a blocking handler in place of the async one."""

        def do(name: str, order: str | None = None) -> None:
            self._begin(name)
            try:
                took = self.act(name, self._attempt())
                if took:
                    clock.sleep_ns(round(took * 1e9))
                self.done.append(name)
            finally:
                self.running.remove(name)

        operation: Any = self.outbox.operation("do", order=lambda name, order=None: order, **self._settings)
        self.do = operation(do)
        return self

    def _begin(self, name: str) -> None:
        self.tries.append((name, self._attempt()))
        self.times.append((clock.now_ns() - self.begun_ns) / 1e9)
        self.running.append(name)
        self.most_running = max(self.most_running, len(self.running))

    @staticmethod
    def _attempt() -> int:
        run = current()
        assert run is not None
        return run.attempt

    def put(self, *names: str, order: str | None = None, **settings: Any) -> list[str]:
        """Work with these names; their ids."""
        return [self.outbox.using(**settings).put(self.do, name, order).id for name in names]

    def names(self, state: str) -> list[str]:
        """The names of the records in a state."""
        return [place_of(work) for work in self.outbox.records(state, limit=10_000)]

    def check_sums(self, put: Collection[str]) -> None:
        """ids put = done + dead + held, by name; each handler that began has ended."""
        held = [*self.names("waiting"), *self.names("leased"), *self.names("dead")]
        assert sorted({*self.done, *held}) == sorted(put)
        assert not self.running


def place_of(work: Work) -> str:
    """The name in a record of `"do"`."""
    return work.payload.split(b'"')[3].decode()
