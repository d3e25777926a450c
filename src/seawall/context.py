"""What the running call carries: its deadline, criticality, attempt number and operation."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from seawall.runtime import clock
from seawall.units import Duration, duration_ns

__all__ = ["Context", "Criticality", "carry", "criticality", "current", "deadline", "operation", "remaining"]

P = ParamSpec("P")
T = TypeVar("T")


class Criticality(IntEnum):
    """How much a call matters when not all calls can be served; higher is served first."""

    SHEDDABLE = 0
    SHEDDABLE_PLUS = 1
    CRITICAL = 2
    CRITICAL_PLUS = 3


class Context:
    """The facts that travel with a call. A value: changing one means setting another, made by `derive`."""

    __slots__ = ("attempt", "criticality", "deadline_ns", "operation")
    # No __init__: layers on the hot path derive from it, and a call of the bare class is four times cheaper.

    deadline_ns: int | None
    criticality: Criticality
    attempt: int
    operation: str | None

    def __repr__(self) -> str:
        left = "no deadline" if self.deadline_ns is None else f"{(self.deadline_ns - clock.now_ns()) / 1e9:.3f} s left"
        return f"Context({left}, {self.criticality.name}, attempt {self.attempt}, operation {self.operation!r})"


def derive(outer: Context | None, **changes: Any) -> Context:
    """A context like `outer`, but for the changes."""
    inner = Context()
    for fact in Context.__slots__:
        setattr(inner, fact, changes[fact] if fact in changes else getattr(outer, fact))
    return inner


EMPTY = derive(None, deadline_ns=None, criticality=Criticality.CRITICAL, attempt=1, operation=None)
CURRENT: contextvars.ContextVar[Context] = contextvars.ContextVar("seawall", default=EMPTY)


def ends_this_task(context: Context) -> bool:
    """Whether the running task is cancelled at the deadline of `context`, so that nobody else has to see to it."""
    owner = getattr(context, "task", None)
    if owner is None:
        return False
    import asyncio  # noqa: PLC0415  # an owner is a task, so it is loaded

    return owner is asyncio.current_task()


def restore(token: contextvars.Token[Context]) -> None:
    """Take back a `CURRENT.set`. An abandoned generator may be closed in another context: there is nothing to restore
    there."""
    try:  # noqa: SIM105  # on the way of every call; contextlib.suppress costs more than the rest
        CURRENT.reset(token)
    except ValueError:
        pass


def current() -> Context:
    """The context of the running call; one without a deadline if nobody set any."""
    return CURRENT.get()


def remaining() -> float | None:
    """Seconds until the deadline of the running call: negative when it is past, `None` when there is none.

    >>> from seawall import deadline, remaining
    >>> remaining() is None
    True
    >>> with deadline("2s"):
    ...     1.9 < remaining() <= 2.0
    True
    """
    due = CURRENT.get().deadline_ns
    return None if due is None else (due - clock.now_ns()) / 1e9


class _Scope:
    """Sets one fact for the length of a `with` block; an instance may be entered again, by one task at a time."""

    __slots__ = ("_entered",)

    def __init__(self) -> None:
        self._entered: list[contextvars.Token[Context]] = []

    def _context(self, outer: Context) -> Context:
        raise TypeError("use deadline(), criticality() or operation()")

    def __enter__(self) -> Context:
        inner = self._context(CURRENT.get())
        self._entered.append(CURRENT.set(inner))
        return inner

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._entered.pop())


class deadline(_Scope):  # noqa: N801  # reads as a verb in `with deadline("2s"):`
    """Give the calls in the block at most `time` from now. Deadlines nest and only shrink.

    It carries the deadline; it does not interrupt. `Timeout` layers, retries, queues and transports obey it.
    `time` is a duration, at least 0. Raises `ConfigError` for anything else.

    >>> from seawall import deadline, remaining
    >>> with deadline("1s"), deadline("1h"):
    ...     remaining() <= 1
    True
    """

    __slots__ = ("_time_ns",)

    def __init__(self, time: Duration) -> None:
        super().__init__()
        self._time_ns = duration_ns(time, "deadline(time)")

    def _context(self, outer: Context) -> Context:
        due = clock.now_ns() + self._time_ns
        if outer.deadline_ns is not None and outer.deadline_ns < due:
            due = outer.deadline_ns
        return derive(outer, deadline_ns=due)


class criticality(_Scope):  # noqa: N801  # reads as a verb in `with criticality(SHEDDABLE):`
    """Set how much the calls in the block matter.

    >>> from seawall import Criticality, criticality, current
    >>> with criticality(Criticality.SHEDDABLE):
    ...     current().criticality.name
    'SHEDDABLE'
    """

    __slots__ = ("_level",)

    def __init__(self, level: Criticality) -> None:
        super().__init__()
        self._level = Criticality(level)

    def _context(self, outer: Context) -> Context:
        return derive(outer, criticality=self._level)


class operation(_Scope):  # noqa: N801  # reads as a verb in `with operation("orders.create"):`
    """Name the business operation that the calls in the block belong to.

    >>> from seawall import current, operation
    >>> with operation("orders.create"):
    ...     current().operation
    'orders.create'
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def _context(self, outer: Context) -> Context:
        return derive(outer, operation=self._name)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, to be run elsewhere with this caller's context: for threads, which do not inherit it.

    Each run gets a copy, so several threads may run it at once. asyncio tasks inherit the context by themselves.

    >>> import threading
    >>> from seawall import carry, deadline, remaining
    >>> seen = []
    >>> with deadline("5s"):
    ...     thread = threading.Thread(target=carry(lambda: seen.append(remaining())))
    ...     thread.start(); thread.join()
    >>> seen[0] is not None
    True
    """
    snapshot = contextvars.copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        return snapshot.copy().run(function, *args, **kwargs)

    return carried
