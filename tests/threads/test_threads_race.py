"""Under every order of threads a race sees the success, wakes its caller, and the pool has each seat once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from seawall.errors import BulkheadFull
from seawall.runtime import blocking, jobs, race, thread_legs
from seawall.runtime.blocking import drive
from seawall.runtime.jobs import Job
from seawall.runtime.race import Attempt, Ending, Race
from seawall.runtime.thread_legs import Bell, Pool, ThreadLegs
from tests.support.threads import as_many, explore
from tests.threads.frames import World, expect

SEEDS = as_many(150)
TRACE: list[Any] = [race, thread_legs, jobs, blocking, __file__]


class Workers:
    """In place of the pool's threads: jobs that are run by threads which the scheduler knows."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.given: list[threading.Event] = [threading.Event() for _ in range(8)]

    def submit(self, function: Callable[[], Any]) -> Job:
        job = Job(function)
        self.jobs.append(job)
        self.given[len(self.jobs) - 1].set()
        return job

    def renew(self) -> None:
        """There are no threads of its own."""

    def thread(self, number: int) -> Callable[[], None]:
        """The one that runs the job of that number."""

        def run() -> None:
            self.given[number].wait()
            self.jobs[number].run()

        return run


class Response:
    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def pool_of(limit: int) -> tuple[Pool, Workers]:
    pool, workers = Pool("test", limit), Workers()
    pool.workers = workers  # type: ignore[assignment]
    return pool, workers


def attempt(value: Any = None, error: BaseException | None = None) -> Attempt:
    async def made() -> Ending:
        return value, error

    return made


def home(pool: Pool) -> None:
    expect(sorted(pool._free) == [*range(pool.limit)], f"free are {pool._free}")


def test_whoever_waits_for_a_bell_sees_what_was_done_before_it_was_rung() -> None:
    def build() -> World:
        bell, done = Bell(), [False, False]

        def rings(number: int) -> Callable[[], None]:
            def ring() -> None:
                done[number] = True
                bell.ring()

            return ring

        def waits() -> None:
            while not all(done):
                bell.wait(None)

        return [waits, rings(0), rings(1)], lambda: expect(all(done), "it never ends")

    assert explore(build, trace=TRACE, seeds=range(SEEDS), max_points=20_000) == SEEDS


def test_a_bell_that_was_rung_in_vain_does_not_ring_on() -> None:
    """At the most one wake-up is left over, however often it was rung."""

    def build() -> World:
        bell, woken = Bell(), list[int]()

        def waits() -> None:
            bell.wait(None)
            woken.append(1)

        def check() -> None:
            bell._gate.acquire(blocking=False)
            expect(not bell._gate.acquire(blocking=False), "it rings twice")
            expect(woken == [1], "it was not heard")

        return [waits, bell.ring, bell.ring, bell.ring], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_a_success_is_never_taken_for_a_failure_and_all_else_is_closed() -> None:
    """Also where it comes in the middle of a look."""

    def build() -> World:
        pool, workers = pool_of(3)
        good, late = Response("good"), Response("late")
        ends: list[Ending] = []

        def races() -> None:
            here = Race(ThreadLegs(pool), lambda error: False)
            try:
                here.start(attempt(error=OSError("first")))
                here.start(attempt(good))
                here.start(attempt(late))
                expect(drive(here.decided(None)), "undecided")
                ends.append(here.ending)
                expect(here.settled and here.winner in (1, 2), "it took a success for a failure")
            finally:
                here.end()

        def check() -> None:
            value, error = ends[0]
            expect(error is None and value in (good, late), f"it ended with {ends}")
            expect(value.closed == 0, "the winner is closed")
            expect({good, late} - {value} == {each for each in (good, late) if each.closed == 1}, "a loser is open")
            home(pool)

        return [races, *(workers.thread(number) for number in range(3))], check

    assert explore(build, trace=TRACE, seeds=range(2 * SEEDS), max_points=50_000) == 2 * SEEDS


def test_a_success_in_the_middle_of_a_look_is_not_taken_for_a_failure() -> None:
    """Not done when its turn came, done when all the others were."""

    def build() -> World:
        pool, workers = pool_of(2)
        good, ends = Response("good"), list[Ending]()

        def races() -> None:
            here = Race(ThreadLegs(pool), lambda error: False)
            here.start(attempt(error=OSError()))
            here.start(attempt(good))
            drive(here.decided(None))
            ends.append(here.ending)
            here.end()

        def check() -> None:
            expect(ends == [(good, None)] and good.closed == 0, f"it ended with {ends}")

        return [races, workers.thread(0), workers.thread(1)], check

    assert explore(build, trace=TRACE, seeds=range(2 * SEEDS), max_points=50_000) == 2 * SEEDS


def test_when_all_fail_the_earliest_stands_in_whatever_order_they_end() -> None:
    def build() -> World:
        pool, workers = pool_of(2)
        errors, ends = [OSError("0"), OSError("1")], list[Ending]()

        def races() -> None:
            here = Race(ThreadLegs(pool), lambda error: False)
            for error in errors:
                here.start(attempt(error=error))
            expect(drive(here.decided(None)) and not here.settled and here.failures == 2, "not lost")
            ends.append(here.ending)
            here.end()

        def check() -> None:
            expect(ends == [(None, errors[0])], f"it ended with {ends}")
            home(pool)

        return [races, workers.thread(0), workers.thread(1)], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS), max_points=50_000) == SEEDS


def test_each_seat_of_the_pool_is_taken_by_one_and_brought_back_by_one() -> None:
    def build() -> World:
        pool, workers = pool_of(2)
        refused: list[int] = []
        inside: list[int] = []

        async def works() -> Ending:
            inside.append(1)
            expect(len(inside) <= 2, "more than there are threads")
            inside.pop()
            return None, None

        def submits() -> None:
            for _ in range(2):
                try:
                    job = pool.submit(works)
                except BulkheadFull:
                    refused.append(1)
                else:
                    job.run()

        def check() -> None:
            expect(len(workers.jobs) + len(refused) == 6, "an attempt is lost")
            home(pool)

        return [submits] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_a_seat_that_an_interrupted_caller_and_its_thread_both_bring_back_comes_home_once() -> None:
    def build() -> World:
        pool, workers = pool_of(1)
        submit = workers.submit
        ran: list[int] = []

        def interrupted(function: Callable[[], Any]) -> Job:
            submit(function)
            raise KeyboardInterrupt

        workers.submit = interrupted  # type: ignore[method-assign]

        async def works() -> Ending:
            expect(pool.in_use == 1, "it works without a seat")
            ran.append(1)
            return None, None

        def submits() -> None:
            try:
                pool.submit(works)
            except KeyboardInterrupt:
                pass

        return [submits, workers.thread(0)], lambda: home(pool)

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS
