"""`ValkeyStore`: records on a Valkey or Redis server, for callers in threads and in event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from seawall.errors import ConfigError
from seawall.outbox.news import News
from seawall.outbox.operations import label
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.outbox.valkey.opened import OpenValkey
from seawall.runtime import forks
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
