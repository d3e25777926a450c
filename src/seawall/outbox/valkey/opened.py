"""The steps of the store, as the threads or the tasks of one loop take them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox.record import Work
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.valkey.letters import fields_of, split, work_of
from seawall.runtime import clock
from seawall.units import count_of, given

if TYPE_CHECKING:
    from seawall.outbox.valkey.store import ValkeyStore
    from seawall.outbox.valkey.wire import Wire

__all__ = ["OpenValkey"]

BATCH = 500
"""Ids in one call: a script holds up the server for as long as it runs."""


class OpenValkey:
    """The store as the threads or the tasks of one loop use it."""

    def __init__(self, store: ValkeyStore, wire: Wire) -> None:
        self._store = store
        self._wire = wire

    async def _step(self, step: str, *words: bytes, safe: bool = False) -> Any:
        store = self._store
        return await self._wire.step(store.prefix, store.tag, [*store.head(step), *words], safe=safe)

    async def _write(self, step: str, *words: bytes) -> Any:
        """A step after which something may be leasable that was not."""
        told = await self._step(step, *words)
        self._store.tell()
        return told

    async def put(self, work: Work) -> Sequence[Work]:
        store = self._store
        limits = b"%d" % store.most, b"1" if store.when_full == "drop-oldest" else b"0", now()
        told = await self._step("put", *limits, *fields_of(work), safe=True)
        if told[0] == b"full":
            _, total, dead = told
            why = f"{dead} of them dead letters" if store.when_full == "reject" else "and nothing may be dropped for it"
            raise NotQueued(f"the backlog is full ({total} of {store.most} records, {why})")
        store.tell()
        if not store.looked:
            store.looked = True
            await self._look()
        return [work_of(victim) for victim in told[1:]]

    async def _look(self) -> None:
        """It is no matter if the server does not tell."""
        with suppress(BackendUnavailable):
            persistence, memory = await self._step("look")
            for doubt in doubts(persistence.decode("utf-8", "replace"), memory.decode("utf-8", "replace")):
                warnings.warn(f"{self._store!r}: {doubt}", RuntimeWarning, stacklevel=2)

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        words = b"%d" % n, *split(ttl_ns), os.urandom(8).hex().encode(), *(name.encode() for name in skip)
        wait, *found = await self._step("lease", *words)
        leases = [
            Lease(work=work_of(record), token=token.decode(), until_ns=int(until)) for token, until, record in found
        ]
        return leases, int(wait) if wait else None

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        return bool(await self._step("renew", lease.token.encode(), *split(ttl_ns)))

    async def ack(self, lease: Lease) -> bool:
        return bool(await self._write("ack", lease.token.encode()))

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        return bool(await self._write("again", lease.token.encode(), b"%d" % at_ns, now(), b"1", error.encode()))

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        said = () if error is None else (error.encode(),)
        return bool(await self._write("again", lease.token.encode(), b"%d" % at_ns, now(), b"0", *said))

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        return bool(await self._write("bury", lease.token.encode(), why.encode(), error.encode()))

    async def news(self) -> int:
        """A number that is another one after each change."""
        return int(await self._step("news"))

    async def stats(self) -> Stats:
        waiting, leased, dead, dropped, oldest = await self._step("stats")
        return Stats(
            waiting=waiting, leased=leased, dead=dead, dropped=dropped, oldest_ns=int(oldest) if oldest else None
        )

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        if state not in STATES:
            raise ConfigError(f"{given('state', state)}: expected one of {', '.join(map(repr, STATES))}")
        count_of(limit, "limit", most=10_000)
        place = b"0"
        if after is not None:
            place = await self._step("place", state.encode(), after.encode())
            if not place:
                return []
        found: list[Work] = []
        for size in _parts(limit):
            records = await self._step("page", state.encode(), b"%d" % size, place)
            found += [work_of(record) for record in records]
            if len(records) < size:
                break
            place = await self._step("place", state.encode(), found[-1].id.encode())
            if not place:
                break
        return found

    async def find(self, key: str) -> Work | None:
        found = await self._step("find", key.encode())
        return work_of(found) if found else None

    async def replay(self, ids: Collection[str] | None = None) -> int:
        """In batches, each of them one step: a server is not held up by a hundred thousand dead letters."""
        if ids is not None:
            return sum([await self._write("replay", b"", *batch) for batch in _batches(ids)])
        count, left = 0, (await self.stats()).dead
        while left > 0:
            gone = await self._write("replay", b"%d" % min(left, BATCH))
            if not gone:
                break
            count, left = count + gone, left - gone
        return count

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        """In batches, as `replay`."""
        if state not in STATES or state == "leased":
            raise ConfigError(f"{given('state', state)}: expected 'waiting', 'dead' or 'dropped'")
        if ids is not None:
            return sum([(await self._write("purge", state.encode(), b"0", *batch))[0] for batch in _batches(ids)])
        count, more = 0, 1
        while more:
            gone, more = await self._write("purge", state.encode(), b"1")
            count += gone
        return count

    async def close(self) -> None:
        await self._wire.close()


def now() -> bytes:
    """The clock of this host."""
    return b"%d" % clock.wall_ns()


def _parts(limit: int) -> Iterator[int]:
    for first in range(0, limit, BATCH):
        yield min(BATCH, limit - first)


def _batches(ids: Collection[str]) -> Iterator[list[bytes]]:
    chosen = [key.encode("utf-8", "replace") for key in dict.fromkeys(ids)]
    for first in range(0, len(chosen), BATCH):
        yield chosen[first : first + BATCH]


def doubts(persistence: str, memory: str) -> list[str]:
    """Why a server might lose records, by what INFO tells of it."""
    facts = dict(line.split(":", 1) for line in f"{persistence}\n{memory}".split() if ":" in line)
    found: list[str] = []
    if facts.get("aof_enabled") == "0":
        found.append(
            "the server keeps no log (appendonly no): what is queued is lost when it stops; set appendonly yes"
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        found.append(f"maxmemory-policy is {policy}: a full server drops what is queued; set it to noeviction")
    return found
