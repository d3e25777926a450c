"""Slots whose leases have to be renewed, on a store that takes its time: renewed, given back once, and lost aloud."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall import BackendUnavailable, ConcurrencyLimit, RateLimited, events
from seawall.limiter.keeper import Keeper
from seawall.machines.leases import LeaseRules, Leases, Renewed
from seawall.runtime import clock
from seawall.runtime.protocol import Runtime
from seawall.stores.decision import Decision
from seawall.stores.leases import Lease, decision_of, origin_of
from seawall.testing import Victim, cancel_everywhere, run
from tests.limiter.ways import begin
from tests.policies.worlds import heard, until

TRIP_NS = 10_000_000


class Far:
    """A store, and its one table: every step takes two trips of 10 ms, and is done between them."""

    hears_of_releases = False

    def __init__(self) -> None:
        self.leases = Leases()
        self.lock = threading.Lock()
        self.steps: list[str] = []
        self.during: Callable[[], object] = lambda: None
        """Done in the midst of a renewal."""
        self.out = False
        self.wrong = False

    def open_leases(self, limiter: str, rules: LeaseRules) -> Far:
        self.origin = origin_of(limiter, rules)
        self.rules = rules
        self.numbers = itertools.count()
        return self

    def reconfigure(self, rules: LeaseRules) -> None:
        self.rules = rules

    @property
    def every_ns(self) -> int | None:
        return self.rules.lease_ns // 3

    async def trip(self, runtime: Runtime) -> None:
        if self.wrong:
            raise BackendUnavailable("no rights")
        await runtime.sleep(TRIP_NS)

    async def enter(self, runtime: Runtime, key: str) -> tuple[Decision, Lease | None]:
        await self.trip(runtime)
        lease, now, most = Lease(key, next(self.numbers)), clock.now_ns(), self.rules.capacity
        with self.lock:
            allowed = self.leases.enter(lease.number, now, most, self.rules.lease_ns)
            wait = self.leases.wait(now, most)
            decision = decision_of(self.origin, self.leases.live(now), wait, 0, allowed=allowed)
        lease.until_ns = now + self.rules.lease_ns
        return decision, lease if allowed else None

    async def renew(self, runtime: Runtime, lease: Lease) -> Renewed:
        await self.trip(runtime)
        self.steps.append("renew")
        if self.out:
            return Renewed.UNKNOWN
        now = clock.now_ns()
        with self.lock:
            renewed = self.leases.renew(lease.number, now, self.rules.capacity, self.rules.lease_ns)
        if renewed is not Renewed.LOST:
            lease.until_ns = now + self.rules.lease_ns
        self.during()
        await self.trip(runtime)
        return renewed

    async def release(self, runtime: Runtime, lease: Lease) -> bool:
        self.steps.append("release")
        with self.lock:
            live = self.leases.leave(lease.number, clock.now_ns())
        await self.trip(runtime)
        return live

    async def look(self, runtime: Runtime, key: str) -> Decision:
        live = self.leases.live(clock.now_ns())
        return decision_of(self.origin, live, 0, 0, allowed=live < self.rules.capacity)

    async def reset(self, runtime: Runtime, key: str) -> None:
        self.leases = Leases()

    def snapshot(self) -> dict[str, Any]:
        return {}

    @property
    def inside(self) -> int:
        return self.leases.live(clock.now_ns())


async def work(limit: ConcurrencyLimit, seconds: float, max_wait: Any = None) -> bool:
    """Tells whether the slot was lost."""
    async with limit.slot("ann", max_wait=max_wait) as slot:
        await asyncio.sleep(seconds)
        return slot.lost


def test_a_task_renews_its_slot_after_each_third_of_a_lease_and_a_short_block_never() -> None:
    async def main() -> None:
        far = Far()
        limit = ConcurrencyLimit(1, lease="3s", store=far)
        await work(limit, 0.9)
        assert far.steps == ["release"]
        assert not await work(limit, 30)
        assert 27 <= far.steps.count("renew") <= 30
        assert (far.inside, far.steps.count("release")) == (0, 2)

    run(main)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.005, 1.01, 1.015, 1.02, 1.5])
def test_cancelled_at_any_point_nothing_is_left_and_nothing_is_given_back_twice(seconds: float) -> None:
    """In the midst of its own renewal as well: it would take the slot again after it was given back."""

    async def scenario(victim: Victim) -> None:
        far = Far()
        limit = ConcurrencyLimit(1, lease="3s", store=far)
        await victim(work(limit, seconds))
        await asyncio.sleep(0.05)
        assert far.inside == 0
        assert far.steps.count("release") <= 1
        await work(limit, 0.1, max_wait=0)
        assert limit.snapshot()["waiting"] == 0

    assert cancel_everywhere(scenario, seeds=(None, 0), twice=True) > 10


def test_a_block_is_in_use_from_the_moment_at_which_somebody_wants_to_enter() -> None:
    far = Far()
    limit = ConcurrencyLimit(2, lease="1s", store=far)

    async def main() -> None:
        block = limit.slot("ann")

        async def use() -> None:
            async with block:
                await asyncio.sleep(5)
                assert far.inside == 1

        ends = await asyncio.gather(use(), use(), return_exceptions=True)
        assert {type(end) for end in ends} == {type(None), RuntimeError}
        waits = asyncio.create_task(use())
        await asyncio.sleep(0.001)
        waits.cancel()
        await asyncio.wait([waits])
        await use()  # whoever was cancelled does not use it any more
        assert far.inside == 0

    run(main)


def test_whoever_waits_for_a_store_that_tells_nothing_asks_again_and_is_served_soon() -> None:
    async def main() -> None:
        far = Far()
        here, there = (ConcurrencyLimit(1, lease="30s", name="same", store=far) for _ in range(2))
        there._turnstile.table = here._turnstile.table
        first = await begin(work(here, 5))
        await asyncio.sleep(0.1)
        assert not await work(there, 0)
        assert asyncio.get_running_loop().time() < 5.3, "long before the lease ends"
        await first

    run(main)


def test_a_lost_slot_is_told_once_and_taken_again_when_there_is_room() -> None:
    async def main() -> None:
        far = Far()
        limit = ConcurrencyLimit(1, lease="3s", name="exports", store=far)
        with heard(events.LeaseLost) as seen:
            async with limit.slot("ann") as slot:
                await asyncio.sleep(0.5)
                await limit.areset("ann")
                async with limit.slot("ann"):
                    await asyncio.sleep(1)
                    assert slot.lost
                    assert "lost" in repr(slot)
                await asyncio.sleep(1.2)
                assert far.inside == 1, "it runs, and counts again"
                assert slot.lost, "and yet somebody else was in its place"
        assert far.inside == 0
        (event,) = seen
        assert (event.policy, event.why, event.retaken) == ("exports", "it had run out", False)
        assert 1 < event.held < 1.1
        assert limit.snapshot()["lost"] == 1

    run(main)


def test_a_slot_is_lost_when_nobody_could_renew_it_for_a_lease_and_tries_more_often_meanwhile() -> None:
    async def main() -> None:
        far = Far()
        limit = ConcurrencyLimit(1, lease="3s", store=far)
        with heard(events.LeaseLost) as seen:
            async with limit.slot("ann") as slot:
                far.out = True
                await asyncio.sleep(2.9)
                assert not slot.lost
                assert len(far.steps) > 5
                await asyncio.sleep(0.2)
                assert slot.lost
                await asyncio.sleep(1)
        assert [(event.why, event.retaken) for event in seen] == [("the store could not be asked", False)]

    run(main)


def test_what_is_wrong_with_the_store_is_told_to_those_who_enter_and_not_to_those_who_leave() -> None:
    async def main() -> None:
        far = Far()
        limit = ConcurrencyLimit(2, lease="3s", store=far)
        async with limit.slot("ann"):
            far.wrong = True
            with pytest.raises(BackendUnavailable):
                await work(limit, 1)
            await asyncio.sleep(5)

    run(main)


def test_an_abandoned_block_is_not_renewed() -> None:
    async def main() -> None:
        far = Far()
        limit = ConcurrencyLimit(1, lease="3s", store=far)
        block = limit.slot("ann")
        await block.__aenter__()
        await asyncio.sleep(4)
        del block
        gc.collect()
        await asyncio.sleep(3)
        assert far.inside == 0

    run(main)


# -- threads: in real time, with short leases ----------------------------------------------------------------------------


def test_a_thread_of_the_limit_renews_slots_of_threads_and_ends_when_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(3, lease="150ms", store=far)
    with limit.slot("ann") as first, limit.slot("ann") as second, limit.slot("ann") as third:
        begun = clock.now_ns()
        until(lambda: clock.now_ns() - begun > 600_000_000)
        assert not any(slot.lost for slot in (first, second, third))
        with pytest.raises(RateLimited), limit.slot("ann"):
            pass
    assert far.inside == 0
    until(lambda: not limit._turnstile.keeper._running)
    with limit.slot("ann") as slot:
        until(lambda: far.steps.count("renew") > 12)
        assert not slot.lost
    assert far.inside == 0


def test_a_renewal_that_fails_in_an_unheard_of_way_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(2, lease="300ms", store=far)
    failures = iter([KeyError("odd"), ValueError("odder")])

    def fail() -> None:
        for failure in failures:
            raise failure

    far.during = fail
    with limit.slot("ann") as slot:
        until(lambda: far.steps.count("renew") >= 5)
        assert not slot.lost
    until(lambda: not limit._turnstile.keeper._running)
    assert far.inside == 0


def test_a_thread_that_ends_in_the_midst_of_a_renewal_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(1, lease="60ms", store=far)
    for number in range(20):
        with limit.slot("ann"):
            clock.sleep_ns(15_000_000 + number * 1_000_000)
        assert far.inside == 0
    until(lambda: not limit._turnstile.keeper._running)
    assert far.inside == 0


def test_a_block_that_is_finalized_in_the_midst_of_its_own_renewal_is_given_back_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector runs in any thread, and so in that of the limit: there it must neither wait for itself nor be
    overtaken by the renewal, which would take the slot again."""
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(1, lease="60ms", store=far)

    def hold() -> Any:
        with limit.slot("ann"):
            yield

    held = hold()
    next(held)
    order: list[str] = []

    def collect() -> None:
        held.close()
        order.extend(far.steps)

    far.during = collect
    until(lambda: "release" in far.steps)
    until(lambda: not limit._turnstile.keeper._running)
    assert order == ["renew"], "the release comes after the renewal"
    assert far.steps == ["renew", "release"]
    assert far.inside == 0


def test_whoever_leaves_waits_for_a_renewal_that_hangs_no_longer_than_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """He may be a finalizer in a thread for which the renewal waits."""
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    monkeypatch.setattr("seawall.limiter.slots.MOST_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(1, lease="60ms", store=far)
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert goes_on.wait(10)

    far.during = hang
    with limit.slot("ann"):
        assert hangs.wait(10)
    assert far.steps == ["renew"]
    goes_on.set()
    until(lambda: "release" in far.steps)
    until(lambda: not limit._turnstile.keeper._running)
    assert far.steps == ["renew", "release"]
    assert far.inside == 0


@pytest.mark.parametrize("renewals", [0, 5])
def test_an_abandoned_block_of_a_thread_is_not_renewed(monkeypatch: pytest.MonkeyPatch, renewals: int) -> None:
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(1, lease="150ms", store=far)
    block = limit.slot("ann")
    block.__enter__()
    until(lambda: far.steps.count("renew") >= renewals)
    del block
    gc.collect()
    until(lambda: not far.inside)
    assert far.steps.count("renew") <= renewals + (renewals > 0), "but for one that was under way"
    until(lambda: not limit._turnstile.keeper._running)


def test_a_slot_is_given_back_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    far = Far()
    limit = ConcurrencyLimit(1, store=far)
    monkeypatch.setattr("threading.Thread.start", refuse)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="thread"), limit.slot("ann"):
            pass
        assert far.inside == 0
    monkeypatch.undo()
    with limit.slot("ann"):
        assert far.inside == 1


def test_a_new_length_of_leases_is_brought_to_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.limiter.keeper.IDLE_SECONDS", 0.05)
    far = Far()
    limit = ConcurrencyLimit(2, lease="1h", store=far)
    with limit.slot("ann") as old:
        limit.reconfigure(lease="200ms")
        until(lambda: "renew" in far.steps)
        with limit.slot("ann") as new:
            begun = clock.now_ns()
            until(lambda: clock.now_ns() - begun > 600_000_000)
            assert not old.lost
            assert not new.lost
    assert isinstance(limit._turnstile.keeper, Keeper)
