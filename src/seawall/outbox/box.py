"""`Outbox`: operations by name, and the store in which their work waits until a worker does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from seawall import events
from seawall.context import CURRENT
from seawall.errors import ConfigError, NotQueued
from seawall.outbox.operations import ATTEMPTS, BASE, CAP, MAX_AGE, Operation, Operations, Through, label, order_of
from seawall.outbox.payloads.codec import Codec
from seawall.outbox.payloads.typed import Typed
from seawall.outbox.putting import NO_SETTINGS, Putting, Settings
from seawall.outbox.record import Queued, Work, error_text, fresh_id
from seawall.outbox.store import Stats, Store
from seawall.outbox.urls import store_of
from seawall.policies.classify import Errors
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime
from seawall.units import Duration, given

if TYPE_CHECKING:
    from seawall.limiter.limiter import Limiter
    from seawall.limiter.specs import LimitSpec
    from seawall.outbox.worker.worker import Worker

__all__ = ["Outbox"]

F = TypeVar("F", bound=Callable[..., Any])
MOST_PAYLOAD = 16 * 1024 * 1024
"""Bytes of one record: a worker reads up to 64 to choose one, and brokers have limits of their own."""


class Outbox:
    """Operations, and a store for the work that is to be done later. `MemoryOutbox()` is one.

    Args:
        store: where records lie: a URL (`"sqlite:///var/outbox.db"`, a path from here, with four slashes from the root;
            `"valkey://host:6379"`, `"amqp://host"`, `"memory://"`), or a store that was made before.
        name: in events, errors and snapshots, and what tells several outboxes in one broker apart. Default "outbox".
        codec: for operations that bring none. Default `Typed()`: JSON by the annotations.
        backlog: of a store by URL: how many records it holds, dead letters included; whole number from 1.
            Default 100,000.
        when_full: of a store by URL: `"reject"` (default): new work is refused with `NotQueued`, and nothing is ever
            thrown away; or `"drop-oldest"`: dead letters, then the oldest waiting, make room, counted and listed.

    Raises:
        ConfigError: a setting is outside its range, or the URL is none that a store knows.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        name: str = "outbox",
        codec: Codec | None = None,
        backlog: int | None = None,
        when_full: str | None = None,
    ) -> None:
        self.name = label(name, "Outbox(name)")
        self.store = store_of(store, self.name, {"backlog": backlog, "when_full": when_full})
        self.codec: Codec = Typed() if codec is None else codec
        self.operations = Operations(name)
        self.queued = self.not_queued = self.dropped = 0

    # -- operations ------------------------------------------------------------------------------------------------

    def operation(
        self,
        name: str,
        /,
        *,
        through: Through | None = None,
        codec: Codec | None = None,
        key: Callable[..., str] | None = None,
        order: Callable[..., str | None] | None = None,
        priority: int = 5,
        attempts: int = ATTEMPTS,
        base: Duration = BASE,
        cap: Duration = CAP,
        max_age: Duration = MAX_AGE,
        final: Errors | None = None,
    ) -> Callable[[F], F]:
        """Register a function, sync or async, as the one that does the work of this name. It stays as it is.

        Work is done at least once: a worker may die between the deed and its report. The function should make its
        effect once by the key that `seawall.outbox.idempotency_key()` gives it.

        Args:
            name: 1 to 255 visible ASCII characters. Records bear it: keep it when the function moves. Registering it
                again replaces the function.
            through: a `Cluster`, whose endpoint the function then takes first, or a `Policy`. A worker makes its
                attempts through another of the same specs, with a state of its own.
            codec: how the arguments become bytes. Default: the outbox's.
            key: a function of the arguments that gives the idempotency key. Default: a new one for each call.
            order: a function of the arguments that gives the order key, or None: work with one key is done one after
                another, and waits while an earlier one is retried.
            priority: whole number from 0 to 9, higher goes first. Default 5.
            attempts: how many a worker makes before the work is a dead letter. Default 20.
            base, cap: the n-th pause is drawn evenly from 0 to `min(cap, base * 2**(n-1))`. Default 1 s, 15 min.
            max_age: after this time the work is a dead letter. Default 24 h.
            final: exception types, or a predicate, after which another attempt is useless: a dead letter at once.

        Raises:
            ConfigError: a setting is outside its range, or what is decorated cannot be called again by a worker.
        """
        label(name, "operation(name)")

        if order is not None:
            self._check_order(f"operation({name!r}) order")

        def register(function: F) -> F:
            self.operations.add(
                Operation(
                    name,
                    function,
                    through=through,
                    codec=self.codec if codec is None else codec,
                    key=key,
                    order=order,
                    priority=priority,
                    attempts=attempts,
                    base=base,
                    cap=cap,
                    max_age=max_age,
                    final=final,
                )
            )
            return function

        return register

    def _check_order(self, what: str) -> None:
        # A promise that a store cannot keep is refused before the first call, not when it is broken.
        if not getattr(self.store, "keeps_order", True):
            raise ConfigError(f"{self.name}: {what}: {self.store!r} keeps no order; SQLite and Valkey do")

    # -- queueing --------------------------------------------------------------------------------------------------

    def put(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """Store work to be done later, without an attempt now. An operation through a cluster is given no endpoint.

        Raises `NotQueued` if it cannot be stored, `ConfigError` if the function is no operation, `TypeError` or
        `ValueError` for arguments that it does not take, that the codec refuses, or of more than 16 MiB.
        """
        return self.using().put(function, *args, **kwargs)

    async def aput(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """As `put`, for async code."""
        return await self.using().aput(function, *args, **kwargs)

    def using(
        self,
        *,
        delay: Duration = 0,
        key: str | None = None,
        order: str | None = None,
        priority: int | None = None,
        max_age: Duration | None = None,
    ) -> Putting:
        """The same outbox with settings for single pieces of work, which go before those of the operation.

        >>> from seawall.outbox import MemoryOutbox
        >>> outbox = MemoryOutbox()
        >>> @outbox.operation("mail.remind")
        ... def remind(address: str) -> None: ...
        >>> queued = outbox.using(delay="1h", priority=9).put(remind, "ann@example.org")

        Raises `ConfigError` if one is outside its range, such as a delay beyond the age.
        """
        return Putting(self, Settings(delay, key, order, priority, max_age))

    def prepare(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: Settings = NO_SETTINGS
    ) -> Work:
        """The record of a call, due now. Everything that could be wrong about the call itself is found here."""
        arguments = operation.parameters.bind(args, kwargs)
        payload = operation.codec.encode(arguments, operation.parameters)
        if len(payload) > MOST_PAYLOAD:
            hint = "keep what is large elsewhere, and give the operation its name"
            raise ValueError(f"{operation.name}: {len(payload)} bytes of arguments, more than {MOST_PAYLOAD}: {hint}")
        id, now = fresh_id(), clock.wall_ns()  # noqa: A001  # as the field is called
        key = chosen.key
        if key is None and operation.key is not None:
            key = label(operation.key(*args, **kwargs), f"what operation({operation.name!r}) key gave")
        order = chosen.order
        if order is None and operation.order is not None:
            order = order_of(operation.order(*args, **kwargs), f"what operation({operation.name!r}) order gave")
        if order is not None:
            self._check_order(f"{operation.name} with an order key")
        max_age_ns = operation.max_age_ns if chosen.max_age_ns is None else chosen.max_age_ns
        if chosen.delay_ns >= max_age_ns:
            raise ConfigError(
                f"{self.name}: {operation.name} would expire before it is due: delay is not below max_age"
            )
        return Work(
            id=id,
            operation=operation.name,
            payload=payload,
            idempotency_key=key or id,
            due_ns=now + chosen.delay_ns,
            created_ns=now,
            expires_ns=now + max_age_ns,
            priority=operation.priority if chosen.priority is None else chosen.priority,
            order_key=order,
            criticality=int(CURRENT.get().criticality),
        )

    async def store_work(self, work: Work, runtime: Runtime, failure: BaseException | None = None) -> Queued:
        """Store a record that `prepare` made; `failure` is the error of the call it comes from.

        Raises `NotQueued` from that failure, or from the store's error if there was no call.
        """
        try:
            dropped = await self.store.open(runtime).put(work)
        except Exception as error:  # noqa: BLE001  # whatever it is: the caller must hear that nothing is queued
            self.not_queued += 1
            why = str(error) if isinstance(error, NotQueued) else error_text(error)
            after = "" if failure is None else f"; the call had failed with {error_text(failure)}"
            raise NotQueued(f"{self.name}: {work.operation} is not queued: {why}{after}") from failure or error
        return self.stored(work, dropped, failure)

    def stored(self, work: Work, dropped: Sequence[Work], failure: BaseException | None = None) -> Queued:
        """Count and tell that a record was stored, and which were dropped for it."""
        self.queued += 1
        durable = self.store.durable
        for victim in dropped:
            self.dropped += 1
            if events.sinks:
                events.emit(
                    events.WorkDropped(policy=self.name, layer=victim.operation, id=victim.id, why=victim.ended)
                )
        due = work.due_ns / 1e9
        if events.sinks:
            events.emit(
                events.WorkQueued(
                    policy=self.name, layer=work.operation, id=work.id, due=due, durable=durable, error=failure
                )
            )
        return Queued(id=work.id, operation=work.operation, due=due, durable=durable)

    # -- working ---------------------------------------------------------------------------------------------------

    def worker(
        self,
        *,
        concurrency: int = 8,
        lease: Duration = 60,
        timeout: Duration | None = "5min",
        grace: Duration = 30,
        limiter: Limiter | LimitSpec | None = None,
        alarm_depth: float | None = 0.8,
        alarm_age: Duration | None = "1h",
    ) -> Worker:
        """A worker that does what waits: `async with outbox.worker(): ...`. See `Worker` for its settings."""
        from seawall.outbox.worker.worker import Worker  # noqa: PLC0415  # processes that only queue need none

        return Worker(
            self,
            concurrency=concurrency,
            lease=lease,
            timeout=timeout,
            grace=grace,
            limiter=limiter,
            alarm_depth=alarm_depth,
            alarm_age=alarm_age,
        )

    # -- looking after it ------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """How many records are where."""
        return drive(self.store.open(BLOCKING).stats())

    async def astats(self) -> Stats:
        """As `stats`, for async code."""
        return await self.store.open(asyncio_runtime()).stats()

    def records(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        """Records that are `"waiting"`, `"leased"`, `"dead"` or `"dropped"`, oldest first, after the id `after`."""
        return drive(self.store.open(BLOCKING).page(state, limit=limit, after=after))

    async def arecords(self, state: str, *, limit: int = 100, after: str | None = None) -> Sequence[Work]:
        """As `records`, for async code."""
        return await self.store.open(asyncio_runtime()).page(state, limit=limit, after=after)

    def replay(self, ids: str | Collection[str]) -> int:
        """Give dead letters another life: the ids given, one or several, or `"all"`; returns how many."""
        return drive(self.store.open(BLOCKING).replay(_chosen(ids)))

    async def areplay(self, ids: str | Collection[str]) -> int:
        """As `replay`, for async code."""
        return await self.store.open(asyncio_runtime()).replay(_chosen(ids))

    def purge(self, state: str, ids: str | Collection[str]) -> int:
        """Forget records that are `"waiting"`, `"dead"` or `"dropped"`: the ids given, or `"all"`; returns how many."""
        return drive(self.store.open(BLOCKING).purge(state, _chosen(ids)))

    async def apurge(self, state: str, ids: str | Collection[str]) -> int:
        """As `purge`, for async code."""
        return await self.store.open(asyncio_runtime()).purge(state, _chosen(ids))

    def close(self) -> None:
        """Let the store's connections go."""
        drive(self.store.open(BLOCKING).close())

    async def aclose(self) -> None:
        """As `close`, for async code."""
        await self.store.open(asyncio_runtime()).close()

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values: what this process did, and what the store knows without I/O."""
        return {
            "outbox": self.name,
            "operations": [operation.name for operation in self.operations.all()],
            "queued": self.queued,
            "not_queued": self.not_queued,
            "store": self.store.snapshot(),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r}, name={self.name!r})"


def _chosen(ids: str | Collection[str]) -> Collection[str] | None:
    if isinstance(ids, str):
        return None if ids == "all" else (ids,)
    # Not None for "all": a variable that was never set must not forget everything.
    if not isinstance(ids, Collection) or not all(isinstance(each, str) for each in ids):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given('ids', ids)}: expected ids, or 'all'")
    return ids
