"""Attempts as tasks: the winner is kept, losers are cancelled and closed, and nothing of them is left or goes further."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seawall.runtime import task_legs
from seawall.runtime.race import Attempt, Ending, Race
from seawall.runtime.task_legs import TaskLegs
from seawall.testing import Unhandled, run


class Response:
    """What a call brings. `close` and `aclose` count; some are broken."""

    def __init__(self, breaks: BaseException | None = None, *, slow: bool = False) -> None:
        self.breaks = breaks
        self.slow = slow
        self.closed = 0

    def _close(self) -> None:
        self.closed += 1
        if self.breaks is not None:
            raise self.breaks


class Sync(Response):
    def close(self) -> None:
        self._close()


class Async(Response):
    async def aclose(self) -> None:
        if self.slow:
            await asyncio.sleep(30)
        self._close()


class Awaited(Response):
    """As a session of aiohttp: `close` is a coroutine."""

    async def close(self) -> None:
        self._close()


class Holding(OSError):
    """An error that holds a response."""

    def __init__(self, response: Response) -> None:
        super().__init__("bad")
        self.response = response

    async def aclose(self) -> None:
        self.response._close()


KINDS = [Sync, Async, Awaited]


def after(seconds: float, value: Any = None, error: BaseException | None = None, *, stubborn: bool = False) -> Attempt:
    """An attempt that ends after some time; a stubborn one swallows its cancellation."""

    async def attempt() -> Ending:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not stubborn:
                raise
        return value, error

    return attempt


async def raced(*attempts: Attempt, final: Callable[[BaseException], bool] = lambda error: False) -> Ending:
    race = Race(TaskLegs(), final)
    try:
        for attempt in attempts:
            race.start(attempt)
        await race.decided(None)
        return race.ending
    finally:
        race.end()


def test_the_winner_is_kept_open_and_the_loser_is_cancelled() -> None:
    async def main() -> None:
        winner, loser = Async(), Async()
        assert await raced(after(5, loser), after(1, winner)) == (winner, None)
        await asyncio.sleep(10)
        assert (winner.closed, loser.closed) == (0, 0), "a cancelled one brings nothing"

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_loser_brings_all_the_same_is_closed_once(kind: type[Response]) -> None:
    async def main() -> None:
        winner, stubborn, in_step = kind(), kind(), kind()
        with_it = after(1, in_step, stubborn=True)
        assert await raced(after(1, winner), after(5, stubborn, stubborn=True), with_it) == (winner, None)
        await asyncio.sleep(10)
        assert (winner.closed, stubborn.closed, in_step.closed) == (0, 1, 1)

    run(main)


def test_what_the_error_of_a_loser_holds_is_closed_and_that_of_the_answer_is_not() -> None:
    async def main() -> None:
        first, second, late = Async(), Async(), Async()
        value, error = await raced(after(1, None, Holding(first)), after(2, None, Holding(second)))
        assert value is None and isinstance(error, Holding) and error.response is first
        await asyncio.sleep(1)
        assert (first.closed, second.closed) == (0, 1)
        answer = Holding(first)
        ending = await raced(
            after(1, None, Holding(second)),
            after(2, None, answer),
            after(9, late, stubborn=True),
            final=lambda error: error is answer,
        )
        assert ending == (None, answer)
        await asyncio.sleep(1)
        assert (first.closed, second.closed, late.closed) == (0, 2, 1)

    run(main)


def test_when_the_race_is_cancelled_everything_that_comes_is_closed() -> None:
    async def main() -> None:
        failed, stubborn, good = Async(), Async(), Async()
        race = asyncio.create_task(
            raced(after(1, None, Holding(failed)), after(9, stubborn, stubborn=True), after(9, good))
        )
        await asyncio.sleep(2)
        race.cancel()
        with pytest.raises(asyncio.CancelledError):
            await race
        await asyncio.sleep(1)
        assert (failed.closed, stubborn.closed, good.closed) == (1, 1, 0)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_close_is_reported_to_the_loop_and_goes_no_further(kind: type[Response]) -> None:
    broken = ValueError("broken")

    async def main() -> None:
        winner, loser = kind(), kind(broken)
        assert await raced(after(1, winner), after(5, loser, stubborn=True)) == (winner, None)
        await asyncio.sleep(10)
        assert loser.closed == 1

    with pytest.raises(Unhandled, match="closing the result of a losing attempt failed") as caught:
        run(main)
    assert [context["exception"] for context in caught.value.contexts] == [broken]


def test_a_slow_close_does_not_hold_the_winner_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        winner, loser = Async(), Async(slow=True)
        assert await raced(after(1, winner), after(5, loser, stubborn=True)) == (winner, None)
        assert loop.time() == 1
        await asyncio.sleep(31)
        assert loser.closed == 1

    run(main)


def test_no_error_of_a_loser_is_reported_as_never_retrieved() -> None:
    """One that fails while it is cancelled, one that fails in step with the winner, one that is collected as garbage."""

    async def fails_late() -> Ending:
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("while it was cancelled")

    async def raises() -> Ending:
        await asyncio.sleep(1)
        raise OSError("in step")

    async def main() -> None:
        assert await raced(fails_late, after(1, "value"), raises, raises) == ("value", None)
        await asyncio.sleep(5)
        gc.collect()

    run(main)


def test_an_attempt_that_raises_ends_with_its_error() -> None:
    async def raises() -> Ending:
        raise KeyError("raised, not told")

    async def main() -> None:
        _, error = await raced(raises)
        assert isinstance(error, KeyError)

    run(main)


def test_an_attempt_that_is_cancelled_from_elsewhere_has_failed() -> None:
    async def cancels_itself() -> Ending:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return "value", None

    async def main() -> None:
        assert await raced(cancels_itself, after(1, "value")) == ("value", None)
        _, error = await raced(cancels_itself)
        assert isinstance(error, asyncio.CancelledError)

    run(main)


def test_losers_are_remembered_until_they_have_ended_and_no_longer() -> None:
    """A task without a reference may be collected in mid-flight."""

    async def main() -> None:
        before = len(task_legs._losers)
        await raced(after(1, "value"), after(5, Async(slow=True), stubborn=True), after(5))
        assert len(task_legs._losers) == before + 2
        gc.collect()
        await asyncio.sleep(0.1)
        assert len(task_legs._losers) == before + 1, "the slow close"
        await asyncio.sleep(40)
        assert len(task_legs._losers) == before

    run(main)


def test_odd_values_do_not_disturb_the_winner() -> None:
    """One that cannot even be asked, and one whose `close` is no function."""

    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Closed:
        close = True

    async def main() -> None:
        assert await raced(after(1, "value"), after(5, Odd(), stubborn=True), after(5, Closed(), stubborn=True)) == (
            "value",
            None,
        )
        await asyncio.sleep(1)

    run(main)


def test_any_awaitable_may_be_an_attempt() -> None:
    def attempt() -> Awaitable[Ending]:
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        future.set_result(("value", None))
        return future

    async def main() -> None:
        assert await raced(attempt) == ("value", None)

    run(main)
