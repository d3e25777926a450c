"""`Bulkhead`: never more than `limit` at work, and no permit lost or doubled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall import Bulkhead, BulkheadFull, ConfigError, Policy, Timeout
from seawall.events import CallRefused
from seawall.testing import Script, Victim, cancel_everywhere, run, slow
from tests.policies.worlds import World, all_end, fail, heard, in_both_worlds, in_threads


def home(policy: Policy) -> bool:
    """Whether all permits are back and nobody waits."""
    return policy[Bulkhead].in_use == policy[Bulkhead].waiting == 0


@in_both_worlds
async def test_beyond_the_limit_it_refuses_at_once_by_default(world: World) -> None:
    policy = Policy(Bulkhead(2), name="reports")
    with heard(CallRefused) as seen, policy.guard(), policy.guard():
        refusal = await world.error_of(policy, str)
        assert isinstance(refusal, BulkheadFull)
        assert str(refusal) == "reports: bulkhead full (2 of 2 permits in use); retry in 1 s"
        assert (refusal.measured, refusal.threshold, refusal.reason) == (2, 2, "bulkhead_full")
    assert world.now == 0
    assert [event.reason for event in seen] == ["bulkhead_full"]
    assert await world.call(policy, str) == ""
    assert home(policy)


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
@in_both_worlds
async def test_every_end_gives_the_permit_back(world: World, error: type[BaseException]) -> None:
    policy = Policy(Bulkhead(1))
    for _ in range(3):
        assert type(await world.error_of(policy, fail(error))) is error
    assert home(policy)


@in_both_worlds
async def test_a_call_inside_a_call_takes_a_second_permit(world: World) -> None:
    policy = Policy(Bulkhead(2))
    in_use: list[int] = []

    def inner() -> None:
        in_use.append(policy[Bulkhead].in_use)

    await world.call(policy, lambda: policy.call(inner))
    assert in_use == [2]
    with policy.guard():
        assert isinstance(await world.error_of(policy, lambda: policy.call(inner)), BulkheadFull)
    assert home(policy)


def test_more_room_is_used_at_once_and_less_drains() -> None:
    async def main() -> None:
        policy = Policy(Bulkhead(2, queue=10, max_wait=60))
        work = Script(slow(10, "done"))
        calls = [asyncio.create_task(policy.acall(work.aio)) for _ in range(6)]
        await asyncio.sleep(1)
        assert work.running == 2
        policy[Bulkhead].resize(4)
        await asyncio.sleep(1)
        assert work.running == 4
        policy[Bulkhead].resize(1)
        assert (policy[Bulkhead].in_use, policy[Bulkhead].limit) == (4, 1)
        await asyncio.sleep(8.5)  # the first two have ended
        assert (work.running, policy[Bulkhead].waiting) == (2, 2)
        work.most_running = 0
        assert await all_end(calls) == ["done"] * 6
        assert work.most_running <= 2
        assert home(policy)

    run(main)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "5", None, 10**7])
def test_a_resize_to_nonsense_changes_nothing(bad: object) -> None:
    policy = Policy(Bulkhead(3))
    with pytest.raises(ConfigError, match="limit"):
        policy[Bulkhead].resize(bad)
    assert policy[Bulkhead].limit == 3


@pytest.mark.parametrize("layers", [1, 2])
def test_no_permit_is_lost_at_any_cancellation(layers: int) -> None:
    async def scenario(victim: Victim) -> None:
        policy = Policy(*(Bulkhead(1, queue=3, max_wait=60, name=str(number)) for number in range(layers)), Timeout(50))
        work = Script(slow(1, "done"))
        others = [asyncio.create_task(policy.acall(work.aio)) for _ in range(2)]
        await asyncio.sleep(0)
        await victim(policy.acall(work.aio))
        assert await all_end(others) == ["done"] * 2
        for number in range(layers):
            assert policy[str(number)].in_use == policy[str(number)].waiting == 0
        assert work.most_running == 1

    assert cancel_everywhere(scenario, twice=True) > 30


def test_threads_never_exceed_the_limit() -> None:
    policy = Policy(Bulkhead(3, queue=100, max_wait=None))
    inside, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    in_threads([lambda: [policy.call(work) for _ in range(200)]] * 8)
    assert most <= 3
    assert home(policy)
