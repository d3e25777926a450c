"""The scheduler is worth its time: races planted in the library itself are found within the seeds of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from seawall import Bulkhead, CircuitBreaker, Policy
from seawall.machines.gate import Gate, GatePermit, Ticket
from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.policies.layer import Lane
from seawall.policy import meter
from seawall.policy.meter import Meter
from tests.support.threads import explore
from tests.threads.frames import BREAKER, BULKHEAD, World, expect, traced
from tests.threads.test_threads_breaker import Callers, broken
from tests.threads.test_threads_bulkhead import Room, at_home, crowd

SEEDS = range(200)
Patch = pytest.MonkeyPatch


def must_be_found(build: Callable[[], World], trace: list[Any]) -> None:
    with pytest.raises(AssertionError) as caught:
        explore(build, trace=trace, seeds=SEEDS)
    assert "replay: explore(..., seeds=[" in "".join(caught.value.__notes__)


def test_a_permit_given_back_without_a_second_look_at_the_queue(monkeypatch: Patch) -> None:
    lane_of = BulkheadGuard.lane

    def without_second_look(guard: BulkheadGuard, *, is_async: bool) -> Lane:
        lane = lane_of(guard, is_async=is_async)
        assert lane.fast is not None
        assert lane.fast.leave[-1].strip() == "$pass_on()"
        return lane.replace(fast=lane.fast.replace(leave=lane.fast.leave[:-2]))

    monkeypatch.setattr(BulkheadGuard, "lane", without_second_look)
    world = crowd(3, 2, limit=1, queue=3, max_wait=None)
    must_be_found(world, traced(Policy(Bulkhead(1)), *BULKHEAD))


def test_a_meter_that_adds_one_instead_of_drawing_a_number(monkeypatch: Patch) -> None:
    def plain(self: Meter, *, is_async: bool) -> Lane:
        lane = lane_of(self, is_async=is_async)
        assert lane.fast is not None
        fast = lane.fast.replace(leave=("$meter.failed_calls += 1",), names={"meter": self})
        return lane.replace(fast=fast)

    lane_of = Meter.lane
    monkeypatch.setattr(Meter, "lane", plain)

    def build() -> World:
        policy = Policy()

        def calls() -> None:
            for _ in range(3):
                policy.call(str)

        return [calls] * 3, lambda: expect(policy.snapshot()["failed"] == 9, str(policy.snapshot()))

    must_be_found(build, traced(Policy(), meter))


def test_a_newcomer_who_drops_the_wake_up_of_another(monkeypatch: Patch) -> None:
    """As it once was: the newcomer passes a permit on to whoever stands first, and tells nobody."""

    def join(gate: Gate) -> Ticket | None:
        if len(gate.waiting) >= gate.queue:
            return None
        ticket = Ticket()
        gate.waiting[ticket] = None
        gate.pass_on()
        return ticket

    monkeypatch.setattr(Gate, "join", join)
    world = crowd(3, 2, limit=1, queue=3, max_wait=None)
    must_be_found(world, traced(Policy(Bulkhead(1)), *BULKHEAD, __file__))


def test_a_resize_that_counts_the_idle_and_then_replaces_them(monkeypatch: Patch) -> None:
    """As it once was: between counting and replacing, others take and give back."""
    resize_of = Gate.resize

    def resize(gate: Gate, limit: int) -> list[Ticket]:
        gate.permit = GatePermit(gate.epoch)
        idle = len(gate.free)
        gate.free.clear()
        gate.free.extend([gate.permit] * idle)
        return resize_of(gate, limit)

    monkeypatch.setattr(Gate, "resize", resize)

    def build() -> World:
        policy, room = Policy(Bulkhead(2, queue=4, max_wait=None)), Room()
        callers = [room.caller(policy, first, first + 1) for first in (0, 2, 4)]
        return [lambda: policy[Bulkhead].resize(1), *callers], lambda: at_home(policy[Bulkhead])

    must_be_found(build, traced(Policy(Bulkhead(1)), *BULKHEAD, __file__))


class NoSection(contextlib.nullcontext[None]):
    def put_off(self, step: object) -> bool:
        return False


def test_a_breaker_without_its_lock() -> None:
    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(min_calls=1_000)))
        guard: BreakerGuard = callers.guard
        guard._lock = NoSection()  # type: ignore[assignment]
        return [callers.calling(broken, broken)] * 3, lambda: expect(guard.snapshot()["failed"] == 6, "miscounted")

    must_be_found(build, traced(Policy(CircuitBreaker()), *BREAKER))
