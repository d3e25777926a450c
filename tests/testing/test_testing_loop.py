"""Virtual time is exact, the order is the seed's alone, and nothing that goes wrong in a run goes unnoticed."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from seawall.runtime import chance, clock
from seawall.testing import Deadlock, RunFailure, TasksLeft, TooManySteps, Unhandled, VirtualLoop, run

SEEDS = range(30)


def now() -> float:
    return asyncio.get_running_loop().time()


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


# -- time ----------------------------------------------------------------------------------------------------------


def test_hours_of_sleep_add_up_exactly() -> None:
    async def main() -> float:
        for _ in range(36_000):
            await asyncio.sleep(0.1)
        return now()

    assert run(main) == 3600.0


def test_a_timer_fires_at_its_nanosecond_even_where_floats_are_inexact() -> None:
    async def main() -> list[int]:
        loop = VirtualLoop.current()
        await asyncio.sleep(0.1)
        fired: list[int] = []
        loop.call_at(0.1 + 0.2, lambda: fired.append(loop.now_ns))
        loop.call_later(0.2, lambda: fired.append(loop.now_ns))
        await asyncio.sleep(1)
        return fired

    assert run(main) == [300_000_000, 300_000_000]


@pytest.mark.parametrize("when", [0.1 + 0.2, 1e6 + 1 / 3, 1e9 / 7])
def test_code_that_rearms_until_its_float_deadline_gets_there(when: float) -> None:
    async def main() -> int:
        turns = 0
        while (left := when - now()) > 0:
            await asyncio.sleep(left)
            turns += 1
        return turns

    assert run(main, max_steps=100) <= 3


def test_timers_of_one_instant_fire_in_the_order_they_were_set() -> None:
    async def main() -> list[int]:
        fired: list[int] = []
        for number in range(100):
            asyncio.get_running_loop().call_later(1, fired.append, number)
        await asyncio.sleep(1)
        return fired

    for seed in SEEDS:
        assert run(main, seed=seed) == list(range(100))


def test_cancelled_timers_neither_fire_nor_pass_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(1_000):
            loop.call_later(5, pytest.fail, "fired").cancel()
        await asyncio.sleep(1)
        return now()

    assert run(main) == 1.0


def test_ten_thousand_tasks_and_timers_each_run_once() -> None:
    async def main() -> int:
        seen: set[int] = set()

        async def one(number: int) -> None:
            async with asyncio.timeout(60):
                await asyncio.sleep(number % 97 / 10)
            seen.add(number)

        async with asyncio.TaskGroup() as group:
            for number in range(10_000):
                group.create_task(one(number))
        return len(seen)

    assert run(main) == 10_000


def test_a_timer_without_end_never_fires_and_a_nan_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(math.inf)
        assert now() == 5
        with pytest.raises(ValueError, match="nan"):
            asyncio.get_running_loop().call_later(math.nan, print)

    run(main)


def test_timeouts_and_waits_work() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.5)
        done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(n)) for n in (1, 9)], timeout=2)
        assert (len(done), len(pending)) == (1, 1)
        assert await asyncio.gather(*pending, asyncio.sleep(1, "x")) == [None, "x"]
        return now()

    assert run(main) == 11.0


def test_queues_futures_and_the_loop_calls_work() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[object] = asyncio.Queue(maxsize=1)
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon_threadsafe(future.set_result, "from a callback")

        async def produce() -> None:
            for item in (await future, "two", "three"):
                await queue.put(item)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            return [await queue.get() for _ in range(3)]

    for seed in SEEDS:
        assert run(main, seed=seed) == ["from a callback", "two", "three"]


# -- order and determinism -----------------------------------------------------------------------------------------


async def race() -> str:
    order: list[str] = []

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        order.append(name)

    await asyncio.gather(*(step(name) for name in "abcde"))
    return "".join(order)


def test_seeds_choose_the_order_of_tasks_and_none_is_asyncios_own() -> None:
    assert len({run(race, seed=seed) for seed in SEEDS}) > 10
    assert run(race, seed=None) == asyncio.run(race()) == "abcde"


def test_plain_callbacks_stay_in_order_and_run_before_steps_queued_after_them() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []
        future: asyncio.Future[None] = loop.create_future()
        for number in range(5):
            future.add_done_callback(lambda _done, number=number: seen.append(number))
        loop.call_soon(future.set_result, None)
        await future
        return seen

    for seed in SEEDS:
        assert run(main, seed=seed) == [0, 1, 2, 3, 4]


def test_cancelling_a_task_from_a_callback_is_a_callback_and_not_a_step() -> None:
    async def main() -> str:
        loop = VirtualLoop.current()
        task = asyncio.create_task(asyncio.sleep(9))
        await asyncio.sleep(1)
        before = loop.steps
        loop.call_soon(task.cancel)
        await asyncio.wait([task])
        assert loop.steps == before + 2, "one step of the task, one of this"
        return "done"

    assert run(main) == "done"


WORLD = """
import asyncio
from seawall.runtime import chance
from seawall.testing import VirtualLoop

async def main():
    async def child(n):
        try:
            await asyncio.sleep(chance.random() + VirtualLoop.current().random.random())
        finally:
            await asyncio.sleep(0)
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(40):
                group.create_task(child(n))
            await asyncio.sleep(0.5)
            raise KeyError
    except* KeyError:
        pass
    done, pending = await asyncio.wait({asyncio.create_task(child(n)) for n in range(40)}, timeout=0.7)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)

loop = VirtualLoop(seed=5)
loop.run(main)
print(loop.trace, loop.steps)
"""


def test_one_seed_is_one_trace_in_every_process_whatever_the_hash_seed() -> None:
    found: set[bytes] = set()
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        # Other garbage at other addresses, so that what is ordered by address shows.
        noise = f"keep = [object() for _ in range({hash_seed})]\n"
        found.add(
            subprocess.run(
                [sys.executable, "-c", noise + WORLD], env=environment, capture_output=True, check=True
            ).stdout
        )
    assert len(found) == 1


def test_one_seed_repeats_within_a_process_and_another_differs() -> None:
    def trace(seed: int) -> str:
        loop = VirtualLoop(seed=seed)
        loop.run(race)
        return loop.trace

    assert trace(3) == trace(3)
    assert len({trace(seed) for seed in SEEDS}) > 10


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
        while True:
            await asyncio.sleep(0)

    with pytest.raises(TooManySteps, match="main") as caught:
        run(main, max_steps=1_000)
    assert "cannot be cancelled" not in notes(caught.value)


def test_a_task_left_waiting_fails_the_run_and_is_cancelled() -> None:
    ended: list[str] = []

    async def main() -> None:
        async def background() -> None:
            try:
                await asyncio.sleep(99)
            finally:
                ended.append("cleaned up")

        asyncio.create_task(background(), name="forgotten")
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
        asyncio.get_running_loop().call_soon(lambda: [][0])
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
    async def main() -> None:
        asyncio.get_running_loop().create_future().set_exception(KeyError("also"))
        asyncio.create_task(asyncio.sleep(99))
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
            run(race)
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
