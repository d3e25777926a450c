"""Functions that fail to order: a script of answers, errors, delays and hangs, or errors at a seeded rate.

Each is called like the real function, `fake(...)` from synchronous code and `await fake.aio(...)` from asyncio, and
keeps account of its calls.
"""

from __future__ import annotations

import asyncio
from random import Random
from threading import Lock
from typing import Any, Final, Literal, cast, final

from seawall.errors import ConfigError
from seawall.runtime import clock
from seawall.units import Duration, duration_ns, fraction_ppm

__all__ = ["CannotHang", "Flaky", "Script", "hang", "returns", "slow"]


class CannotHang(BaseException):
    """A script came to `hang` in synchronous code. A thread cannot be interrupted, so the test would never end.

    It is no `Exception`, so that no retry or fallback under test takes it for a failure of the call.
    """


@final
class _Hang:
    def __repr__(self) -> str:
        return "hang"


hang: Final = _Hang()
"""A step that never ends: in asyncio until it is cancelled; in synchronous code it raises `CannotHang`."""


@final
class slow:  # noqa: N801  # reads as a verb in a script: slow("200ms", "late answer")
    """A step that takes a while and then does another: `slow("200ms", "value")`, `slow(1.5, TimeoutError)`.

    `delay` is in seconds or a string such as `"150ms"`, from 0 to 100 years. Raises `ConfigError` for anything else.
    """

    def __init__(self, delay: Duration, then: object = None) -> None:
        self.delay_ns = duration_ns(delay, "delay")
        self.then = then


@final
class returns:  # noqa: N801  # reads as a verb in a script: returns(ValueError)
    """A step that returns `value` even if it is an exception, a class of exceptions or another step."""

    def __init__(self, value: object) -> None:
        self.value = value


class _Fake:
    """Accounts for calls, and plays what `_next` answers. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        """The arguments of each call, in order: `(args, kwargs)`."""
        self.times: list[float] = []
        """When each call began: seconds on the library's clock, which in virtual time starts at 0."""
        self.running = 0
        """How many calls are under way."""
        self.most_running = 0
        """The most calls that ever were under way at once."""
        self.cancelled = 0
        """How many asyncio calls were cancelled under way."""

    def _next(self, number: int) -> object:
        raise NotImplementedError

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        with self._lock:
            self.calls.append((args, kwargs))
            self.times.append(clock.now_ns() / 1e9)
            step = self._next(len(self.calls) - 1)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            return step

    def _end(self, cancelled: bool = False) -> None:
        with self._lock:
            self.running -= 1
            self.cancelled += cancelled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        step = self._begin(args, kwargs)
        try:
            while isinstance(step, slow):
                clock.sleep_ns(step.delay_ns)
                step = step.then
            if step is hang:
                raise CannotHang('a thread cannot be interrupted: use slow("...") here, or call .aio from asyncio')
            return _outcome(step)
        finally:
            self._end()

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        """The same function for asyncio."""
        step = self._begin(args, kwargs)
        cancelled = False
        try:
            while isinstance(step, slow):
                await asyncio.sleep(step.delay_ns / 1e9)
                step = step.then
            if step is hang:
                await asyncio.get_running_loop().create_future()
            return _outcome(step)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            self._end(cancelled)


def _outcome(step: object) -> Any:
    if isinstance(step, returns):
        return step.value
    if isinstance(step, BaseException):
        # An error that is raised again would grow its traceback with every call.
        raise step.with_traceback(None)
    if isinstance(step, type) and issubclass(step, BaseException):
        raise step
    return cast("Any", step)


class Script(_Fake):
    """Plays one step per call: an exception or class of exceptions is raised, `hang` and `slow(...)` do as they say,
    anything else is returned (and `returns(x)` returns `x` whatever it is).

    After the last step, `then="repeat"` plays that step again for ever, `"cycle"` begins anew, and `"fail"` raises an
    `AssertionError`. Raises `ConfigError` without steps or for another `then`.

    >>> fetch = Script(ConnectionError("refused"), slow("200ms", "late"), "prompt")
    >>> try:
    ...     fetch("/a")
    ... except ConnectionError as error:
    ...     print(error)
    refused
    >>> from seawall.testing import run
    >>> run(lambda: fetch.aio("/b")), fetch("/c", retry=True), fetch("/d")
    ('late', 'prompt', 'prompt')
    >>> fetch.calls[2]
    (('/c',), {'retry': True})
    """

    def __init__(self, *steps: object, then: Literal["repeat", "cycle", "fail"] = "repeat") -> None:
        super().__init__()
        if not steps:
            raise ConfigError("steps=(): expected at least one step")
        if then not in ("repeat", "cycle", "fail"):
            raise ConfigError(f'then={then!r}: expected "repeat", "cycle" or "fail"')
        self._steps = steps
        self._then = then

    def _next(self, number: int) -> object:
        if number < len(self._steps):
            return self._steps[number]
        if self._then == "fail":
            return AssertionError(f"call {number + 1} of a script of {len(self._steps)}")
        return self._steps[number % len(self._steps) if self._then == "cycle" else -1]


class Flaky(_Fake):
    """Fails at a rate from 0 to 1, and which calls fail depends on `seed` alone; else plays the step `value`.

    `error` is the exception, class of exceptions or other step of a failing call. Raises `ConfigError` for a rate
    outside 0 to 1.

    >>> fetch = Flaky(rate=0.5, error=TimeoutError, seed=3, value="ok")
    >>> def outcome():
    ...     try:
    ...         return fetch()
    ...     except TimeoutError:
    ...         return "failed"
    >>> [outcome() for _ in range(4)]
    ['ok', 'failed', 'failed', 'failed']
    """

    def __init__(
        self,
        rate: float = 0.3,
        *,
        error: object = ConnectionError,
        seed: int = 0,
        value: object = None,
    ) -> None:
        super().__init__()
        fraction_ppm(rate, "rate", zero=True)
        self._rate = rate
        self._random = Random(f"flaky {seed}")
        self._error = error
        self._value = value

    def _next(self, number: int) -> object:
        return self._error if self._random.random() < self._rate else self._value
