"""Section `fused`: what retry + breaker + bulkhead (+ timeout) together add to a call that goes well."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import ours, stacks
from .layers import aio, async_table, our_aio, our_sync, sync, sync_table
from .measure import Effort, Subject
from .settings import aplain, plain
from .tables import Table

PYRESILIENCE = "pyresilience"
TENACITY_SYNC = "tenacity + pybreaker + semaphore"
TENACITY_ASYNC = "tenacity + aiobreaker + semaphore"
WINDOWED = "pyresilience, last 100 calls"


def fused(effort: Effort) -> list[Table]:
    """Three tables: sync, async, async with a timeout."""
    by_call = Subject("seawall, policy.call(f)", lambda: partial(ours.fused().call, plain), role="ours")
    sync_subjects = [
        our_sync(ours.fused),
        by_call,
        sync(PYRESILIENCE, stacks.pyresilience_stack),
        sync(WINDOWED, partial(stacks.pyresilience_stack, window=100)),
        sync(TENACITY_SYNC, lambda: stacks.tenacity_pybreaker_semaphore),
    ]
    title = "Retry + breaker + bulkhead"
    return [
        sync_table("fused sync", f"{title}, sync", sync_subjects, effort),
        async_table("fused async", f"{title}, async", _async_subjects(timeout=False), effort),
        async_table("fused async timeout", f"{title} + timeout, async", _async_subjects(timeout=True), effort),
    ]


def _async_subjects(*, timeout: bool) -> list[Subject]:
    def by_acall() -> Callable[[], object]:
        return partial(ours.fused(timeout=timeout).acall, aplain)

    return [
        our_aio(partial(ours.fused, timeout=timeout)),
        Subject("seawall, policy.acall(f)", by_acall, role="ours"),
        aio(PYRESILIENCE, partial(stacks.pyresilience_stack, timeout=timeout)),
        aio(WINDOWED, partial(stacks.pyresilience_stack, window=100, timeout=timeout)),
        aio("hyx", partial(stacks.hyx_stack, timeout=timeout)),
        aio(TENACITY_ASYNC, lambda: partial(stacks.tenacity_aiobreaker_semaphore, timeout=timeout)),
    ]
