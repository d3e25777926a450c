"""Attempts on threads: bounded, refused where none is free; seats come home on every path; what losers bring is closed."""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from seawall.errors import BulkheadFull
from seawall.runtime import jobs
from seawall.runtime.blocking import drive
from seawall.runtime.race import Attempt, Ending, Race
from seawall.runtime.thread_legs import Bell, Pool, ThreadLegs
from tests.policies.worlds import until, workers_go_home

__all__ = ["workers_go_home"]

LONG = 20.0
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


class Response:
    def __init__(self, breaks: BaseException | None = None) -> None:
        self.breaks = breaks
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        if self.breaks is not None:
            raise self.breaks


class Holding(OSError):
    def __init__(self, response: Response) -> None:
        super().__init__("bad")
        self.close = response.close


class Gates:
    """Attempts that end when they are told to."""

    def __init__(self) -> None:
        self.gates: list[threading.Event] = []
        self.running = 0

    def attempt(self, value: Any = None, error: BaseException | None = None) -> Attempt:
        gate = threading.Event()
        self.gates.append(gate)

        async def attempt() -> Ending:
            self.running += 1
            assert gate.wait(LONG)
            return value, error

        return attempt

    def open(self, *numbers: int) -> None:
        for number in numbers or range(len(self.gates)):
            self.gates[number].set()


@pytest.fixture
def gates() -> Iterator[Gates]:
    gates = Gates()
    yield gates
    gates.open()


def at_once(value: Any = None, error: BaseException | None = None) -> Attempt:
    async def attempt() -> Ending:
        return value, error

    return attempt


def raising(error: BaseException) -> Attempt:
    async def attempt() -> Ending:
        raise error

    return attempt


def raced(race: Race, *attempts: Attempt) -> Ending:
    try:
        for attempt in attempts:
            race.start(attempt)
        assert drive(race.decided(round(LONG * 1e9)))
        return race.ending
    finally:
        race.end()


def race_of(pool: Pool) -> Race:
    return Race(ThreadLegs(pool), lambda error: not isinstance(error, Exception))


def home(pool: Pool) -> bool:
    return pool.in_use == 0 and sorted(pool._free) == [*range(pool.limit)]


# -- the pool -----------------------------------------------------------------------------------------------------------


def test_no_more_attempts_run_than_there_are_threads_and_the_next_is_refused(gates: Gates) -> None:
    pool = Pool("stock", 3)
    jobs_ = [pool.submit(gates.attempt(number)) for number in range(3)]
    until(lambda: gates.running == 3)
    assert pool.in_use == 3
    for _ in range(5):
        with pytest.raises(BulkheadFull) as caught:
            pool.submit(at_once())
    refusal = caught.value
    assert (refusal.policy, refusal.measured, refusal.threshold, refusal.retry_after) == ("stock", 3, 3, 1.0)
    assert "all 3 threads for parallel attempts are taken" in str(refusal)
    gates.open(1)
    until(lambda: jobs_[1].done)
    assert pool.in_use == 2
    assert pool.submit(at_once()) is not None
    gates.open()
    until(lambda: home(pool))


@pytest.mark.parametrize(
    "attempt",
    [
        at_once("value"),
        at_once(error=OSError()),
        raising(OSError()),
        raising(KeyboardInterrupt()),
        raising(SystemExit(1)),
        raising(GeneratorExit()),
    ],
)
def test_a_seat_comes_home_however_its_attempt_ends_and_before_that_is_known(attempt: Attempt) -> None:
    pool = Pool("stock", 1)
    for _ in range(20):
        homes: list[bool] = []
        job = pool.submit(attempt)
        job.on_end(lambda: homes.append(home(pool)))
        until(lambda: homes)
        assert homes == [True]


def test_an_attempt_that_awaits_something_else_fails_and_its_seat_comes_home() -> None:
    """There is no loop on such a thread."""
    import asyncio

    async def sleeps() -> Ending:
        await asyncio.sleep(1)
        return "value", None

    pool = Pool("stock", 1)
    _, error = raced(race_of(pool), sleeps)
    assert isinstance(error, RuntimeError)
    assert home(pool)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt(), MemoryError()])
def test_a_seat_comes_home_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise error

    pool = Pool("stock", 2)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.threading, "Thread", NoThread)
        for _ in range(5):
            with pytest.raises(type(error)):
                pool.submit(at_once())
            assert home(pool)
    assert raced(race_of(pool), at_once("value")) == ("value", None)


@pytest.mark.parametrize("begun", [True, False], ids=["the thread is at work", "the thread has not begun"])
def test_an_interrupt_while_the_thread_starts_neither_loses_nor_doubles_a_seat(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, begun: bool
) -> None:
    """`Thread.start` waits for the thread, and there an interrupt may come: the thread runs all the same."""
    attempt, may_begin = gates.attempt("value"), threading.Event()

    class Interrupted(threading.Thread):
        def run(self) -> None:
            assert may_begin.wait(LONG)
            super().run()

        def start(self) -> None:
            super().start()
            if begun:
                may_begin.set()
                until(lambda: gates.running)
            raise KeyboardInterrupt

    pool = Pool("stock", 1)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(attempt)
    assert pool.in_use == begun, "a thread at work keeps its seat"
    may_begin.set()
    gates.open()
    until(lambda: home(pool))
    assert gates.running == begun, "an attempt that nobody waits for is not made"
    until(lambda: not any(thread.name == "seawall stock" for thread in threading.enumerate()))
    assert home(pool)


def test_what_the_caller_has_set_is_seen_and_what_the_attempt_sets_is_not() -> None:
    async def attempt() -> Ending:
        seen = VARIABLE.get()
        VARIABLE.set("changed")
        return seen, None

    pool = Pool("stock", 2)
    token = VARIABLE.set("caller's")
    try:
        assert raced(race_of(pool), attempt) == ("caller's", None)
        assert raced(race_of(pool), attempt) == ("caller's", None)
        assert VARIABLE.get() == "caller's"
    finally:
        VARIABLE.reset(token)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_all_its_seats_and_threads_of_its_own(gates: Gates) -> None:
    pool = Pool("stock", 2)
    running = [pool.submit(gates.attempt()) for _ in range(2)]
    until(lambda: gates.running == 2)
    pool.workers._idle += 1  # as if one more thread waited for work: it does not exist in the child either
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            ends = [raced(race_of(pool), at_once(1)), raced(race_of(pool), at_once(1), at_once(2))]
            text = "well" if home(pool) and {end[0] for end in ends} <= {1, 2} else f"{ends} {pool._free}"
        except BaseException as error:
            text = repr(error)
        os.write(write, text.encode())
        os._exit(0)
    pool.workers._idle -= 1
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "well"
    os.waitpid(child, 0)
    gates.open()
    until(lambda: all(job.done for job in running))
    assert home(pool)


# -- races --------------------------------------------------------------------------------------------------------------


def test_the_winner_is_kept_open_and_the_loser_goes_on_to_its_end_and_is_closed(gates: Gates) -> None:
    pool, winner, loser = Pool("stock", 2), Response(), Response()
    race = race_of(pool)
    race.start(gates.attempt(loser))
    assert raced(race, at_once(winner)) == (winner, None)
    assert pool.in_use == 1 and loser.closed == 0, "a thread cannot be interrupted"
    gates.open()
    until(lambda: loser.closed)
    until(lambda: home(pool))
    assert (winner.closed, loser.closed) == (0, 1)


def test_what_the_errors_of_losers_hold_is_closed_and_that_of_the_answer_is_not(gates: Gates) -> None:
    pool, first, second, late = Pool("stock", 3), Response(), Response(), Response()
    race = race_of(pool)
    _, error = raced(race, at_once(error=Holding(first)), at_once(error=Holding(second)))
    assert isinstance(error, Holding) and (first.closed, second.closed) == (0, 1)
    race = race_of(pool)
    race.start(gates.attempt(error=Holding(late)))
    assert raced(race, at_once("value")) == ("value", None)
    gates.open()
    until(lambda: late.closed)
    assert late.closed == 1


def test_a_race_that_is_given_up_closes_all_that_comes(gates: Gates) -> None:
    pool, done, late = Pool("stock", 2), Response(), Response()
    race = race_of(pool)
    race.start(gates.attempt(late))
    race.start(at_once(error=Holding(done)))
    assert not drive(race.decided(50_000_000))
    race.end()
    gates.open()
    until(lambda: late.closed)
    assert (done.closed, late.closed) == (1, 1)


@pytest.mark.parametrize("late", [False, True], ids=["in the caller", "on the thread"])
def test_a_broken_close_is_logged_and_goes_no_further(
    gates: Gates, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    pool, broken = Pool("stock", 2), Response(ValueError("broken"))
    race = race_of(pool)
    race.start(gates.attempt(broken))
    if not late:
        gates.open()
        until(lambda: pool.in_use == 0)
        race.end()
    else:
        assert raced(race, at_once("value")) == ("value", None)
        gates.open()
    until(lambda: broken.closed)
    until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == "closing the result of a losing attempt failed"
    assert record.levelno == logging.ERROR and record.exc_info is not None and record.exc_info[1] is broken.breaks
    until(lambda: home(pool))
    assert raced(race_of(pool), at_once("again")) == ("again", None)


def test_an_attempt_for_which_no_thread_is_free_has_failed_and_the_others_go_on(gates: Gates) -> None:
    pool = Pool("stock", 2)
    race = race_of(pool)
    race.start(gates.attempt("value"))
    race.start(gates.attempt("other"))
    race.start(at_once("refused"))
    *running, refused = race.endings
    assert running == [None, None] and refused is not None and isinstance(refused[1], BulkheadFull)
    gates.open(1)
    assert drive(race.decided(round(LONG * 1e9))) and race.ending == ("other", None)
    race.end()


def test_where_the_system_has_no_more_threads_the_attempt_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    pool = Pool("stock", 2)
    race = race_of(pool)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.threading, "Thread", NoThread)
        race.start(at_once("never"))
    assert raced(race, at_once("value")) == ("value", None)
    assert isinstance(raced(race_of(pool), at_once("again"))[0], str)


def test_a_refusal_leaves_no_circle_to_the_garbage_collector() -> None:
    pool = Pool("stock", 1)
    pool._free.clear()
    gc.collect()
    gc.disable()
    try:
        race = race_of(pool)
        race.start(at_once())
        error: Any = race.ending[1]
        assert isinstance(error, BulkheadFull) and error.__traceback__ is None
        known = weakref.ref(error)
        race.end()
        del race, error
        assert known() is None
    finally:
        gc.enable()


# -- the bell -----------------------------------------------------------------------------------------------------------


def test_a_bell_wakes_its_waiter_and_a_ring_before_the_wait_is_not_lost() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    bell.wait(None)
    for _ in range(3):
        thread = threading.Thread(target=bell.ring)
        thread.start()
        bell.wait(round(LONG * 1e9))
        thread.join(LONG)
    bell.wait(1_000_000)  # it has not been rung: the time passes
    bell.wait(0)
