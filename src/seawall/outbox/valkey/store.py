"""`ValkeyStore`: records on a Valkey or Redis server, for callers in threads and in event loops."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox.news import News
from seawall.outbox.operations import label
from seawall.outbox.record import Work
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.outbox.valkey.letters import fields_of, split, work_of
from seawall.runtime import clock, forks
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.units import Duration, count_of, duration_ns, given

if TYPE_CHECKING:
    from seawall.outbox.valkey.wire import Wire

__all__ = ["RIGHTS", "ValkeyStore"]

NEEDS = "Valkey needs redis-py, which is not installed; run: pip install 'seawall[valkey]'"
OURS = ("aof", "connect_timeout", "connections", "prefix", "replicas", "timeout")
"""What a URL may set of the store; all else in it is the connections'."""
RIGHTS = (
    "+eval +evalsha +time +info +del +exists +rename +hget +hset +hmget +hgetall +hdel +hexists +hincrby "
    "+sadd +srem +smembers +zadd +zcard +zrange +zrangebyscore +zrem +zremrangebyrank +zscore +wait +waitaof"
)
"""What the user of an outbox must be allowed to do, on keys that begin with `seawall:outbox:`."""
BATCH = 500
"""Ids in one call: a script holds up the server for as long as it runs."""
LEFT_TO_THE_PARENT: list[object] = []


class ValkeyStore:
    """The store of `valkey://`, and of its relatives: Valkey 8 or Redis 7 and later, stand-alone, Sentinel, Cluster.

    Every step is one call of one script: atomic, without a lock to lose, and its cost grows with the logarithm of the
    backlog. All keys of an outbox lie in one slot of a cluster.

    Leases end, and records are due, by the server's clock, in microseconds (a due time and an expiry keep their
    nanoseconds). What is due at once by the clock of its host is due at once; what is due later comes too late by as
    much as that clock is ahead of the server's.

    Why sorted sets and not a stream: a stream's consumer group leases in the order of arrival, for one length of time,
    and tells entries apart by their place. The contract of stores asks for priorities, due times, order keys, leases of
    any length that are fenced, and records that are found, replayed and purged by id. All that would have to be kept
    beside the stream and held equal with it, in the same scripts, and the stream would add its own copy of each record.
    `seawall outbox stats` and `list` show what XINFO and XPENDING would; without them, of the keys that begin with
    `seawall:outbox:{name}:`, ZCARD `held`, `leased` and `dead` count, and ZRANGE `leased` 0 9 WITHSCORES tells which
    leases end next (in microseconds since 1970).

    A user with few rights needs those on these keys that `seawall.outbox.valkey.store.RIGHTS` names.

    What `put` waits for. By default the server's answer, which it gives when the record is in its memory and, with
    `appendonly yes`, in its log: a server that is killed loses nothing, one whose machine loses power up to a second
    (`appendfsync everysec`). With `aof=True` also until its log is on disk (`WAITAOF`), with `replicas=n` until so many
    replicas have it (`WAIT`); if that does not come in time it raises, and the record may be there or not. A server
    without a log, or one that evicts keys, is warned about at first use: `seawall doctor` says more.

    Args:
        url: `valkey://user:password@host:6379/0`, `valkeys://` for TLS, `unix:///path`,
            `valkey+sentinel://host1,host2/service`, `valkey+cluster://host1,host2`, or a client of redis-py. In a query
            it may set what follows: `valkey://host?replicas=1&timeout=5s`.
        name: tells several outboxes on one server apart; at most 255 visible ASCII characters. Default "outbox".
        backlog: how many records it holds, dead letters included. Default 100,000.
        when_full: `"reject"` (default) or `"drop-oldest"`.
        aof: wait until the server's log is on disk; needs Valkey or Redis 7.2, and `appendonly yes`. Default False.
        replicas: how many replicas must have a record before it counts as stored. Default 0.
        timeout: how long a step may take, connecting included. Default 2 s.
        connect_timeout: how long connecting may take of it. Default 1 s.
        connections: how many at most, in each loop and for all threads. Default 16.
        prefix: of its keys. Default "seawall".

    Raises:
        ConfigError: a setting is outside its range.
        ImportError: redis-py is not there: `pip install 'seawall[valkey]'`.

    Example:
        >>> from seawall.outbox import Outbox
        >>> from seawall.outbox.valkey import ValkeyStore
        >>> outbox = Outbox(ValkeyStore("valkey://localhost:6379", name="orders", replicas=1))
        >>> outbox.store
        ValkeyStore('valkey://localhost:6379', name='orders')
    """

    durable = True

    def __init__(
        self,
        url: Any,
        *,
        name: str = "outbox",
        backlog: int = BACKLOG,
        when_full: str = "reject",
        aof: bool = False,
        replicas: int = 0,
        timeout: Duration = 2,
        connect_timeout: Duration = 1,
        connections: int = 16,
        prefix: str = "seawall",
        owner: str = "ValkeyStore",
        **options: Any,
    ) -> None:
        self.most, _ = check_limits(owner, backlog, when_full)
        self.when_full = when_full
        self.name = label(name, f"{owner}(name)")
        if any(char in self.name for char in "{}"):
            raise ConfigError(f"{given(f'{owner}(name)', name)}: no braces: they tell a cluster where its keys lie")
        self._step_ns = duration_ns(timeout, f"{owner}(timeout)", zero=False)
        self._connect_ns = duration_ns(connect_timeout, f"{owner}(connect_timeout)", zero=False)
        self._connections = count_of(connections, f"{owner}(connections)", most=10_000)
        self._safe = _waits(aof, count_of(replicas, f"{owner}(replicas)", least=0, most=100), self._step_ns)
        if find_spec("redis") is None:
            raise ImportError(NEEDS)
        from seawall.stores.valkey.site import site_of  # noqa: PLC0415  # an extra

        self._site = site_of(url, options)
        self.tag = self.name.encode()
        self._prefix = label(prefix, f"{owner}(prefix)").encode() + b":outbox:{" + self.tag + b"}:"
        self.clock: Callable[[], int] | None = None
        """In tests: a clock in place of the server's."""
        self._news = News(self._others_wrote)
        self._seen: int | None = None
        self.looked = False
        """Whether somebody has looked if the server might lose what it has."""
        self.renew_after_fork()
        forks.renew_after_fork(self)

    @classmethod
    def from_url(cls, url: str, *, name: str, **limits: Any) -> ValkeyStore:
        """The store of a URL, whose query may have settings of the store."""
        place, _, query = url.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        ours: dict[str, Any] = {field: value for field, value in pairs if field in OURS}
        rest = [pair for pair in pairs if pair[0] not in OURS]
        for field in ("connections", "replicas"):
            if field in ours:
                ours[field] = _number(field, ours[field])
        if "aof" in ours:
            if ours["aof"] not in ("0", "1"):
                raise ConfigError(f"{given('Outbox(store): aof', ours['aof'])}: expected 0 or 1")
            ours["aof"] = ours["aof"] == "1"
        where = place + (f"?{urlencode(rest)}" if rest else "")
        return cls(where, name=name, owner="Outbox", **{**ours, **limits})

    # -- runtimes --------------------------------------------------------------------------------------------------

    def renew_after_fork(self) -> None:
        """The connections of the parent stay its own: kept, so that closing them here tells its loops nothing."""
        from seawall.stores.valkey.routes import Routes  # noqa: PLC0415  # an extra

        if getattr(self, "_loops", None):
            LEFT_TO_THE_PARENT.append(self._loops)
        self._lock = threading.Lock()
        self._routes = Routes(self._site)
        self._threads: OpenValkey | None = None
        self._loops: dict[Any, OpenValkey] = {}
        self._news.renew()

    def open(self, runtime: Runtime) -> OpenValkey:
        if not runtime.is_async:
            with self._lock:
                if self._threads is None:
                    from seawall.stores.valkey.lines import BlockingLine  # noqa: PLC0415  # an extra

                    self._threads = OpenValkey(self, self._wire(BlockingLine, runtime))
                return self._threads
        from asyncio import get_running_loop  # noqa: PLC0415  # loaded by whoever comes here

        loop = get_running_loop()
        with self._lock:
            found = self._loops.get(loop)
            if found is None:
                from seawall.stores.valkey.aio_lines import TaskLine  # noqa: PLC0415  # an extra

                for old in [old for old in self._loops if old.is_closed()]:
                    del self._loops[old]
                found = self._loops[loop] = OpenValkey(self, self._wire(TaskLine, runtime))
            return found

    def _wire(self, line: Any, runtime: Runtime) -> Wire:
        from seawall.outbox.valkey.wire import Wire  # noqa: PLC0415  # an extra

        return Wire(
            self._site,
            self._routes,
            line,
            runtime,
            connect_ns=self._connect_ns,
            step_ns=self._step_ns,
            most=self._connections,
            safe=self._safe,
        )

    # -- news ------------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        return self._news.listen(wake)

    def tell(self) -> None:
        """Something may have become leasable."""
        self._news.tell()

    def _others_wrote(self) -> bool:
        before, self._seen = self._seen, drive(self.open(BLOCKING).news())
        return self._seen != before

    # -- looking ---------------------------------------------------------------------------------------------------

    def head(self, step: str) -> list[bytes]:
        """The first words of a step."""
        return [step.encode(), b"" if self.clock is None else b"%d" % self.clock()]

    @property
    def prefix(self) -> bytes:
        """Of all keys of this outbox."""
        return self._prefix

    def snapshot(self) -> dict[str, Any]:
        return {
            "durable": True,
            "place": self._site.label,
            "name": self.name,
            "backlog": self.most,
            "when_full": self.when_full,
            "waits_for": [" ".join(word.decode() for word in words) for words, _ in self._safe],
        }

    def __repr__(self) -> str:
        return f"ValkeyStore({self._site.label!r}, name={self.name!r})"


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


def _number(field: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ConfigError(f"{given(f'Outbox(store): {field}', text)}: expected a whole number")
    return int(text)


def _waits(aof: bool, replicas: int, step_ns: int) -> list[tuple[tuple[bytes, ...], int]]:
    """What is sent after a record, and the least it must answer. It ends before the step does."""
    patience = b"%d" % max(1, step_ns * 3 // 4_000_000)
    waits: list[tuple[tuple[bytes, ...], int]] = []
    if aof:
        waits.append(((b"WAITAOF", b"1", b"0", patience), 1))
    if replicas:
        waits.append(((b"WAIT", b"%d" % replicas, patience), replicas))
    return waits
