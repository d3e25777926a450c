"""Virtual time is exact, and the order of steps is the seed's alone."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from functools import partial

import pytest

from seawall.testing import VirtualLoop, run

SEEDS = range(30)


def now() -> float:
    return asyncio.get_running_loop().time()


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
        assert await asyncio.gather(*pending, asyncio.sleep(1)) == [None, None]
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
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        def note(number: int, _done: object) -> None:
            seen.append(number)

        future: asyncio.Future[None] = loop.create_future()
        for number in range(5):
            future.add_done_callback(partial(note, number))
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
