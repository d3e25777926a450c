"""Faults of other libraries' circuit breakers, none of which Seawall's may have."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall import CircuitBreaker, CircuitOpen, Policy
from seawall.testing import Script, VirtualClock, run, slow
from tests.policies.worlds import World, all_end, fail, in_both_worlds, in_threads


def opened(probes: int = 3, **settings: object) -> Policy:
    """A policy whose breaker has just opened, for 10 s and its jitter; virtual time must be in place."""
    policy = Policy(CircuitBreaker(consecutive=1, open_for=10, probes=probes, **settings), name="target")
    with pytest.raises(ConnectionError):
        policy.call(fail())
    assert policy[CircuitBreaker].state == "open"
    return policy


def test_half_open_does_not_let_every_caller_through() -> None:
    """circuitbreaker, aiobreaker, purgatory, pyresilience, hyx: 20 tasks at half-open; exactly `probes` get in."""
    target = Script(slow(1, "well"))

    async def main() -> None:
        policy = opened(probes=3)
        await asyncio.sleep(12)
        ends = await all_end([policy.acall(target.aio) for _ in range(20)])
        assert len(target.calls) == target.most_running == 3
        assert ends.count("well") == 3
        assert sum(isinstance(end, CircuitOpen) for end in ends) == 17
        assert policy[CircuitBreaker].state == "closed"

    run(main)


def test_half_open_does_not_let_every_thread_through() -> None:
    """circuitbreaker, purgatory, pyresilience: the same with 20 threads that are all inside at once."""
    through: list[int] = []
    all_asked = threading.Barrier(20)

    with VirtualClock() as clock:
        policy = opened(probes=3)
        clock.advance(12)

        def probe() -> str:
            through.append(1)
            all_asked.wait(10)
            return "well"

        def caller() -> str:
            try:
                return policy.call(probe)
            except CircuitOpen:
                all_asked.wait(10)
                return "refused"

        ends = in_threads([caller] * 20)
    assert ends.count("well") == len(through) == 3
    assert ends.count("refused") == 17


def test_late_successes_do_not_close_an_open_breaker() -> None:
    """circuitbreaker: calls begun while closed succeed after it opened; it stays open."""
    late = Script(slow(5, "late"))

    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=1, open_for=60))
        calls = [asyncio.create_task(policy.acall(late.aio)) for _ in range(10)]
        await asyncio.sleep(1)
        with pytest.raises(ConnectionError):
            policy.call(fail())
        assert await all_end(calls) == ["late"] * 10
        assert policy[CircuitBreaker].state == "open"
        with pytest.raises(CircuitOpen):
            await policy.acall(late.aio)

    run(main)


def test_the_lock_is_not_held_during_the_call() -> None:
    """pybreaker: 8 threads x 0.2 s take 1.6 s. Here all 8 must be inside at once, or the barrier breaks."""
    inside = threading.Barrier(8)
    # With a count window or slow_after each call takes the careful way through the lock; it too must let go of it.
    for breaker in (CircuitBreaker(), CircuitBreaker(window_calls=50), CircuitBreaker(slow_after=1)):
        policy = Policy(breaker)
        assert in_threads([lambda policy=policy: policy.call(inside.wait, 10) >= 0] * 8) == [True] * 8


def test_async_def_is_protected() -> None:
    """pybreaker: the coroutine is made under the breaker and fails outside it, uncounted."""
    policy = Policy(CircuitBreaker(consecutive=2))

    @policy
    async def fetch() -> None:
        await asyncio.sleep(0.1)
        raise ConnectionError

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await fetch()
        with pytest.raises(CircuitOpen):
            await fetch()

    run(main)


@pytest.mark.parametrize("decorate", [True, False])
def test_a_coroutine_from_a_synchronous_call_is_refused_not_ignored(decorate: bool) -> None:
    """pybreaker: a function that returns a coroutine passes as a success. Here it is a TypeError with the remedy."""
    policy = Policy(CircuitBreaker())

    async def fetch() -> None: ...

    def wrapped() -> object:
        return fetch()

    with pytest.raises(TypeError, match="acall"):
        policy(wrapped)() if decorate else policy.call(fetch)


def test_cancelled_calls_do_not_open_the_breaker() -> None:
    """purgatory counts cancellation as failure."""

    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=2, min_calls=2))
        calls = [asyncio.create_task(policy.acall(asyncio.sleep, 60)) for _ in range(20)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await all_end(calls))
        breaker = policy[CircuitBreaker].snapshot()
        assert (breaker["state"], breaker["calls"], breaker["failed"]) == ("closed", 0, 0)

    run(main)


def test_cancelled_calls_do_not_reset_the_failures() -> None:
    """circuitbreaker takes a cancelled call for a success, which sets its count of failures back."""

    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=3))
        for failures in (1, 2):
            with pytest.raises(ConnectionError):
                policy.call(fail())
            call = asyncio.create_task(policy.acall(asyncio.sleep, 60))
            await asyncio.sleep(1)
            call.cancel()
            await all_end([call])
            assert policy[CircuitBreaker].snapshot()["failed"] == failures
        with pytest.raises(ConnectionError):
            policy.call(fail())
        assert policy[CircuitBreaker].state == "open"

    run(main)


def test_a_cancelled_probe_does_not_close_the_breaker() -> None:
    """hyx closes when a probe is cancelled. Here the probe is given back, and its place with it."""

    async def main() -> None:
        policy = opened(probes=1)
        await asyncio.sleep(12)
        for _ in range(3):
            probe = asyncio.create_task(policy.acall(asyncio.sleep, 60))
            await asyncio.sleep(1)
            probe.cancel()
            await all_end([probe])
            assert policy[CircuitBreaker].state == "half_open"
        assert await policy.acall(Script("well").aio) == "well"
        assert policy[CircuitBreaker].state == "closed"

    run(main)


def test_a_probe_that_never_returns_does_not_block_half_open_for_ever() -> None:
    """What users of all of them ask for: half-open that cannot get stuck."""

    async def main() -> None:
        policy = opened(probes=1, probe_lease=60)
        await asyncio.sleep(12)
        lost = asyncio.create_task(policy.acall(asyncio.sleep, 10_000))
        await asyncio.sleep(59)
        with pytest.raises(CircuitOpen):
            await policy.acall(Script("well").aio)
        await asyncio.sleep(2)
        assert await policy.acall(Script("well").aio) == "well"
        assert policy[CircuitBreaker].state == "closed"
        lost.cancel()
        await all_end([lost])

    run(main)


@in_both_worlds
async def test_a_refused_call_is_not_counted_as_a_failure(world: World) -> None:
    """hyx, purgatory: refusals inside the breaker prolong the outage. Here they count neither way."""
    policy = Policy(CircuitBreaker(consecutive=3, min_calls=3), name="outer")
    inner = Policy(CircuitBreaker(), name="inner")
    inner[CircuitBreaker].force_open()
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await world.call(policy, inner.call, print)
    seen = policy[CircuitBreaker].snapshot()
    assert (seen["state"], seen["calls"]) == ("closed", 0)
