"""One turn at the file: the steps that wait, in one transaction.

Rules
    a caller hears of success only after the commit that holds his step.
    what fails a transaction of several is tried again one by one, so that each step answers for itself.
    a failed commit, or an error that may lie in the connection or the file, drops the connection: what it had not
    committed is undone, and the next turn opens the file anew. Nothing is asked of a connection after that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox.sqlite.faults import fault_of, is_busy, is_corrupt, is_io, is_local
from seawall.outbox.sqlite.file import File
from seawall.outbox.sqlite.step import ALONE, WRITE, Step
from seawall.runtime import clock

__all__ = ["Turn"]

REFUSALS = (NotQueued, ConfigError)
"""What a step raises without having changed anything."""
TOGETHER_NS = 50_000_000
"""Steps whose time ends within this of one another wait for the file together."""


class Turn:
    """Runs steps; `forget` is called when something that was done has been undone."""

    def __init__(self, file: File, forget: Callable[[], object]) -> None:
        self._file = file
        self._forget = forget
        self.commits = self.steps = self.failures = 0

    def take(self, steps: list[Step], end: Callable[[Step], object]) -> None:
        """Run the steps and tell of each how it ended, whatever happens."""
        try:
            if steps[0].kind == ALONE:
                self._alone(steps[0])
            else:
                self._transact(steps)
        except BaseException as error:
            # Ctrl-C, or a fault of ours: nobody knows how far it came.
            self._drop()
            for step in steps:
                step.error = BackendUnavailable(f"broken off ({type(error).__name__}): it may have happened")
            if not isinstance(error, Exception):
                raise
        finally:
            for step in steps:
                end(step)

    def _alone(self, step: Step) -> None:
        try:
            step.value = step.run(self._file)
        except Exception as error:  # noqa: BLE001  # its caller must hear it
            step.error = fault_of(error, self._file.path)

    def _transact(self, steps: list[Step]) -> None:
        writes = any(step.kind == WRITE for step in steps)
        try:
            db = self._begin(min(step.deadline_ns for step in steps), writes=writes)
        except Exception as error:  # noqa: BLE001  # the callers must hear it
            if not is_busy(error):
                self._drop(error)
                self._fail(steps, error)
                return
            last = min(step.deadline_ns for step in steps) + TOGETHER_NS
            self._fail([step for step in steps if step.deadline_ns <= last], error)
            # Those who came later have time left.
            steps = [step for step in steps if step.deadline_ns > last]
            if steps:
                self._transact(steps)
            return
        try:
            for step in steps:
                try:
                    step.value = step.run(db)
                except REFUSALS as error:
                    step.error = error
        except Exception as error:  # noqa: BLE001  # the callers must hear it
            self._undo(db, error)
            if len(steps) == 1:
                self._fail(steps, error)
                return
            for step in steps:
                step.value = step.error = None
                self._transact([step])
            return
        try:
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # nothing is known to be safe
            self._drop(error)
            self._fail(steps, error)
            return
        self.commits += writes
        self.steps += len(steps)

    def _begin(self, deadline_ns: int, *, writes: bool) -> sqlite3.Connection:
        left = max(1, (deadline_ns - clock.now_ns()) // 1_000_000)
        db = self._file.connection(left)
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

    def _undo(self, db: sqlite3.Connection, error: Exception) -> None:
        self._forget()
        if is_local(error):
            try:
                db.execute("ROLLBACK")
            except sqlite3.Error as worse:
                error = worse
            else:
                return
        self._drop(error)

    def _drop(self, error: Exception | None = None) -> None:
        self._file.drop()
        if error is not None and is_corrupt(error):
            self._file.suspect()
        if error is not None and is_io(error):
            self._file.doubt()

    def _fail(self, steps: list[Step], error: Exception) -> None:
        self.failures += 1
        for step in steps:
            # One for each: an error that several raise would gather their tracebacks.
            step.error = fault_of(error, self._file.path)
