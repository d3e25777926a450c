"""`SqliteStore`: records in a file, which several processes of one host may share. Needs no server and no package."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from seawall.errors import BackendUnavailable, ConfigError
from seawall.outbox.news import News
from seawall.outbox.record import Work
from seawall.outbox.sqlite.desk import Desk
from seawall.outbox.sqlite.file import File
from seawall.outbox.sqlite.forking import join
from seawall.outbox.sqlite.step import ALONE, READ, WRITE
from seawall.outbox.sqlite.steps import Steps
from seawall.outbox.store import STATES, Lease, Stats
from seawall.outbox.urls import BACKLOG, check_limits
from seawall.runtime import clock
from seawall.runtime.protocol import Runtime
from seawall.units import Duration, count_of, duration_ns, given

__all__ = ["SqliteStore"]

T = TypeVar("T")
SYNCHRONOUS = ("full", "normal")
NEWS_MS = 1_000
"""How long a look for news may wait for the file, if it must be opened."""
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
        self._desk = Desk(File(self.path, synchronous, self._steps.forget), timeout_ns, self._steps.forget)
        self._news = News(self._others_wrote)
        self._seen: tuple[int, int] | None = None
        self._blocking = _Open(self, is_async=False)
        self._async = _Open(self, is_async=True)
        join(self)

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
        return cls(unquote(place[1:]), owner="Outbox", **{**dict[str, Any](settings), **limits})

    def open(self, runtime: Runtime) -> _Open:
        return self._async if runtime.is_async else self._blocking

    # -- news ------------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        return self._news.listen(wake)

    def _others_wrote(self) -> bool:
        """Whether another connection has changed the file since the last look."""

        def look(file: File) -> tuple[int, int]:
            version: int = file.connection(NEWS_MS).execute("PRAGMA data_version").fetchone()[0]
            return file.opened, version

        before, self._seen = self._seen, self._desk.call(look, ALONE)
        return self._seen != before

    # -- forks -----------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        self._desk.before_fork()

    def after_fork_in_parent(self) -> None:
        self._desk.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        self._steps.forget()
        self._news.renew()
        self._desk.after_fork_in_child()

    def snapshot(self) -> dict[str, Any]:
        turn, file = self._desk.turn, self._desk.file
        return {
            "durable": True,
            "path": self.path,
            "synchronous": self.synchronous,
            "backlog": self._most,
            "when_full": self.when_full,
            "steps": turn.steps,
            "commits": turn.commits,
            "failures": turn.failures,
            "opened": file.opened,
            "corrupt_kept_as": file.kept,
        }

    def __repr__(self) -> str:
        return f"SqliteStore({self.path!r}, backlog={self._most}, when_full={self.when_full!r})"


class _Open:
    """The store as threads or coroutines use it: how they wait is all that differs."""

    def __init__(self, store: SqliteStore, *, is_async: bool) -> None:
        self._is_async = is_async
        self._desk = store._desk  # pyright: ignore[reportPrivateUsage]  # one thing in two parts
        self._steps = store._steps  # pyright: ignore[reportPrivateUsage]
        self._tell = store._news.tell  # pyright: ignore[reportPrivateUsage]

    async def _write(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """A step after which something may be leasable that was not."""
        value = await self._desk.acall(run) if self._is_async else self._desk.call(run)
        self._tell()
        return value

    async def _read(self, run: Callable[[Any], T], kind: int = READ) -> T:
        return await self._desk.acall(run, kind) if self._is_async else self._desk.call(run, kind)

    async def put(self, work: Work) -> Sequence[Work]:
        return await self._write(lambda db: self._steps.put(db, work))

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        def run(db: sqlite3.Connection) -> tuple[list[Lease], int | None]:
            return self._steps.lease(db, n, ttl_ns, skip, clock.wall_ns)

        if not self._is_async:
            return self._desk.call(run)
        return await self._desk.acall(run, undo=self._give_back)

    def _give_back(self, brought: tuple[Sequence[Lease], int | None]) -> None:
        """Nobody knows of these leases, since whoever asked for them was cancelled."""
        for lease in brought[0]:
            with suppress(BackendUnavailable):  # then they run out
                self._desk.post(
                    partial(self._steps.retry, lease=lease, at_ns=lease.work.due_ns, error=None, attempted=False)
                )

    async def renew(self, lease: Lease, ttl_ns: int) -> bool:
        return await self._read(lambda db: self._steps.renew(db, lease, ttl_ns, clock.wall_ns), WRITE)

    async def ack(self, lease: Lease) -> bool:
        return await self._write(lambda db: self._steps.ack(db, lease))

    async def retry(self, lease: Lease, at_ns: int, error: str) -> bool:
        return await self._write(lambda db: self._steps.retry(db, lease, at_ns, error, attempted=True))

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        return await self._write(lambda db: self._steps.retry(db, lease, at_ns, error, attempted=False))

    async def bury(self, lease: Lease, why: str, error: str) -> bool:
        return await self._write(lambda db: self._steps.bury(db, lease, why, error))

    async def stats(self) -> Stats:
        return await self._read(self._steps.stats)

    async def page(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        if state not in STATES:
            raise ConfigError(f"{given('state', state)}: expected one of {', '.join(map(repr, STATES))}")
        count_of(limit, "limit", most=10_000)
        return await self._read(lambda db: self._steps.page(db, state, limit, after))

    async def find(self, key: str) -> Work | None:
        return await self._read(lambda db: self._steps.find(db, key))

    async def replay(self, ids: Collection[str] | None = None) -> int:
        chosen = None if ids is None else frozenset(ids)
        return await self._write(lambda db: self._steps.replay(db, chosen, clock.wall_ns))

    async def purge(self, state: str, ids: Collection[str] | None = None) -> int:
        if state not in STATES or state == "leased":
            raise ConfigError(f"{given('state', state)}: expected 'waiting', 'dead' or 'dropped'")
        chosen = None if ids is None else frozenset(ids)
        return await self._write(lambda db: self._steps.purge(db, state, chosen))

    async def close(self) -> None:
        await self._read(File.drop, ALONE)


def _path_of(path: object, owner: str) -> str:
    if not isinstance(path, str) or not path or "\0" in path or path == ":memory:":
        raise ConfigError(f"{given(f'{owner}(path)', path)}: expected the path of a file")
    return path
