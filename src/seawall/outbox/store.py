"""The contract of a store: where records lie until they are done. The tests of every store run it: tests/outbox.

Each method of an open store is one atomic step. A step that raises, or is cancelled before it has taken effect, has
changed nothing; one whose effect is known to nobody (the connection broke) may have happened. Records are told apart
by id. At every instant

    ids put  =  ids done + dead + dropped + purged + held (waiting, or out on lease)

Leases. `lease` hands a record to one worker for a time and counts an attempt. It bears a token, and `ack`, `retry`,
`release`, `bury` and `renew` are *fenced* by it: they return False and change nothing once another lease of the record
has been given out, or it is settled. A lease that ran out is still good until the record is leased again: work that is
done must not be done again for being late. A record whose lease ran out is due again at once, its attempt counted:
whoever had it may have died of it.

Order. Of the records that are due, those of higher priority go first, then those due earlier, then those put earlier.
Of records with one order key only the earliest put is leased, be it due or not; the next when it is done or dead.

Time. Instants are civil nanoseconds (`clock.wall_ns()`), since they must mean the same in every process and after a
restart. That clock may jump: no record may be lost by it, and none is late by more than the jump.

Every step ends: a store that cannot answer in time raises. A worker does not wait for one that hangs beside another.

Runtimes. `Store.open(runtime)` gives the store as this runtime can use it. For threads the coroutines never suspend,
they block (see `runtime.blocking.drive`); for asyncio clients and connections belong to the running loop. Opening twice
is cheap and finds the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from seawall.outbox.record import Work
from seawall.record import Record
from seawall.runtime.protocol import Runtime

__all__ = ["STATES", "Lease", "OpenStore", "Stats", "Store"]

STATES = ("waiting", "leased", "dead", "dropped")
"""In which lists `page` finds a record. Dropped ones may have lost their payload."""


class Lease(Record, kw_only=True):
    """A record in the hands of one worker."""

    work: Work
    """As it lies in the store now; `attempts` counts this one."""
    token: str
    until_ns: int


class Stats(Record, kw_only=True):
    """How many records are where."""

    waiting: int
    """Due now or later, or behind another of their order key."""
    leased: int
    dead: int
    dropped: int
    """How many ever were dropped; not all of them are listed."""
    oldest_ns: int | None
    """When the oldest that is waiting or leased was created."""


class OpenStore(Protocol):
    """A store as one runtime uses it."""

    async def put(self, work: Work) -> Sequence[Work]:
        """Store a record; when it returns, the record is as safe as this store can make it.

        Putting an id that is held already changes nothing. Returns the records that were dropped to make room, without
        their payloads. Raises `NotQueued` if there is no room, and the store's own error if it failed.
        """
        ...

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        """Up to `n` records that are due, for `ttl_ns` from now; none of the operations in `skip`, if it can tell.

        With it, if they are fewer than `n`: after how many nanoseconds it is worth asking again without news (see
        `Store.listen`); None if nothing is held that could become due.
        """
        ...

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        """Let the lease last until `ttl_ns` from now. Fenced."""
        ...

    async def ack(self, lease: Lease) -> bool:
        """It is done: forget it. Fenced."""
        ...

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        """It failed with `error`: due again at `at_ns`. Fenced."""
        ...

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        """It was not attempted after all: due again at `at_ns`, the attempt not counted. Fenced."""
        ...

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        """Give it up: it becomes a dead letter with this cause, and stays until it is replayed or purged. Fenced."""
        ...

    async def stats(self) -> Stats: ...

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        """Records in one of `STATES`, oldest first; `after` is the id of the last one seen."""
        ...

    async def find(self, key: str) -> Work | None:
        """The record of this id, if it is waiting, leased or dead."""
        ...

    async def replay(self, ids: Collection[str] | None = None) -> int:
        """Dead letters (None: all) are due again now, as if newly put: no attempts, and all their time before them."""
        ...

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        """Forget records (None: all) that are `"waiting"`, `"dead"` or `"dropped"`; never those out on lease."""
        ...

    async def close(self) -> None:
        """Let connections go. The records stay, where the store is durable."""
        ...


class Store(Protocol):
    """Where records lie."""

    @property
    def durable(self) -> bool:
        """Whether a record that was put survives the end of the process."""
        ...

    def open(self, runtime: Runtime) -> OpenStore: ...

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call `wake`, from any thread, when something may have become leasable; returns what ends it.

        A store that has no news to give does nothing, and says by `lease` how soon to ask again.
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """What is known without I/O, as JSON-ready values."""
        ...
