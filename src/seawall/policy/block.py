"""Policies around a block instead of a function: `guard()` for one attempt, `attempts()` for a loop of them.

The chain is a coroutine that calls a function at its heart. For a block the heart suspends instead: the chain is
driven up to there, the block runs, and the chain is resumed with what became of it. So every layer works on a block
exactly as on a function, but for those that would have to return a value in its place.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Literal, Protocol

from seawall.policies.layer import Call, Ending

__all__ = ["Attempt", "Attempts", "Guard"]

BLOCK = object()
"""What the chain yields when it is the block's turn."""

Chain = Coroutine[Any, Any, Ending]


class Begin(Protocol):
    """Starts a chain around a block."""

    def __call__(self, *, is_async: bool) -> Chain: ...


@types.coroutine
def _hand_over() -> Generator[object, BaseException | None, Ending]:
    error = yield BLOCK
    return None, error


async def block_leaf(call: Call) -> Ending:
    """The heart of the chain: suspends until the block has run."""
    call.attempts += 1
    return await _hand_over()


class _Run:
    """One chain on its way, stepped from outside."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.attempt = 0
        self.pending: Any = None
        """What the chain waits for (a future of the loop), when it is not the block's turn."""
        self.error: BaseException | None = None
        """What the chain ended with."""

    def step(self, report: BaseException | None = None) -> bool:
        """Go on until the block's turn (True), the end (False), or a wait (False, and `pending` is set)."""
        return self._take(lambda: self._chain.send(report))

    def throw(self, error: BaseException) -> bool:
        """Go on with an error raised where the chain waits."""
        return self._take(lambda: self._chain.throw(error))

    def _take(self, go: Callable[[], Any]) -> bool:
        self.pending = None
        try:
            told = go()
        except StopIteration as stop:
            self.error = stop.value[1]
            return False
        if told is BLOCK:
            self.attempt += 1
            return True
        self.pending = told
        return False

    @types.coroutine
    def wait(self) -> Generator[Any, Any, bool]:
        """Pass the waits of the chain on to the loop until the block's turn or the end."""
        turn = False
        while self.pending is not None:
            try:
                yield self.pending
            except BaseException as error:  # noqa: BLE001  # it belongs to the chain, which waits there
                turn = self.throw(error)
            else:
                turn = self.step()
        return turn

    def settle(self, own: BaseException | None = None) -> bool:
        """Raise what the chain ended with; tell whether it is the block's `own` error, which goes its way itself."""
        error, self.error = self.error, None
        try:
            if error is None or error is own:
                return error is not None
            raise error from error.__cause__
        finally:
            del error, own  # the error knows this frame: see chain.py

    def close(self) -> None:
        self._chain.close()


def _must_block(run: _Run) -> None:
    if run.pending is not None:
        run.close()
        raise RuntimeError(
            "a synchronous block awaited something that needs an event loop; use `async with` or `async for`"
        )


class Guard:
    """One attempt at a block, under the policy: `with policy.guard():` or `async with policy.guard():`."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._run: _Run | None = None

    def _enter(self, *, is_async: bool) -> _Run:
        if self._run is not None:
            raise RuntimeError("this guard is in use: call guard() for each block")
        run = self._run = _Run(self._begin(is_async=is_async))
        return run

    def _leave(self) -> _Run:
        run, self._run = self._run, None
        assert run is not None, "a block is left once, after it was entered"
        return run

    def __enter__(self) -> None:
        run = self._enter(is_async=False)
        try:
            run.step()
            _must_block(run)
            run.settle()
        except BaseException:
            self._run = None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        run = self._leave()
        run.step(error)
        _must_block(run)
        run.settle(error)
        return False

    async def __aenter__(self) -> None:
        run = self._enter(is_async=True)
        try:
            run.step()
            await run.wait()
            run.settle()
        except BaseException:
            self._run = None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        run = self._leave()
        run.step(error)
        await run.wait()
        run.settle(error)
        return False


class Attempt:
    """One attempt: `with attempt:` tells the policy how it ended, and hides a failure that is tried again."""

    __slots__ = ("_loop", "number")

    def __init__(self, loop: Attempts, number: int) -> None:
        self._loop = loop
        self.number = number
        """1 for the first attempt."""

    def __enter__(self) -> Attempt:
        self._loop.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._loop.end(error)


class Attempts:
    """The loop of `policy.attempts()`: ends after the first attempt that succeeds; raises when the policy gives up."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._run: _Run | None = None
        self._turn = False
        self._open: Attempt | None = None
        self._is_async = False

    def begin(self, attempt: Attempt) -> None:
        if self._open is not attempt:
            raise RuntimeError("an attempt can be entered once, in its own turn of the loop")
        self._open = None

    def end(self, error: BaseException | None) -> bool:
        """The block has run; tells whether its error is dealt with."""
        run = self._run
        assert run is not None, "an attempt exists only while the loop runs"
        self._turn = run.step(error)
        if not self._is_async:
            _must_block(run)
        if run.settle(error):
            return False
        # Either it is tried again, or (async) the chain waits for something first and `async for` goes on with it.
        return error is not None

    def _next(self) -> Attempt | None:
        run = self._run
        assert run is not None, "the loop has begun"
        if self._open is not None:
            run.close()
            raise RuntimeError("the attempt was not entered: write `with attempt:` in the body of the loop")
        if not self._turn:
            return None
        self._turn = False
        self._open = Attempt(self, run.attempt)
        return self._open

    def __iter__(self) -> Iterator[Attempt]:
        run = self._run = _Run(self._begin(is_async=False))
        try:
            self._turn = run.step()
            _must_block(run)
            run.settle()
            while (attempt := self._next()) is not None:
                yield attempt
        finally:
            run.close()

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        self._is_async = True
        run = self._run = _Run(self._begin(is_async=True))
        try:
            self._turn = run.step()
            while True:
                if run.pending is not None:
                    self._turn = await run.wait()
                run.settle()
                attempt = self._next()
                if attempt is None:
                    return
                yield attempt
        finally:
            run.close()
