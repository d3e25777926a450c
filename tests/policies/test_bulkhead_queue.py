"""The queue of a `Bulkhead`: first come first served over threads and tasks; who cannot be served in time leaves it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall import Bulkhead, BulkheadFull, CircuitBreaker, DeadlineExceeded, Policy, Timeout, deadline
from seawall.testing import Script, run, slow
from tests.policies.worlds import World, all_end, fail, in_both_worlds, until


def home(policy: Policy) -> bool:
    """Whether all permits are back and nobody waits."""
    return policy[Bulkhead].in_use == policy[Bulkhead].waiting == 0


def test_tasks_are_served_in_the_order_of_their_arrival() -> None:
    async def main() -> None:
        policy = Policy(Bulkhead(1, queue=10, max_wait=60))
        served: list[int] = []

        async def work(number: int) -> None:
            served.append(number)
            await asyncio.sleep(1)

        calls = []
        for number in range(10):
            calls.append(asyncio.create_task(policy.acall(work, number)))
            await asyncio.sleep(0.01)
        assert all(end is None for end in await all_end(calls))
        assert served == list(range(10))
        assert home(policy)

    for seed in range(10):
        run(main, seed=seed)


@pytest.mark.parametrize("careful", [False, True])
def test_a_newcomer_does_not_overtake_the_queue(careful: bool) -> None:
    async def main() -> None:
        policy = Policy(Bulkhead(1, queue=2, max_wait=60))
        served: list[str] = []

        async def work(name: str) -> None:
            served.append(name)
            await asyncio.sleep(1)

        async def and_again() -> None:
            call = policy.arun if careful else policy.acall  # without and with the healthy frame
            await call(work, "first")
            await call(work, "again")

        greedy = asyncio.create_task(and_again())
        await asyncio.sleep(0.5)
        await policy.acall(work, "waiting")
        await greedy
        assert served == ["first", "waiting", "again"]

    run(main)


def test_threads_and_tasks_stand_in_one_queue() -> None:
    policy = Policy(Bulkhead(1, queue=10, max_wait=None))
    served: list[str] = []
    release = threading.Event()

    async def note(name: str) -> None:
        served.append(name)

    def in_thread(name: str) -> None:
        policy.call(served.append, name)

    def in_task(name: str) -> None:
        asyncio.run(policy.acall(note, name))

    holder = threading.Thread(target=policy.call, args=(release.wait, 20))
    holder.start()
    until(lambda: policy[Bulkhead].in_use == 1)
    waiting = []
    for number in range(6):
        target = in_task if number % 2 else in_thread
        waiting.append(threading.Thread(target=target, args=(str(number),)))
        waiting[-1].start()
        until(lambda number=number: policy[Bulkhead].waiting == number + 1)
    release.set()
    for thread in [holder, *waiting]:
        thread.join(20)
    assert served == list("012345")
    assert home(policy)


@in_both_worlds
async def test_a_full_queue_refuses(world: World) -> None:
    policy = Policy(Bulkhead(1, queue=1, max_wait=60), name="reports")
    with policy.guard():
        policy[Bulkhead]._gate.join()  # somebody waits
        refusal = await world.error_of(policy, str)
        assert str(refusal) == "reports: bulkhead full (1 of 1 permits in use, 1 waiting); retry in 1 s"
        assert world.now == 0


@in_both_worlds
async def test_after_max_wait_it_refuses_and_leaves_the_queue(world: World) -> None:
    policy = Policy(Bulkhead(1, queue=1, max_wait="1.5s"))
    with policy.guard():
        refusal = await world.error_of(policy, str)
        assert isinstance(refusal, BulkheadFull)
        assert "after a wait of 1.5 s" in str(refusal)
        assert world.now == 1.5
        assert policy[Bulkhead].waiting == 0
    assert home(policy)


@in_both_worlds
async def test_who_cannot_meet_his_deadline_leaves_the_queue(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1), Bulkhead(1, queue=5, max_wait=60))
    guard = Policy(policy)
    with guard.guard(), deadline(2):
        error = await world.error_of(policy, str)
        assert isinstance(error, DeadlineExceeded)
        assert error.inherited
        assert world.now == 2
        assert policy[Bulkhead].waiting == 0
        assert (policy[CircuitBreaker].state, policy[CircuitBreaker].snapshot()["calls"]) == ("closed", 0)


@in_both_worlds
async def test_a_timeout_of_the_policy_bounds_the_wait_and_counts_as_its_own(world: World) -> None:
    policy = Policy(CircuitBreaker(), Timeout(2), Bulkhead(1, queue=5, max_wait=None))
    holder = Policy(policy, name="holder")
    held = holder[Bulkhead]._gate.take()
    error = await world.error_of(policy, str)
    assert isinstance(error, DeadlineExceeded)
    assert not error.inherited
    assert policy[CircuitBreaker].snapshot()["failed"] == 1
    holder[Bulkhead]._give_back(held)
    assert home(policy)


def test_a_waiter_that_times_out_as_it_is_granted_loses_nothing() -> None:
    async def main() -> None:
        policy = Policy(Bulkhead(1, queue=5, max_wait=1))
        ends = await all_end([policy.acall(asyncio.sleep, 1, number) for number in range(4)])
        assert home(policy)
        assert sum(not isinstance(end, BulkheadFull) for end in ends) >= 1
        assert await policy.acall(asyncio.sleep, 0, "next") == "next"

    for seed in range(50):
        run(main, seed=seed)


def test_permits_of_earlier_guards_are_undone_before_a_guard_waits() -> None:
    """Nobody holds a probe or an outer permit in a queue; after the wait admission starts again there."""

    async def main() -> None:
        policy = Policy(
            CircuitBreaker(consecutive=1, open_for=1, probes=1),
            Bulkhead(2, name="outer"),
            Bulkhead(1, queue=5, max_wait=60, name="inner"),
        )
        with pytest.raises(ConnectionError):
            policy.call(fail())
        await asyncio.sleep(2)
        inner = policy["inner"]._gate.take()
        probe = asyncio.create_task(policy.acall(Script(slow(1, "well")).aio))
        await asyncio.sleep(1)
        assert (policy["inner"].waiting, policy["outer"].in_use) == (1, 0)
        assert policy[CircuitBreaker]._machine._out == {}, "the probe was given back while its call waits"
        policy["inner"]._give_back(inner)
        assert await probe == "well"
        assert policy[CircuitBreaker].state == "closed"
        assert policy["inner"].in_use == policy["outer"].in_use == 0

    run(main)


def test_after_its_wait_a_call_meets_a_breaker_that_opened_meanwhile() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(), Bulkhead(1, queue=5, max_wait=60))
        target = Script("never")
        place = policy[Bulkhead]._gate.take()
        call = asyncio.create_task(policy.acall(target.aio))
        await asyncio.sleep(1)
        policy[CircuitBreaker].force_open()
        policy[Bulkhead]._give_back(place)
        (end,) = await all_end([call])
        assert type(end).__name__ == "CircuitOpen"
        assert not target.calls
        assert home(policy), "the place it had got is given back"

    run(main)


def test_a_place_further_inside_is_kept_while_an_outer_guard_makes_the_call_wait() -> None:
    """Only places further inside than the one waited for are kept, so that two callers never wait for each other."""

    async def main() -> None:
        policy = Policy(
            Bulkhead(1, queue=5, max_wait=60, name="outer"), Bulkhead(1, queue=5, max_wait=60, name="inner")
        )
        outer, inner = policy["outer"], policy["inner"]
        inside = inner._gate.take()
        call = asyncio.create_task(policy.acall(Script("done").aio))
        await asyncio.sleep(1)
        assert (outer.in_use, inner.waiting) == (0, 1)
        outside = outer._gate.take()
        inner._give_back(inside)
        await asyncio.sleep(1)
        assert (outer.waiting, inner.in_use) == (1, 1)
        outer._give_back(outside)
        assert await call == "done"
        assert (outer.in_use, inner.in_use, outer.waiting, inner.waiting) == (0, 0, 0, 0)

    run(main)


def test_a_waiter_whose_loop_is_gone_passes_the_permit_on() -> None:
    policy = Policy(Bulkhead(1, queue=2, max_wait=None))
    place = policy[Bulkhead]._gate.take()
    gone = asyncio.new_event_loop()
    abandoned = gone.create_task(policy.acall(asyncio.sleep, 0))
    gone.run_until_complete(asyncio.sleep(0))
    assert policy[Bulkhead].waiting == 1
    abandoned._log_destroy_pending = False
    gone.close()
    policy[Bulkhead]._give_back(place)
    assert policy.call(str) == ""
    assert home(policy)
    abandoned.get_coro().close()
