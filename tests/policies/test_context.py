"""The context of a call: deadlines nest and only shrink, and it reaches tasks by itself and threads by `carry`."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from seawall import (
    ConfigError,
    Criticality,
    Policy,
    Retry,
    Timeout,
    carry,
    criticality,
    current,
    deadline,
    operation,
    remaining,
)
from seawall.testing import Script, VirtualClock, run
from tests.policies.worlds import World, fail, in_both_worlds


@in_both_worlds
async def test_there_is_none_by_default(world: World) -> None:
    assert remaining() is None
    assert (current().criticality, current().attempt, current().operation) == (Criticality.CRITICAL, 1, None)


@in_both_worlds
async def test_nested_deadlines_only_shrink(world: World) -> None:
    with deadline(10):
        with deadline(60):
            assert remaining() == 10
        with deadline("2s"):
            assert remaining() == 2
            await world.passes(3)
            assert remaining() == -1
        assert remaining() == 7
    assert remaining() is None


@in_both_worlds
async def test_a_deadline_is_left_by_an_error_too(world: World) -> None:
    with pytest.raises(OSError, match="x"), deadline(10):
        raise OSError("x")
    assert remaining() is None


def test_criticality_has_four_levels_in_order() -> None:
    assert Criticality.SHEDDABLE < Criticality.SHEDDABLE_PLUS < Criticality.CRITICAL < Criticality.CRITICAL_PLUS
    with criticality(Criticality.SHEDDABLE), criticality(Criticality.CRITICAL_PLUS):
        assert current().criticality is Criticality.CRITICAL_PLUS
    with pytest.raises(ValueError, match="7"):
        criticality(7)


def test_each_fact_leaves_the_others_as_they_are() -> None:
    with VirtualClock(), deadline(5), criticality(Criticality.SHEDDABLE), operation("orders.create"):
        assert (remaining(), current().criticality, current().operation) == (5, Criticality.SHEDDABLE, "orders.create")
        assert repr(current()) == "Context(5.000 s left, SHEDDABLE, attempt 1, operation 'orders.create')"
    assert "no deadline" in repr(current())


@in_both_worlds
async def test_layers_keep_the_facts_they_do_not_change(world: World) -> None:
    seen: list[object] = []

    def target() -> None:
        seen.append((remaining(), current().criticality, current().operation, current().attempt))
        raise OSError

    policy = Policy(Timeout(5), Retry(on=OSError, attempts=2, delay=0, budget=None), Timeout(1))
    with operation("orders.create"), criticality(Criticality.SHEDDABLE), deadline("800ms"):
        await world.error_of(policy, target)
    assert seen == [(0.8, Criticality.SHEDDABLE, "orders.create", attempt) for attempt in (1, 2)]
    assert (current().attempt, current().operation) == (1, None)


@in_both_worlds
async def test_a_call_inside_a_call_is_under_the_outer_deadline(world: World) -> None:
    inner, outer = Policy(Timeout(60)), Policy(Timeout(2))
    left: list[float | None] = []
    await world.call(outer, lambda: inner.call(lambda: left.append(remaining())))
    assert left == [2]


def test_tasks_inherit_it_and_do_not_change_it_for_others() -> None:
    async def child() -> float | None:
        with deadline(1):
            await asyncio.sleep(0)
            return remaining()

    async def main() -> None:
        with deadline(5):
            assert await asyncio.gather(asyncio.create_task(child()), child()) == [1, 1]
            assert remaining() == 5

    run(main)


def test_threads_get_it_by_carry_only() -> None:
    seen: dict[str, object] = {}

    def look(name: str) -> None:
        seen[name] = remaining() is not None

    with deadline(60):
        carried = carry(look)
        threads = [threading.Thread(target=carried, args=("carried",)), threading.Thread(target=look, args=("bare",))]
        for thread in threads:
            thread.start()
            thread.join(10)
    assert seen == {"carried": True, "bare": False}
    carried("later")
    assert seen["later"], "it is a snapshot of where carry was called"
    assert remaining() is None


def test_what_is_carried_may_run_in_several_threads_at_once() -> None:
    both = threading.Barrier(2)
    carried = carry(lambda: both.wait(10))
    threads = [threading.Thread(target=carried) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not both.broken


def test_a_scope_may_be_entered_again() -> None:
    scope = deadline(5)
    with VirtualClock() as time:
        with scope:
            time.advance(1)
            with scope:
                assert remaining() == 4, "the outer one is nearer"
        with scope:
            assert remaining() == 5, "counted from here"


def test_closing_a_generator_in_another_context_does_no_harm() -> None:
    async def rows() -> object:
        with deadline(5):
            yield 1

    async def main() -> None:
        generator = rows()

        async def begin() -> None:
            await anext(generator)

        await asyncio.create_task(begin())
        await generator.aclose()
        assert remaining() is None

    run(main)


@pytest.mark.parametrize("bad", [None, -1, math.nan, math.inf, "soon", True, "1 s", "1_0s", "-5s", "9" * 40 + "s"])
def test_what_is_no_duration_is_named(bad: object) -> None:
    with pytest.raises(ConfigError, match=r"deadline\(time="):
        deadline(bad)


@in_both_worlds
async def test_the_attempt_number_ends_with_the_call(world: World) -> None:
    await world.error_of(Policy(Retry(on=OSError, delay=0, budget=None)), fail(OSError))
    assert current().attempt == 1
    await world.call(Policy(Retry(on=OSError, delay=0, budget=None)), Script(OSError, "well"))
    assert current().attempt == 1
