"""Every interleaving of a few threads around a gate, without threads: a switch may come before each atomic step.

Those of the fast lane take their steps one at a time. Those under the lock exclude one another, so while one of them
is at work only the fast lane can move; it may do so before each thing the gate does to `free` or to `waiting`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from seawall.machines.gate import Gate, GatePermit, Ticket

__all__ = ["Enter", "Leave", "Locked", "Thread", "every_interleaving"]


class Thread:
    """A thread of the fast lane, as a generator that stops before each atomic step."""

    def __init__(self) -> None:
        self.held: GatePermit | None = None
        self.ticket: Ticket | None = None

    def steps(self, gate: Gate) -> Generator[None, None, Callable[[], object] | None]:
        """Returns what is left to do under the lock, if anything."""
        raise NotImplementedError


class Enter(Thread):
    """`wait() if waiting else pop()`, and `wait()` if there was none."""

    def steps(self, gate: Gate) -> Generator[None, None, Callable[[], object] | None]:
        yield
        if not gate.waiting:
            yield
            try:
                self.held = gate.free.pop()
            except IndexError:
                return lambda: self.join(gate)
            return None
        return lambda: self.join(gate)

    def join(self, gate: Gate) -> None:
        self.ticket = gate.join()


class Leave(Thread):
    """`give_back(t) if waiting or t is not permit else append(t)`, and `pass_on()` if somebody waits now."""

    def __init__(self, permit: GatePermit | None) -> None:
        super().__init__()
        self.held = permit

    def steps(self, gate: Gate) -> Generator[None, None, Callable[[], object] | None]:
        assert self.held is not None
        yield
        slow = gate.waiting or self.held is not gate.permit
        permit, self.held = self.held, None
        if slow:
            return lambda: gate.release(permit)
        yield
        gate.free.append(permit)
        yield
        return gate.pass_on if gate.waiting else None


class Locked(Thread):
    """Something done under the lock, such as `resize`."""

    def __init__(self, do: Callable[[Gate], object]) -> None:
        super().__init__()
        self.do = do

    def steps(self, gate: Gate) -> Generator[None, None, Callable[[], object] | None]:
        yield
        return lambda: self.do(gate)


class Choices:
    """Answers "which of n?" so that over the runs every sequence of answers is given once."""

    def __init__(self) -> None:
        self.path: list[list[int]] = []
        self.depth = 0

    def of(self, count: int) -> int:
        if count <= 1:
            return 0
        if self.depth == len(self.path):
            self.path.append([0, count])
        self.depth += 1
        return self.path[self.depth - 1][0]

    def more(self) -> bool:
        self.depth = 0
        while self.path:
            self.path[-1][0] += 1
            if self.path[-1][0] < self.path[-1][1]:
                return True
            self.path.pop()
        return False


class Free(deque[GatePermit]):
    """`free`, with a switch before each thing done to it under the lock."""

    switch: Callable[[], None]

    def pop(self) -> GatePermit:  # type: ignore[override]
        self.switch()
        return super().pop()

    def append(self, permit: GatePermit) -> None:
        self.switch()
        super().append(permit)

    def extend(self, permits: Any) -> None:
        self.switch()
        super().extend(permits)

    def clear(self) -> None:
        self.switch()
        super().clear()

    def __len__(self) -> int:
        switch = getattr(self, "switch", None)
        if switch is not None:
            switch()
        return super().__len__()


class Waiting(OrderedDict[Ticket, None]):
    """`waiting`, with a switch before it is changed under the lock: asking needs none, since nobody else changes it."""

    switch: Callable[[], None]

    def __setitem__(self, ticket: Ticket, nothing: None) -> None:
        self.switch()
        super().__setitem__(ticket, nothing)

    def popitem(self, last: bool = True) -> tuple[Ticket, None]:
        self.switch()
        ticket = next(iter(self))
        del self[ticket]
        return ticket, None


class Schedule:
    """One interleaving: runs all threads to their end."""

    def __init__(self, gate: Gate, threads: list[Thread], choices: Choices) -> None:
        self.choices, self.locked, self.moving = choices, False, False
        self.fast = [thread.steps(gate) for thread in threads]
        self.slow: list[Callable[[], object]] = []
        gate.free = Free(gate.free)
        gate.waiting = Waiting()
        gate.free.switch = gate.waiting.switch = self.switch

    def move(self, which: int) -> None:
        self.moving = True
        try:
            next(self.fast[which])
        except StopIteration as end:
            del self.fast[which]
            if end.value is not None:
                self.slow.append(end.value)
        finally:
            self.moving = False

    def switch(self) -> None:
        """While one is at work under the lock, those of the fast lane move as far as they like."""
        if self.locked and not self.moving:
            while which := self.choices.of(len(self.fast) + 1):
                self.move(which - 1)

    def run(self) -> None:
        for thread in range(len(self.fast)):
            self.move(thread)  # to before its first step
        while self.fast or self.slow:
            which = self.choices.of(len(self.fast) + len(self.slow))
            if which < len(self.fast):
                self.move(which)
            else:
                do = self.slow.pop(which - len(self.fast))
                self.locked = True
                do()
                self.locked = False


def every_interleaving(build: Callable[[], tuple[Gate, list[Thread]]]) -> Iterator[tuple[Gate, list[Thread]]]:
    """The gate and the threads after each interleaving of their steps."""
    choices = Choices()
    while True:
        gate, threads = build()
        Schedule(gate, threads, choices).run()
        yield gate, threads
        if not choices.more():
            return
