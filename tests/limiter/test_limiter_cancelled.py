"""A waiter cancelled at any point of his life leaves nothing behind: no place, no token, no slot, no hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    FixedWindow,
    LeakyBucket,
    Limiter,
    Policy,
    RateLimit,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.machines import token_bucket
from seawall.runtime import clock
from seawall.testing import Victim, cancel_everywhere
from tests.limiter.ways import ask, begin
from tests.machines.limit_models import Bucket, Model, Windowed

TEN = 10_000_000_000

LIMITS = [TokenBucket("10/10s"), SlidingWindow("10/10s"), SlidingLog("10/10s"), FixedWindow("10/10s")]


def nobody_waits(limiter: Limiter) -> None:
    assert (limiter._lines.waiting, len(limiter._lines)) == ({}, 0)


class Ledger:
    """Who was served when, and what follows from that alone."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.served: list[tuple[int, int]] = []

    async def take(self, cost: int) -> None:
        await self.limiter.atake("a", cost)
        self.served.append((clock.now_ns(), cost))

    def check(self) -> None:
        machine = next(iter(self.limiter._limits.values()))
        before = {"fixed_window": lambda now: now - now % TEN - 1, "sliding_log": lambda now: now - TEN}
        model: Model = Windowed(10, before.get(machine.kind, lambda now: (now // (TEN // 10) - 10) * (TEN // 10) - 1))
        if isinstance(machine, token_bucket.TokenBucket):
            model = Bucket(machine, 10, TEN)
        for at, cost in self.served:
            assert model.take(at, cost), "more was admitted than there was"
        assert self.limiter.peek("a").remaining == model.left(clock.now_ns())
        nobody_waits(self.limiter)


@pytest.mark.parametrize("place", ["head", "middle", "last", "alone"])
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_cancelled_take_takes_nothing_and_the_others_are_served(limit: Any, place: str) -> None:
    """What is used afterwards is what those took who were served, and nobody was kept waiting by the one who left."""

    async def scenario(victim: Victim) -> None:
        ledger = Ledger(Limiter(limit))
        await ledger.take(10)
        others = [await begin(ledger.take(2))] if place in ("middle", "last") else []

        async def follow() -> None:
            await asyncio.sleep(0.5)
            if place in ("head", "middle"):
                others.extend([await begin(ledger.take(1)), await begin(ledger.take(4))])

        coming = asyncio.create_task(follow())
        await victim(ledger.take(3))
        gone = asyncio.get_running_loop().time()
        await coming
        await asyncio.gather(*others)
        ledger.check()
        if isinstance(limit, TokenBucket):
            needed = sum(cost for _, cost in ledger.served[1:])
            assert asyncio.get_running_loop().time() <= max(0.5, gone, needed) + 1e-6

    assert cancel_everywhere(scenario, seeds=(None, 0), twice=isinstance(limit, TokenBucket)) >= 4


def test_a_cancelled_follower_who_has_just_become_head_passes_the_turn_on() -> None:
    """The narrow place: woken by the one before, and cancelled before he could run."""

    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("10/10s"))
        limiter.take("a", 10)
        first = await begin(ask(limiter, "a", 1))
        ends: list[float] = []

        async def last() -> None:
            await asyncio.sleep(0.2)
            ends.append(await ask(limiter, "a", 1))

        third = asyncio.create_task(last())
        await victim(ask(limiter, "a", 1))
        await asyncio.gather(first, third)
        assert ends[0] <= 3 + 1e-6
        nobody_waits(limiter)

    assert cancel_everywhere(scenario, seeds=(None, 0, 1, 2), twice=True) > 20


@pytest.mark.parametrize("form", ["block", "awaited", "waiting block"])
def test_a_cancelled_reservation_holds_nothing(form: str) -> None:
    """Before admission nothing is held; inside the block the estimate counts in full, once, and the hold is gone."""

    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("10/d"))
        other = limiter.reserve("a", 8) if form == "waiting block" else None

        async def let_him() -> None:
            await asyncio.sleep(0.3)
            if other is not None:
                other.cancel()

        coming = asyncio.create_task(let_him())
        inside: list[str] = []

        async def work() -> None:
            if form == "awaited":
                held = await limiter.areserve("a", 6, max_wait=None)
                inside.append("held")
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    await held.acancel()
                    raise
                await held.asettle(2)
                inside.append("settled")
                return
            async with limiter.areserve("a", 6, max_wait=None) as held:
                inside.append("held")
                await asyncio.sleep(1)
                await held.asettle(2)
                inside.append("settled")

        await victim(work())
        await coming
        used = {(): 0, ("held",): 0 if form == "awaited" else 6, ("held", "settled"): 2}[tuple(inside)]
        assert limiter.snapshot()["holds"] == 0
        nobody_waits(limiter)
        assert limiter.peek("a").remaining == 10 - used

    assert cancel_everywhere(scenario, seeds=(None, 0), twice=True) > 4


@pytest.mark.parametrize("behind", [False, True])
def test_a_cancelled_slot_goes_back_if_nobody_stands_behind_it(behind: bool) -> None:
    """Otherwise it is spent: the promise to those behind stands, and the pace is kept."""

    async def scenario(victim: Victim) -> None:
        limiter = Limiter(LeakyBucket("1/s", queue=9))
        limiter.take("a")
        served: list[float] = []
        stood: list[int] = []

        async def follow() -> None:
            await asyncio.sleep(0.3)
            if behind:
                stood.append(limiter.peek("a").retry_after_ns)
                served.append(await ask(limiter, "a"))

        async def take() -> None:
            served.append(await ask(limiter, "a"))

        coming = asyncio.create_task(follow())
        await victim(take())
        await coming
        if behind:
            waited = round(stood[0] / 1e9 + 0.3, 6)
            assert served[-1] == pytest.approx(waited), "the slot that he was promised"
            assert waited in (1, 2)
        served.append(await ask(limiter, "a"))
        assert all(later - sooner >= 1 - 1e-6 for sooner, later in zip([0, *served], served, strict=False))
        spent = served[-1] - len(served)
        assert spent == pytest.approx(1 if behind and waited == 2 and len(served) == 2 else 0)

    assert cancel_everywhere(scenario, seeds=(None, 0)) >= 4


@pytest.mark.parametrize("max_wait", [0, None])
def test_a_cancelled_call_through_a_policy_takes_at_most_what_its_attempt_took(max_wait: Any) -> None:
    """Cancelled in the line or in the queue further inside: nothing is taken; in the function: once."""

    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("4/h"))
        policy = Policy(RateLimit(limiter, max_wait=max_wait), Bulkhead(1, queue=2, max_wait=None), name="p")
        called: list[str] = []

        async def work(name: str) -> None:
            called.append(name)
            await asyncio.sleep(1)

        other = await begin(policy.acall(work, "other"))
        await victim(policy.acall(work, "victim"))
        await other
        assert limiter.peek().remaining == 4 - len(called)
        assert policy[Bulkhead].in_use == policy[Bulkhead].waiting == 0
        nobody_waits(limiter)

    assert cancel_everywhere(scenario, seeds=(None, 0), twice=True) > 4


def test_a_cancelled_wait_of_a_policy_gives_up_its_place() -> None:
    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("1/s"))
        policy = Policy(Bulkhead(1), RateLimit(limiter, max_wait=None), name="p")
        await policy.acall(asyncio.sleep, 0)
        await victim(policy.acall(asyncio.sleep, 0))
        nobody_waits(limiter)
        assert policy[Bulkhead].in_use == 0
        try:
            await policy.acall(asyncio.sleep, 0)
        except BulkheadFull as error:  # pragma: no cover
            raise AssertionError("the permit is lost") from error

    assert cancel_everywhere(scenario, twice=True) > 4


def test_a_block_cancelled_while_it_waits_is_not_entered() -> None:
    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("1/s"))
        limiter.take()
        entered: list[bool] = []

        async def work() -> None:
            async with limiter.guard(max_wait=None) as decision:
                entered.append(decision.allowed)
                await asyncio.sleep(0.1)

        await victim(work())
        nobody_waits(limiter)
        left = limiter.peek().remaining
        assert left == 0 if entered else left <= 1

    assert cancel_everywhere(scenario) > 4


def test_an_abandoned_waiter_is_passed_over() -> None:
    """A loop that is closed with waiters in it, however many: the next one, in another loop, is served."""
    limiter = Limiter(TokenBucket("1000/s", burst=1), max_waiting=5_000)
    limiter.take("a")
    dead = asyncio.new_event_loop()

    async def wait() -> None:
        await limiter.atake("a")

    waiters = [wait() for _ in range(2_000)]
    tasks = []
    for waiter in waiters:
        tasks.append(dead.create_task(waiter))
    dead.run_until_complete(asyncio.sleep(0))
    assert len(limiter._lines) > 1_990
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    dead.close()
    head = limiter._lines.waiting["a"][0]
    assert asyncio.run(_served_behind(limiter, head))
    assert len(limiter._lines) == 0


async def _served_behind(limiter: Limiter, head: Any) -> bool:
    task = await begin(limiter.atake("a"))
    limiter._lines.leave("a", head)  # the head gives up
    return (await asyncio.wait_for(task, 5)).allowed


def test_a_refused_waiter_is_not_in_the_line() -> None:
    async def scenario(victim: Victim) -> None:
        limiter = Limiter(TokenBucket("10/h"))
        limiter.take("a", 10)
        try:
            await victim(limiter.atake("a", 1, max_wait=5))
        except RateLimited:
            pass
        nobody_waits(limiter)

    assert cancel_everywhere(scenario) >= 3
