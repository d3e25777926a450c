"""Where steps wait for the file: those that come while a commit is under way are written together by the next one.

One connection serves the process, and one caller at a time has it: the leader. He runs what waits in one transaction,
wakes those it was for when it is committed, and hands the lead to the next. So a hundred callers pay for a few commits,
and a single one for no change of threads. Coroutines never lead: a thread does it for them.

State
    queue   steps that have not begun.
    led     whether somebody leads.

Rules
    a step is begun once, by the leader; until then its caller may withdraw it.
    a caller hears of success only after the commit that holds his step.
    what fails a transaction of several is tried again one by one, so that each step answers for itself; but a failed
    commit, or a connection that cannot be trusted any more, fails them all, and the connection is dropped.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox.sqlite.faults import fault_of, is_busy, is_local
from seawall.outbox.sqlite.file import File
from seawall.runtime import clock
from seawall.runtime.jobs import Workers

__all__ = ["Desk", "Step"]

T = TypeVar("T")
MOST_AT_ONCE = 256
"""Steps in one transaction: the first of them waits for all."""
MOST_WAITING = 10_000
REFUSALS = (NotQueued, ConfigError)
"""What a step raises without having changed anything."""


class Step:
    """One step on its way to the file."""

    __slots__ = ("begun", "deadline_ns", "done", "error", "lead", "ring", "run", "value", "waits", "writes")

    def __init__(self, run: Callable[[sqlite3.Connection], Any], deadline_ns: int, *, writes: bool) -> None:
        self.run = run
        self.writes = writes
        self.deadline_ns = deadline_ns
        self.begun = self.done = self.lead = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.ring: Callable[[], object] | None = None
        """Tells its caller that it is done or leads; None while he needs not be told."""
        self.waits = True
        """Whether its caller can lead: a thread that waits."""

    def take(self) -> Any:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.value


class Desk:
    """The one place through which a process works at the file."""

    def __init__(self, file: File, timeout_ns: int) -> None:
        self.file = file
        self._timeout_ns = timeout_ns
        self._workers = Workers("seawall-sqlite")
        self.commits = self.steps = self.failures = 0
        self.renew()

    def renew(self) -> None:
        # Reentrant: a finalizer may come here in the middle of a step of this very thread.
        self._lock = threading.RLock()
        self._queue: deque[Step] = deque()
        self._led = False
        self._leader = 0

    # -- callers ---------------------------------------------------------------------------------------------------

    def call(self, run: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """Run a step; blocks this thread. Raises what the step raises, or `BackendUnavailable`."""
        if self._leader == threading.get_ident():
            raise BackendUnavailable("the store was asked in the middle of a step of this very thread")
        step = Step(run, clock.now_ns() + self._timeout_ns, writes=writes)
        gate: threading.Lock | None = None
        with self._lock:
            lead = self._enter(step)
            if not lead:
                gate = threading.Lock()
                gate.acquire()
                step.ring = gate.release
        if gate is not None and not gate.acquire(timeout=self._timeout_ns / 1e9):
            self.withdraw(step)
        if lead or step.lead:
            self._lead()
        return step.take()  # type: ignore[no-any-return]

    async def acall(self, run: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """As `call`, for coroutines: a thread does it, the loop goes on."""
        import asyncio  # noqa: PLC0415  # processes without a loop need none

        if not clock.is_real():
            # Under virtual time no other thread may touch the loop, and nothing else waits for this one.
            return self.call(run, writes=writes)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        step = Step(run, clock.now_ns() + self._timeout_ns, writes=writes)
        step.waits = False

        def ring() -> None:
            try:
                loop.call_soon_threadsafe(_settle, future)
            except RuntimeError:
                pass  # its loop is gone, and with it whoever waited

        step.ring = ring
        with self._lock:
            lead = self._enter(step)
        if lead:
            self._lead_elsewhere()
        timer = loop.call_later(self._timeout_ns / 1e9, _settle, future)
        try:
            await future
        except BaseException:
            with self._lock:
                if not step.begun:
                    self._queue.remove(step)
                    step.begun = True
            raise
        finally:
            timer.cancel()
        if not step.done:
            self.withdraw(step)
        return step.take()  # type: ignore[no-any-return]

    def _enter(self, step: Step) -> bool:
        if len(self._queue) >= MOST_WAITING:
            raise BackendUnavailable(f"{self.file.path}: {MOST_WAITING} steps wait for it already")
        self._queue.append(step)
        lead = not self._led
        self._led = True
        return lead

    def withdraw(self, step: Step) -> None:
        """Its caller waits no longer. Raises `BackendUnavailable`, unless it is done or is to lead."""
        with self._lock:
            if step.done or step.lead:
                return
            step.ring = None
            if not step.begun:
                self._queue.remove(step)
                step.begun = True
                raise BackendUnavailable(f"{self.file.path} was not free in {self._timeout_ns / 1e9:g} s")
        raise BackendUnavailable(
            f"{self.file.path} did not answer in {self._timeout_ns / 1e9:g} s: what was asked may still happen"
        )

    # -- the leader ------------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        """One transaction, with the step of this thread in it; then the next leads."""
        try:
            self._serve()
        finally:
            with self._lock:
                self._leader = 0
                heir = self._queue[0] if self._queue else None
                self._led = heir is not None
                if heir is not None and heir.waits:
                    heir.lead = True
                    assert heir.ring is not None, "whoever waits can be told"
                    heir.ring()
            if heir is not None and not heir.waits:
                self._lead_elsewhere()

    def _lead_elsewhere(self) -> None:
        try:
            self._workers.submit(self._lead_all)
        except RuntimeError as error:  # no thread can be started
            with self._lock:
                steps = list(self._queue)
                self._queue.clear()
                self._led = False
                for step in steps:
                    step.begun = True
            self._end(steps, BackendUnavailable(f"no thread can be started: {error}"))

    def _lead_all(self) -> None:
        while True:
            try:
                self._serve()
            finally:
                with self._lock:
                    self._leader = 0
                    if not self._queue:
                        self._led = False
                        return

    def _serve(self) -> None:
        with self._lock:
            self._leader = threading.get_ident()
            steps = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_AT_ONCE))]
            for step in steps:
                step.begun = True
        failure: BaseException = BackendUnavailable("the step was broken off: it may have happened")
        try:
            self._transact(steps)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else failure
            self.file.drop()
            if not isinstance(error, Exception):
                raise
        finally:
            self._end([step for step in steps if not step.done], failure)

    def _end(self, steps: Sequence[Step], error: BaseException | None = None) -> None:
        for step in steps:
            with self._lock:
                if error is not None:
                    step.error = error if len(steps) == 1 else _copy(error)
                step.done = True
                ring = step.ring
            if ring is not None:
                ring()

    def _transact(self, steps: list[Step]) -> None:
        if not steps:
            return
        writes = any(step.writes for step in steps)
        try:
            db = self._begin(min(step.deadline_ns for step in steps), writes=writes)
        except Exception as error:  # noqa: BLE001  # each must hear it
            self.failures += 1
            self.file.drop()
            self._end(steps, fault_of(error, self.file))
            return
        try:
            for step in steps:
                try:
                    step.value = step.run(db)
                except REFUSALS as error:
                    step.error = error
        except Exception as error:  # noqa: BLE001  # each must hear it
            self._fail(db, steps, error)
            return
        try:
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # nothing is known to be safe: the connection goes
            self.failures += 1
            self.file.drop()
            self._end(steps, fault_of(error, self.file))
            return
        self.commits += writes
        self.steps += len(steps)
        self._end(steps)

    def _fail(self, db: sqlite3.Connection, steps: list[Step], error: Exception) -> None:
        for step in steps:
            step.value = step.error = None
        kept = is_local(error)
        if kept:
            try:
                db.execute("ROLLBACK")
            except sqlite3.Error:
                kept = False
        if not kept:
            self.file.drop()
        if len(steps) > 1:
            for step in steps:
                self._transact([step])
            return
        self.failures += 1
        self._end(steps, fault_of(error, self.file))

    def _begin(self, deadline_ns: int, *, writes: bool) -> sqlite3.Connection:
        left = max(1, (deadline_ns - clock.now_ns()) // 1_000_000)
        db = self.file.connection(left)
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        try:
            db.execute(begin)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            db.execute(f"PRAGMA busy_timeout = {left}")
            try:
                db.execute(begin)
            finally:
                db.execute("PRAGMA busy_timeout = 0")
        return db


def _settle(future: Any) -> None:
    if not future.done():
        future.set_result(None)


def _copy(error: BaseException) -> BaseException:
    """One for each: an error that several raise would gather their tracebacks."""
    twin = BackendUnavailable(str(error)) if isinstance(error, BackendUnavailable) else error
    twin.__cause__ = error.__cause__
    return twin
