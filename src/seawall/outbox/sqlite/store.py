"""`SqliteStore`: records in a file, which several processes of one host may share. Needs no server and no package."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from seawall.errors import ConfigError
from seawall.outbox.record import Work
from seawall.outbox.sqlite.desk import Desk
from seawall.outbox.sqlite.file import File
from seawall.outbox.sqlite.steps import Steps
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.runtime import clock
from seawall.runtime.protocol import Runtime
from seawall.runtime.section import Section
from seawall.units import Duration, count_of, duration_ns, given

__all__ = ["SqliteStore"]

T = TypeVar("T")
SYNCHRONOUS = ("full", "normal")
_FORM = "sqlite:///path/to/file.db (a path from here) or sqlite:////path/to/file.db (from the root)"


class SqliteStore:
    """Records in an SQLite file. It is made when the first record is stored; its directory must be there.

    Args:
        path: of the file. Only the user of this process may read it.
        backlog: how many records it holds, dead letters included; whole number from 1. Default 100,000.
        when_full: `"reject"` (default) or `"drop-oldest"`, as for `Outbox`.
        synchronous: `"full"` (default): what was stored survives a power cut. `"normal"`: the file survives it too, but
            what was stored last may be gone; several times as fast.
        timeout: how long a step may wait for other processes and threads, more than 0. Default 5 s.

    Raises:
        ConfigError: a setting is outside its range. Steps raise `BackendUnavailable` if the file cannot be used.

    Example:
        >>> import tempfile, os
        >>> from seawall.outbox import Outbox
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     outbox = Outbox(f"sqlite:///{directory}/outbox.db")
        ...     @outbox.operation("mail.welcome")
        ...     def send_welcome(address: str) -> None: print("welcome,", address)
        ...     queued = outbox.put(send_welcome, "ann@example.org")
        ...     print(queued.durable, outbox.worker().drain())
        ...     outbox.close()
        welcome, ann@example.org
        True 1
    """

    durable = True

    def __init__(
        self,
        path: str,
        *,
        backlog: int = BACKLOG,
        when_full: str = "reject",
        synchronous: str = "full",
        timeout: Duration = 5,
        owner: str = "SqliteStore",
    ) -> None:
        self.path = _path_of(path, owner)
        self._most, drops = check_limits(owner, backlog, when_full)
        if synchronous not in SYNCHRONOUS:
            raise ConfigError(f"{given(f'{owner}(synchronous)', synchronous)}: expected 'full' or 'normal'")
        self.when_full = when_full
        self.synchronous = synchronous
        timeout_ns = duration_ns(timeout, f"{owner}(timeout)", zero=False)
        self._steps = Steps(self._most, drops=drops)
        self._desk = Desk(File(self.path, synchronous), timeout_ns)
        self._lock = Section()
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._blocking = _Open(self, is_async=False)
        self._async = _Open(self, is_async=True)

    @classmethod
    def from_url(cls, url: str, *, name: str, **limits: Any) -> SqliteStore:
        """The store of `sqlite:///path?synchronous=normal&timeout=5s`. Each outbox has a file of its own."""
        del name
        _, _, rest = url.partition("://")
        place, _, query = rest.partition("?")
        if not place.startswith("/") or not place[1:]:
            raise ConfigError(f"{given('Outbox(store)', url)}: expected {_FORM}")
        settings = parse_qsl(query, keep_blank_values=True)
        for field, _ in settings:
            if field not in ("synchronous", "timeout"):
                raise ConfigError(f"{given('Outbox(store)', url)}: no setting {field!r}; known: synchronous, timeout")
        return cls(unquote(place[1:]), owner="Outbox", **dict(settings), **limits)

    def open(self, runtime: Runtime) -> _Open:
        return self._async if runtime.is_async else self._blocking

    # -- news ------------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        def entry() -> object:
            return wake()

        def deaf() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not entry)

        with self._lock:
            self._listeners = (*self._listeners, entry)
        return deaf

    def _tell(self) -> None:
        for wake in self._listeners:
            wake()

    def snapshot(self) -> dict[str, Any]:
        desk = self._desk
        return {
            "durable": True,
            "path": self.path,
            "synchronous": self.synchronous,
            "backlog": self._most,
            "when_full": self.when_full,
            "steps": desk.steps,
            "commits": desk.commits,
            "failures": desk.failures,
        }

    def __repr__(self) -> str:
        return f"SqliteStore({self.path!r}, backlog={self._most}, when_full={self.when_full!r})"


class _Open:
    """The store as threads or coroutines use it: how they wait is all that differs."""

    def __init__(self, store: SqliteStore, *, is_async: bool) -> None:
        self._store = store
        self._is_async = is_async
        self._desk = store._desk  # pyright: ignore[reportPrivateUsage]  # one thing in two parts
        self._steps = store._steps  # pyright: ignore[reportPrivateUsage]

    async def _do(self, run: Callable[[sqlite3.Connection], T], *, tells: bool = True, writes: bool = True) -> T:
        value = await self._desk.acall(run, writes=writes) if self._is_async else self._desk.call(run, writes=writes)
        if tells:
            self._store._tell()  # pyright: ignore[reportPrivateUsage]
        return value

    async def put(self, work: Work) -> Sequence[Work]:
        return await self._do(lambda db: self._steps.put(db, work))

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        return await self._do(lambda db: self._steps.lease(db, n, ttl_ns, skip, clock.wall_ns), tells=False)

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        return await self._do(lambda db: self._steps.renew(db, lease, ttl_ns, clock.wall_ns), tells=False)

    async def ack(self, lease: Lease) -> bool:
        return await self._do(lambda db: self._steps.ack(db, lease))

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        return await self._do(lambda db: self._steps.retry(db, lease, at_ns, error, attempted=True))

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        return await self._do(lambda db: self._steps.retry(db, lease, at_ns, error, attempted=False))

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        return await self._do(lambda db: self._steps.bury(db, lease, why, error))

    async def stats(self) -> Stats:
        return await self._do(self._steps.stats, tells=False, writes=False)

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        if state not in STATES:
            raise ConfigError(f"{given('state', state)}: expected one of {', '.join(map(repr, STATES))}")
        count_of(limit, "limit", most=10_000)
        return await self._do(lambda db: self._steps.page(db, state, limit, after), tells=False, writes=False)

    async def find(self, key: str) -> Work | None:
        return await self._do(lambda db: self._steps.find(db, key), tells=False, writes=False)

    async def replay(self, ids: Collection[str] | None = None) -> int:
        chosen = None if ids is None else frozenset(ids)
        return await self._do(lambda db: self._steps.replay(db, chosen, clock.wall_ns))

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        if state not in STATES or state == "leased":
            raise ConfigError(f"{given('state', state)}: expected 'waiting', 'dead' or 'dropped'")
        chosen = None if ids is None else frozenset(ids)
        return await self._do(lambda db: self._steps.purge(db, state, chosen))

    async def close(self) -> None:
        await self._do(lambda db: None, tells=False, writes=False)
        self._desk.file.drop()


def _path_of(path: object, owner: str) -> str:
    if not isinstance(path, str) or not path or "\0" in path or path == ":memory:":
        raise ConfigError(f"{given(f'{owner}(path)', path)}: expected the path of a file")
    return path
