"""Decides which thread of an interleaved run goes on: one at a time, chosen by seed, in virtual time."""

from __future__ import annotations

import _thread
import hashlib
import sys
import traceback
from collections.abc import Callable, Sequence
from random import Random
from typing import NoReturn

__all__ = ["Abandon", "Baton", "Stuck", "Worker"]

# How eager a seed is to switch. Races differ in how many switches they need, and how near to each other.
_EAGERNESS = (0.5, 0.2, 0.1, 0.05, 0.02)
_HASTE = 0.1
_OWN_FILES = ("baton.py", "bytecodes.py", "coop.py")


class Stuck(AssertionError):
    """The threads deadlock, never end, or block in something that the scheduler does not know."""


class Abandon(BaseException):
    """Thrown into threads to end a run that has failed."""


class Worker:
    """One thread of a run. It runs only while it holds the baton, which is its `gate` being open."""

    def __init__(self, index: int, function: Callable[[], object]) -> None:
        self.index = index
        self.function = function
        self.gate = _thread.allocate_lock()
        self.gate.acquire()
        self.ident = 0
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None
        self.may_run: Callable[[], bool] | None = None
        self.until_ns: int | None = None
        self.timed_out = False


class Baton:
    """Handed from thread to thread; who does not hold it stands still in the middle of a bytecode."""

    def __init__(self, seed: int, *, max_points: int, hasty: bool) -> None:
        self.now_ns = 0
        self.points = 0
        self.stuck: str | None = None
        self.finished = _thread.allocate_lock()
        self.finished.acquire()
        self._workers: Sequence[Worker] = ()
        self._running: Worker | None = None
        self._random = Random(f"threads {seed}")
        self._eagerness = self._random.choice(_EAGERNESS)
        self._max_points = max_points
        self._hasty = hasty
        self._until_switch = self._draw()
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def schedule(self) -> str:
        """A digest of every switch."""
        return self._digest.hexdigest()

    def start(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._hand_to(self._random.choice(workers))

    def me(self) -> Worker | None:
        """The worker that calls, or `None` from a thread that is not part of the run."""
        worker = self._running
        return worker if worker is not None and worker.ident == _thread.get_ident() else None

    def point(self) -> None:
        """A place where another thread may go on."""
        worker = self.me()
        if worker is None:
            return
        self.points += 1
        self._until_switch -= 1
        if self._until_switch > 0 and self.points < self._max_points:
            return
        self._stop_if_stuck()
        if self.points >= self._max_points:
            self._get_stuck(f"no end after {self.points} bytecodes")
        self._until_switch = self._draw()
        self._switch(worker)

    def wait(self, may_run: Callable[[], bool], timeout_ns: int | None = None) -> bool:
        """Let others run until `may_run()`, which must be cheap and pure. False if `timeout_ns` passed first."""
        worker = self.me()
        if worker is None:
            if may_run():
                return True
            raise Stuck("a thread outside the run waits for something that only the run could do")
        self._stop_if_stuck()
        worker.may_run = may_run
        worker.until_ns = None if timeout_ns is None else self.now_ns + max(0, timeout_ns)
        worker.timed_out = False
        self._switch(worker)
        worker.may_run = worker.until_ns = None
        return not worker.timed_out

    def sleep_ns(self, span_ns: int) -> None:
        """The library's sleep during the run: others go on, and time passes when all wait."""
        if self.me() is None:
            self.now_ns += max(0, span_ns)
        elif span_ns > 0:
            self.wait(lambda: False, span_ns)

    def leave(self, worker: Worker) -> None:
        """The end of a thread: hand on to another, or tell that all are done."""
        worker.done = True
        living = [other for other in self._workers if not other.done]
        if not living:
            self._running = None
            self.finished.release()
            return
        follower = living[0] if self.stuck is not None else self._pick()
        if follower is None:
            self.stuck = self._tell("deadlock: the threads that are left wait")
            follower = living[0]
        self._hand_to(follower)

    def stacks(self) -> str:
        """Where each living thread stands."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # there is no public way
        parts: list[str] = []
        for worker in self._workers:
            frame = frames.get(worker.ident)
            if frame is not None and not worker.done:
                shown = [entry for entry in traceback.extract_stack(frame) if not entry.filename.endswith(_OWN_FILES)]
                parts.append(f"thread {worker.index}:\n{''.join(traceback.format_list(shown[-4:]))}")
        return "".join(parts)

    def _draw(self) -> int:
        passed = 1
        while self._random.random() >= self._eagerness:
            passed += 1
        return passed

    def _pick(self) -> Worker | None:
        """Who goes on: somebody who can, else whoever waits for the earliest instant; `None` is a deadlock."""
        living = [worker for worker in self._workers if not worker.done]
        ready = [worker for worker in living if worker.may_run is None or worker.may_run()]
        timed = [(worker.until_ns, worker.index) for worker in living if worker.until_ns is not None]
        hasty = self._hasty and bool(timed) and self._random.random() < _HASTE
        if ready and not hasty:
            return self._random.choice(ready)
        if not timed:
            return None
        instant_ns, index = min(timed)
        self.now_ns = max(self.now_ns, instant_ns)
        first = self._workers[index]
        # A wait whose time is up when its wish has just come true may see either first: here it sees the wish.
        first.timed_out = first not in ready
        return first

    def _switch(self, worker: Worker) -> None:
        follower = self._pick()
        if follower is None:
            self._get_stuck("deadlock: every thread waits")
        if follower is not worker:
            self._hand_to(follower)
            worker.gate.acquire()
            self._stop_if_stuck()

    def _hand_to(self, worker: Worker) -> None:
        self._digest.update(f"{self.points}>{worker.index};".encode())
        self._running = worker
        worker.gate.release()

    def _tell(self, what: str) -> str:
        return f"{what}, at {self.now_ns / 1e9:g} s\n{self.stacks()}"

    def _get_stuck(self, what: str) -> NoReturn:
        self.stuck = self._tell(what)
        raise Abandon

    def _stop_if_stuck(self) -> None:
        if self.stuck is not None:
            raise Abandon
