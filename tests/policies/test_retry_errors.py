"""What a retry that gives up raises: the last error itself, with a bounded past and a note that says why."""

from __future__ import annotations

import gc
import traceback
import tracemalloc

import pytest

from seawall import Policy, Retry
from seawall.testing import Script
from tests.policies.worlds import World, fail, in_both_worlds

AT_ONCE = {"budget": None, "delay": 0}


def chain_of(error: BaseException | None) -> list[BaseException]:
    """The error and its causes, outermost first; fails if they form a circle."""
    chain: list[BaseException] = []
    while error is not None:
        assert error not in chain, "a circle"
        chain.append(error)
        error = error.__cause__
    return chain


@in_both_worlds
async def test_earlier_errors_stand_on_the_cause_chain_newest_first(world: World) -> None:
    errors = [OSError(number) for number in range(3)]
    error = await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), Script(*errors))
    assert chain_of(error) == errors[::-1]


@in_both_worlds
async def test_causes_that_errors_bring_along_are_kept(world: World) -> None:
    roots = [KeyError(number) for number in range(3)]
    errors = [OSError(number) for number in range(3)]
    for error, root in zip(errors, roots, strict=True):
        error.__cause__ = root
    last = await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), Script(*errors))
    assert chain_of(last) == [errors[2], roots[2], errors[1], roots[1], errors[0], roots[0]]


@in_both_worlds
async def test_the_chain_is_bounded(world: World) -> None:
    errors = [OSError(number) for number in range(100)]
    last = await world.error_of(Policy(Retry(on=OSError, attempts=100, **AT_ONCE)), Script(*errors))
    assert chain_of(last) == errors[:-7:-1]


@pytest.mark.parametrize("kinds", [1, 2, 3])
@in_both_worlds
async def test_the_same_error_raised_again_makes_no_circle_and_gathers_no_traceback(world: World, kinds: int) -> None:
    errors = [OSError(number) for number in range(kinds)]
    turn = iter(range(10_000))

    def target() -> None:
        raise errors[next(turn) % kinds]

    last = await world.error_of(Policy(Retry(on=OSError, attempts=300, **AT_ONCE)), target)
    assert len(chain_of(last)) <= kinds
    assert all(len(traceback.extract_tb(error.__traceback__)) < 20 for error in errors)


@in_both_worlds
async def test_errors_that_cause_each_other_do_not_hang_it(world: World) -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), Script(first, second)) is second


@in_both_worlds
async def test_a_hundred_thousand_attempts_do_not_grow(world: World) -> None:
    """A million is the promise; a tenth of it shows any growth, and takes seconds less."""
    early, late = 0, 0
    calls = 0

    def target() -> None:
        nonlocal calls, early, late
        calls += 1
        if calls == 1_000:
            tracemalloc.start()
            gc.collect()
            early = tracemalloc.get_traced_memory()[0]
        elif calls == 10_000:
            gc.collect()
            late = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        raise OSError(calls)

    try:
        last = await world.error_of(Policy(Retry(on=OSError, attempts=100_000, **AT_ONCE)), target)
    finally:
        tracemalloc.stop()
    assert calls == 100_000
    assert late - early < 50_000
    assert len(chain_of(last)) <= 6
    assert len(traceback.extract_tb(last.__traceback__)) < 20


@pytest.mark.timeout(20)
@in_both_worlds
async def test_no_attempt_number_overflows_the_schedule(world: World) -> None:
    """2 ** 5000 is not a float."""
    policy = Policy(Retry(on=OSError, attempts=6_000, factor=1e6, base="1ns", cap=1, budget=None))
    await world.error_of(policy, fail(OSError))
    assert world.now < 6_000


@in_both_worlds
async def test_the_note_is_added_once_even_if_the_error_comes_again(world: World) -> None:
    again = OSError("again")
    policy = Policy(Retry(on=OSError, total=0, delay=1, budget=None), name="stock")
    for _ in range(3):
        await world.error_of(policy, fail(again))
    assert again.__notes__ == ["seawall: stock did not retry: the next attempt would start after total=0 ms"]


@in_both_worlds
async def test_there_is_no_note_when_attempts_ran_out(world: World) -> None:
    error = await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), fail(OSError()))
    assert not hasattr(error, "__notes__")


@in_both_worlds
async def test_an_error_that_is_not_retried_keeps_its_cause(world: World) -> None:
    root, error = ValueError("root"), KeyError("end")
    error.__cause__ = root
    assert await world.error_of(Policy(Retry(on=OSError)), fail(error)) is error
    assert chain_of(error) == [error, root]


@in_both_worlds
async def test_an_unexpected_error_in_a_later_attempt_tells_of_the_earlier_ones(world: World) -> None:
    first, second = OSError("first"), KeyError("second")
    last = await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), Script(first, second))
    assert chain_of(last) == [second, first]


@in_both_worlds
async def test_the_traceback_shows_where_the_function_raised(world: World) -> None:
    def deep_inside() -> None:
        raise OSError

    error = await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), deep_inside)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "deep_inside"
