"""How the calls of a policy are made: its chains and frames, built at the first use of each kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from seawall.errors import ConfigError
from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.classify import add_note
from seawall.policies.functions import is_coroutine_function
from seawall.policies.layer import Call, Ending, Live, Unwanted
from seawall.policy import frame, leaf
from seawall.policy.block import block_leaf
from seawall.policy.chain import Chain
from seawall.policy.outcome import Outcome
from seawall.runtime import off
from seawall.runtime.blocking import drive
from seawall.runtime.section import LOCKED
from seawall.runtime.which import runtime_for

__all__ = ["Caller"]

Bind = Callable[[Callable[..., Any]], Callable[..., Any]]


class Caller:
    """Makes calls through a row of live layers."""

    def __init__(self, name: str, layers: Sequence[Live], *, locked: bool = LOCKED) -> None:
        self._layers = layers
        self._locked = locked
        self._chains: dict[bool, Chain] = {}
        self.lost: dict[bool, deque[tuple[int, tuple[Any, ...]]]] = {False: deque(), True: deque()}
        pools = [layer.workers for layer in layers if isinstance(layer, BulkheadGuard) and layer.workers is not None]
        if len(pools) > 1:
            raise ConfigError(f"{name}: two bulkheads with threads=True; a call can run on one thread only")
        self._name = name
        self._leaf_on_thread = leaf.call_on_thread(pools[0]) if pools else None

    @property
    def on_threads(self) -> bool:
        """Whether functions run on a bulkhead's own threads."""
        return self._leaf_on_thread is not None

    def functions(self, *, is_async: bool) -> tuple[Bind, Callable[..., Any]]:
        """One that binds a function and returns it protected, and `call(function, *args, **kwargs)`."""
        chain = self._chain(is_async=is_async)
        if all(layer.fused for layer in self._layers):
            unwind = self._unwind_async if is_async else self._unwind
            lost = self.lost[is_async].append
            return frame.build(chain.lanes, unwind, lost, is_async=is_async, locked=self._locked)
        return (self._bind_async, self._careful_async) if is_async else (self._bind, self._careful)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome[Any]:
        """One synchronous call, with its end as a value."""
        call = self._begin(function, args, kwargs, is_async=False)
        return _outcome(call, drive(self._through(call)))

    async def arun(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome[Any]:
        """One asynchronous call, with its end as a value."""
        call = self._begin(function, args, kwargs, is_async=True)
        return _outcome(call, await self._through(call))

    def begin_block(self, *, is_async: bool) -> Coroutine[Any, Any, Ending]:
        """The chain around a block: it suspends where the block runs."""
        call = Call(runtime_for(is_async=is_async), None, (), {})
        call.leaf = block_leaf
        return self._through(call)

    # -- the two kinds of call -------------------------------------------------------------------------------------

    def _chain(self, *, is_async: bool) -> Chain:
        chain = self._chains.get(is_async)
        if chain is None:
            for layer in self._layers:
                layer.check(is_async=is_async)
            chain = self._chains[is_async] = Chain(self._layers, is_async=is_async)
        return chain

    def _begin(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_async: bool
    ) -> Call:
        call = Call(runtime_for(is_async=is_async), function, args, kwargs)
        if self._leaf_on_thread is None:
            call.leaf = leaf.call_async if is_async else leaf.call_sync
        elif is_coroutine_function(function):
            raise ConfigError(
                f"{self._name}: Bulkhead(threads=True) runs blocking functions, and {function!r} is async"
            )
        else:
            call.leaf = self._leaf_on_thread
        return call

    def _through(self, call: Call) -> Coroutine[Any, Any, Ending]:
        """The whole way of a call through the chain, without the help of a frame."""
        if off.everything:
            return call.leaf(call)
        return self._chain(is_async=call.runtime.is_async).attempt(call, 0)

    def _unwinding(
        self,
        is_async: bool,
        depth: int,
        tokens: tuple[Any, ...],
        error: BaseException,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Coroutine[Any, Any, Ending]:
        self._find_lost(is_async)
        call = self._begin(function, args, kwargs, is_async=is_async)
        if is_async and depth == len(self._layers) and type(error) is TypeError and "'await'" in str(error):
            hint = "; if the function is a blocking one: use call(), or Bulkhead(threads=True)"
            add_note(error, f"seawall: {self._name} awaits what the function returns", hint)
        call.attempts = int(depth == len(self._layers) or isinstance(error, Unwanted))
        return self._chains[is_async].unwind(call, 0, depth, tokens, None, error, {})

    def _find_lost(self, is_async: bool) -> None:
        """Give back what calls held whose unwinding could not even begin, at the end of the stack or of memory."""
        while self.lost[is_async]:
            try:
                depth, tokens = self.lost[is_async].popleft()
            except IndexError:
                return  # another thread was quicker
            for index in range(depth - 1, -1, -1):
                if self._layers[index].is_guard:
                    self._layers[index].undo(tokens[index])

    def _unwind(self, *parts: Any) -> Ending:
        return drive(self._unwinding(False, *parts))

    def _unwind_async(self, *parts: Any) -> Coroutine[Any, Any, Ending]:
        return self._unwinding(True, *parts)

    # -- policies that no frame can hold ---------------------------------------------------------------------------

    def _careful(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        call = self._begin(function, args, kwargs, is_async=False)
        return _end(drive(self._through(call)))

    async def _careful_async(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        call = self._begin(function, args, kwargs, is_async=True)
        return _end(await self._through(call))

    # A functools.partial would do, but would not become a method when it decorates one.

    def _bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def protected(*args: Any, **kwargs: Any) -> Any:
            return self._careful(function, *args, **kwargs)

        return protected

    def _bind_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def protected(*args: Any, **kwargs: Any) -> Any:
            return await self._careful_async(function, *args, **kwargs)

        return protected


def _end(ending: Ending) -> Any:
    """Return the value, or raise the error."""
    value, error = ending
    if error is None:
        return value
    try:
        raise error
    finally:
        del error, ending  # the error knows this frame: see chain.py


def _outcome(call: Call, ending: Ending) -> Outcome[Any]:
    value, error = ending
    if error is None or isinstance(error, Exception):
        return Outcome(value, error, attempts=call.attempts, degraded=call.degraded)
    try:
        raise error
    finally:
        del error, ending  # as above
