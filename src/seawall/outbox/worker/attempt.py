"""One attempt at a record: its arguments, the function, the key in effect, and an end to waiting."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from seawall.context import CURRENT, Criticality, derive, restore
from seawall.outbox.operations import Operation
from seawall.outbox.record import Work, error_text
from seawall.outbox.running import Run, running
from seawall.outbox.worker.targets import Target
from seawall.policies.timeout import Timeout
from seawall.policy import Policy
from seawall.runtime.jobs import Workers
from seawall.runtime.protocol import Runtime
from seawall.units import Duration

__all__ = ["Attempts", "Unreadable"]


class Unreadable(Exception):
    """The operation is not known here, or its arguments cannot be read: it says nothing about the target."""


class Attempts:
    """Makes the attempts of one worker."""

    def __init__(self, name: str, timeout: Duration | None) -> None:
        self._limit = Policy(Timeout(timeout), name=name)
        self.threads = Workers(f"seawall {name}")
        """Where blocking functions run beside each other."""

    async def make(
        self,
        operation: Operation,
        work: Work,
        target: Target,
        runtime: Runtime,
        begun: Callable[[], object] | None = None,
    ) -> Exception | None:
        """Do the work, and return the error it failed with. Raises only what is no `Exception`.

        `begun` is called when the function is, in its thread: no layer before it has refused.
        """
        try:
            arguments = operation.codec.decode(work.payload, operation.parameters)
            args, kwargs = operation.parameters.unbind(arguments)
        except Exception as error:  # noqa: BLE001  # whatever a codec raises at bytes of unknown origin
            return _caused(Unreadable(error_text(error)), error)
        reset = CURRENT.set(_context_of(work))
        try:
            with running(_run_of(work)):
                function = operation.function if begun is None else _telling(operation, begun)
                return await self._make(operation, function, target, runtime, args, kwargs)
        finally:
            restore(reset)

    async def _make(
        self,
        operation: Operation,
        function: Callable[..., Any],
        target: Target,
        runtime: Runtime,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Exception | None:
        if not runtime.is_async:
            return self._limit.run(target.call, function, args, kwargs).error
        if not operation.is_async:
            return await self._on_thread(target, runtime, function, args, kwargs)
        try:
            return (await self._limit.arun(target.acall, function, args, kwargs)).error
        except BaseException as error:
            if _is_asked_to_end(error):
                raise
            # A task that it waited for was cancelled, not the worker: that is a failure like any other.
            return _caused(RuntimeError("what the operation waited for was cancelled"), error)

    async def _on_thread(
        self, target: Target, runtime: Runtime, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Exception | None:
        run: Callable[..., Any] = contextvars.copy_context().run
        job = self.threads.submit(partial(run, self._limit.run, target.call, function, args, kwargs))
        parker = runtime.parker()
        job.on_end(parker.unpark)
        await parker.park(None)
        outcome, error = job.take()
        if error is not None:
            raise error
        failure: Exception | None = outcome.error
        return failure


def _telling(operation: Operation, begun: Callable[[], object]) -> Callable[..., Any]:
    """The function of the operation, which tells when it is called."""
    function = operation.function

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        begun()
        return await function(*args, **kwargs)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun()
        return function(*args, **kwargs)

    return acall if operation.is_async else call


def _caused(error: Exception, cause: BaseException) -> Exception:
    """Apart, since the cause knows the frame that caught it: that must not know the error."""
    error.__cause__ = cause
    return error


def _is_asked_to_end(error: BaseException) -> bool:
    """Whether it is more than a cancellation that nobody asked this task for."""
    import asyncio  # noqa: PLC0415  # loaded already, since this is an async worker

    task = asyncio.current_task()
    return not isinstance(error, asyncio.CancelledError) or task is None or task.cancelling() > 0


def _context_of(work: Work) -> Any:
    try:
        criticality = Criticality(work.criticality)
    except ValueError:
        criticality = Criticality.CRITICAL
    # Not of the context in which the worker was started: a deadline there is none of this work's.
    return derive(None, deadline_ns=None, criticality=criticality, attempt=1, operation=work.operation)


def _run_of(work: Work) -> Run:
    return Run(id=work.id, operation=work.operation, idempotency_key=work.idempotency_key, attempt=work.attempts)
