"""One scenario, two worlds: the same test runs in a thread and in asyncio, both in virtual time.

A test marked `@in_both_worlds` is an `async def` that takes a `world`; what it awaits never suspends in the synchronous
one, so that its text is the same for both.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from seawall import Outcome, Policy, events
from seawall.events import Event
from seawall.runtime import chance, clock, jobs
from seawall.runtime.blocking import drive
from seawall.testing import VirtualClock, VirtualLoop

__all__ = ["World", "all_end", "fail", "heard", "in_both_worlds", "in_threads", "until", "workers_go_home"]

Scenario = Callable[..., Coroutine[Any, Any, None]]


class World:
    """Calls policies in one of the two ways, and lets virtual time pass."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.is_async:
            VirtualLoop(seed=0).run(scenario)
            return
        restore = chance.install(Random("jitter 0").random)
        try:
            with VirtualClock():
                drive(scenario())
        finally:
            restore()

    def way_of(self, function: Any) -> Callable[..., Any]:
        """A fake or a plain function, as this world's calls want it: plain, or async."""
        if not self.is_async or inspect.iscoroutinefunction(function):
            return function
        if hasattr(function, "aio"):
            return function.aio

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return awaited

    async def call(self, policy: Policy, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.is_async:
            return await policy.acall(self.way_of(function), *args, **kwargs)
        return policy.call(function, *args, **kwargs)

    async def outcome(self, policy: Policy, function: Any, /, *args: Any, **kwargs: Any) -> Outcome[Any]:
        if self.is_async:
            return await policy.arun(self.way_of(function), *args, **kwargs)
        return policy.run(function, *args, **kwargs)

    async def error_of(self, policy: Policy, function: Any, /, *args: Any) -> BaseException:
        """What the call raises; the test fails if it raises nothing."""
        with pytest.raises(BaseException) as caught:  # noqa: PT011  # whatever it is, the test looks at it
            await self.call(policy, function, *args)
        return caught.value

    async def passes(self, seconds: float) -> None:
        """Let virtual time pass."""
        if self.is_async:
            await asyncio.sleep(seconds)
        else:
            clock.sleep_ns(round(seconds * 1e9))

    @property
    def now(self) -> float:
        return clock.now_ns() / 1e9


def in_both_worlds(test: Scenario) -> Callable[..., None]:
    """Run an async test of `world` (and fixtures) with threads' calls and with asyncio's."""

    @pytest.mark.parametrize("world", [World(is_async=False), World(is_async=True)], ids=["sync", "async"])
    @functools.wraps(test)
    def both(world: World, **fixtures: Any) -> None:
        world.run(lambda: test(world, **fixtures))

    return both


@contextmanager
def heard(*kinds: type[Event]) -> Any:
    """The events of the block, in order."""
    seen: list[Any] = []
    stop = events.subscribe(seen.append, *kinds)
    try:
        yield seen
    finally:
        stop()


def fail(error: BaseException | type[BaseException] = ConnectionError) -> Callable[..., Any]:
    """A function that raises, whatever it is called with."""

    def failing(*args: object, **kwargs: object) -> None:
        raise error

    return failing


def in_threads(functions: Sequence[Callable[[], object]]) -> list[Any]:
    """Start all functions at once, one thread each; their results or errors in order."""
    ends: list[Any] = [None] * len(functions)
    start = threading.Barrier(len(functions))

    def run(number: int) -> None:
        start.wait(10)
        try:
            ends[number] = functions[number]()
        except BaseException as error:
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return ends


@pytest.fixture(autouse=True)
def workers_go_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads of bulkheads end with the test: one that idled on would meet the next test's replaced locks and clock."""
    monkeypatch.setattr(jobs, "IDLE_SECONDS", 0.02)
    before = set(threading.enumerate())
    yield
    until(lambda: not any(each.name.startswith("seawall ") for each in set(threading.enumerate()) - before))


def until(condition: Callable[[], object]) -> None:
    """Give other threads time until `condition()` holds; fails after 20 s, which no sound run comes near."""
    for _ in range(20_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came to that")


async def all_end(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """Run calls beside each other; their results or errors in order."""
    return list(await asyncio.gather(*calls, return_exceptions=True))
