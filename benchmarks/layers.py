"""Sections `retry`, `breaker`, `bulkhead`, `timeout`: what one layer adds to a call that goes well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import ours, peers, stacks
from .measure import Effort, Subject, async_timings, sync_timings
from .settings import aplain, plain
from .tables import Table, compared

BARE = Subject("bare call", lambda: plain, role="bare")
BARE_AWAIT = Subject("bare await", lambda: aplain, role="bare")

# A decorator that is made anew for each table; the payload follows.
MakeWrap = Callable[[], Callable[[Callable[..., Any]], Callable[..., Any]]]


def sync(name: str, wrap: MakeWrap, note: str = "") -> Subject:
    """A subject of a sync table: the payload under a decorator."""
    return Subject(name, lambda: wrap()(plain), note=note)


def aio(name: str, wrap: MakeWrap, note: str = "") -> Subject:
    """A subject of an async table."""
    return Subject(name, lambda: wrap()(aplain), note=note)


def our_sync(policy: Callable[[], Any]) -> Subject:
    """Seawall's row of a sync table."""
    return Subject("seawall", lambda: policy()(plain), role="ours")


def our_aio(policy: Callable[[], Any]) -> Subject:
    """Seawall's row of an async table."""
    return Subject("seawall", lambda: policy()(aplain), role="ours")


def sync_table(key: str, title: str, subjects: Sequence[Subject], effort: Effort) -> Table:
    """Time the subjects beside the bare call."""
    return Table(key, title, compared(sync_timings([BARE, *subjects], effort)))


def async_table(key: str, title: str, subjects: Sequence[Subject], effort: Effort) -> Table:
    """Time the subjects beside the bare await."""
    return Table(key, title, compared(async_timings([BARE_AWAIT, *subjects], effort)), bare="bare await")


def retry(effort: Effort) -> list[Table]:
    """A call that succeeds at once under a retry of three attempts."""
    both = (
        ("tenacity", peers.tenacity_retry),
        ("stamina", peers.stamina_retry),
        ("backoff", peers.backoff_retry),
        ("pyresilience", peers.pyresilience_retry),
    )
    sync_subjects = [our_sync(ours.retry), *(sync(name, wrap) for name, wrap in both)]
    async_subjects = [our_aio(ours.retry), *(aio(name, wrap) for name, wrap in both), aio("hyx", peers.hyx_retry)]
    return [
        sync_table("retry sync", "Retry, sync: three attempts, the first succeeds", sync_subjects, effort),
        async_table("retry async", "Retry, async: three attempts, the first succeeds", async_subjects, effort),
    ]


def breaker(effort: Effort) -> list[Table]:
    """A call through a closed breaker."""
    both = (
        ("circuitbreaker", peers.circuitbreaker_breaker),
        ("aiobreaker", peers.aiobreaker_breaker),
        ("pyresilience", peers.pyresilience_breaker),
        ("pyresilience, last 100 calls", partial(peers.pyresilience_breaker, 100)),
    )
    sync_subjects = [
        our_sync(ours.breaker),
        sync("pybreaker", peers.pybreaker_breaker),
        sync("purgatory", peers.purgatory_sync_breaker),
        *(sync(name, wrap) for name, wrap in both),
    ]
    async_subjects = [
        our_aio(ours.breaker),
        aio("purgatory", peers.purgatory_async_breaker),
        aio("hyx", peers.hyx_breaker),
        *(aio(name, wrap) for name, wrap in both),
    ]
    tables = [
        sync_table("breaker sync", "Circuit breaker, sync: closed", sync_subjects, effort),
        async_table("breaker async", "Circuit breaker, async: closed", async_subjects, effort),
    ]
    for table in tables:
        table.notes.append(
            "Seawall and the second row of pyresilience keep a rate over a window; the others count failures in a row."
        )
    return tables


def bulkhead(effort: Effort) -> list[Table]:
    """A call through a bulkhead of twenty with room."""
    sync_subjects = [
        our_sync(ours.bulkhead),
        sync("pyresilience", peers.pyresilience_bulkhead),
        sync("threading.Semaphore", lambda: stacks.semaphore, note="waits, never refuses"),
    ]
    async_subjects = [
        our_aio(ours.bulkhead),
        aio("pyresilience", peers.pyresilience_bulkhead),
        aio("hyx", peers.hyx_bulkhead),
        aio("asyncio.Semaphore", lambda: stacks.async_semaphore, note="waits, never refuses"),
    ]
    return [
        sync_table("bulkhead sync", "Bulkhead, sync: twenty at once, with room", sync_subjects, effort),
        async_table("bulkhead async", "Bulkhead, async: twenty at once, with room", async_subjects, effort),
    ]


def timeout(effort: Effort) -> list[Table]:
    """A call that ends long before its timeout."""
    sync_subjects = [
        our_sync(ours.timeout),
        sync("pyresilience", peers.pyresilience_timeout, note="runs the call on a pool of threads"),
    ]
    async_subjects = [
        our_aio(ours.timeout),
        aio("pyresilience", peers.pyresilience_timeout),
        aio("hyx", peers.hyx_timeout),
        aio("asyncio.timeout", lambda: stacks.async_timeout),
        aio("asyncio.wait_for", lambda: stacks.async_wait_for),
    ]
    in_sync = sync_table("timeout sync", "Timeout, sync: not reached", sync_subjects, effort)
    in_sync.notes.append(
        "Not the same thing: Seawall's sync timeout is a deadline handed to waits and transports; "
        "pyresilience stops waiting for a thread, which runs on."
    )
    return [in_sync, async_table("timeout async", "Timeout, async: not reached", async_subjects, effort)]
