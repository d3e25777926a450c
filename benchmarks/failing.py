"""Section `failing`: what a call costs that fails once and is retried at once, without waiting; informative."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from . import ours, peers
from .layers import async_table, sync_table
from .measure import Effort, Subject
from .settings import ANSWER, FAILURE
from .tables import Table


def every_other() -> Callable[[], int]:
    """A function that fails on its first call and on every second one after it."""
    failed = False

    def flaky() -> int:
        nonlocal failed
        failed = not failed
        if failed:
            raise FAILURE("once")
        return ANSWER

    return flaky


def aevery_other() -> Callable[[], Any]:
    """The same as a coroutine function."""
    flaky = every_other()

    async def aflaky() -> int:
        return flaky()

    return aflaky


def _by_hand() -> Callable[[], int]:
    flaky = every_other()

    def guarded() -> int:
        try:
            return flaky()
        except FAILURE:
            return flaky()

    return guarded


def _aby_hand() -> Callable[[], Any]:
    aflaky = aevery_other()

    async def guarded() -> int:
        try:
            return int(await aflaky())
        except FAILURE:
            return int(await aflaky())

    return guarded


def failing(effort: Effort) -> list[Table]:
    """Two tables; the row `by hand` is the floor: two calls, one exception."""
    both = (
        ("tenacity", partial(peers.tenacity_retry, waits=False)),
        ("stamina", partial(peers.stamina_retry, waits=False)),
        ("backoff", partial(peers.backoff_retry, waits=False)),
        ("pyresilience", partial(peers.pyresilience_retry, waits=False)),
    )
    hyx = ("hyx", partial(peers.hyx_retry, waits=False))
    sync_subjects = [
        Subject("seawall", lambda: ours.retry_at_once()(every_other()), role="ours"),
        Subject("by hand: try, except, call again", _by_hand),
        *(Subject(name, partial(_wrapped, wrap, every_other)) for name, wrap in both),
    ]
    async_subjects = [
        Subject("seawall", lambda: ours.retry_at_once()(aevery_other()), role="ours"),
        Subject("by hand: try, except, call again", _aby_hand),
        *(Subject(name, partial(_wrapped, wrap, aevery_other)) for name, wrap in (*both, hyx)),
    ]
    with _sleeping_zero_is_free():
        in_sync = sync_table("failing sync", "One failure, one retry without waiting, sync", sync_subjects, effort)
    in_async = async_table("failing async", "One failure, one retry without waiting, async", async_subjects, effort)
    for table in (in_sync, in_async):
        table.notes.append(
            "The bare call does not fail. Logging is off; so is Seawall's retry budget: every call fails."
        )
    in_sync.notes.append("`time.sleep(0)`, which peers call here, is skipped: it costs tens of microseconds on Linux.")
    in_async.notes.append("`asyncio.sleep(0)`, one turn of the loop, is not skipped: peers wait through it.")
    return [in_sync, in_async]


@contextlib.contextmanager
def _sleeping_zero_is_free() -> Iterator[None]:
    """Fairness to the peers: the kernel's slack in `time.sleep(0)` is many times what their own code costs here."""
    sleep = time.sleep

    def skip_zero(seconds: float) -> None:
        if seconds > 0:
            sleep(seconds)

    with mock.patch("time.sleep", skip_zero):
        yield


def _wrapped(wrap: Callable[[], peers.Wrap], flaky: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    return wrap()(flaky())
