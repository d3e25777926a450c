"""The cancellation driver finds planted leaks, lets sound code pass, and replays what it found."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from seawall.testing import RunFailure, SwallowedCancellation, Victim, VirtualLoop, cancel_everywhere

Visit = Callable[[asyncio.Semaphore], Awaitable[None]]


async def sound(seats: asyncio.Semaphore) -> None:
    await seats.acquire()
    try:
        await asyncio.sleep(1)
    finally:
        seats.release()


async def waits_before_try(seats: asyncio.Semaphore) -> None:
    await seats.acquire()
    await asyncio.sleep(0)  # leaks here
    try:
        await asyncio.sleep(1)
    finally:
        seats.release()


async def clean_up_waits_first(seats: asyncio.Semaphore) -> None:
    await seats.acquire()
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)  # a second cancellation here loses the seat
        seats.release()
        raise
    seats.release()


async def takes_over_a_grant(seats: asyncio.Semaphore) -> None:
    """Loses the seat only if it is cancelled between the grant and its own next step."""
    granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def grant() -> None:
        await seats.acquire()
        if granted.cancelled():
            seats.release()
        else:
            granted.set_result(None)

    task = asyncio.create_task(grant())
    await granted
    try:
        await asyncio.sleep(1)
    finally:
        await task
        seats.release()


def visiting(visit: Visit) -> Callable[[Victim], Awaitable[None]]:
    async def scenario(victim: Victim) -> None:
        seats = asyncio.Semaphore(1)
        holder = asyncio.create_task(sound(seats)) if visit is not takes_over_a_grant else None
        await asyncio.sleep(0)
        await victim(as_coroutine(visit, seats))
        if holder is not None:
            await holder
        await asyncio.sleep(5)
        assert not seats.locked(), "a seat is lost"

    return scenario


async def as_coroutine(visit: Visit, seats: asyncio.Semaphore) -> str:
    await visit(seats)
    return "served"


def drive(visit: Visit, *, twice: bool = False) -> int:
    scenario = visiting(visit)

    async def checked(victim: Victim) -> None:
        await scenario(victim)

    return cancel_everywhere(checked, twice=twice)


def test_a_sound_coroutine_passes_at_every_point() -> None:
    assert drive(sound) > 10
    assert drive(sound, twice=True) >= drive(sound)


def test_an_await_between_acquire_and_try_is_found_at_its_line() -> None:
    with pytest.raises(AssertionError, match="a seat is lost") as caught:
        drive(waits_before_try)
    assert "# leaks here" in "\n".join(caught.value.__notes__)


def test_a_leak_between_the_grant_and_the_next_step_is_found() -> None:
    with pytest.raises(AssertionError, match="a seat is lost"):
        drive(takes_over_a_grant)


def test_a_second_cancellation_during_clean_up_is_tried_on_request() -> None:
    assert drive(clean_up_waits_first) > 10
    with pytest.raises(AssertionError, match="a seat is lost") as caught:
        drive(clean_up_waits_first, twice=True)
    assert "cancelled at 2 point(s)" in "\n".join(caught.value.__notes__)


def test_the_note_replays_the_case_exactly() -> None:
    scenario = visiting(waits_before_try)

    async def checked(victim: Victim) -> None:
        await scenario(victim)

    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(checked)
    found = re.search(r"seeds=\[(\w+)\], only=\[(\d+)\]", "\n".join(caught.value.__notes__))
    assert found is not None
    seed = None if found[1] == "None" else int(found[1])
    with pytest.raises(AssertionError, match="a seat is lost"):
        cancel_everywhere(checked, seeds=[seed], only=[int(found[2])])
    assert cancel_everywhere(checked, seeds=[seed], only=[1]) == 1


def test_the_victim_is_tried_before_its_first_step_while_it_waits_and_once_it_is_woken() -> None:
    seen: list[tuple[str, bool]] = []

    async def scenario(victim: Victim) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, lambda: None if future.done() else future.set_result(None))
        progress = "not begun"

        async def work() -> None:
            nonlocal progress
            progress = "begun"
            await future

        await victim(work())
        if victim.cancelled:
            seen.append((progress, future.done() and not future.cancelled()))
        await asyncio.sleep(2)

    cancel_everywhere(scenario, seeds=[None])
    assert {("not begun", False), ("begun", False), ("begun", True)} <= set(seen)


def test_the_victims_result_and_errors_reach_the_scenario() -> None:
    results: list[str | None] = []

    async def scenario(victim: Victim) -> None:
        results.append(await victim(asyncio.sleep(1, "result")))

    assert cancel_everywhere(scenario) == len(results) - 3
    assert set(results) == {"result", None}

    async def failing(victim: Victim) -> None:
        async def fail() -> None:
            await asyncio.sleep(1)
            raise KeyError("mine")

        with pytest.raises(KeyError):
            await victim(fail())

    with pytest.raises(
        BaseException, match="DID NOT RAISE"
    ):  # the cancelled ones return None, and the scenario says so
        cancel_everywhere(failing)


def test_a_swallowed_cancellation_is_a_fault_unless_allowed() -> None:
    async def scenario(victim: Victim) -> None:
        async def stubborn() -> None:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                await asyncio.sleep(1)

        await victim(stubborn())

    with pytest.raises(SwallowedCancellation):
        cancel_everywhere(scenario)
    assert cancel_everywhere(scenario, may_swallow=True) > 3


def test_tasks_left_behind_by_a_cancelled_victim_are_found() -> None:
    async def scenario(victim: Victim) -> None:
        async def spawns() -> None:
            child = asyncio.create_task(asyncio.sleep(10), name="orphan")
            await asyncio.sleep(1)
            await child

        await victim(spawns())

    with pytest.raises(RunFailure, match="orphan"):
        cancel_everywhere(scenario)


def test_the_check_is_called_after_each_run() -> None:
    calls: list[int] = []

    async def scenario(victim: Victim) -> None:
        await victim(asyncio.sleep(1))

    tried = cancel_everywhere(scenario, lambda: calls.append(1), seeds=[0])
    assert len(calls) == tried + 1


def test_a_scenario_must_start_one_victim_and_repeat_itself() -> None:
    async def none(_victim: Victim) -> None: ...

    async def two(victim: Victim) -> None:
        await victim(asyncio.sleep(1))
        await victim(asyncio.sleep(1))

    lengths = iter([5, 1, 1, 1, 1, 1])

    async def fickle(victim: Victim) -> None:
        async def work() -> None:
            for _ in range(next(lengths)):
                await asyncio.sleep(1)

        await victim(work())

    for scenario in (none, two, fickle):
        with pytest.raises(RunFailure):
            cancel_everywhere(scenario)


def test_too_many_cases_are_refused() -> None:
    async def scenario(victim: Victim) -> None:
        async def long() -> None:
            for _ in range(50):
                await asyncio.sleep(1)

        await victim(long())

    with pytest.raises(ValueError, match="max_points=20"):
        cancel_everywhere(scenario, max_points=20)


def test_a_failure_without_cancellation_says_so() -> None:
    async def scenario(victim: Victim) -> None:
        await victim(asyncio.sleep(1))
        assert VirtualLoop.current().time() == 2

    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(scenario)
    assert "without any cancellation" in "\n".join(caught.value.__notes__)
