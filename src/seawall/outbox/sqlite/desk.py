"""Where steps wait for the file: those that come while a commit is under way are written together by the next one.

One connection serves the process, and one caller at a time has it: the leader. He runs what waits in one transaction,
wakes those it was for when it is committed, and hands the lead to the next. So a hundred callers pay for a few commits,
and a single one for no change of threads. Coroutines never lead: a thread does it for them.

State
    queue   steps that have not begun.
    led     whether somebody leads.

Rules
    a step is begun once, by the leader; until then its caller may withdraw it.
    who leads runs what is first in the queue, and hands the lead to whoever is first then. A thread leads for one turn.
    a forked child finds the desk as new: a fork waits for the turn under way, and for the connection to be closed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from seawall.errors import BackendUnavailable
from seawall.outbox.sqlite.file import File
from seawall.outbox.sqlite.step import ALONE, HOLD, WRITE, Step
from seawall.outbox.sqlite.turn import Turn
from seawall.runtime import clock
from seawall.runtime.jobs import Workers

__all__ = ["Desk"]

T = TypeVar("T")
MOST_AT_ONCE = 256
"""Steps in one transaction: the first of them waits for all."""
MOST_WAITING = 10_000


class Desk:
    """The one place through which a process works at the file."""

    def __init__(self, file: File, timeout_ns: int, forget: Callable[[], object]) -> None:
        self.file = file
        self.turn = Turn(file, forget)
        self._timeout_ns = timeout_ns
        self._workers = Workers("seawall-sqlite")
        self._held: Step | None = None
        self._renew()

    def _renew(self) -> None:
        # Reentrant: a finalizer may come here in the middle of a step of this very thread.
        self._lock = threading.RLock()
        self._queue: deque[Step] = deque()
        self._led = False
        self._leader = 0

    # -- callers ---------------------------------------------------------------------------------------------------

    def call(self, run: Callable[[Any], T], kind: int = WRITE) -> T:
        """Run a step; blocks this thread. Raises what the step raises, or `BackendUnavailable`."""
        step = Step(run, kind, clock.now_ns() + self._timeout_ns, waits=True)
        try:
            if self._wait_for_end_or_lead(step):
                self._serve()
        except BaseException:
            self._leave(step)
            raise
        finally:
            try:
                if step.lead:
                    self._pass_on(step)
            except BaseException:
                # A signal: the lead must not be lost with it.
                if step.lead:
                    self._pass_on(step)
                raise
        return step.take()  # type: ignore[no-any-return]

    def _wait_for_end_or_lead(self, step: Step) -> bool:
        """Whether this thread leads now; the step is done otherwise. Raises `BackendUnavailable` after the timeout."""
        if self._leader == threading.get_ident():
            raise BackendUnavailable("the store was asked in the middle of a step of this very thread")
        try:
            with self._lock:
                self._enter(step)
                if step.lead:
                    return True
                gate = threading.Lock()
                gate.acquire()
                step.ring = gate.release
            if not gate.acquire(timeout=self._timeout_ns / 1e9):
                self._withdraw(step)
        except BaseException:
            self._leave(step)
            raise
        return step.lead

    async def acall(
        self,
        run: Callable[[Any], T],
        kind: int = WRITE,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """As `call`, for coroutines: a thread does it, the loop goes on. A step that is cancelled before it begins has
        not happened; `undo` is given what a later one brought, in any thread."""
        if not clock.is_real():
            # Under virtual time no other thread may touch the loop, and nothing else waits for this one.
            return self.call(run, kind)
        import asyncio  # noqa: PLC0415  # processes without a loop need none

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        step = Step(run, kind, clock.now_ns() + self._timeout_ns, waits=False)

        def ring() -> None:
            with suppress(RuntimeError):  # its loop is gone, and with it whoever waited
                loop.call_soon_threadsafe(_settle, future)

        step.ring = ring
        self._post(step)
        # A little longer than the step may wait for the file, which knows better what was wrong.
        timer = loop.call_later(self._timeout_ns / 1e9 + 0.25, _settle, future)
        try:
            await future
        except BaseException:
            self._leave(step, undo)
            raise
        finally:
            timer.cancel()
        self._withdraw(step)
        return step.take()  # type: ignore[no-any-return]

    def post(self, run: Callable[[Any], Any]) -> None:
        """Let a step be done, whenever it may be; nobody hears of it."""
        if clock.is_real():
            self._post(Step(run, WRITE, clock.now_ns() + self._timeout_ns, waits=False))

    def _post(self, step: Step) -> None:
        with self._lock:
            self._enter(step)
        if step.lead:
            self._lead_elsewhere()

    def _enter(self, step: Step) -> None:
        if len(self._queue) >= MOST_WAITING:
            raise BackendUnavailable(f"{self.file.path}: {MOST_WAITING} steps wait for it already")
        self._queue.append(step)
        if not self._led:
            self._led = step.lead = True

    def _withdraw(self, step: Step) -> None:
        """Its caller has waited long enough. Raises `BackendUnavailable`, unless it is done or its caller leads."""
        with self._lock:
            if step.done or (step.lead and step.waits):
                return
            step.ring = None
            begun = step.begun
            self._leave(step)
        seconds = f"{self._timeout_ns / 1e9:g} s"
        if begun:
            raise BackendUnavailable(f"{self.file.path} did not answer in {seconds}: what was asked may still happen")
        raise BackendUnavailable(f"{self.file.path} was not free in {seconds}")

    def _leave(self, step: Step, undo: Callable[[Any], object] | None = None) -> None:
        """Its caller is gone: it is not begun any more, and if it was, it is undone when it ends."""
        with self._lock:
            if not step.begun:
                step.begun = True
                if step in self._queue:
                    self._queue.remove(step)
                return
            if undo is None:
                step.ring = None
            elif not step.done:
                step.ring = lambda: undo(step.value) if step.error is None else None
                return
        if undo is not None and step.error is None:
            undo(step.value)

    # -- the leader ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        steps: list[Step] = []
        try:
            with self._lock:
                self._leader = threading.get_ident()
                while self._queue and len(steps) < MOST_AT_ONCE:
                    step = self._queue[0]
                    if step.kind == HOLD or (step.kind == ALONE and steps):
                        break
                    steps.append(step)
                    step.begun = True
                    self._queue.popleft()
                    if step.kind == ALONE:
                        break
            if steps:
                self.turn.take(steps, self._end)
        except BaseException:
            # A signal, before the turn began or after it: whoever waits must hear of it, and nobody begin it again.
            self._break_off(steps)
            raise
        finally:
            self._leader = 0

    def _break_off(self, steps: list[Step]) -> None:
        with self._lock:
            if steps and self._queue and self._queue[0] is steps[-1]:
                self._queue.popleft()
        for step in steps:
            if not step.done:
                step.error = step.error or BackendUnavailable("broken off: it may have happened")
                self._end(step)

    def _end(self, step: Step) -> None:
        with self._lock:
            step.done = True
            ring = step.ring
        if ring is not None:
            ring()

    def _pass_on(self, leader: Step | None = None, *, stays: bool = False) -> bool:
        """Hand the lead to whoever is first now. With `stays` this thread keeps it, unless the first must have it."""
        leader = _nobody() if leader is None else leader
        with self._lock:
            heir = self._queue[0] if self._queue else None
            if heir is None:
                # In one breath, as below: Python handles signals at calls and loops only.
                leader.lead = self._led = False
                return False
            if stays and heir.kind != HOLD:
                return True
            if heir.waits:
                # Once: whoever leads sees the end of his own step.
                ring = heir.ring
                leader.lead = False
                heir.lead = True
                heir.ring = None
                if ring is not None:
                    ring()
                return False
        self._lead_elsewhere(leader)
        return False

    def _lead_elsewhere(self, leader: Step | None = None) -> None:
        if leader is not None:
            leader.lead = False  # before, since nobody knows how far a start that a signal breaks off has come
        try:
            self._workers.submit(self._lead_all)
        except RuntimeError as error:  # no thread can be started
            with self._lock:
                steps = [step for step in self._queue if not step.waits]
                self._queue = deque(step for step in self._queue if step.waits)
                for step in steps:
                    step.begun = True
                    step.error = BackendUnavailable(f"no thread can be started: {error}")
            for step in steps:
                self._end(step)
            self._pass_on(leader)

    def _lead_all(self) -> None:
        leads = True
        while leads:
            try:
                self._serve()
            finally:
                leads = self._pass_on(stays=True)

    # -- forks -----------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait for the turn under way, and close the connection: none may be inherited."""
        self._held = None
        step = Step(lambda _: None, HOLD, 0, waits=True)
        try:
            held = self._wait_for_end_or_lead(step)
        except BackendUnavailable:
            return  # the child will refuse to work
        except BaseException:  # Ctrl-C; the fork goes on all the same
            if step.lead:
                self._pass_on()
            raise
        if held:
            with self._lock:
                self._queue.remove(step)
            self.file.drop()
            self._held = step

    def after_fork_in_parent(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._pass_on()

    def after_fork_in_child(self) -> None:
        if self._held is None:
            self.file.spoil()
        self._held = None
        self._workers.renew()
        self._renew()


def _nobody() -> Step:
    return Step(lambda _: None, HOLD, 0, waits=False)


def _settle(future: Any) -> None:
    if not future.done():
        future.set_result(None)
