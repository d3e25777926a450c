"""Under every order of threads a limiter admits what it may and no more, and every waiter is served in his turn."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from typing import Any

import pytest

from seawall import (
    FixedWindow,
    LeakyBucket,
    Limiter,
    Memory,
    RateLimited,
    Rule,
    Rules,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.limiter import answers, line, rules, waiting
from seawall.runtime import clock
from seawall.stores import drawer, fast_hit, holds, looking, memory
from tests.limiter.ways import begin
from tests.machines.limit_models import most_in
from tests.policies.worlds import until
from tests.support.bytecodes import codes_of
from tests.support.threads import Interleave, as_many
from tests.threads.test_real_threads import run_together

SECOND = 1_000_000_000
SEEDS = as_many(100)
World = tuple[Sequence[Callable[[], object]], Callable[[], object]]

BUCKET_HIT = Limiter(TokenBucket("1/s")).hit.__code__
"""One step for the interpreter (test_fast_hit.py holds it to that), so the scheduler must not switch inside."""
TABLE = [drawer, fast_hit, holds, looking, memory]
LINES = [line, waiting, answers]


def explore(build: Callable[[], World], modules: Sequence[Any], seeds: int = SEEDS, *, hasty: bool = False) -> None:
    codes = [code for code in codes_of(str(each.__file__) for each in modules) if code is not BUCKET_HIT]
    for seed in range(seeds):
        interleave = Interleave(seed, modules, codes=codes, hasty=hasty)
        with interleave.patched():
            functions, check = build()
            interleave.run(functions)
            check()


def hits(limiter: Limiter, into: list[int], *costs: int, key: str = "a") -> Callable[[], None]:
    def body() -> None:
        for cost in costs:
            if limiter.hit(key, cost).allowed:
                into.append(cost)

    return body


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True], ids=["known key", "fresh key"])
@pytest.mark.parametrize(
    "limits",
    [TokenBucket("7/h"), SlidingWindow("7/h"), FixedWindow("7/h"), SlidingLog("7/h"), {"a": TokenBucket("7/h"), "b": SlidingLog("9/h")}],
    ids=["bucket", "window", "fixed", "log", "two"],
)  # fmt: skip
def test_hits_add_up_exactly(limits: Any, fresh: bool) -> None:
    """Five threads for seven: a fresh key must not be begun twice, nor a count be overwritten."""

    def build() -> World:
        limiter = Limiter(limits)
        taken: list[int] = []
        if not fresh:
            limiter.hit("a", 1)
            taken.append(1)

        def check() -> None:
            assert sum(taken) == 7, f"{sum(taken)} of 7 were admitted"
            assert limiter.peek("a").remaining == 0

        return [hits(limiter, taken, 1, 1, 1)] * 3, check

    explore(build, TABLE, 60)


def test_no_hit_slips_past_a_hold() -> None:
    """Between the look whether there are holds and the taking: level and held together never exceed the capacity."""
    for limit, known in ((TokenBucket("4/h"), 1), (TokenBucket("4/h"), 0), (SlidingWindow("4/h"), 1)):

        def build() -> World:
            limiter = Limiter(limit)
            limiter.hit("a", known)
            taken: list[int] = [known]
            held: list[Any] = []

            def reserve() -> None:
                try:
                    held.append(limiter.reserve("a", 2))
                except RateLimited:
                    return

            def check() -> None:
                assert sum(taken) + 2 * len(held) <= 4, f"{taken} taken and {len(held)} held"
                assert limiter.peek("a", 0).remaining == 4 - sum(taken) - 2 * len(held)
                assert limiter._table.careful is bool(held)
                for each in held:
                    assert each.settle(1)
                assert limiter.peek("a").remaining == 4 - sum(taken) - len(held)
                assert limiter._table.careful is False

            return [hits(limiter, taken, 1, 1), reserve, hits(limiter, taken, 1, 1)], check

        explore(build, TABLE)


def test_nothing_is_lost_while_the_drawer_turns() -> None:
    """The clock passes the turn between any two steps of the others."""

    def build() -> World:
        limiter = Limiter(TokenBucket("3/h"))
        admitted: list[tuple[int, int]] = []
        clock.sleep_ns(SECOND)

        def hit() -> None:
            for _ in range(4):
                decision = limiter.hit("a")
                if decision.allowed:
                    admitted.append((decision.now_ns, 1))

        def turn() -> None:
            for _ in range(3):
                clock.sleep_ns(1_201 * SECOND)
                limiter.hit("b")

        def check() -> None:
            most_in(sorted(admitted), lambda span: 3 + Fraction(3 * span, 3_600 * SECOND))
            level = Fraction(0)
            for before, (at, cost) in zip([(0, 0), *sorted(admitted)], sorted(admitted), strict=False):
                level = max(Fraction(0), level - Fraction(3 * (at - before[0]), 3_600 * SECOND)) + cost
            assert limiter.hit("a", 0).remaining >= (3 - level).__floor__()

        return [hit, turn, hit], check

    explore(build, TABLE, 60)


@pytest.mark.parametrize("kind", [TokenBucket, SlidingWindow])
def test_a_change_of_the_numbers_meets_nobody_in_the_middle(kind: Any) -> None:
    """Whoever began with the old ones ends with the new: nothing is lost, and nothing counted in the wrong unit."""

    def build() -> World:
        limiter = Limiter(kind("8/h"))
        kept = limiter.hit
        limiter.hit("a", 1)
        taken: list[int] = [1]

        def by_a_kept_method() -> None:
            for _ in range(3):
                if kept("a").allowed:
                    taken.append(1)

        def change() -> None:
            limiter.reconfigure(kind("9/7h"))
            limiter.reconfigure(kind("8/2h"))

        def check() -> None:
            assert limiter.peek("a").remaining == 8 - sum(taken)
            assert limiter.peek("fresh").remaining == 8
            assert sum(taken) == 7

        return [hits(limiter, taken, 1, 1, 1), by_a_kept_method, change], check

    explore(build, TABLE)


def test_the_sketch_is_made_once_and_counts_everybody() -> None:
    def build() -> World:
        limiter = Limiter(TokenBucket("3/h"), store=Memory(max_keys=1))
        limiter.hit("first")
        taken: list[int] = []

        def check() -> None:
            assert sum(taken) == 3
            assert len(limiter._table.drawers["TokenBucket"]) == 1

        return [hits(limiter, taken, 1, 1)] * 3, check

    explore(build, TABLE, 40)


def test_a_slot_is_handed_out_once() -> None:
    def build() -> World:
        limiter = Limiter(LeakyBucket("1/s", queue=9))
        times: list[int] = []

        def take() -> None:
            for _ in range(2):
                limiter.take("a")
                times.append(clock.now_ns())

        def check() -> None:
            assert sorted(times) == [number * SECOND for number in range(6)]

        return [take] * 3, check

    explore(build, [*TABLE, *LINES], 60)


def test_rules_make_one_limiter_for_one_limit() -> None:
    """However many ask for it at once, and while others push it out."""
    limits = [TokenBucket(f"{number}/h") for number in range(1, 4)]

    def build() -> World:
        before, rules.MOST_MADE = rules.MOST_MADE, 2
        api = Rules(Rule(lambda parts: limits[int(parts["plan"])]), per=("user",))
        taken: list[bool] = []

        def ask(plan: str) -> Callable[[], None]:
            return lambda: taken.extend(api.hit({"plan": plan, "user": "ann"}).allowed for _ in range(2))

        def check() -> None:
            rules.MOST_MADE = before
            assert len(api._made) <= 2
            assert len(taken) == 8

        return [ask("0"), ask("0"), ask("1"), ask("2")], check

    explore(build, [rules], 60)


# -- the line ----------------------------------------------------------------------------------------------------------


def waiter(limiter: Limiter, served: list[tuple[float, int]], cost: int, **settings: Any) -> Callable[[], None]:
    def body() -> None:
        try:
            limiter.take("a", cost, **settings)
        except RateLimited:
            served.append((-1, cost))
        else:
            served.append((clock.now_ns() / SECOND, cost))

    return body


@pytest.mark.parametrize("hasty", [False, True])
def test_every_waiting_thread_is_served_once_and_none_is_stuck(hasty: bool) -> None:
    """Whatever the order in which they come, wake and leave; together they take the rate and no more."""

    def build() -> World:
        limiter = Limiter(TokenBucket("5/5s"))
        limiter.hit("a", 5)
        served: list[tuple[float, int]] = []

        def check() -> None:
            times = sorted(time for time, _ in served)
            assert sum(cost for _, cost in served) == 9
            level = 5.0
            last = 0.0
            for time, cost in sorted(served):
                level = max(0.0, level - (time - last)) + cost
                last = time
                assert level <= 5 + 1e-6, f"more than the rate: {sorted(served)}"
            assert times[-1] == pytest.approx(9) or hasty
            assert (limiter._lines.waiting, len(limiter._lines)) == ({}, 0)

        return [waiter(limiter, served, cost) for cost in (1, 4, 1, 3)], check

    explore(build, [*TABLE, *LINES], 70, hasty=hasty)


@pytest.mark.parametrize("hasty", [False, True])
def test_who_gives_up_leaves_no_gap_in_the_line(hasty: bool) -> None:
    def build() -> World:
        limiter = Limiter(TokenBucket("5/5s"))
        limiter.hit("a", 5)
        served: list[tuple[float, int]] = []

        def check() -> None:
            assert len(served) == 4
            assert sum(time >= 0 for time, _ in served) >= 2
            assert (limiter._lines.waiting, len(limiter._lines)) == ({}, 0)
            clock.sleep_ns(60 * SECOND)
            assert limiter.hit("a", 5).allowed

        hasty_ones = [waiter(limiter, served, 1, max_wait=1.5), waiter(limiter, served, 2, max_wait=2.5)]
        return [waiter(limiter, served, 3), *hasty_ones, waiter(limiter, served, 1)], check

    explore(build, [*TABLE, *LINES], 70, hasty=hasty)


def test_a_settlement_that_comes_while_one_goes_to_sleep_wakes_him() -> None:
    """There is no moment between his look and his sleep in which the wake would be missed."""

    def build() -> World:
        limiter = Limiter(TokenBucket("5/h"))
        held = limiter.reserve("a", 5, lasts="50min")
        times: list[float] = []

        def wait() -> None:
            limiter.reserve("a", 3, max_wait=None)
            times.append(clock.now_ns() / SECOND)

        def settle() -> None:
            clock.sleep_ns(SECOND)
            held.settle(0)

        def check() -> None:
            assert times == [pytest.approx(1)]

        return [wait, settle], check

    explore(build, [*TABLE, *LINES])


def test_waking_somebody_who_has_just_been_woken_does_no_harm() -> None:
    def build() -> World:
        limiter = Limiter(TokenBucket("5/5s"))
        limiter.hit("a", 5)
        served: list[tuple[float, int]] = []

        def wake() -> None:
            clock.sleep_ns(SECOND // 2)
            for _ in range(3):
                limiter._lines.wake("a")
                limiter._lines.wake()

        def check() -> None:
            assert sorted(time for time, _ in served) == [pytest.approx(1), pytest.approx(2)]

        return [waiter(limiter, served, 1), wake, waiter(limiter, served, 1)], check

    explore(build, LINES, 40)


# -- real threads and loops --------------------------------------------------------------------------------------------


@pytest.fixture
def _eager_switches() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_switches")
@pytest.mark.parametrize(
    "limit", [TokenBucket("9999/d"), SlidingLog("999/d"), FixedWindow("9999/d")], ids=lambda limit: limit.name
)
def test_thousands_of_hits_of_real_threads_add_up(limit: Any) -> None:
    limiter = Limiter(limit)
    capacity = limiter.peek("a").capacity
    taken = [0] * 4

    def work(which: int) -> Callable[[], None]:
        def body() -> None:
            for number in range(capacity // 3):
                taken[which] += limiter.hit("a").allowed
                if number % 100 == 0:
                    limiter.reserve("b").settle(0)

        return body

    run_together(*[work(which) for which in range(4)])
    # The civil day may end meanwhile, and a bucket gets a token in nine seconds.
    assert sum(taken) in (
        (capacity, capacity + 1) if limit.name != "FixedWindow" else range(capacity, 4 * capacity // 3 + 2)
    )
    assert limiter._table.careful is False


def test_threads_and_tasks_of_two_loops_stand_in_one_line() -> None:
    """And are served in the order in which they came, each woken across whatever lies between."""
    limiter = Limiter(TokenBucket("200/s", burst=1))
    limiter.take("a")
    order: list[str] = []
    blocker = line.Place(type("Still", (), {"parker": staticmethod(threading.Event)})())  # type: ignore[arg-type]
    limiter._lines.waiting["a"] = line.deque([blocker])
    limiter._lines._count = 1

    def in_thread(name: str) -> threading.Thread:
        def body() -> None:
            limiter.take("a")
            order.append(name)

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    def in_loop(name: str) -> threading.Thread:
        async def main() -> None:
            await limiter.atake("a")
            order.append(name)

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        return thread

    started: list[threading.Thread] = []
    names = ["thread 1", "loop 1", "loop 2", "thread 2", "loop 3", "thread 3"]
    for count, name in enumerate(names, start=2):
        started.append(in_thread(name) if name.startswith("thread") else in_loop(name))
        until(lambda count=count: len(limiter._lines) == count)
    limiter._lines.leave("a", blocker)
    for thread in started:
        thread.join(20)
    assert order == names
    assert len(limiter._lines) == 0


def test_a_thread_is_served_while_tasks_are_cancelled_around_him() -> None:
    limiter = Limiter(TokenBucket("100/s", burst=1))
    limiter.take("a")
    served = threading.Event()

    async def main() -> None:
        tasks = [await begin(limiter.atake("a")) for _ in range(5)]
        thread = threading.Thread(target=lambda: (limiter.take("a"), served.set()))
        thread.start()
        until(lambda: len(limiter._lines) == 6)
        tasks += [await begin(limiter.atake("a")) for _ in range(3)]
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await asyncio.to_thread(served.wait, 10)
        thread.join(10)

    asyncio.run(main())
    assert len(limiter._lines) == 0
