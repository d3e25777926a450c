"""Runs threads one at a time and lets a seed switch between them at any bytecode, so that races are found and replayed.

Real threads switch every few milliseconds, so a race of three bytecodes almost never shows; here every bytecode of the
traced files is a place to switch, and the same seed switches at the same places. Locks, events, conditions and the
library's clock are replaced by ones the scheduler knows (`coop.py`): a thread that waits hands over, time passes only
when nobody can run, and when nobody ever can that is a deadlock, reported with every thread's stack.

    def build():
        counter = Counter()
        return [counter.add, counter.add], lambda: check(counter.value == 2)

    explore(build, trace=[counter_module])
"""

from __future__ import annotations

import _thread
import gc
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType

from seawall.runtime import clock
from tests.support.baton import Abandon, Baton, Stuck, Worker
from tests.support.bytecodes import before_each_bytecode, codes_of, trace_this_thread
from tests.support.coop import replaced_locks

__all__ = ["Interleave", "Stuck", "as_many", "explore"]

Function = Callable[[], object]
Build = Callable[[], tuple[Sequence[Function], Callable[[], object]]]


def as_many(seeds: int) -> int:
    """How many seeds to try; `.ci/run` tries all under one interpreter, and a third under the others."""
    return max(10, seeds // int(os.environ.get("SEAWALL_LESS", "1")))


class Interleave:
    """A run of threads whose order `seed` alone decides.

    `trace` lists modules or file names whose every bytecode is a place to switch. `max_points` bounds the bytecodes
    of a run; `limit` is a guard in real seconds against code that blocks in something that is not replaced. With
    `hasty=True` a wait may time out although others could run, as when the machine is busy. Threads that the code under
    test starts by itself are not scheduled, and a class that bound `threading.Lock` when it was defined (as a default
    factory does) keeps the real one. `codes` is
    what `trace` comes to, if that is known already.
    """

    def __init__(
        self,
        seed: int,
        trace: Iterable[ModuleType | str],
        *,
        max_points: int = 200_000,
        limit: float = 20.0,
        hasty: bool = False,
        codes: list[CodeType] | None = None,
    ) -> None:
        parts = list(trace)
        self.seed = seed
        self._modules = [part for part in parts if isinstance(part, ModuleType)]
        self._codes = _codes(parts) if codes is None else codes
        self._baton = Baton(seed, max_points=max_points, hasty=hasty)
        self._limit = limit
        self._used = False

    @property
    def schedule(self) -> str:
        """A digest of every switch: equal digests are equal runs."""
        return self._baton.schedule

    @property
    def points(self) -> int:
        """How many places to switch were passed."""
        return self._baton.points

    @contextmanager
    def patched(self) -> Generator[None]:
        """Locks made within the block, and the library's clock, are the scheduler's. Build what is under test here."""
        undo_clock = clock.install(lambda: self._baton.now_ns, self._baton.sleep_ns)
        wait_for = clock.wait_for
        # In virtual time the library's own sleeps first and looks then, because real locks know no virtual time.
        clock.wait_for = _wait_for
        try:
            with replaced_locks(self._baton, self._modules):
                yield
        finally:
            clock.wait_for = wait_for
            undo_clock()

    def run(self, functions: Sequence[Function]) -> list[object]:
        """Run each function in its own thread, to the end of all; their results in order. Call within `patched()`.

        Raises what a function raised, or `Stuck`; either carries the seed as a note. One run for one `Interleave`.
        """
        if self._used or not functions:
            raise ValueError("an Interleave runs once, with at least one function")
        self._used = True
        workers = [Worker(index, function) for index, function in enumerate(functions)]
        collecting = gc.isenabled()
        gc.disable()  # finalizers would run at places that depend on what ran before
        try:
            with before_each_bytecode(self._codes, self._baton.point):
                for worker in workers:
                    # Not threading.Thread, whose own locks are made by the names that are replaced by now.
                    _thread.start_new_thread(self._body, (worker,))
                self._baton.start(workers)
                in_time = self._baton.finished.acquire(timeout=self._limit)
            self._raise_failure(workers, in_time)
            return [worker.result for worker in workers]
        except BaseException as error:
            error.add_note(f"threads interleaved with seed {self.seed}, {self.points} bytecodes")
            raise
        finally:
            if collecting:
                gc.enable()

    def _raise_failure(self, workers: Sequence[Worker], in_time: bool) -> None:
        if not in_time:
            raise Stuck(f"no end after {self._limit} s: a real lock or wait?\n{self._baton.stacks()}")
        for worker in workers:
            if worker.error is not None:
                raise worker.error
        if self._baton.stuck is not None:
            raise Stuck(self._baton.stuck)

    def _body(self, worker: Worker) -> None:
        worker.ident = _thread.get_ident()
        worker.gate.acquire()
        try:
            with trace_this_thread(self._codes, self._baton.point):
                if self._baton.stuck is None:
                    worker.result = worker.function()
        except Abandon:
            pass
        except BaseException as error:
            if self._baton.stuck is None:  # what breaks while a failed run is torn down is no news
                worker.error = error
        finally:
            self._baton.leave(worker)


def _wait_for(lock: threading.Lock, timeout_ns: int | None) -> bool:
    return lock.acquire() if timeout_ns is None else lock.acquire(timeout=max(0, timeout_ns) / 1e9)


def _codes(parts: Iterable[ModuleType | str]) -> list[CodeType]:
    return codes_of(str(part.__file__) if isinstance(part, ModuleType) else part for part in parts)


def explore(
    build: Build,
    *,
    trace: Iterable[ModuleType | str],
    seeds: Iterable[int] = range(200),
    max_points: int = 200_000,
    hasty: bool = False,
) -> int:
    """Build a fresh world, run its threads and check it, once for each seed; the number of seeds tried.

    `build()` returns the functions to run at once and the check for afterwards. The first failure ends the
    exploration, with the seed as a note; `seeds=[that]` replays it. The other arguments are those of `Interleave`.
    """
    parts = list(trace)
    codes = _codes(parts)  # once for all seeds, because it walks the heap
    tried = 0
    for seed in seeds:
        interleave = Interleave(seed, parts, max_points=max_points, hasty=hasty, codes=codes)
        try:
            with interleave.patched():
                functions, check = build()
                interleave.run(functions)
                check()
        except BaseException as error:
            error.add_note(f"replay: explore(..., seeds=[{seed}])")
            raise
        tried += 1
    return tried
