"""`AmqpStore`: records in quorum queues of RabbitMQ, for callers in threads and in event loops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from seawall.errors import ConfigError, NotQueued
from seawall.outbox.amqp.broker import Broker, Full
from seawall.outbox.amqp.desk import Desk
from seawall.outbox.amqp.home import Home, Step
from seawall.outbox.amqp.letters import Letters
from seawall.outbox.amqp.room import Room
from seawall.outbox.amqp.topology import Topology
from seawall.outbox.operations import label
from seawall.outbox.record import Work
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.runtime import clock, forks
from seawall.runtime.protocol import Runtime
from seawall.units import Duration, count_of, duration_ns, given

__all__ = ["AmqpStore", "OpenAmqp"]

T = TypeVar("T")
NEEDS = "RabbitMQ needs aio-pika, which is not installed; run: pip install 'seawall[amqp]'"
MOST_NAME = 200
MOST_PAYLOAD = 16 * 1024 * 1024


class AmqpStore:
    """The store of `amqp://` and `amqps://`: RabbitMQ 3.10 or later, with quorum queues.

    A record is stored when `put` returns: the broker has confirmed that it is on disk, and on most replicas of a
    cluster. All steps end in time, whatever the broker does; they then raise `BackendUnavailable`, after which a record
    may be stored all the same, and one that was being sent back may be there twice, with the same id and key.

    What a broker does otherwise than the contract of stores (`seawall.outbox.store`) says:

    | the contract                      | here                                                                     |
    |-----------------------------------|--------------------------------------------------------------------------|
    | order keys                        | refused with `ConfigError`, when an operation with one is registered     |
    | an id is put once                 | not seen to: a record that is put twice is there twice                   |
    | priority, due time, arrival       | three bands of priority (7 to 9, 4 to 6, 0 to 3), strictly; within one,  |
    |                                   | in the order of arrival; a retry arrives again when it is due            |
    | due times                         | at most a quarter of a second late, and until a worker asks again        |
    | `skip`                            | up to 32 such records are kept in hand, unleased; more are put off for   |
    |                                   | 2 s, if others wait behind. Those in hand count an attempt if the process|
    |                                   | ends without `close()`                                                   |
    | a lease that ran out              | is due again at once for the workers of its process; for others after    |
    |                                   | the time of the lease has passed a second time, at least 10 s            |
    | the connection ends               | its leases are void, their attempts counted; nothing is lost             |
    | a record that ends its workers    | after 50 deliveries without any answer the broker makes it a dead letter |
    | a lease of more than 30 minutes   | RabbitMQ itself ends it, renewed or not (its `consumer_timeout`)         |
    | `stats()`                         | `leased` and `oldest_ns` tell of the leases of this process; `dropped`   |
    |                                   | counts up to the last 1,000                                              |
    | `page`, `find`, `purge` of what   | AMQP cannot look into a queue without counting an attempt: `ConfigError`,|
    | waits                             | but for `purge("waiting")` of all; dead letters are listed and found     |
    | the backlog                       | counted every 2 s, and 10 times a second when it is nearly full; several |
    |                                   | processes may exceed it by what they put in between. What other          |
    |                                   | processes have on lease is not counted                                   |
    | `"drop-oldest"`                   | dead letters, then the first of the lowest band that has any, and so on; |
    |                                   | strictly the oldest only within one queue                                |

    Args:
        url: `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS. Without a user it is `guest`.
        name: tells several outboxes on one broker apart; at most 200 visible ASCII characters. Default "outbox".
        backlog: how many records it holds, dead letters included. Default 100,000.
        when_full: `"reject"` (default) or `"drop-oldest"`.
        timeout: how long a step may take, connecting included. Default 5 s.
        scan_timeout: how long a look at, or a replay or purge of, dead letters may take. Default 30 s. A broker gives
            about a thousand a second.
        poll: how soon a worker asks again when nothing was due. Default 500 ms.

    Raises:
        ConfigError: a setting is outside its range.
        ImportError: aio-pika is not there: `pip install 'seawall[amqp]'`.

    Example:
        >>> from seawall.outbox import Outbox
        >>> from seawall.outbox.amqp import AmqpStore
        >>> outbox = Outbox(AmqpStore("amqp://localhost", timeout="2s"))
        >>> outbox.store
        AmqpStore('localhost:5672', name='outbox')
    """

    durable = True
    keeps_order = False
    """Records with an order key are refused."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "outbox",
        backlog: int = BACKLOG,
        when_full: str = "reject",
        timeout: Duration = 5,
        scan_timeout: Duration = 30,
        poll: Duration = "500ms",
        owner: str = "AmqpStore",
    ) -> None:
        self._most, self._drops = check_limits(owner, backlog, when_full)
        self._url, self._shown = _checked(url, owner)
        if len(label(name, f"{owner}(name)")) > MOST_NAME:
            raise ConfigError(f"{given(f'{owner}(name)', name)}: at most {MOST_NAME} characters, to name queues by")
        self._timeout = duration_ns(timeout, f"{owner}(timeout)", zero=False) / 1e9
        self._scan_timeout = duration_ns(scan_timeout, f"{owner}(scan_timeout)", zero=False) / 1e9
        self._poll_ns = duration_ns(poll, f"{owner}(poll)", zero=False)
        if find_spec("aiormq") is None:  # the part of aio-pika that speaks the protocol
            raise ImportError(NEEDS)
        self.name = name
        self.when_full = when_full
        self._topology = Topology(name, self._most)
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._settle_in()
        forks.renew_after_fork(self)

    @classmethod
    def from_url(cls, url: str, *, name: str, **limits: Any) -> AmqpStore:
        """The store that an outbox of this name has at a URL."""
        return cls(url, name=name, owner="Outbox", **limits)

    def _settle_in(self) -> None:
        self.home = Home(f"seawall {self.name} amqp")
        self.broker = Broker(self._url, self._shown, self._topology, self._timeout)
        self.desk = Desk(self.broker)
        self.room = Room(self.broker, self.desk, self._most, drops=self._drops)
        self.letters = Letters(self.broker)

    def renew_after_fork(self) -> None:
        """In a forked child: a thread and connections of its own."""
        _LEFT_BEHIND.append((self.home, self.broker, self.desk))
        self.broker.let_go()
        self._listeners = ()
        self._settle_in()

    def __del__(self) -> None:
        home: Home | None = getattr(self, "home", None)
        if home is not None:
            home.end_soon()

    def open(self, runtime: Runtime) -> OpenAmqp:
        """As this runtime can use it."""
        return OpenAmqp(self, runtime)

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call `wake` when this process may have made something leasable; of others `lease` says when to ask."""

        def entry() -> object:
            return wake()

        def deaf() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not entry)
            if not self._listeners:
                self.home.begin(self.desk.give_back)  # a worker that stops needs nothing in hand

        self._listeners = (*self._listeners, entry)
        return deaf

    def tell(self) -> None:
        """Something may have become leasable."""
        for wake in self._listeners:
            wake()

    def snapshot(self) -> dict[str, Any]:
        """What is known without I/O, as JSON-ready values; the counts are as old as `counted_ago`, in seconds."""
        desk, broker = self.desk, self.broker
        return {
            "durable": True,
            "broker": self._shown,
            "connected": broker.connected,
            "leased": len(desk.leases),
            **self.room.snapshot(),
            "reconnects": broker.reconnects,
            "redelivered": desk.redelivered,
            "leases_run_out": desk.run_out,
            "last_error": broker.last_error,
            "backlog": self._most,
            "when_full": self.when_full,
        }

    def __repr__(self) -> str:
        return f"AmqpStore({self._shown!r}, name={self.name!r})"

    # -- for OpenAmqp ----------------------------------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """Seconds that a step may take."""
        return self._timeout

    @property
    def scan_timeout(self) -> float:
        """Seconds that a scan may take."""
        return self._scan_timeout

    @property
    def poll_ns(self) -> int:
        """How soon to ask again."""
        return self._poll_ns

    @property
    def topology(self) -> Topology:
        """The names of the queues."""
        return self._topology


class OpenAmqp:
    """The store as one runtime uses it; see the contract, `seawall.outbox.OpenStore`."""

    def __init__(self, store: AmqpStore, runtime: Runtime) -> None:
        self._store = store
        self._is_async = runtime.is_async

    async def _do(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, T]],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None = None,
        *,
        scan: bool = False,
    ) -> T:
        store = self._store
        seconds = store.scan_timeout if scan else store.timeout
        step = Step(name, lambda inner: store.broker.within(name, inner, work), undo)
        return await store.home.acall(step, seconds) if self._is_async else store.home.call(step, seconds)

    async def put(self, work: Work) -> Sequence[Work]:
        if work.order_key is not None:
            raise ConfigError(f"{self._store!r} keeps no order; a record with an order key needs another store")
        if len(work.payload) > MOST_PAYLOAD:
            raise NotQueued(f"{len(work.payload)} bytes of payload; RabbitMQ takes at most {MOST_PAYLOAD} here")
        dropped = await self._do("put", lambda: self._put(work))
        self._store.tell()
        return dropped

    async def _put(self, work: Work) -> Sequence[Work]:
        store = self._store
        dropped = await store.room.enter()
        try:
            await store.broker.publish_due(work, is_new=True)
        except Full:
            raise NotQueued("the backlog is full, says the broker") from None
        return dropped

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        desk = self._store.desk
        leased = await self._do("lease", lambda: desk.lease(n, ttl_ns, skip), desk.undo_lease)
        until_ns = clock.wall_ns() + ttl_ns
        leases = [Lease(work=work, token=token, until_ns=until_ns) for token, work in leased]
        return leases, None if len(leases) >= n else self._store.poll_ns

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        return await self._do("renew", lambda: self._store.desk.renew(lease.token, ttl_ns))

    async def ack(self, lease: Lease) -> bool:
        return await self._do("ack", lambda: self._store.desk.ack(lease.token))

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        return await self._settle("retry", lease, lambda work: work.replace(due_ns=at_ns, last_error=error))

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        changes: dict[str, Any] = {"due_ns": at_ns} if error is None else {"due_ns": at_ns, "last_error": error}
        return await self._settle("release", lease, lambda work: work.replace(attempts=work.attempts - 1, **changes))

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        return await self._settle("bury", lease, lambda work: work.replace(ended=why, last_error=error), dead=True)

    async def _settle(self, name: str, lease: Lease, change: Callable[[Work], Work], *, dead: bool = False) -> bool:
        done = await self._do(name, lambda: self._store.desk.settle(lease.token, change, dead=dead))
        self._store.tell()
        return done

    async def stats(self) -> Stats:
        desk, room = self._store.desk, self._store.room
        counts = await self._do("stats", room.count)
        return Stats(
            waiting=counts.waiting,
            leased=len(desk.leases),
            dead=counts.dead,
            dropped=max(counts.dropped, room.dropped),
            oldest_ns=min((held.work.created_ns for held in list(desk.leases.values())), default=None),
        )

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        if state not in STATES:
            raise ConfigError(f"{given('state', state)}: expected one of {', '.join(map(repr, STATES))}")
        count_of(limit, "limit", most=10_000)
        store = self._store
        if state == "waiting":
            raise ConfigError(f"{store!r} cannot list what waits: AMQP shows a record only by handing it out")
        if state == "leased":
            return _after([held.work for held in list(store.desk.leases.values())], after)[:limit]
        queue = store.topology.dead if state == "dead" else store.topology.dropped
        return await self._do("page", lambda: store.letters.page(queue, limit, after), scan=True)

    async def find(self, key: str) -> Work | None:
        store = self._store
        for held in list(store.desk.leases.values()):
            if held.work.id == key:
                return held.work
        found = await self._do("find", lambda: store.letters.find(key), scan=True)
        if found is None and (await self.stats()).waiting:
            raise ConfigError(
                f"{store!r}: {given('id', key)}: neither a dead letter nor on lease here; what waits cannot be searched"
            )
        return found

    async def replay(self, ids: Collection[str] | None = None) -> int:
        if ids is not None and not ids:
            return 0
        count = await self._do("replay", lambda: self._store.letters.replay(ids), scan=True)
        self._store.tell()
        return count

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        if state not in STATES or state == "leased":
            raise ConfigError(f"{given('state', state)}: expected 'waiting', 'dead' or 'dropped'")
        store = self._store
        if ids is not None and not ids:
            return 0
        if ids is not None and state == "waiting":
            raise ConfigError(f"{store!r} cannot pick single records out of what waits; purge all, or none")
        queues = {"dead": [store.topology.dead], "dropped": [store.topology.dropped]}.get(state, store.topology.held)
        if ids is not None:
            return await self._do("purge", lambda: store.letters.purge(queues[0], ids), scan=True)
        return await self._do("purge", lambda: self._purge(queues), scan=True)

    async def _purge(self, queues: Sequence[str]) -> int:
        return sum([await self._store.broker.purge(queue) for queue in queues])

    async def close(self) -> None:
        store = self._store
        if store.home.running:
            try:
                await self._do("close", store.desk.close)
            finally:
                store.home.end()


_LEFT_BEHIND: list[object] = []
"""What a forked child has of its parent: kept, since its finalizers would close what is not the child's."""


def _after(works: list[Work], key: str | None) -> list[Work]:
    works.sort(key=lambda work: work.id)
    places = [place for place, work in enumerate(works) if work.id == key]
    return works if key is None else works[places[0] + 1 :] if places else []


def _checked(url: object, owner: str) -> tuple[str, str]:
    """The URL, and what of it may be shown. No message has the URL itself: there may be a password in it."""
    hint = "expected amqp://user:password@host:5672/vhost, or amqps://"
    if not isinstance(url, str):
        raise ConfigError(f"{given(f'{owner}(url)', type(url).__name__)}: {hint}")
    try:
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:
        raise ConfigError(f"{owner}(url): no such port or host; {hint}") from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ConfigError(f"{owner}(url): no URL of RabbitMQ; {hint}")
    return url, f"{parts.hostname}:{port}"
