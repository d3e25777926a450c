"""`MemoryOutbox`: an outbox in this process, bounded, and gone with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import dropwhile, islice
from typing import Any

from seawall.errors import ConfigError
from seawall.outbox.box import Outbox
from seawall.outbox.memory.shelf import Shelf
from seawall.outbox.payloads.codec import Codec
from seawall.outbox.record import Work
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.runtime import clock, forks
from seawall.runtime.protocol import Runtime
from seawall.runtime.section import Section
from seawall.units import count_of, given

__all__ = ["MemoryOutbox", "MemoryStore"]

MOST_BYTES = 256 * 1024 * 1024


class MemoryOutbox(Outbox):
    """An outbox whose records live in this process: for tests, for work whose loss is bearable, and to begin with.

    It is not durable: what is queued when the process ends is lost, and `Queued.durable` says so. A forked child
    starts with an empty one, since the records are the parent's to do.

    Args:
        backlog: how many records it holds, dead letters included; whole number from 1. Default 100,000.
        when_full: `"reject"` (default): new work is refused with `NotQueued`, and nothing is ever thrown away; or
            `"drop-oldest"`: dead letters, then the oldest waiting, make room; they are counted and listed.
        max_bytes: how many bytes of payload it holds. Default 256 MiB.
        name: in events, errors and snapshots. Default "outbox".
        codec: for operations that bring none. Default `Typed()`: JSON by the annotations.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall.outbox import MemoryOutbox
        >>> outbox = MemoryOutbox()
        >>> @outbox.operation("mail.welcome")
        ... def send_welcome(address: str) -> None: print("welcome,", address)
        >>> queued = outbox.put(send_welcome, "ann@example.org")
        >>> queued.operation, queued.durable, outbox.stats().waiting
        ('mail.welcome', False, 1)
        >>> outbox.worker().drain()
        welcome, ann@example.org
        1
    """

    def __init__(
        self,
        *,
        backlog: int = BACKLOG,
        when_full: str = "reject",
        max_bytes: int = MOST_BYTES,
        name: str = "outbox",
        codec: Codec | None = None,
    ) -> None:
        store = MemoryStore(backlog=backlog, when_full=when_full, max_bytes=max_bytes, owner="MemoryOutbox")
        super().__init__(store, name=name, codec=codec)


class MemoryStore:
    """The store of a `MemoryOutbox`: one and the same for every thread and every loop."""

    durable = False

    def __init__(
        self,
        *,
        backlog: int = BACKLOG,
        when_full: str = "reject",
        max_bytes: int = MOST_BYTES,
        owner: str = "MemoryStore",
    ) -> None:
        self._most, self._drops = check_limits(owner, backlog, when_full)
        self._most_bytes = count_of(max_bytes, f"{owner}(max_bytes)", most=1 << 40)
        self.when_full = when_full
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._lock = Section()
        self._shelf = self._empty()
        forks.renew_after_fork(self)

    def _empty(self) -> Shelf:
        return Shelf(self._most, self._most_bytes, drops=self._drops)

    @classmethod
    def from_url(cls, url: str, *, name: str, **limits: Any) -> MemoryStore:
        """The store of `memory://`, which has no address."""
        if url != "memory://":
            raise ConfigError("Outbox(store): memory:// has neither address nor settings; give them by name")
        del name  # each is of its own
        return cls(owner="Outbox", **limits)

    def renew_after_fork(self) -> None:
        self._lock = Section()
        self._listeners = ()
        self._shelf = self._empty()

    def open(self, runtime: Runtime) -> MemoryStore:
        return self

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        def deaf() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not entry)

        def entry() -> object:
            return wake()

        with self._lock:
            self._listeners = (*self._listeners, entry)
        return deaf

    def _tell(self) -> None:
        for wake in self._listeners:
            wake()

    @staticmethod
    def _monotonic(civil_ns: int) -> int:
        """The instant on the clock that never jumps."""
        return clock.now_ns() + civil_ns - clock.wall_ns()

    # -- the contract of `OpenStore` -------------------------------------------------------------------------------

    async def put(self, work: Work) -> Sequence[Work]:
        with self._lock:
            dropped = self._shelf.put(work, self._monotonic(work.due_ns))
        self._tell()
        return dropped

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        now, until_ns = clock.now_ns(), clock.wall_ns() + ttl_ns
        with self._lock:
            leased = self._shelf.lease(now, n, ttl_ns, skip)
            next_ns = self._shelf.next_ns(skip)
        leases = [Lease(work=work, token=str(token), until_ns=until_ns) for work, token in leased]
        return leases, None if next_ns is None else max(0, next_ns - now)

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        with self._lock:
            return self._shelf.renew(lease.work.id, int(lease.token), clock.now_ns() + ttl_ns)

    async def ack(self, lease: Lease) -> bool:
        with self._lock:
            done = self._shelf.ack(lease.work.id, int(lease.token))
        self._tell()
        return done

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        return self._again(lease, at_ns, {"last_error": error})

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        changes = {} if error is None else {"last_error": error}
        return self._again(lease, at_ns, {"attempts": lease.work.attempts - 1, **changes})

    def _again(self, lease: Lease, at_ns: int, changes: dict[str, object]) -> bool:
        due_ns = self._monotonic(at_ns)
        with self._lock:
            done = self._shelf.again(lease.work.id, int(lease.token), due_ns, {"due_ns": at_ns, **changes})
        self._tell()
        return done

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        with self._lock:
            done = self._shelf.bury(lease.work.id, int(lease.token), why, error)
        self._tell()
        return done

    async def stats(self) -> Stats:
        return self._stats()

    def _stats(self) -> Stats:
        with self._lock:
            shelf = self._shelf
            oldest = next(iter(shelf.held.values()), None)
            return Stats(
                waiting=len(shelf.held) - len(shelf.leased),
                leased=len(shelf.leased),
                dead=len(shelf.dead),
                dropped=shelf.dropped,
                oldest_ns=None if oldest is None else oldest.work.created_ns,
            )

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        if state not in STATES:
            raise ConfigError(f"{given('state', state)}: expected one of {', '.join(map(repr, STATES))}")
        count_of(limit, "limit", most=10_000)
        with self._lock:
            records = iter(self._shelf.records(state))
            if after is not None:
                records = islice(dropwhile(lambda work: work.id != after, records), 1, None)
            return list(islice(records, limit))

    async def find(self, key: str) -> Work | None:
        with self._lock:
            place = self._shelf.held.get(key)
            return self._shelf.dead.get(key) if place is None else place.work

    async def replay(self, ids: Collection[str] | None = None) -> int:
        with self._lock:
            count = self._shelf.replay(None if ids is None else set(ids), clock.wall_ns(), clock.now_ns())
        self._tell()
        return count

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        if state not in STATES or state == "leased":
            raise ConfigError(f"{given('state', state)}: expected 'waiting', 'dead' or 'dropped'")
        with self._lock:
            count = self._shelf.purge(state, None if ids is None else set(ids))
        self._tell()
        return count

    async def close(self) -> None:
        """Nothing to let go."""

    def snapshot(self) -> dict[str, Any]:
        stats, shelf = self._stats(), self._shelf
        age = None if stats.oldest_ns is None else max(0, clock.wall_ns() - stats.oldest_ns) / 1e9
        return {
            "durable": False,
            "waiting": stats.waiting,
            "leased": stats.leased,
            "dead": stats.dead,
            "dropped": stats.dropped,
            "oldest_age": age,
            "bytes": shelf.bytes,
            "puts": shelf.puts,
            "done": shelf.done,
            "purged": shelf.purged,
            "leases_run_out": shelf.ran_out,
            "backlog": self._most,
            "when_full": self.when_full,
        }

    def __repr__(self) -> str:
        return f"MemoryStore(backlog={self._most}, when_full={self.when_full!r})"
