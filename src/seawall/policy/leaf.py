"""The innermost step of the chain: calling the function, in a thread, in a task, or on a bulkhead's own threads."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded
from seawall.policies.layer import Call, Ending
from seawall.policy.frame import LAZY, refuse_lazy
from seawall.runtime import clock
from seawall.runtime.jobs import JOB, Workers

__all__ = ["call_async", "call_on_thread", "call_sync"]


async def call_sync(call: Call) -> Ending:
    """Call a blocking function here."""
    call.attempts += 1
    assert call.function is not None, "only block forms have no function, and they have their own leaf"
    try:
        result = call.function(*call.args, **call.kwargs)
        if type(result) in LAZY:
            refuse_lazy(result)
    except BaseException as error:  # noqa: BLE001  # travels on as a value
        return None, error
    return result, None


async def call_async(call: Call) -> Ending:
    """Call an async function, or any that returns an awaitable, and await it."""
    call.attempts += 1
    assert call.function is not None, "only block forms have no function, and they have their own leaf"
    try:
        pending = call.function(*call.args, **call.kwargs)
        if not hasattr(pending, "__await__"):
            hint = "which returned no awaitable: use call(), or Bulkhead(threads=True)"
            raise TypeError(f"acall() was given {call.function!r}, {hint}")
        return await pending, None
    except BaseException as error:  # noqa: BLE001  # travels on as a value
        return None, error


def call_on_thread(workers: Workers) -> Callable[[Call], Coroutine[Any, Any, Ending]]:
    """A leaf that runs a blocking function on one of `workers`, and waits no longer than the deadline."""

    def protected(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if type(result) in LAZY:
            refuse_lazy(result)
        return result

    async def leaf(call: Call) -> Ending:
        call.attempts += 1
        assert call.function is not None, "only block forms have no function, and they are refused with threads"
        run = contextvars.copy_context().run
        job = workers.submit(partial(run, protected, call.function, *call.args, **call.kwargs))
        JOB.set(job)
        parker = call.runtime.parker()
        job.on_end(parker.unpark)
        due = CURRENT.get().deadline_ns
        await parker.park(None if due is None else max(0, due - clock.now_ns()))
        if job.done:
            JOB.set(None)
            return job.take()
        # The thread cannot be stopped; its permit stays with it (see BulkheadGuard.failed).
        return None, DeadlineExceeded(
            "the deadline passed while the function was running on its thread", inherited=True
        )

    return leaf
