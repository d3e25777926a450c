"""No step of a machine costs more after a hundred thousand calls than after ten, in bytecodes run or in things kept."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from seawall.machines.breaker import Breaker, Permit, Rules
from seawall.machines.gate import Gate
from seawall.machines.latency import Latency
from seawall.machines.retry_budget import RetryBudget
from seawall.machines.verdict import Ended, Verdict
from seawall.machines.window import CountWindow, TimeWindow

HOUR = 3_600_000_000_000
Step = Callable[[int], object]


def bytecodes(step: Callable[[], object]) -> int:
    """How many bytecodes `step` runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(before)
    return count


def kept(thing: object) -> int:
    """How many things the machine holds, all the way down."""
    if isinstance(thing, (list, tuple, deque, dict, bytearray)):
        inside: Iterable[object] = thing.values() if isinstance(thing, dict) else thing
        return len(thing) + sum(map(kept, inside))
    slots = getattr(type(thing), "__slots__", ())
    return sum(kept(getattr(thing, slot, None)) for slot in slots)


def breaker(window_ns: int | None, slow_after_ns: int | None) -> tuple[Breaker, Step]:
    machine = Breaker(Rules(window_ns=window_ns, slow_after_ns=slow_after_ns, failure_rate_ppm=900_000))
    running: deque[Permit] = deque()

    def step(number: int) -> None:
        permit = machine.admit(number * 7_000_000, 0.5)
        assert isinstance(permit, Permit)
        # Every other attempt ends at once, the rest after 40 more.
        if number % 2:
            running.append(permit)
        if number % 2 == 0 or len(running) > 20:
            verdict = Verdict.FAIL if number % 3 == 0 else Verdict.OK
            ended = permit if number % 2 == 0 else running.popleft()
            machine.settle(ended, Ended(verdict, 5), number * 7_000_000, 0.5)

    return machine, step


def window(machine: Any) -> tuple[Any, Step]:
    def step(number: int) -> None:
        mark = machine.record(number * 13_000_000, failed=number % 2 == 0, slow=True)
        machine.amend_failed(mark - 12 if number % 2 and mark > 12 else mark, number * 13_000_000)

    return machine, step


def budget() -> tuple[Any, Step]:
    machine = RetryBudget(200_000, 3)
    return machine, lambda number: (machine.add_call(number * 9_000_000), machine.take(number * 9_000_000))


def gate() -> tuple[Any, Step]:
    machine = Gate(5, 10)

    def step(number: int) -> None:
        permits = [machine.take() for _ in range(5)]
        tickets = [machine.join() for _ in range(3)]
        for permit in permits:
            machine.release(permit)  # type: ignore[arg-type]
        for ticket in tickets:
            machine.leave(ticket)  # type: ignore[arg-type]
        machine.resize(4 + number % 3)
        machine.resize(5)

    return machine, step


def latency() -> tuple[Any, Step]:
    machine = Latency(50)
    return machine, lambda number: (machine.record(1_000 + number % 40), machine.quantile(950_000))


MACHINES: dict[str, Callable[[], tuple[Any, Step]]] = {
    "breaker": lambda: breaker(30_000_000_000, None),
    "breaker, slow calls": lambda: breaker(30_000_000_000, 100_000_000),
    "breaker, count window": lambda: breaker(None, None),
    "time window": lambda: window(TimeWindow(1_000_000_000, 10)),
    "count window": lambda: window(CountWindow(100)),
    "retry budget": budget,
    "gate": gate,
    "latency": latency,
}


@pytest.mark.parametrize("name", MACHINES)
def test_cost_and_size_do_not_grow_with_the_number_of_calls(name: str) -> None:
    """The dearest of 600 steps is much the same early and late, and what is kept after them is the same."""
    machine, step = MACHINES[name]()
    numbers = itertools.count()

    def dearest() -> tuple[int, int]:
        return max(bytecodes(lambda: step(next(numbers))) for _ in range(600)), kept(machine)

    for _ in range(900):
        step(next(numbers))
    early_cost, early_size = dearest()
    for _ in range(8_500):
        step(next(numbers))
    late_cost, late_size = dearest()
    # Which steps meet within one of them may differ a little; what grows with the calls would be ten times as much.
    assert late_cost < 2 * early_cost
    assert late_size == early_size


@pytest.mark.parametrize("machine", [TimeWindow(1_000, 10), RetryBudget(200_000, 3)], ids=["window", "budget"])
def test_a_jump_of_the_clock_costs_no_more_than_one_turn_of_the_buckets(machine: Any) -> None:
    """An hour or a century: the buckets are emptied once each."""
    machine.roll(0)
    an_hour = bytecodes(lambda: machine.roll(HOUR))
    assert bytecodes(lambda: machine.roll(1_000_000 * HOUR)) < 2 * an_hour


def test_a_breaker_keeps_nothing_of_attempts_that_have_ended_or_were_never_heard_of_again() -> None:
    """A thousand that ended and a thousand that vanished: once overdue, nothing of them is kept."""
    machine = Breaker(Rules(slow_after_ns=10, min_calls=10_000))
    empty = kept(machine)
    for number in range(2_000):
        permit = machine.admit(number, 0.5)
        if number % 2 and isinstance(permit, Permit):
            machine.settle(permit, Ended(Verdict.OK, 1), number, 0.5)
    last = machine.admit(HOUR, 0.5)
    assert isinstance(last, Permit)
    machine.settle(last, Ended(Verdict.OK, 1), HOUR, 0.5)
    assert kept(machine) == empty
