"""Which operation runs now, and under which idempotency key: for handlers, and for transports that send the key.

It holds from the first attempt on, which is made in the caller's own call before anything is stored: if that attempt
did its work and only its answer was lost, the attempt of the worker bears the same key, and the effect is made once.
"""

from __future__ import annotations

import contextvars
from types import TracebackType

from seawall.record import Record

__all__ = ["Run", "current", "idempotency_key", "running"]


class Run(Record, kw_only=True):
    """An attempt at an operation that is under way."""

    id: str
    """The id under which the work is stored, or will be if this fails."""
    operation: str
    idempotency_key: str
    attempt: int
    """0 for the attempts of the first call; 1, 2, ... for those of a worker."""


_RUN: contextvars.ContextVar[Run | None] = contextvars.ContextVar("seawall_run", default=None)


def current() -> Run | None:
    """The operation that runs here, or None outside of one."""
    return _RUN.get()


def idempotency_key(part: str = "") -> str | None:
    """The key of the operation that runs here, the same in all its attempts; None outside of one.

    An operation with several effects names each `part`: two requests with one key would count as one.

    >>> from seawall.outbox import idempotency_key
    >>> idempotency_key() is None
    True
    """
    run = _RUN.get()
    if run is None:
        return None
    return f"{run.idempotency_key}.{part}" if part else run.idempotency_key


class running:  # noqa: N801  # reads as a verb in `with running(run):`
    """Make `run` the current one in a block."""

    __slots__ = ("_run", "_token")

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._token = _RUN.set(self._run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:  # noqa: SIM105  # as context.restore: an abandoned coroutine may be closed in another context
            _RUN.reset(self._token)
        except ValueError:
            pass
