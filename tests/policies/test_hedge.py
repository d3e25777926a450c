"""`Hedge`: a second attempt beside a slow first one; the first good answer wins, and the losers leave nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    DeadlineExceeded,
    Hedge,
    Policy,
    Timeout,
)
from seawall.events import HedgeStarted
from seawall.testing import Script, Victim, cancel_everywhere, run, slow
from tests.policies.worlds import heard

FREE = {"budget": None}


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_quick_answer_starts_no_second_attempt() -> None:
    target = Script(slow(0.9, "first"))

    async def main() -> None:
        assert await Policy(Hedge(after=1, **FREE)).acall(target.aio) == "first"
        await asyncio.sleep(10)
        assert len(target.calls) == 1

    run(main)


def test_when_the_first_is_slow_the_second_may_win_and_the_first_is_cancelled() -> None:
    target = Script(slow(60, "first"), slow(0.5, "second"))

    async def main() -> None:
        policy = Policy(Hedge(after=1, **FREE), name="prices")
        with heard(HedgeStarted) as seen:
            outcome = await policy.arun(target.aio)
        assert (outcome.value, outcome.attempts, now()) == ("second", 2, 1.5)
        await asyncio.sleep(0.001)
        assert target.cancelled == 1
        assert [(event.policy, event.after) for event in seen] == [("prices", 1)]
        assert (policy["Hedge"].hedges, policy["Hedge"].wins) == (1, 1)

    run(main)


def test_when_the_first_wins_the_second_is_cancelled() -> None:
    target = Script(slow(2, "first"), slow(60, "second"))

    async def main() -> None:
        policy = Policy(Hedge(after=1, **FREE))
        assert await policy.acall(target.aio) == "first"
        await asyncio.sleep(0.001)
        assert (target.cancelled, policy["Hedge"].hedges, policy["Hedge"].wins) == (1, 1, 0)

    run(main)


def test_at_most_max_more_attempts_start_one_after_another() -> None:
    target = Script(slow(60), slow(60), slow(60), slow(0.5, "fourth"))

    async def main() -> None:
        assert await Policy(Hedge(after=1, max=3, **FREE)).acall(target.aio) == "fourth"
        assert target.times == [0, 1, 2, 3]

    run(main)


def test_a_fast_failure_does_not_win_and_starts_no_race_of_its_own() -> None:
    """With nothing else under way it is the end: repeating failures is the work of a `Retry`."""
    target = Script(ConnectionError)

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await Policy(Hedge(after=1, **FREE)).acall(target.aio)
        assert (len(target.calls), now()) == (1, 0)

    run(main)


@pytest.mark.parametrize("steps", [(slow(3, "good"), ConnectionError), (slow(2, ConnectionError), slow(2, "good"))])
def test_a_failure_never_beats_a_later_success(steps: tuple[object, ...]) -> None:
    async def main() -> None:
        assert await Policy(Hedge(after=1, **FREE)).acall(Script(*steps).aio) == "good"
        assert now() == 3

    run(main)


def test_when_all_fail_the_error_of_the_first_stands() -> None:
    first, second = ConnectionError("first"), ConnectionError("second")
    target = Script(slow(5, first), slow(1, second))

    async def main() -> None:
        with pytest.raises(ConnectionError) as caught:
            await Policy(Hedge(after=1, **FREE)).acall(target.aio)
        assert caught.value is first
        assert now() == 5

    run(main)


class Reply:
    def __init__(self, *, is_async: bool, broken: bool = False) -> None:
        self.closed = 0
        self._broken = broken
        if is_async:
            self.aclose = self._aclose

    def close(self) -> None:
        self.closed += 1
        if self._broken:
            raise OSError("cannot close")

    async def _aclose(self) -> None:
        await asyncio.sleep(0.1)
        self.close()


@pytest.mark.parametrize("is_async", [True, False])
def test_what_a_loser_brings_back_all_the_same_is_closed_and_the_winners_is_not(is_async: bool) -> None:
    late, good = Reply(is_async=is_async), Reply(is_async=is_async)

    async def main() -> None:
        calls = 0

        async def fetch() -> Reply:
            nonlocal calls
            calls += 1
            if calls > 1:
                return good
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            return late

        assert await Policy(Hedge(after=1, **FREE)).acall(fetch) is good
        await asyncio.sleep(1)
        assert (late.closed, good.closed) == (1, 0)

    run(main)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_loser_that_cannot_be_closed_is_reported_and_does_not_hide_the_winner(is_async: bool) -> None:
    broken = Reply(is_async=is_async, broken=True)
    reports: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        calls = 0

        async def fetch() -> object:
            nonlocal calls
            calls += 1
            if calls > 1:
                return "good"
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            return broken

        assert await Policy(Hedge(after=1, **FREE)).acall(fetch) == "good"
        await asyncio.sleep(1)

    run(main)
    assert [str(report) for report in reports] == ["cannot close"]


def test_when_it_is_cancelled_all_attempts_are_and_none_is_started_after() -> None:
    target = Script(slow(60))

    async def main() -> None:
        call = asyncio.create_task(Policy(Hedge(after=1, max=5, **FREE)).acall(target.aio))
        await asyncio.sleep(2.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(60)
        assert (len(target.calls), target.cancelled, target.running) == (3, 3, 0)

    run(main)


def test_cancelled_anywhere_it_leaves_no_task_permit_or_unseen_error() -> None:
    async def scenario(victim: Victim) -> None:
        target = Script(slow(3, "first"), slow(1, ConnectionError), slow(1, "third"))
        policy = Policy(Hedge(after=1, max=2, **FREE), CircuitBreaker(), Bulkhead(3), Timeout(10))
        await victim(policy.acall(target.aio))
        await asyncio.sleep(0.01)
        assert target.running == policy[Bulkhead].in_use == 0

    assert cancel_everywhere(scenario, twice=True) > 30


def test_each_attempt_passes_the_guards_inside() -> None:
    target = Script(slow(60))

    async def main() -> None:
        policy = Policy(Hedge(after=1, max=5, **FREE), Bulkhead(2), Timeout(10))
        with pytest.raises(DeadlineExceeded):
            await policy.acall(target.aio)
        assert target.most_running == 2
        assert policy[Bulkhead].refused == 4
        assert policy[Bulkhead].in_use == 0

    run(main)


def test_a_timeout_outside_bounds_the_whole_race() -> None:
    target = Script(slow(60))

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await Policy(Timeout(3), Hedge(after=1, **FREE)).acall(target.aio)
        assert now() == 3
        await asyncio.sleep(0.001)
        assert target.running == 0

    run(main)
