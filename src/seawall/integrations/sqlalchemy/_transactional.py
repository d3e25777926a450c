"""`TransactionalOutbox`: work that is queued by the commit of the caller's own transaction, and not without it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy import event, orm

from seawall.errors import ConfigError
from seawall.integrations.sqlalchemy._doors import door_to
from seawall.integrations.sqlalchemy._mailbox import Mailbox, new_table
from seawall.integrations.sqlalchemy._relay import Relay
from seawall.outbox.box import Outbox
from seawall.outbox.putting import NO_SETTINGS, Settings
from seawall.outbox.record import Queued, Work
from seawall.runtime.blocking import drive
from seawall.units import Duration, given

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session

    AnyAsyncSession = AsyncSession | async_scoped_session[Any]

__all__ = ["TransactionalOutbox", "TransactionalPutting"]

AnySession = orm.Session | orm.scoped_session[Any]
MARK = "seawall outboxes"


class TransactionalOutbox:
    """An outbox whose records are written in the caller's own transaction, into a table of the caller's own database.

    With the commit the work is queued; a rollback, or one to a savepoint before it, leaves nothing. A relay takes the
    records from the table to the outbox's store, where workers find them: at least once, and in order of an order key.

    Args:
        outbox: where operations are registered, and whose store the records go to.
        table: the name of the table; 1 to 50 letters, digits and underscores. Default "seawall_outbox".
        schema: its schema, where the database has such. Default: that of the metadata.

    Raises:
        ConfigError: a setting is of the wrong kind.

    Example:
        >>> import sqlalchemy as sa
        >>> from sqlalchemy.orm import Session
        >>> from seawall.integrations.sqlalchemy import TransactionalOutbox
        >>> from seawall.outbox import MemoryOutbox
        >>> outbox = MemoryOutbox()
        >>> @outbox.operation("order.ship")
        ... def ship(number: int) -> None: print("shipped:", number)
        >>> engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        >>> transactional = TransactionalOutbox(outbox)
        >>> transactional.create(engine)
        >>> with Session(engine) as session, session.begin():
        ...     queued = transactional.put(session, ship, 7)
        >>> transactional.relay_once(engine)
        1
        >>> outbox.worker().drain()
        shipped: 7
        1
        >>> engine.dispose()
    """

    def __init__(self, outbox: Outbox, *, table: str = "seawall_outbox", schema: str | None = None) -> None:
        if not isinstance(outbox, Outbox):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{given('TransactionalOutbox(outbox)', outbox)}: expected an Outbox")
        self.outbox = outbox
        self._name = table
        self._schema = schema
        self._mailbox = Mailbox(new_table(sa.MetaData(), table, schema))
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], object], ...] = ()

    # -- the table -------------------------------------------------------------------------------------------------

    def table(self, metadata: sa.MetaData) -> sa.Table:
        """The table as one of this metadata, so that `metadata.create_all` and migrations see it.

        Raises `ConfigError` if another table has its name.
        """
        table = new_table(metadata, self._name, self._schema)
        # Spoken of by this one from now on: a session that is bound table by table knows it.
        self._mailbox = Mailbox(table)
        return table

    def create(self, engine: sa.Engine | sa.Connection) -> None:
        """Create the table if it is not there: for tests and scripts; programs have migrations."""
        self._mailbox.table.create(engine, checkfirst=True)

    async def acreate(self, engine: AsyncEngine) -> None:
        """As `create`, for async code."""
        await door_to(engine, is_async=True).run(self.create)

    def depth(self, engine: sa.Engine) -> int:
        """How many records are in the table, committed and not yet in the store."""
        return drive(door_to(engine, is_async=False).run(self._mailbox.depth))

    async def adepth(self, engine: AsyncEngine) -> int:
        """As `depth`, for async code."""
        return await door_to(engine, is_async=True).run(self._mailbox.depth)

    # -- queueing --------------------------------------------------------------------------------------------------

    def put(self, session: AnySession, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """Write the work of a function into the table, in the transaction that this session is in.

        It is queued if that commits. Raises what `Outbox.put` raises for wrong calls, what the database raises, and
        `ConfigError` for a session without transactions (isolation level AUTOCOMMIT).
        """
        return self._put(session, NO_SETTINGS, function, args, kwargs)

    async def aput(
        self, session: AnyAsyncSession, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Queued:
        """As `put`, for an `AsyncSession`."""
        return await self._aput(session, NO_SETTINGS, function, args, kwargs)

    def using(
        self,
        *,
        delay: Duration = 0,
        key: str | None = None,
        order: str | None = None,
        priority: int | None = None,
        max_age: Duration | None = None,
    ) -> TransactionalPutting:
        """The same with settings for single pieces of work, as `Outbox.using`."""
        return TransactionalPutting(self, Settings(delay, key, order, priority, max_age))

    def _put(
        self,
        session: AnySession,
        settings: Settings,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Queued:
        if isinstance(session, orm.scoped_session):
            session = cast("orm.Session", session())
        if not isinstance(session, orm.Session):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            hint = "an AsyncSession needs `await aput(...)`" if _is_async(session) else "expected a Session"
            raise ConfigError(f"{given('put(session)', session)}: {hint}")
        work = self._prepare(settings, function, args, kwargs)
        self._insert(session, work)
        return self._queued(work)

    async def _aput(
        self,
        session: AnyAsyncSession,
        settings: Settings,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Queued:
        registry: Any = getattr(session, "registry", None)
        chosen: Any = session if registry is None or isinstance(session, orm.scoped_session) else registry()
        if not _is_async(chosen):
            hint = "a Session needs `put(...)`" if isinstance(chosen, orm.Session) else "expected an AsyncSession"
            raise ConfigError(f"{given('aput(session)', session)}: {hint}")
        work = self._prepare(settings, function, args, kwargs)
        await chosen.run_sync(self._insert, work)
        return self._queued(work)

    def _prepare(
        self, settings: Settings, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Work:
        return self.outbox.prepare(self.outbox.operations.of(function), args, kwargs, settings)

    def _insert(self, session: orm.Session, work: Work) -> None:
        mailbox = self._mailbox
        connection = session.connection(bind_arguments={"clause": mailbox.table})
        _refuse_autocommit(connection)
        connection.execute(mailbox.insertion(work))
        waiting: set[TransactionalOutbox] = session.info.setdefault(MARK, set())
        waiting.add(self)
        if not event.contains(session, "after_commit", _wake):
            event.listen(session, "after_commit", _wake)

    def _queued(self, work: Work) -> Queued:
        durable = self.outbox.store.durable
        return Queued(id=work.id, operation=work.operation, due=work.due_ns / 1e9, durable=durable)

    # -- relaying --------------------------------------------------------------------------------------------------

    def relay(
        self, engine: sa.Engine | AsyncEngine, *, batch: int = 100, poll: Duration = 1, claim: Duration = 60
    ) -> Relay:
        """What takes the records to the outbox's store: `with transactional.relay(engine): ...`. See `Relay`."""
        return Relay(self.outbox, self._mailbox, self.listen, engine, batch=batch, poll=poll, claim=claim)

    def relay_once(self, engine: sa.Engine) -> int:
        """Take what is there now to the outbox's store; returns how many records. See `Relay.once`."""
        return self.relay(engine).once()

    async def arelay_once(self, engine: AsyncEngine) -> int:
        """As `relay_once`, for async code."""
        return await self.relay(engine).aonce()

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Call `wake` after each commit of this process that had work in it; returns what ends it."""
        with self._lock:
            self._listeners = (*self._listeners, wake)

        def deaf() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each != wake)

        return deaf

    def committed(self) -> None:
        """Wake the relays of this process: something may be in the table now."""
        for wake in self._listeners:
            wake()

    def __repr__(self) -> str:
        return f"TransactionalOutbox({self.outbox.name!r}, table={self._mailbox.table.fullname!r})"


class TransactionalPutting:
    """A transactional outbox with settings for single pieces of work; made by `transactional.using(...)`."""

    def __init__(self, transactional: TransactionalOutbox, settings: Settings) -> None:
        self._transactional = transactional
        self._settings = settings

    def put(self, session: AnySession, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """As `TransactionalOutbox.put`, with these settings."""
        return self._transactional._put(session, self._settings, function, args, kwargs)  # pyright: ignore[reportPrivateUsage]  # of one piece with it

    async def aput(
        self, session: AnyAsyncSession, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Queued:
        """As `TransactionalOutbox.aput`, with these settings."""
        return await self._transactional._aput(session, self._settings, function, args, kwargs)  # pyright: ignore[reportPrivateUsage]  # as above


def _wake(session: orm.Session) -> None:
    """After a commit. After a rollback the mark stays, and the next commit wakes for nothing, which does no harm."""
    waiting: set[TransactionalOutbox] = session.info.pop(MARK, set())
    for transactional in waiting:
        transactional.committed()


def _is_async(session: object) -> bool:
    # Told by what only an AsyncSession has: its module needs greenlet, which synchronous programs need not have.
    return isinstance(getattr(session, "sync_session", None), orm.Session)


def _refuse_autocommit(connection: sa.Connection) -> None:
    chosen = connection.get_execution_options().get("isolation_level")
    if chosen is None:
        chosen = getattr(connection.dialect, "_on_connect_isolation_level", None)
    if chosen == "AUTOCOMMIT":
        raise ConfigError("put(session): its isolation level is AUTOCOMMIT, so there is no transaction to be part of")
