"""A race is won by the first success, lost when all have failed, and whoever is not wanted is abandoned, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from seawall import Forking
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from seawall.runtime.race import Attempt, Ending, Leg, Race
from seawall.testing import VirtualClock
from tests.cluster.service import Service
from tests.policies.worlds import World, in_both_worlds

FAILED = OSError("failed")


class FakeLeg:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.abandoned = 0

    @property
    def done(self) -> bool:
        return self.ending is not None

    def end(self) -> Ending:
        assert self.ending is not None
        return self.ending

    def abandon(self, kept: object = None) -> None:
        self.abandoned += 1


class EndsWhenAskedTwice(FakeLeg):
    """A thread that succeeds in the middle of a look."""

    asked = 0

    @property
    def done(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            self.ending = "late", None
        return self.ending is not None


class FakeLegs:
    """Plays a script while the race waits: each step ends some legs, or lets time pass."""

    def __init__(self) -> None:
        self.legs: list[FakeLeg] = []
        self.script: list[Callable[[], object]] = []
        self.waits: list[tuple[int, int | None]] = []

    def start(self, attempt: Attempt) -> FakeLeg:
        self.legs.append(FakeLeg())
        return self.legs[-1]

    async def wait(self, running: Sequence[Leg], timeout_ns: int | None) -> None:
        if not running:
            return  # as a bell that has been rung
        self.waits.append((len(running), timeout_ns))
        if self.script:
            self.script.pop(0)()
        elif timeout_ns is not None:
            clock.sleep_ns(timeout_ns)
        else:
            raise AssertionError("it waits for ever")

    def then(self, number: int, value: object = None, error: BaseException | None = None) -> None:
        """While the race waits next, this leg ends."""
        self.script.append(lambda: setattr(self.legs[number], "ending", (value, error)))


async def attempt() -> Ending:
    return None, None


class Bench:
    def __init__(self, legs: int) -> None:
        self.where = FakeLegs()
        self.race = Race(self.where, lambda error: isinstance(error, (KeyboardInterrupt, TypeError)))
        for _ in range(legs):
            self.race.start(attempt)

    def decided(self, timeout_ns: int | None = None, **more: Any) -> bool:
        return drive(self.race.decided(timeout_ns, **more))

    @property
    def abandoned(self) -> list[int]:
        return [leg.abandoned for leg in self.where.legs]


def test_the_first_success_wins_and_the_others_are_abandoned() -> None:
    bench = Bench(3)
    bench.where.then(2, error=FAILED)
    bench.where.then(1, "value")
    assert bench.decided()
    assert (bench.race.winner, bench.race.settled, bench.race.ending) == (1, True, ("value", None))
    assert bench.race.endings == [None, ("value", None), (None, FAILED)]
    assert bench.where.waits == [(3, None), (2, None)]
    bench.race.end()
    assert bench.abandoned == [1, 0, 1]
    bench.race.end()
    assert bench.abandoned == [1, 0, 1]


def test_a_fast_failure_never_beats_a_later_success() -> None:
    bench = Bench(2)
    bench.where.then(0, error=FAILED)
    bench.where.then(1, "late")
    assert bench.decided() and bench.race.winner == 1


def test_when_all_fail_the_earliest_stands_and_is_kept_whole() -> None:
    """It is somebody's answer: what it holds must not be closed."""
    bench = Bench(3)
    second = OSError("second")
    bench.where.then(1, error=second)
    bench.where.then(2, error=OSError())
    bench.where.then(0, error=FAILED)
    assert bench.decided()
    assert (bench.race.winner, bench.race.settled, bench.race.failures) == (None, False, 3)
    assert bench.race.ending == (None, FAILED)
    bench.race.end()
    assert bench.abandoned == [0, 1, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("a bug")], ids=repr)
def test_an_error_that_is_final_decides_at_once_and_is_kept_whole(error: BaseException) -> None:
    bench = Bench(3)
    bench.where.then(0, error=FAILED)
    bench.where.then(1, error=error)
    assert bench.decided()
    assert (bench.race.winner, bench.race.settled, bench.race.ending) == (None, True, (None, error))
    bench.race.end()
    assert bench.abandoned == [1, 0, 1]


def test_an_undecided_race_keeps_nothing() -> None:
    """The caller has gone: a failure that has come in is nobody's answer."""
    bench = Bench(2)
    bench.where.then(0, error=FAILED)
    with VirtualClock():
        assert not bench.decided(5)
    bench.race.end()
    assert bench.abandoned == [1, 1]


def test_one_more_attempt_makes_a_race_that_was_lost_open_again() -> None:
    bench = Bench(1)
    bench.where.then(0, error=FAILED)
    assert bench.decided()
    bench.race.start(attempt)
    bench.race.end()
    assert bench.abandoned == [1, 1]


@pytest.mark.parametrize("ends", [("value", None), (None, FAILED)], ids=["success", "failure"])
def test_what_comes_in_after_the_last_look_is_not_kept(ends: Ending) -> None:
    """Nobody has seen it: the caller was cancelled in the same moment."""
    bench = Bench(1)
    bench.where.legs[0].ending = ends
    bench.race.end()
    assert bench.abandoned == [1]


def test_a_success_that_comes_while_it_is_looked_at_is_not_taken_for_a_failure() -> None:
    """As a thread may: not done when its turn came, done when all are asked whether they are."""
    bench = Bench(2)
    first, second = bench.where.legs
    first.ending = None, FAILED
    second.__class__ = EndsWhenAskedTwice
    assert bench.decided()
    assert (bench.race.winner, bench.race.ending) == (1, ("late", None))


def test_it_is_not_waited_beyond_the_time() -> None:
    with VirtualClock() as time:
        bench = Bench(2)
        bench.where.script = [lambda: time.advance("3ns")]
        assert not bench.decided(10)
        assert bench.where.waits == [(2, 10), (2, 7)]
        assert time.now_ns == 10
        assert not bench.decided(0) and not bench.decided(-5)
        assert len(bench.where.waits) == 2, "for no time it does not wait at all"
        bench.where.legs[0].ending = "value", None
        assert bench.decided(0), "but it looks"


def test_one_more_failure_ends_the_wait_undecided() -> None:
    bench = Bench(3)
    bench.where.then(0, error=FAILED)
    assert not bench.decided(failures=bench.race.failures)
    assert bench.race.failures == 1
    bench.where.then(2, error=FAILED)
    assert not bench.decided(failures=bench.race.failures)
    assert bench.race.failures == 2
    bench.where.then(1, error=FAILED)
    assert bench.decided(failures=bench.race.failures)
    assert bench.race.failures == 3


def test_all_have_ended_whatever_became_of_them() -> None:
    bench = Bench(3)
    bench.where.then(1, "value")
    bench.where.then(0, error=FAILED)
    bench.where.then(2, "value")
    assert drive(bench.race.all_ended(None))
    assert bench.race.endings == [(None, FAILED), ("value", None), ("value", None)]
    bench.race.end(unwanted=False)
    assert bench.abandoned == [0, 0, 0]


def test_an_error_that_is_final_ends_the_wait_for_all() -> None:
    bench = Bench(3)
    bench.where.then(0, error=KeyboardInterrupt())
    assert not drive(bench.race.all_ended(None))
    bench.race.end(unwanted=False)
    assert bench.abandoned == [0, 1, 1], "those that run are abandoned, those that have ended keep what they brought"


def test_those_that_have_not_ended_in_time_are_abandoned() -> None:
    with VirtualClock():
        bench = Bench(2)
        bench.where.then(1, "value")
        assert not drive(bench.race.all_ended(5))
    bench.race.end(unwanted=False)
    assert bench.abandoned == [1, 0]


def test_a_race_without_attempts_is_lost() -> None:
    bench = Bench(0)
    assert bench.decided() and drive(bench.race.all_ended(None))
    assert (bench.race.settled, bench.race.endings) == (False, [])
    bench.race.end()


@in_both_worlds
async def test_a_value_that_cannot_be_compared_wins_all_the_same(world: World) -> None:
    """As an array: whoever looks for the winner must not compare what the attempts brought."""

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    array = Array()
    service = Service(2).does(0, OSError).does(1, array)
    cluster = service.cluster(Forking())
    outcome = await world.outcome(cluster, service)
    assert outcome.value is array and str(outcome.endpoint) == "e1:80"
