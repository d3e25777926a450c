"""Runs one call of a policy, cancelled at every point, beside others; then counts all that was handed out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from seawall import Policy, events
from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded, Rejected
from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.policies.keyed import Keyed
from seawall.policies.layer import Live
from seawall.policies.retry import RetryDriver
from seawall.policies.timeout import TimeoutDriver
from seawall.runtime import clock
from seawall.testing import Victim, cancel_everywhere
from tests.cancellation.forms import FORMS, KEY, Counted, Form

__all__ = [
    "ATTEMPT",
    "FORMS",
    "KEY",
    "Case",
    "Counted",
    "Form",
    "cancel_each_point",
    "everything_is_home",
    "live_layers",
]


A_LONG_TIME = 1_000.0
ATTEMPT = "attempt"
"""The name of the timeout inside the breaker, in every case that has one."""


class Case(NamedTuple):
    """One world: a fresh policy, the function it calls, and who stands in the way."""

    policy: Callable[[], Policy]
    script: Callable[[], Counted]
    holders: int = 0
    """How many others call first, through the same policy, each for a second."""
    outer: float | None = None
    """Seconds of an `asyncio.timeout` around the victim's call."""
    prepare: Callable[[Policy], Coroutine[Any, Any, object]] | None = None
    """Brings the policy into the state in which the victim finds it."""
    uncounted: bool = False
    """Whether attempts run side by side, so that what the breaker saw does not follow from the script."""
    holds: Callable[[Policy], Policy] = lambda policy: policy
    """The policy through which the holders call: a nested one, say."""


def cancel_each_point(case: Case, form: Form, *, twice: bool = False) -> int:
    """Cancel the call of `case` in this form at every point; the number of points tried."""

    async def scenario(victim: Victim) -> None:
        await _scenario(case, form, victim)

    return cancel_everywhere(scenario, twice=twice)


async def _scenario(case: Case, form: Form, victim: Victim) -> None:
    policy, script = case.policy(), case.script()
    timeouts: list[events.TimedOut] = []
    stop = events.subscribe(timeouts.append, events.TimedOut)
    try:
        if case.prepare is not None:
            await case.prepare(policy)
            script.begun = policy.snapshot()["calls"]
        before = _counts(policy)
        holders = [asyncio.create_task(_hold(case.holds(policy))) for _ in range(case.holders)]
        await asyncio.sleep(0.001)
        # How the call ends without a cancellation is not the question here.
        with contextlib.suppress(OSError, DeadlineExceeded, Rejected, TimeoutError):
            await victim(_watched(case, form, policy, script, victim))
        await asyncio.gather(*holders)
        await asyncio.sleep(A_LONG_TIME)
        assert script.running == 0, "something still runs"
        everything_is_home(policy)
        _every_call_is_counted(case, policy, script)
        if not case.uncounted:
            _nothing_is_miscounted(policy, before, script, timeouts, case.holders)
        for layer in live_layers(policy):
            if isinstance(layer, BreakerGuard) and layer.state == "half_open":
                assert layer._machine._done == script.answered + script.failed, "a cancelled probe counts as an outcome"
                await _all_probes_are_admitted(layer, policy)
    finally:
        stop()


async def _hold(policy: Policy) -> None:
    async def held(_key: str) -> str:
        await asyncio.sleep(0.999)
        return "held"

    with contextlib.suppress(Rejected):
        await policy.acall(held, KEY)


async def _watched(case: Case, form: Form, policy: Policy, script: Counted, victim: Victim) -> Any:
    """The victim's call; on its way out the task and its context are as they were."""
    task, context = asyncio.current_task(), CURRENT.get()
    assert task is not None
    script.begun += 1
    try:
        if case.outer is None:
            return await form(policy, script)
        async with asyncio.timeout(case.outer):
            return await form(policy, script)
    finally:
        assert CURRENT.get() is context, "the context of the call is still in force"
        assert task.cancelling() == len(victim.stood), "requests to cancel are lost or left over"


def live_layers(policy: Policy) -> list[Live]:
    """All live layers, those in compartments included."""
    found: list[Live] = []
    for layer in policy.layers:
        found += [cell.live for _, cell in layer.layers.items()] if isinstance(layer, Keyed) else [layer]
    return found


def everything_is_home(policy: Policy) -> None:
    """No permit, place, probe or deadline is out."""
    for layer in live_layers(policy):
        if isinstance(layer, BulkheadGuard):
            gate = layer._gate
            assert (layer.in_use, layer.waiting, gate.excess) == (0, 0, 0), f"{layer.name}: a permit or place is lost"
            assert len(gate.free) == gate.limit, f"{layer.name}: a permit came back twice"
        elif isinstance(layer, BreakerGuard):
            assert not layer._machine._out, f"{layer.name}: a probe is lost"
            assert not layer._machine._inflight, f"{layer.name}: an attempt is still watched for slowness"
        elif isinstance(layer, TimeoutDriver) and layer._deadlines is not None:
            for queue in layer._deadlines._queues.values():
                living = [entry for entry in queue.entries if entry.task is not None]
                assert not living, f"{layer.name}: a deadline outlives its call"
                assert queue.dead == len(queue.entries), f"{layer.name}: the dead are miscounted"


def _counts(policy: Policy) -> dict[str, int]:
    """What closed breakers have in their windows; nothing if there is none."""
    shots = [layer.snapshot() for layer in live_layers(policy) if isinstance(layer, BreakerGuard)]
    closed = [shot for shot in shots if shot["state"] == "closed"]
    return {count: sum(shot[count] for shot in closed) for count in ("calls", "failed")} if closed else {}


def _nothing_is_miscounted(
    policy: Policy, before: dict[str, int], script: Counted, timeouts: list[events.TimedOut], holders: int
) -> None:
    shot = policy.snapshot()
    after = _counts(policy)
    late = sum(event.layer == ATTEMPT and not event.inherited for event in timeouts)
    for layer in live_layers(policy):
        if isinstance(layer, BreakerGuard) and layer.state == "closed" and "calls" in before:
            grown = after["calls"] - before["calls"], after["failed"] - before["failed"]
            expected = script.answered + script.failed + late + holders, script.failed + late
            assert grown == expected, "a cancelled attempt stands in the window of the breaker"
        if isinstance(layer, RetryDriver) and layer._budget is not None:
            budget = layer._budget.snapshot()
            assert budget["calls"] == shot["calls"], "the budget counted a call never or twice"
            assert budget["extra"] == layer.retries, "the budget was charged for a retry that was not made"


def _every_call_is_counted(case: Case, policy: Policy, script: Counted) -> None:
    """Also one that ended in a queue, and the attempts at a nested policy."""
    through_nested = case.holds(policy) is not policy
    begun = script.begun + (0 if through_nested else case.holders)
    shot = policy.snapshot()
    assert shot["calls"] == begun, f"{begun} calls began: {shot}"
    retries = sum(layer.retries for layer in live_layers(policy) if isinstance(layer, RetryDriver))
    for part in policy.specs:
        if isinstance(part, Policy):
            attempts = begun + retries + (case.holders if through_nested else 0)
            # The last retry may have been cancelled in the pause before it.
            assert attempts - part.snapshot()["calls"] in (0, 1), f"{attempts} attempts began: {part.snapshot()}"


async def _all_probes_are_admitted(breaker: BreakerGuard, policy: Policy) -> None:
    """What a half-open breaker still wants to see, it lets in, and nobody beyond."""
    wanted = breaker._rules.probes - breaker._machine._done
    entered = 0

    async def well(_key: str) -> None:
        nonlocal entered
        entered += 1
        await asyncio.sleep(0.1)

    calls = [breaker_only(breaker, well) for _ in range(wanted + 1)]
    refused = [error for error in await asyncio.gather(*calls, return_exceptions=True) if error is not None]
    assert (entered, len(refused)) == (wanted, 1), "cancelled probes are missing"
    assert breaker.state == "closed", policy.explain()


async def breaker_only(breaker: BreakerGuard, function: Callable[[str], Awaitable[None]]) -> None:
    """A call past one breaker and nothing else."""
    permit = breaker._admit()
    await function(KEY)
    breaker._settle_ok(permit, clock.now_ns(), None)
