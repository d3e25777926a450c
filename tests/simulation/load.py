"""Ten thousand calls through a full policy in virtual time, under changing fortune, with nothing lost at the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from seawall import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, Timeout
from seawall.testing import VirtualLoop
from tests.cancellation.bench import everything_is_home
from tests.simulation.endpoints import Endpoint, EndpointDown

__all__ = ["Load", "load"]

MOODS = ("well", "well", "well", "slow", "lossy", "down", "hung")


class Load(NamedTuple):
    """How a load was served."""

    answers: dict[str, int]
    breaker: str
    virtual_seconds: float
    steps: int
    trace: str


def full_policy() -> Policy:
    return Policy(
        Fallback(-1),
        Timeout(2, name="total"),
        Retry(on=(EndpointDown, TimeoutError)),
        CircuitBreaker(open_for=0.5),
        Bulkhead(64, queue=64, max_wait=0.2),
        Timeout(0.4, name="attempt"),
        name="full",
    )


def load(calls: int, seed: int = 0, *, per_second: float = 500.0) -> Load:
    """Serve `calls` that arrive at random, at `per_second` on average; one in fifty is cancelled by its caller."""
    loop = VirtualLoop(seed=seed)
    policy, answers = full_policy(), Counter[str]()

    async def call(endpoint: Endpoint, number: int) -> None:
        try:
            answers["full" if await policy.acall(endpoint.serve, number) == number else "degraded"] += 1
        except asyncio.CancelledError:
            answers["cancelled"] += 1
            raise

    async def fortune(endpoint: Endpoint) -> None:
        while True:
            await asyncio.sleep(loop.random.expovariate(1))
            endpoint.change(loop.random.choice(MOODS))

    async def main() -> None:
        endpoint = Endpoint("endpoint", loop.random)
        changes = asyncio.create_task(fortune(endpoint))
        tasks: list[asyncio.Task[None]] = []
        for number in range(calls):
            await asyncio.sleep(loop.random.expovariate(per_second))
            tasks.append(asyncio.create_task(call(endpoint, number)))
            if loop.random.random() < 0.02:
                loop.call_later(loop.random.random() * 0.1 + 0.001, tasks[-1].cancel)
        changes.cancel()
        endpoint.heal()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.result() is None
        assert endpoint.running == 0

    loop.run(main)
    everything_is_home(policy)
    shot = policy.snapshot()
    assert shot["calls"] == calls == sum(answers.values())
    assert (shot["ok"], shot["cancelled"]) == (answers["full"] + answers["degraded"], answers["cancelled"])
    return Load(dict(sorted(answers.items())), policy[CircuitBreaker].explain(), loop.time(), loop.steps, loop.trace)
