"""Faults of other libraries' bulkheads and timeouts, none of which Seawall's may have."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from seawall import Bulkhead, BulkheadFull, DeadlineExceeded, Policy, Timeout
from seawall.testing import Script, Victim, cancel_everywhere, run, slow
from tests.policies.worlds import World, all_end, in_both_worlds, until

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def test_a_cancelled_waiter_does_not_lose_a_slot() -> None:
    """hyx: a waiter cancelled just as it is granted keeps the slot for ever. Here at every point of its life."""

    async def scenario(victim: Victim) -> None:
        policy = Policy(Bulkhead(1, queue=5, max_wait=100))
        work = Script(slow(1, "done"))
        first = asyncio.create_task(policy.acall(work.aio))
        await asyncio.sleep(0.1)
        later = asyncio.create_task(_after(0.2, policy, work))
        await victim(policy.acall(work.aio))
        assert await first == await later == "done"
        bulkhead = policy[Bulkhead]
        assert (bulkhead.in_use, bulkhead.waiting, work.most_running) == (0, 0, 1)
        assert await policy.acall(work.aio) == "done"

    assert cancel_everywhere(scenario, twice=True) > 20


async def _after(delay: float, policy: Policy, work: Script) -> object:
    await asyncio.sleep(delay)
    return await policy.acall(work.aio)


def test_a_bulkhead_over_two_event_loops_admits_once() -> None:
    """pyresilience has a semaphore for each loop, and so admits twice the limit."""
    policy = Policy(Bulkhead(1))
    inside, tried = threading.Event(), threading.Event()
    refused: list[BaseException] = []

    async def hold() -> None:
        inside.set()
        assert tried.wait(10)

    async def intrude() -> None:
        try:
            await policy.acall(asyncio.sleep, 0)
        except BulkheadFull as error:
            refused.append(error)

    holder = threading.Thread(target=lambda: asyncio.run(policy.acall(hold)))
    holder.start()
    assert inside.wait(10)
    asyncio.run(intrude())
    tried.set()
    holder.join(10)
    assert len(refused) == 1
    assert policy[Bulkhead].in_use == 0


def test_waiters_of_two_event_loops_are_woken_across_them() -> None:
    """pyresilience: a release in one loop never wakes who waits in the other."""
    policy = Policy(Bulkhead(1, queue=1, max_wait=None))
    inside, release = threading.Event(), threading.Event()
    order: list[str] = []

    async def hold() -> None:
        inside.set()
        assert release.wait(10)
        order.append("holder")

    async def follow() -> None:
        order.append("follower")

    holder = threading.Thread(target=lambda: asyncio.run(policy.acall(hold)))
    follower = threading.Thread(target=lambda: asyncio.run(policy.acall(follow)))
    holder.start()
    assert inside.wait(10)
    follower.start()
    until(lambda: policy[Bulkhead].waiting == 1)
    release.set()
    holder.join(10)
    follower.join(10)
    assert order == ["holder", "follower"]
    assert policy[Bulkhead].in_use == 0


def test_hung_calls_do_not_starve_later_ones() -> None:
    """pyresilience times out on a pool of 4 threads: four hung calls, and every later call of anyone times out."""
    release = threading.Event()
    hanging = Policy(Bulkhead(4, threads=True), Timeout("1ms"), name="hanging")
    healthy = Policy(Bulkhead(4, threads=True), Timeout(10), name="healthy")
    for _ in range(4):
        with pytest.raises(DeadlineExceeded):
            hanging.call(release.wait, 20)
    with pytest.raises(BulkheadFull):  # at once and by name, instead of a timeout that blames the target
        hanging.call(str)
    assert [healthy.call(str.upper, "ok") for _ in range(8)] == ["OK"] * 8
    release.set()
    until(lambda: hanging[Bulkhead].in_use == 0)


@in_both_worlds
async def test_a_synchronous_timeout_needs_no_pool(world: World) -> None:
    """pyresilience: 60 us and a thread for each call with a timeout, although nothing can be interrupted by it."""
    policy = Policy(Timeout(1))
    assert await world.call(policy, threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize(
    "layers", [(Bulkhead(2, threads=True),), (Timeout(5),), (Bulkhead(2, threads=True), Timeout(5))]
)
def test_context_variables_are_kept(layers: tuple[object, ...]) -> None:
    """pyresilience runs the function in a bare thread: request ids, tenants and traces are lost."""
    policy = Policy(*layers)
    token = TENANT.set("acme")
    try:
        assert policy.call(TENANT.get) == "acme"
        if policy.caller.on_threads:
            assert asyncio.run(policy.acall(TENANT.get)) == "acme"
    finally:
        TENANT.reset(token)


def test_a_timeout_does_not_swallow_a_cancellation() -> None:
    """`asyncio.wait_for` (up to 3.11) can lose a cancellation that comes as the function ends; hyx builds on it."""

    async def scenario(victim: Victim) -> None:
        work = Script(slow(1, "done"))
        await victim(Policy(Timeout(5)).acall(work.aio))

    assert cancel_everywhere(scenario) > 5


def test_timed_out_calls_give_their_slot_back() -> None:
    """hyx: a timeout inside the bulkhead that fires while the slot is being granted loses it."""

    async def main() -> None:
        policy = Policy(Timeout(1), Bulkhead(1, queue=3, max_wait=None))
        ends = await all_end([policy.acall(asyncio.sleep, 1) for _ in range(4)])
        assert all(isinstance(end, DeadlineExceeded) for end in ends[1:])
        assert policy[Bulkhead].in_use == policy[Bulkhead].waiting == 0

    for seed in range(20):
        run(main, seed=seed)
