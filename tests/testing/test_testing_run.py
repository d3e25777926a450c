"""Nothing that goes wrong in a run goes unnoticed, and a run leaves the process as it found it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

import pytest

from seawall.runtime import chance, clock
from seawall.testing import Deadlock, RunFailure, TasksLeft, TooManySteps, Unhandled, run


def now() -> float:
    return asyncio.get_running_loop().time()


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


# -- what must not go unnoticed ------------------------------------------------------------------------------------


def test_a_deadlock_names_the_tasks_and_the_lines_where_they_wait() -> None:
    async def main() -> None:
        async def never() -> None:
            await asyncio.Event().wait()  # stands here

        await asyncio.create_task(never(), name="patient")

    with pytest.raises(Deadlock) as caught:
        run(main, seed=9)
    message = str(caught.value)
    assert "patient" in message and "await asyncio.Event().wait()  # stands here" in message
    assert "main" in message and "waits for task 'patient'" in message
    assert "seed=9" in notes(caught.value)


def test_a_runaway_is_ended_and_named() -> None:
    async def main() -> None:
        while True:  # the fault under test
            await asyncio.sleep(0)

    with pytest.raises(TooManySteps, match="main") as caught:
        run(main, max_steps=1_000)
    assert "cannot be cancelled" not in notes(caught.value)


def test_a_task_left_waiting_fails_the_run_and_is_cancelled() -> None:
    ended: list[str] = []
    kept: list[object] = []

    async def main() -> None:
        async def background() -> None:
            try:
                await asyncio.sleep(99)
            finally:
                ended.append("cleaned up")

        kept.append(asyncio.create_task(background(), name="forgotten"))
        await asyncio.sleep(1)

    with pytest.raises(TasksLeft, match="forgotten"):
        run(main)
    run(main, allow_pending=True)
    assert ended == ["cleaned up"] * 2


def test_a_task_that_ends_at_this_instant_is_not_left() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(99))
        await asyncio.sleep(1)
        task.cancel()

    run(main)


@pytest.mark.parametrize("keep", [True, False], ids=["referenced", "collected"])
def test_an_error_that_nobody_looked_at_fails_the_run(keep: bool) -> None:
    kept: list[object] = []

    async def main() -> None:
        async def fail() -> None:
            raise KeyError("lost")

        task = asyncio.create_task(fail(), name="failing")
        if keep:
            kept.append(task)
        del task
        await asyncio.sleep(1)

    with pytest.raises(Unhandled, match="never retrieved") as caught:
        run(main)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "KeyError('lost')" in str(caught.value)


def test_an_error_in_a_bare_future_or_a_callback_fails_the_run_too() -> None:
    async def future() -> None:
        asyncio.get_running_loop().create_future().set_exception(KeyError("a"))

    async def callback() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(1)

    for main in (future, callback):
        with pytest.raises(Unhandled):
            run(main)


def test_errors_that_were_looked_at_late_are_fine() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise KeyError

        tasks = [asyncio.create_task(fail()) for _ in range(2_500)]
        await asyncio.sleep(1)
        assert len([task.exception() for task in tasks]) == 2_500

    run(main)


def test_the_error_of_main_goes_first_and_carries_the_rest_as_notes() -> None:
    kept: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().create_future().set_exception(KeyError("also"))
        kept.append(asyncio.create_task(asyncio.sleep(99)))
        raise ValueError("the news")

    with pytest.raises(ValueError, match="the news") as caught:
        run(main, seed=11)
    assert "KeyError('also')" in notes(caught.value)
    assert "seawall.testing.run(..., seed=11)" in notes(caught.value)


def test_an_invariant_is_checked_after_each_step() -> None:
    steps = [0]

    def invariant() -> None:
        steps[0] += 1
        assert steps[0] < 3, "broken"

    async def main() -> None:
        for _ in range(9):
            await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="broken"):
        run(main, after_step=invariant)


# -- its place in the process --------------------------------------------------------------------------------------


def test_the_library_reads_the_loops_clock_and_a_blocking_sleep_blocks_the_loop() -> None:
    async def main() -> tuple[int, list[float]]:
        late: list[float] = []
        asyncio.get_running_loop().call_later(1, lambda: late.append(now()))
        clock.sleep_ns(3_000_000_000)
        await asyncio.sleep(0.5)
        return clock.now_ns(), late

    assert run(main) == (3_500_000_000, [3.0])


def test_jitter_is_seeded_and_clock_and_chance_are_put_back() -> None:
    async def main() -> float:
        return chance.random()

    before = clock.now_ns, clock.sleep_ns, chance.random
    assert run(main, seed=1) == run(main, seed=1) != run(main, seed=2)
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait)
    assert (clock.now_ns, clock.sleep_ns, chance.random) == before


def test_a_run_inside_a_run_is_refused_and_leaves_the_outer_one_whole() -> None:
    async def main() -> int:
        with pytest.raises(RuntimeError, match="inside another running event loop"):
            run(asyncio.Event().wait)
        await asyncio.sleep(2)
        return clock.now_ns()

    assert run(main) == 2_000_000_000


def test_the_real_world_is_refused_by_name() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="run_in_executor"):
            await asyncio.to_thread(print)
        with pytest.raises(RuntimeError, match="create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(RuntimeError, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(RuntimeError, match="add_signal_handler"):
            loop.add_signal_handler(2, print)

    run(main)


def test_async_generators_are_closed() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(True)

    kept = numbers()

    async def main() -> None:
        async for _ in kept:
            break

    run(main)
    assert closed == [True]


def test_every_fault_found_is_an_assertion_error_and_one_class_catches_all() -> None:
    assert issubclass(RunFailure, AssertionError)
    assert all(issubclass(each, RunFailure) for each in (Deadlock, TooManySteps, TasksLeft, Unhandled))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_a_task_factory_of_the_user_is_respected() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
        seen: list[str] = []

        async def eager() -> None:
            seen.append("first")
            await asyncio.sleep(1)

        task = asyncio.create_task(eager())
        seen.append("second")
        await task
        return seen

    assert run(main) == ["first", "second"]
