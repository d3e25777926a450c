"""The store in memory keeps the contract; and what is its own: bytes, forks, jumps of the civil clock."""

from __future__ import annotations

import os
from typing import Any

import pytest

from seawall.errors import ConfigError, NotQueued
from seawall.outbox.memory.shelf import MOST_DROPPED_LISTED
from seawall.outbox.memory.store import MemoryStore
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND, Bench, make_work
from tests.outbox.store_contract import CONTRACT


@pytest.mark.parametrize("scenario", CONTRACT, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_contract(scenario: Any, is_async: bool) -> None:
    Bench(MemoryStore, is_async=is_async).run(scenario)


def in_virtual_time(scenario: Any) -> None:
    Bench(MemoryStore, is_async=False).run(scenario)


def test_a_jump_of_the_civil_clock_moves_nothing() -> None:
    """Due times and leases go by the monotonic clock: here a jump makes nothing early, and nothing late."""

    async def scenario(bench: Bench) -> None:
        for jump in (3_600, -3_600):
            bench.fresh()
            await bench.put(due_ns=clock.wall_ns() + 10 * SECOND)
            bench.jump(jump)
            await bench.passes(9.5)
            assert await bench.lease() is None
            await bench.passes(0.6)
            await bench.take(ttl=10)
            bench.jump(-jump)
            await bench.passes(9.5)
            assert await bench.lease() is None
            await bench.passes(0.6)
            assert await bench.lease() is not None

    in_virtual_time(scenario)


def test_bytes_of_payload_are_bounded() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fresh(max_bytes=1_000)
        await bench.put(payload=b"x" * 600)
        with pytest.raises(NotQueued, match="600 of 1000 bytes"):
            await bench.put(payload=b"x" * 401)
        await bench.put(payload=b"x" * 400)
        bench.fresh(max_bytes=1_000, when_full="drop-oldest")
        works = [await bench.put(payload=b"x" * 300) for _ in range(3)]
        dropped = await bench.open.put(make_work(payload=b"x" * 700))
        assert [(work.id, work.payload) for work in dropped] == [(work.id, b"") for work in works[:2]]
        with pytest.raises(NotQueued, match="full"):
            await bench.put(payload=b"x" * 1_001)
        assert len(await bench.ids("waiting")) == 2, "a refusal changes nothing"

    in_virtual_time(scenario)


def test_memory_stays_bounded_while_the_oldest_are_dropped_and_nobody_leases() -> None:
    """Neither lanes, nor lines of order keys, nor the list of the dropped grow beyond the backlog."""

    async def scenario(bench: Bench) -> None:
        bench.fresh(backlog=50, when_full="drop-oldest")
        for number in range(5_000):
            delay = (number % 3) * HOUR
            await bench.put(due_ns=clock.wall_ns() + delay, order_key=None if number % 2 else f"key {number % 40}")
        shelf: Any = bench.store._shelf  # type: ignore[attr-defined]
        (lane,) = shelf._lanes._lanes.values()
        assert len(lane.later) + len(lane.ready) <= 2 * 50 + 64 + 1
        assert sum(len(line) for line in shelf._lines.values()) <= 50
        assert len(shelf.held) == 50 and shelf.dropped == 4_950
        assert len(shelf.dropped_list) == MOST_DROPPED_LISTED
        assert shelf.bytes == sum(len(place.work.payload) for place in shelf.held.values())
        assert await bench.open.purge("dropped") == MOST_DROPPED_LISTED
        assert await bench.open.purge("waiting") == 50
        assert not shelf._lines and shelf.bytes == 0

    in_virtual_time(scenario)


def test_lanes_of_operations_that_are_empty_are_forgotten() -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(100):
            await bench.put(operation=f"operation-{number}")
        assert len(await bench.taken()) == 100
        assert await bench.lease() is None
        assert not bench.store._shelf._lanes._lanes  # type: ignore[attr-defined]

    in_virtual_time(scenario)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backlog": 0}, r"MemoryStore\(backlog=0\): expected a whole number from 1"),
        ({"backlog": True}, "backlog=True"),
        ({"backlog": 1.5}, "backlog=1.5"),
        ({"max_bytes": -1}, r"max_bytes=-1"),
        ({"when_full": "drop"}, r"when_full='drop'\): expected 'reject' or 'drop-oldest'"),
        ({"when_full": None}, "when_full=None"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemoryStore(**settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from 3.12 on a fork beside threads is warned of
def test_a_forked_child_starts_with_an_empty_store() -> None:
    """The records are the parent's to do: two processes would do each twice."""
    store = MemoryStore()
    drive(store.open(BLOCKING).put(make_work()))
    child = os.fork()
    if not child:
        os._exit(drive(store.open(BLOCKING).stats()).waiting)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert drive(store.open(BLOCKING).stats()).waiting == 1


def test_due_times_and_leases_are_exact_to_the_nanosecond() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put(due_ns=clock.wall_ns() + 5)
        assert await bench.open.lease(1, 7) == ([], 5)
        await bench.passes(4e-9)
        assert await bench.open.lease(1, 7) == ([], 1)
        await bench.passes(1e-9)
        leases, _ = await bench.open.lease(1, 7)
        assert leases[0].until_ns == clock.wall_ns() + 7
        await bench.passes(6e-9)
        assert await bench.open.lease(1, 7) == ([], 1)
        await bench.passes(1e-9)
        assert len((await bench.open.lease(1, 7))[0]) == 1

    in_virtual_time(scenario)


def test_the_snapshot_counts_all_that_happened() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fresh(backlog=5)
        for _ in range(5):
            await bench.put(payload=b"12345")
        await bench.open.ack(await bench.take())
        await bench.open.bury(await bench.take(), "final", "")
        await bench.take(ttl=1)
        await bench.passes(2)
        await bench.take()
        assert await bench.open.purge("waiting") == 2
        assert bench.store.snapshot() == {
            "durable": False,
            "waiting": 0,
            "leased": 1,
            "dead": 1,
            "dropped": 0,
            "oldest_age": 2.0,
            "bytes": 10,
            "puts": 5,
            "done": 1,
            "purged": 2,
            "leases_run_out": 1,
            "backlog": 5,
            "when_full": "reject",
        }

    in_virtual_time(scenario)
