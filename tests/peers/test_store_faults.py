"""Faults of other libraries' limiters on Redis, none of which Seawall's on a real server may have."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest
from redis.crc import key_slot

from seawall import FixedWindow, LeakyBucket, Limiter, SlidingLog, SlidingWindow, TokenBucket
from seawall.runtime.blocking import BLOCKING, drive
from seawall.stores.protocol import Ask
from seawall.stores.valkey.table import ValkeyTable
from tests.policies.worlds import in_threads
from tests.valkey.bench import Bench
from tests.valkey.conftest import Make, shared, store
from tests.valkey.servers import Server

__all__ = ["shared", "store"]

LIMITS = [TokenBucket("10/h"), FixedWindow("10/d"), SlidingWindow("10/h"), SlidingLog("10/h")]
each_limit = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
SHORT = [
    TokenBucket("2/s", burst=1),
    LeakyBucket("2/s"),
    SlidingWindow("1/500ms"),
    SlidingWindow("1/500ms", buckets=1),
    SlidingLog("1/500ms"),
]


@each_limit
def test_a_refused_cost_burns_no_quota_on_a_server(store: Make, limit: Any) -> None:
    """limits (fixed window), throttled-py, upstash add first and look then: whoever asks too much is locked out."""
    limiters = [Limiter(limit, name=f"burns {limit.name}", store=store()) for _ in range(2)]
    limiters[0].hit("a", 4)
    for number in range(100):
        assert not limiters[number % 2].hit("a", 7).allowed
    assert limiters[1].hit("a", 6).allowed


@pytest.mark.parametrize("limit", SHORT, ids=repr)
def test_a_lifetime_of_less_than_a_second_is_not_rounded_to_nothing(store: Make, limit: Any) -> None:
    """throttled-py's bucket on Redis lets everything through when its EXPIRE rounds to 0: the key is gone at once."""
    # Each asks the server: none has a refusal in mind.
    limiters = [Limiter(limit, name="short", store=store()) for _ in range(8)]
    admitted = 0
    for limiter in limiters:
        admitted += limiter.hit(f"{limit!r}").allowed
        time.sleep(0.005)
    assert admitted <= 2, "one, and one more if all this took half a second"


@pytest.mark.parametrize("limit", [*LIMITS, *SHORT], ids=repr)
def test_no_key_stays_for_ever(shared: Server, store: Make, limit: Any) -> None:
    """throttled-py (leaky bucket) and pyrate (log) leave keys without a lifetime behind, for each caller they ever saw."""
    prefix = f"stay{os.urandom(4).hex()}"
    limiter = Limiter(limit, name="stay", store=store(prefix=prefix))
    limiter.hit("first hit")
    for _ in range(12):
        limiter.hit("hit again and refused")
    limiter.peek("only looked at")
    if not isinstance(limit, LeakyBucket):
        limiter.reserve("held", lasts="1s")
    client = shared.client()
    try:
        lifetimes = {key: client.pttl(key) for key in client.scan_iter(match=f"{prefix}:*", count=1_000)}
    finally:
        client.close()
    # -2: it is gone by now. -1 would be: it stays.
    assert lifetimes and -1 not in lifetimes.values(), lifetimes


def test_all_keys_of_a_decision_lie_in_one_slot(shared: Server, store: Make) -> None:
    """throttled-py's sliding window asks for two keys of different slots: a cluster refuses every call."""
    prefix = f"slot{os.urandom(4).hex()}"
    limits = {"b": TokenBucket("10/h"), "w": SlidingWindow("10/h"), "l": SlidingLog("10/h"), "f": FixedWindow("10/d")}
    limiter = Limiter(limits, name="{slots}", store=store(prefix=prefix))
    callers = ["ann", "b{e}n", "{}eve", "}{"]
    for caller in callers:
        limiter.hit(caller)
        limiter.reserve(caller, lasts="1min")
    keys = [key for key in shared.do("KEYS", f"{prefix}:*") if not key.endswith(b"{nodes}")]
    slots = [key_slot(key) for key in keys]
    assert len(keys) == 5 * len(callers)
    assert {slots.count(slot) for slot in slots} == {5} and len(set(slots)) == len(callers)


@pytest.mark.parametrize(("rate", "gap_us"), [("3/s", 333_334), ("7/s", 142_858), ("1000/7s", 7_000)])
def test_refilling_on_a_server_loses_no_fraction_of_a_second(shared: Server, rate: str, gap_us: int) -> None:
    """throttled-py refills by whole seconds: two thirds of 3/s is all that a patient caller gets."""
    client = shared.client()
    try:
        bench = Bench(client)
        table = ValkeyTable(bench, os.urandom(6).hex(), {"only": TokenBucket(rate, burst=1).machine()})  # type: ignore[arg-type]
        for number in range(300):
            bench.now = 1_767_225_600_000_000 + number * gap_us
            assert drive(table.take(BLOCKING, [Ask("a", {"only": 1})]))[0].allowed
            assert not drive(table.take(BLOCKING, [Ask("a", {"only": 1})]))[0].allowed
            table._hints.clear()  # they keep to the real clock
    finally:
        client.close()


@each_limit
def test_clients_that_meet_at_a_fresh_key_begin_it_once(store: Make, limit: Any) -> None:
    """limits: whoever meets at a fresh key, or at the edge of a sliding counter, begins it anew."""
    limiters = [Limiter(limit, name=f"fresh {limit.name}", store=store()) for _ in range(4)]
    for number in range(10):
        ends = in_threads([lambda it=it: sum(it.hit(f"{number}").allowed for _ in range(5)) for it in limiters])
        assert sum(ends) == 10


@each_limit
def test_tasks_that_meet_at_a_fresh_key_begin_it_once(store: Make, limit: Any) -> None:
    """As threads do; and one trip for all of them does not count them as one."""
    limiters = [Limiter(limit, name=f"met {limit.name}", store=store()) for _ in range(2)]

    async def main() -> None:
        for number in range(10):
            found = await asyncio.gather(*(it.ahit(f"{number}") for it in limiters for _ in range(10)))
            assert sum(decision.allowed for decision in found) == 10

    asyncio.run(main())


def test_no_crowd_of_other_keys_wipes_out_a_debt_on_a_server(store: Make) -> None:
    """throttled-py's store in memory drops keys by use; on a server nothing is dropped but by its end of life."""
    limiter = Limiter(TokenBucket("5/h"), name="crowd", store=store())
    assert limiter.hit("known", 5).allowed

    async def main() -> None:
        await asyncio.gather(*(limiter.ahit(f"other {number}") for number in range(2_000)))

    asyncio.run(main())
    assert not Limiter(TokenBucket("5/h"), name="crowd", store=store()).hit("known").allowed
