"""A dead target meets single probes, and its return is no storm; nothing is burnt while it is away."""

from __future__ import annotations

import asyncio
from typing import Any

from seawall import Cluster, Failover, Timeout
from seawall.outbox import MemoryOutbox, Store
from seawall.policies.registry import Registry
from seawall.runtime import clock
from seawall.runtime.which import asyncio_runtime
from seawall.testing import run
from tests.outbox.yards import Yard

COUNT = 2_000


def test_a_dead_target_meets_few_probes_whatever_waits() -> None:
    """2,000 records and an hour of outage: some 130 attempts in all, never two at once."""

    async def main() -> None:
        def act(name: str, attempt: int) -> None:
            raise ConnectionError("down")

        yard = Yard(act)
        yard.put(*(f"{number}" for number in range(COUNT)))
        async with yard.outbox.worker(concurrency=50):
            await asyncio.sleep(3_600)
        assert yard.most_running == 1
        assert 100 < len(yard.tries) < 260
        assert max(attempt for _, attempt in yard.tries) <= 3, "no record is worn out by the outage"
        yard.check_sums([f"{number}" for number in range(COUNT)])

    run(main)


def test_its_return_is_noticed_within_half_a_minute_and_is_no_storm() -> None:
    async def main() -> None:
        down = True

        def act(name: str, attempt: int) -> float:
            if down:
                raise ConnectionError("down")
            return 1

        yard = Yard(act)
        yard.put(*(f"{number}" for number in range(COUNT)))
        async with yard.outbox.worker(concurrency=32):
            await asyncio.sleep(600)
            down = False
            before, back = len(yard.tries), asyncio.get_running_loop().time()
            await asyncio.sleep(3_600)
        starts = yard.times[before:]
        assert starts[0] - back <= 30
        seconds = [sum(1 for start in starts if second <= start - starts[0] < second + 1) for second in range(8)]
        assert seconds == [1, 2, 4, 8, 16, 32, 32, 32]
        assert sorted(yard.done) == sorted(f"{number}" for number in range(COUNT))

    run(main)


def test_targets_recover_apart() -> None:
    """One that is down does not slow the others."""

    async def main() -> None:
        yard = Yard(lambda name, attempt: 0.1)

        @yard.outbox.operation("dead")
        async def dead(number: int) -> None:
            raise ConnectionError("down")

        for number in range(500):
            yard.outbox.put(dead, number)
        yard.put(*(f"{number}" for number in range(500)))
        worker = yard.outbox.worker(concurrency=10)
        async with worker:
            await asyncio.sleep(10)
            assert len(yard.done) == 500
            targets = {target["target"]: target for target in worker.snapshot()["targets"]}
            assert targets["dead"]["allowed"] == 1 and targets["do"]["allowed"] == 10

    run(main)


def test_a_target_in_trouble_takes_nothing_from_a_busy_neighbour_nor_the_other_way() -> None:
    """Its probe is chosen among its own records: not, over and over, among those of the neighbour, each of which would
    cost the store dozens that are leased and put back."""

    async def main() -> None:
        yard = Yard(lambda name, attempt: 0.1)
        down, tries = True, 0

        @yard.outbox.operation("dead")
        async def dead(number: int) -> None:
            nonlocal tries
            tries += 1
            if down:
                raise ConnectionError("down")

        for number in range(50):
            yard.outbox.put(dead, number)
        worker = yard.outbox.worker(concurrency=8)
        async with worker:
            await asyncio.sleep(60)
            assert {target["target"]: target["allowed"] for target in worker.snapshot()["targets"]}["dead"] == 1
            before = tries
            yard.put(*(f"{number}" for number in range(12_000)))
            releases = count_releases(yard.outbox.store)
            await asyncio.sleep(60)
            assert len(yard.done) > 60 * 80 - 100, "all its places do the neighbour's work"
            assert before < tries < before + 10, "it is asked all the same"
            assert sum(releases) <= 64 * (tries - before + 1), "no record is leased for nothing but a probe"
            down = False
            await asyncio.sleep(60)
            assert tries >= before + 50, "and heard when it is back"

    run(main)


def count_releases(store: Store) -> list[int]:
    """An entry for each record that is given back from now on."""
    opened: Any = store.open(asyncio_runtime())
    releases: list[int] = []
    release = opened.release

    async def counted(*args: Any, **options: Any) -> Any:
        releases.append(1)
        return await release(*args, **options)

    opened.release = counted
    return releases


def test_work_through_a_cluster_goes_where_its_endpoints_are_now() -> None:
    """The twin follows an update of the list."""

    async def main() -> None:
        outbox = MemoryOutbox()
        audit = Cluster("audit", ["old:80"], strategy=Failover(retries=0), each=(Timeout("1s"),), names=Registry())
        asked: list[str] = []

        @outbox.operation("write", through=audit)
        async def write(endpoint: object, entry: int) -> None:
            asked.append(str(endpoint))
            if str(endpoint) == "old:80":
                raise ConnectionError("gone")

        outbox.put(write, 1)
        async with outbox.worker():
            await asyncio.sleep(1)
            assert set(asked) == {"old:80"}
            audit.update(["new:80"])
            await asyncio.sleep(60)
        assert asked[-1] == "new:80" and outbox.stats().waiting == 0

    run(main)


def test_a_record_is_held_for_no_longer_than_its_schedule_after_a_jump_of_the_civil_clock() -> None:
    for jump in (3_600, -3_600):

        async def main(jump: int = jump) -> None:
            shift = 0
            restore = clock.install(
                clock.now_ns, clock.sleep_ns, lambda: clock.EPOCH_NS + clock.now_ns() + shift * 1_000_000_000
            )
            try:
                yard = Yard(lambda name, attempt: 1)
                yard.put("now")
                yard.put("later", delay="10s")
                async with yard.outbox.worker():
                    await asyncio.sleep(5)
                    shift = jump
                    yard.put("after")
                    await asyncio.sleep(10)
                assert sorted(yard.done) == ["after", "later", "now"]
                assert len(yard.tries) == 3
            finally:
                restore()

        run(main)


def lateness_beside_poison(on: tuple[type[Exception], ...] | None) -> list[float]:
    """How late good records are, sorted: one in 5 s for an hour, beside 50 put before them that always fail."""
    late: list[float] = []

    async def main() -> None:
        outbox, now = MemoryOutbox(), asyncio.get_running_loop().time
        cluster = None if on is None else Cluster("poisoned", ["a:80"], on=on, names=Registry())

        @outbox.operation("plain" if cluster is None else "through", through=cluster)
        async def do(*given: object) -> None:
            put = given[-1]
            await asyncio.sleep(0.01)
            if not isinstance(put, float):
                raise ValueError("bad record")
            late.append(now() - put)

        for _ in range(50):
            await outbox.aput(do, None)
        async with outbox.worker():
            for _ in range(720):
                await asyncio.sleep(5)
                await outbox.aput(do, now())
            await asyncio.sleep(60)

    run(main)
    return sorted(late)


def test_many_poison_messages_do_not_hold_up_the_others() -> None:
    """99 of 100 good records are done within 5 seconds, whether or not the error is known to be an answer."""
    for on in (None, (ConnectionError,)):
        late = lateness_beside_poison(on)
        assert len(late) == 720
        assert late[int(len(late) * 0.99)] < 5
    assert late[-1] < 0.1, "an answer is no sign of trouble at all"
