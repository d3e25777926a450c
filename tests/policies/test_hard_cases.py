"""What a hostile program does to a policy: odd errors, finalizers in mid-step, the end of the stack, exits in a race."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    ConfigError,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Policy,
    Retry,
    RetryBudget,
    Timeout,
    events,
)
from seawall.testing import VirtualClock, run


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses every attribute, its cause and its notes included."""

    code: int = 0


class Asks(Exception):
    """Cannot tell when to come back."""

    @property
    def retry_after(self) -> float:
        raise ValueError("no header")


def test_a_finalizer_in_the_middle_of_a_step_does_not_hang_the_process() -> None:
    """Abandoned calls give their permits back from inside the collector, which any allocation may start."""
    script = """
from seawall import Bulkhead, CircuitBreaker, Policy
policy = Policy(CircuitBreaker(min_calls=10**9), Bulkhead(100_000, queue=5, max_wait=1))
class Pause:
    def __await__(self): yield
@policy
async def work(cell): await Pause()
def abandon():
    cell = []
    pending = work(cell)
    cell.append(pending)
    pending.send(None)
def bad(): raise OSError
for _ in range(6_000):
    abandon()
    try: policy.call(bad)
    except OSError: pass
import gc; gc.collect()
print(policy[Bulkhead].in_use)
"""
    end = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (end.stdout, end.stderr) == ("0\n", "")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), TypeError("bug")])
def test_a_race_is_not_run_over_a_cancellation_or_a_bug(error: BaseException) -> None:
    calls = 0

    async def work() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(0.05)
            raise error
        await asyncio.sleep(0.1)
        return "second"

    async def main() -> None:
        with pytest.raises(type(error)):
            await Policy(Hedge(after="20ms")).acall(work)

    run(main)


def test_a_property_that_raises_neither_hides_the_error_nor_keeps_the_probe() -> None:
    policy = Policy(CircuitBreaker(consecutive=1, probes=1, open_for=1))
    with VirtualClock() as time:
        for _ in range(3):
            with pytest.raises(Asks):
                policy.call(failing(Asks()))
            time.advance("20s")
    assert policy[CircuitBreaker].refused == 0


@pytest.mark.parametrize("layer", [Retry(on=Exception, delay=0, budget=RetryBudget(0, per_second=0)), Retry(Exception)])
def test_an_error_that_takes_no_attributes_comes_out_as_itself(layer: Retry) -> None:
    with VirtualClock(), pytest.raises(Frozen):
        Policy(layer).call(failing(Frozen(1)))


def test_the_cause_chain_of_an_instance_that_is_raised_again_and_again_stays_short() -> None:
    again, policy = OSError("closed"), Policy(Retry(on=OSError, attempts=2, delay=0, budget=None))
    for number in range(50):
        answers = iter([OSError(number), again])
        with pytest.raises(OSError, match="closed"):
            policy.call(lambda: failing(next(answers))())
    links, link = 0, again.__cause__
    while link is not None:
        links, link = links + 1, link.__cause__
    assert links <= 5


def test_two_instances_raised_in_turn_close_no_circle() -> None:
    a, b, policy = OSError("a"), OSError("b"), Policy(Retry(on=OSError, attempts=2, delay=0, budget=None))
    for first, second in ((a, b), (b, a)):
        answers = iter([first, second])
        with pytest.raises(OSError, match=str(second)):
            policy.call(lambda: failing(next(answers))())
    assert not (a.__cause__ is b and b.__cause__ is a)


def test_an_instance_takes_one_note_from_a_policy() -> None:
    again, policy = OSError("closed"), Policy(Retry(on=OSError, budget=RetryBudget(0, per_second=0)))
    for _ in range(5):
        with pytest.raises(OSError, match="closed"):
            policy.call(failing(again))
    assert len(again.__notes__) == 1


def test_the_end_of_the_stack_costs_no_permit() -> None:
    policy = Policy(CircuitBreaker(min_calls=10**6), Bulkhead(50))

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            policy.call(str, 1)

    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit()):
        try:
            dive(depth)
        except RecursionError:
            pass
    with pytest.raises(OSError, match="x"):
        policy.call(failing(OSError("x")))  # a call in trouble finds what was lost
    assert policy[Bulkhead].in_use == 0


def test_an_interrupted_listener_loses_no_probe() -> None:
    policy = Policy(CircuitBreaker(consecutive=1, probes=1, open_for=1))

    def interrupted(event: events.BreakerChanged) -> None:
        if event.after == "half_open":
            raise KeyboardInterrupt

    with VirtualClock() as time:
        with pytest.raises(OSError, match="x"):
            policy.call(failing(OSError("x")))
        time.advance("2s")
        stop = events.subscribe(interrupted, events.BreakerChanged)
        with pytest.raises(KeyboardInterrupt):
            policy.call(str, 1)
        stop()
        assert policy.call(str, 1) == "1"


def test_a_refusal_hides_no_index_error() -> None:
    policy = Policy(Bulkhead(1))
    with policy.guard(), pytest.raises(BulkheadFull) as caught:
        policy.call(str, 1)
    assert caught.value.__suppress_context__


def test_a_function_on_threads_may_take_any_keyword() -> None:
    def takes(function: Any = None, self: Any = None) -> Any:
        return function, self

    assert Policy(Bulkhead(1, threads=True)).call(takes, function=1, self=2) == (1, 2)


async def always(_: object = None) -> bool:
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(on=always),
        lambda: Retry(on=OSError, until=always),
        lambda: CircuitBreaker(ok=always),
        lambda: Bulkhead(1).per(always),
        lambda: Retry(on=()),
    ],
)
def test_a_predicate_that_would_always_be_true_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_an_async_listener_is_refused() -> None:
    with pytest.raises(TypeError, match="not async"):
        events.subscribe(always)


def test_a_context_manager_function_is_refused() -> None:
    @contextmanager
    def managed():  # type: ignore[no-untyped-def]
        yield

    with pytest.raises(TypeError, match="generator"):
        Policy(Bulkhead(1))(managed)


def test_a_bug_in_a_group_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup):
        Policy(Fallback("hidden")).call(failing(ExceptionGroup("g", [OSError(), TypeError("bug")])))
    assert Policy(Fallback("shown")).call(failing(ExceptionGroup("g", [OSError()]))) == "shown"


def test_a_name_stands_for_one_budget() -> None:
    Policy(Retry(on=OSError, budget=RetryBudget(0.5, name="one")))
    Policy(Retry(on=OSError, budget=RetryBudget(0.5, name="one")), Retry(on=OSError, budget="one"))
    with pytest.raises(ConfigError, match="the name is taken"):
        Policy(Retry(on=OSError, budget=RetryBudget(0.9, name="one")))


def test_a_spec_of_ones_own_keeps_the_settings_of_its_base() -> None:
    class Mine(Retry):
        __slots__ = ()

    assert Mine(OSError, attempts=2) != Mine(OSError, attempts=9)
    assert "attempts=2" in repr(Mine(OSError, attempts=2))


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (Policy(CircuitBreaker(), Fallback("x"), Timeout(1)), "order"),
        (Policy(Bulkhead(3), CircuitBreaker(), Timeout(1)), "order"),
        (Policy(Hedge(), Retry(on=OSError), Timeout(1)), "order"),
        (Policy(Timeout(1), CircuitBreaker()), "no-timeout-in-breaker"),
    ],
)
def test_lint_sees_layers_in_each_others_way(policy: Policy, rule: str) -> None:
    assert rule in [finding.rule for finding in policy.lint()]


def test_a_timed_out_job_is_not_kept_by_its_caller() -> None:
    import threading

    from seawall.runtime.jobs import JOB

    release, policy = threading.Event(), Policy(Timeout("20ms"), Bulkhead(1, threads=True))
    with pytest.raises(DeadlineExceeded):
        policy.call(release.wait)
    assert JOB.get() is None
    release.set()
    gc.collect()
