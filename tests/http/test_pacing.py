"""`Pace`: one line for threads and tasks, refusals instead of long waits, and nothing left behind by whoever gives up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from seawall import ConfigError, RateLimited, deadline, disable, enable
from seawall.events import LimitReached
from seawall.http import Pace
from seawall.machines.pacing import SETTLE_NS
from seawall.runtime import clock
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from seawall.testing import Victim, cancel_everywhere, run
from tests.policies.worlds import World, heard, in_both_worlds

SITE = "http://a.example"
SILENT: dict[str, str] = {}


def says(left: int, seconds: int, quota: int = 100) -> dict[str, str]:
    return {"ratelimit": f'"a";r={left};t={seconds}', "ratelimit-policy": f'"a";q={quota}'}


async def enter(world: World, pace: Pace, key: str = SITE) -> Any:
    return await pace.enter(ASYNCIO, key) if world.is_async else drive(pace.enter(BLOCKING, key))


async def ask(world: World, pace: Pace, answer: dict[str, str], key: str = SITE, status: int = 200) -> None:
    """One request that is answered at once."""
    turn = await enter(world, pace, key)
    turn.begin()
    turn.answered(status, answer.get)
    turn.close()


def nobody_waits(pace: Pace) -> None:
    assert (pace._lines.waiting, len(pace._lines)) == ({}, 0)


# -- waiting -----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_requests_are_spread_by_what_the_server_says(world: World) -> None:
    pace, times = Pace(max_wait="20s"), []
    for left in (3, 2, 1, 0):
        await ask(world, pace, says(left, 12))
        times.append(world.now)
    await ask(world, pace, SILENT)
    times.append(world.now)
    assert times == pytest.approx([0, 3, 7, 13, 25])


@in_both_worlds
async def test_origins_and_keys_are_paced_apart(world: World) -> None:
    pace = Pace(key=lambda request: request["user"])
    await ask(world, pace, says(0, 4), pace.key_of(SITE, {"user": "ann"}))
    await ask(world, pace, SILENT, pace.key_of(SITE, {"user": "bob"}))
    await ask(world, pace, SILENT, pace.key_of("http://b.example", {"user": "ann"}))
    assert world.now == 0
    await ask(world, pace, SILENT, pace.key_of(SITE, {"user": "ann"}))
    assert world.now == 4


@pytest.mark.parametrize("status", [429, 503])
@in_both_worlds
async def test_a_retry_after_holds_the_next_request_whatever_else_is_said(world: World, status: int) -> None:
    pace = Pace()
    await ask(world, pace, {"retry-after": "3", **says(60, 60)}, status=status)
    await ask(world, pace, {"retry-after": "3"})
    assert world.now == 3
    await ask(world, pace, SILENT)
    assert world.now == 3, "of a success it is no wish for patience"


@in_both_worlds
async def test_who_would_wait_too_long_is_refused_at_once(world: World) -> None:
    pace = Pace(max_wait="5s", name="scraper")
    await ask(world, pace, says(0, 30))
    with (
        heard(LimitReached) as events,
        pytest.raises(RateLimited, match="no room for 30 s, which is over 5 s") as caught,
    ):
        await enter(world, pace)
    assert (world.now, caught.value.retry_after, caught.value.policy) == (0, 30, "scraper")
    assert [(event.policy, event.layer, event.retry_after) for event in events] == [("scraper", SITE, 30)]
    assert pace.snapshot() == {"origins": 1, "waiting": 0, "waited": 0, "refused": 1}
    nobody_waits(pace)


@in_both_worlds
async def test_nobody_waits_beyond_his_deadline(world: World) -> None:
    pace = Pace(max_wait="5s")
    await ask(world, pace, says(0, 3))
    with deadline("2s"), pytest.raises(RateLimited) as caught:
        await enter(world, pace)
    assert (world.now, caught.value.retry_after) == (0, 3)
    with deadline("4s"):
        await ask(world, pace, SILENT)
    assert world.now == 3


@in_both_worlds
async def test_with_no_patience_at_all_only_those_are_sent_that_may_go_now(world: World) -> None:
    pace = Pace(max_wait=0)
    await ask(world, pace, says(1, 10))
    with pytest.raises(RateLimited):
        await enter(world, pace)
    await world.passes(5)
    await ask(world, pace, SILENT)


@in_both_worlds
async def test_ten_years_hold_nobody_for_longer_than_the_cap(world: World) -> None:
    pace = Pace(max_wait="1h", cap="7s")
    for number in range(4):
        await ask(world, pace, says(0, 315_360_000))
        assert world.now == number * 7


@in_both_worlds
async def test_switched_off_nothing_waits(world: World) -> None:
    pace = Pace()
    await ask(world, pace, says(0, 30))
    disable()
    try:
        await ask(world, pace, says(0, 30))
    finally:
        enable()


@in_both_worlds
async def test_nothing_left_for_no_time_is_a_time_that_was_rounded_down(world: World) -> None:
    pace = Pace()
    await ask(world, pace, says(0, 0))
    await ask(world, pace, says(1, 0))
    assert world.now == 1
    await ask(world, pace, SILENT)
    assert world.now == 1


@in_both_worlds
async def test_what_the_key_tells_is_shown_to_nobody(world: World) -> None:
    pace = Pace(key=lambda request: request["authorization"])
    key = pace.key_of(SITE, {"authorization": "Bearer s3cret"})
    await ask(world, pace, says(0, 30), key)
    with heard(LimitReached) as events, pytest.raises(RateLimited) as caught:
        await enter(world, pace, key)
    assert "s3cret" not in f"{caught.value} {caught.value.__dict__} {events} {pace!r} {pace.snapshot()}"
    assert events[0].layer == SITE


# -- the line ----------------------------------------------------------------------------------------------------------


def test_tasks_go_in_the_order_in_which_they_came() -> None:
    async def main() -> None:
        pace, times = Pace(max_wait="20s"), []
        world = World(is_async=True)
        await ask(world, pace, says(4, 10))

        async def one(name: int) -> None:
            await asyncio.sleep(name / 1000)
            turn = await pace.enter(ASYNCIO, SITE)
            times.append((name, clock.now_ns() / 1e9))
            turn.begin()
            turn.close()

        async with asyncio.TaskGroup() as group:
            for name in range(5):
                group.create_task(one(name))
        assert [name for name, _ in times] == [0, 1, 2, 3, 4]
        assert [at for _, at in times] == pytest.approx([2, 4, 6, 8, 10])
        nobody_waits(pace)

    run(main)


def test_those_too_far_back_in_the_line_are_refused_when_they_come() -> None:
    async def main() -> None:
        pace = Pace(max_wait="5s")
        await ask(World(is_async=True), pace, says(9, 10))
        tasks = [asyncio.ensure_future(ask(World(is_async=True), pace, SILENT)) for _ in range(9)]
        await asyncio.sleep(0.001)
        refused = [task.exception() for task in tasks if task.done()]
        assert [getattr(error, "retry_after", None) for error in refused] == [6] * 4
        await asyncio.gather(*tasks, return_exceptions=True)
        assert clock.now_ns() == 5_000_000_000
        nobody_waits(pace)

    run(main)


def test_no_more_wait_than_the_queue_holds() -> None:
    async def main() -> None:
        pace = Pace(queue=2)
        await ask(World(is_async=True), pace, says(0, 2))
        tasks = [asyncio.ensure_future(pace.enter(ASYNCIO, SITE)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="too many requests wait already"):
            await pace.enter(ASYNCIO, SITE)
        for turn in await asyncio.gather(*tasks):
            turn.close()

    run(main)


def test_the_first_request_goes_alone_and_its_answer_lets_the_others_go() -> None:
    async def main() -> None:
        pace, times = Pace(), []

        async def one(delay: float) -> None:
            turn = await pace.enter(ASYNCIO, SITE)
            times.append(clock.now_ns() / 1e9)
            turn.begin()
            await asyncio.sleep(delay)
            turn.answered(200, says(99, 60).get)

        await asyncio.gather(*(one(0.25) for _ in range(6)))
        assert times == [0, *[0.25] * 5]

    run(main)


def test_a_slow_first_answer_holds_the_others_for_a_second() -> None:
    async def main() -> None:
        pace, times = Pace(), []

        async def one() -> None:
            turn = await pace.enter(ASYNCIO, SITE)
            times.append(clock.now_ns())
            turn.begin()
            await asyncio.sleep(30)
            turn.answered(200, SILENT.get)

        await asyncio.gather(*(one() for _ in range(6)))
        assert times == [0, *[SETTLE_NS] * 5]

    run(main)


@pytest.mark.parametrize("takes", [0.1, 0.3, 30])
def test_who_has_little_time_waits_for_the_first_answer_for_half_of_it(takes: float) -> None:
    async def main() -> None:
        pace, times = Pace(), []

        async def one() -> None:
            turn = await pace.enter(ASYNCIO, SITE)
            times.append(clock.now_ns() / 1e9)
            turn.begin()
            await asyncio.sleep(takes)
            turn.answered(200, says(99, 60).get)

        with deadline("500ms"):
            await asyncio.gather(*(one() for _ in range(6)))
        assert times == pytest.approx([0, *[min(takes, 0.25)] * 5])
        nobody_waits(pace)

    run(main)


def test_who_has_little_time_waits_for_what_comes_behind_the_end_of_a_window() -> None:
    async def main() -> None:
        pace, times = Pace(), []
        await ask(World(is_async=True), pace, says(0, 3))
        await asyncio.sleep(3)

        async def one() -> None:
            turn = await pace.enter(ASYNCIO, SITE)
            times.append(clock.now_ns() / 1e9)
            turn.begin()
            await asyncio.sleep(0.125)
            turn.answered(200, says(99, 60).get)

        with deadline("500ms"):
            await asyncio.gather(*(one() for _ in range(6)))
        assert times == [3, *[3.125] * 5]

    run(main)


def test_news_shorten_and_lengthen_the_wait_of_those_who_wait() -> None:
    async def main() -> None:
        pace = Pace(max_wait="10s")
        world = World(is_async=True)
        await ask(world, pace, says(99, 60))
        early = [await pace.enter(ASYNCIO, SITE) for _ in range(3)]
        for turn in early:
            turn.begin()
        early[0].answered(200, says(0, 9).get)
        waiting = asyncio.ensure_future(pace.enter(ASYNCIO, SITE))
        await asyncio.sleep(1)
        early[1].answered(200, says(60, 60).get)
        (await waiting).close()
        assert clock.now_ns() == 1_000_000_000
        await ask(world, pace, says(0, 5))
        waiting = asyncio.ensure_future(pace.enter(ASYNCIO, SITE))
        await asyncio.sleep(1)
        nothing = pace._origins[SITE]
        nothing.answered(nothing.send(clock.now_ns()), clock.now_ns(), [(0, 40_000_000_000, None)])
        pace._lines.wake(SITE)
        with pytest.raises(RateLimited):
            await waiting
        assert clock.now_ns() == 2_000_000_000
        nobody_waits(pace)

    run(main)


def test_threads_and_tasks_stand_in_one_line() -> None:
    """Real threads, for some hundredths of a second."""
    pace = Pace(max_wait="5s")
    gate = pace._origins.setdefault(SITE, pace._origin(SITE, 0))
    now = clock.now_ns()
    gate.answered(gate.send(now), now, [(4, 100_000_000, 100)])
    order: list[float] = []

    def thread() -> None:
        turn = drive(pace.enter(BLOCKING, SITE))
        order.append(clock.now_ns() / 1e9)
        turn.begin()
        turn.close()

    async def task() -> None:
        turn = await pace.enter(ASYNCIO, SITE)
        order.append(clock.now_ns() / 1e9)
        turn.begin()
        turn.close()

    async def tasks() -> None:
        await asyncio.gather(task(), task())

    threads = [threading.Thread(target=thread) for _ in range(2)]
    for one in threads:
        one.start()
    asyncio.run(tasks())
    for one in threads:
        one.join(10)
    assert len(order) == 4
    assert max(order) - now / 1e9 >= 0.0799, "20 ms apart, from all of them together"
    nobody_waits(pace)


# -- giving up ---------------------------------------------------------------------------------------------------------


def test_whoever_is_cancelled_while_waiting_leaves_his_place_and_takes_nothing() -> None:
    async def scenario(victim: Victim) -> None:
        pace, world = Pace(max_wait="20s"), World(is_async=True)
        await ask(world, pace, says(1, 10))
        served: list[str] = []

        async def one(name: str) -> None:
            turn = await pace.enter(ASYNCIO, SITE)
            try:
                turn.begin()
                served.append(name)
                turn.answered(200, says(1, 10).get)
            finally:
                turn.close()

        async def after(name: str) -> None:
            await asyncio.sleep(0.001)
            await one(name)

        second = asyncio.ensure_future(after("other"))
        await victim(one("victim"))
        await second
        assert clock.now_ns() <= 10_000_000_000
        origin = pace._origins[SITE]
        assert not origin.flying
        assert [window.left for window in origin.windows or ()] == [1]
        nobody_waits(pace)

    cancel_everywhere(scenario)


def test_what_was_not_sent_takes_nothing_and_what_was_lost_does() -> None:
    async def main() -> None:
        pace = Pace()
        await ask(World(is_async=True), pace, says(50, 60))

        def left() -> int:
            windows = pace._origins[SITE].windows
            assert windows is not None
            return windows[0].left

        turn = await pace.enter(ASYNCIO, SITE)
        assert left() == 49
        turn.close()
        assert left() == 50
        turn = await pace.enter(ASYNCIO, SITE)
        turn.begin()
        turn.failed(ConnectionRefusedError(), (ConnectionRefusedError,))
        turn.close()
        assert left() == 50
        turn = await pace.enter(ASYNCIO, SITE)
        turn.begin()
        turn.failed(ConnectionResetError(), (ConnectionRefusedError,))
        turn.close()
        assert left() == 49
        assert not pace._origins[SITE].flying

    run(main)


# -- bounds and settings -----------------------------------------------------------------------------------------------


@in_both_worlds
async def test_no_more_origins_are_kept_than_said_and_idle_ones_go_first(world: World) -> None:
    pace = Pace(origins=3)
    await ask(world, pace, says(0, 4), "held")
    for number in range(50):
        await ask(world, pace, SILENT, f"http://{number}.example")
    assert len(pace._origins) == 3
    await ask(world, pace, SILENT, "held")
    assert world.now == 4, "it was the oldest, and what it said still held"
    for number in range(50):
        await ask(world, pace, says(9, 9), f"http://{number}.example")
    assert len(pace._origins) == 3


@pytest.mark.parametrize(
    "settings",
    [{"max_wait": -1}, {"cap": 0}, {"queue": 0}, {"origins": 0}, {"key": "user"}, {"max_wait": "soon"}, {"queue": 1.5}],
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Pace\\({next(iter(settings))}"):
        Pace(**settings)


def test_a_forked_child_has_nothing_on_its_way() -> None:
    pace = Pace()
    drive(pace.enter(BLOCKING, SITE)).begin()
    pace.renew_after_fork()
    assert not pace._origins[SITE].flying
