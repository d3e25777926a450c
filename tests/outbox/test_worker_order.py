"""Who goes when: beside each other up to the limit, by priority, in order where an order key says so; poison alone."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from seawall.testing import run
from tests.machines.effort import QUICK
from tests.outbox.yards import Yard


def test_work_is_done_beside_other_work_up_to_the_limit() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 1)
        yard.put(*(f"{number}" for number in range(40)))
        async with yard.outbox.worker(concurrency=4):
            await asyncio.sleep(60)
        assert yard.most_running == 4
        assert len(yard.done) == 40
        assert max(yard.times) == 11, "1, 2, then 4 a second"

    run(main)


def test_higher_priority_goes_first() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 1)
        yard.put("low 1", "low 2", priority=0)
        yard.put("high 1", "high 2", priority=9)
        yard.put("usual")
        async with yard.outbox.worker(concurrency=1):
            await asyncio.sleep(2.5)
            yard.put("urgent", priority=9)
            await asyncio.sleep(60)
        assert yard.done == ["high 1", "high 2", "usual", "urgent", "low 1", "low 2"]

    run(main)


def test_new_work_is_begun_at_once_and_due_work_when_it_is_due() -> None:
    """Nobody polls: an idle worker sleeps until something is put or due."""

    async def main() -> None:
        yard = Yard()
        async with yard.outbox.worker():
            await asyncio.sleep(5)
            yard.put("later", delay="7.25s")
            yard.put("now")
            await asyncio.sleep(60)
        assert list(zip(yard.done, yard.times, strict=True)) == [("now", 5.0), ("later", 12.25)]

    run(main)


def test_a_poison_message_blocks_nothing_but_its_own_order_key() -> None:
    async def main() -> None:
        def act(name: str, attempt: int) -> float:
            if name == "poison":
                raise ValueError("this record is broken")
            return 0.01

        yard = Yard(act)
        yard.put("poison", "behind it", order="user:7")
        yard.put("other 1", "other 2", order="user:8")
        yard.put(*(f"free {number}" for number in range(50)))
        async with yard.outbox.worker(concurrency=2):
            await asyncio.sleep(1)
            assert sorted(yard.done) == sorted(["other 1", "other 2", *(f"free {number}" for number in range(50))])
            assert yard.done.index("other 1") < yard.done.index("other 2")
            await asyncio.sleep(86_400)
        assert yard.names("dead") == ["poison"]
        assert yard.done[-1] == "behind it"

    run(main)


def test_one_poison_message_alone_does_not_put_its_target_to_rest() -> None:
    """Good work that comes an hour later is done at once."""

    async def main() -> None:
        def act(name: str, attempt: int) -> None:
            if name == "poison":
                raise ConnectionError("always")

        yard = Yard(act)
        yard.put("poison")
        async with yard.outbox.worker():
            for number in range(20):
                await asyncio.sleep(180)
                yard.put(f"good {number}")
                await asyncio.sleep(0.001)
                assert yard.done[-1] == f"good {number}"

    run(main)


def test_a_poison_operation_blocks_no_other_operation() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 0.01)

        @yard.outbox.operation("poison")
        async def poison(number: int) -> None:
            raise ConnectionError("always")

        for number in range(200):
            yard.outbox.using(priority=9).put(poison, number)
        yard.put(*(f"{number}" for number in range(100)))
        async with yard.outbox.worker(concurrency=2):
            await asyncio.sleep(2)
            assert len(yard.done) == 100

    run(main)


def test_an_order_key_holds_across_operations() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 0.5)

        @yard.outbox.operation("update", order=lambda name: "user:7")
        async def update(name: str) -> None:
            yard.done.append(name)

        yard.put("create", order="user:7")
        yard.outbox.put(update, "update")
        yard.put("delete", order="user:7")
        async with yard.outbox.worker(concurrency=8):
            await asyncio.sleep(10)
        assert yard.done == ["create", "update", "delete"]

    run(main)


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12), st.integers(1, 4), st.integers(0, 9)
)
def test_each_key_is_done_in_order_whatever_fails_and_however_many_workers(
    work: list[tuple[str, int]], workers: int, seed: int
) -> None:
    """Work with one key is never done beside other work of it, nor before an earlier one, though it fails at first."""

    async def main() -> None:
        fails = {f"{key} {number}": times for number, (key, times) in enumerate(work)}

        def act(name: str, attempt: int) -> float:
            others = [other for other in yard.running if other.startswith(name[0]) and other != name]
            assert not others, f"{name} beside {others}"
            if attempt <= fails[name]:
                raise ConnectionError("not yet")
            return 0.1

        yard = Yard(act)
        for name in fails:
            yard.put(name, order=name[0])
        many = [yard.outbox.worker(concurrency=3) for _ in range(workers)]
        for worker in many:
            await worker.__aenter__()
        await asyncio.sleep(7_200)
        for worker in many:
            await worker.__aexit__(None, None, None)
        assert sorted(yard.done) == sorted(fails)
        for key in "abc":
            assert [name for name in yard.done if name.startswith(key)] == [
                name for name in fails if name.startswith(key)
            ]

    run(main, seed=seed)


def test_two_workers_share_the_work_and_do_none_twice() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 1)
        names = [f"{number}" for number in range(60)]
        yard.put(*names)
        first, second = yard.outbox.worker(concurrency=4), yard.outbox.worker(concurrency=4)
        async with first, second:
            await asyncio.sleep(60)
        assert sorted(yard.done) == sorted(names)
        assert len(yard.tries) == 60
        assert yard.most_running == 8
        assert first.snapshot()["done"] + second.snapshot()["done"] == 60
        assert min(first.snapshot()["done"], second.snapshot()["done"]) > 20

    run(main)
