"""`Policy`: layers around a call, with the state they need; for functions, methods and blocks, sync and async."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from seawall.errors import ConfigError
from seawall.policies.bulkhead import Bulkhead, BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard, CircuitBreaker
from seawall.policies.functions import is_coroutine_function, is_generator_function
from seawall.policies.keyed import MOST_KEYS, Keyed, KeyedMap, Per
from seawall.policies.layer import Live, Site
from seawall.policies.spec import Spec
from seawall.policy.block import Attempts, Guard
from seawall.policy.caller import Caller
from seawall.policy.meter import Meter
from seawall.policy.outcome import Outcome
from seawall.units import count_of, flag_of

if TYPE_CHECKING:
    from seawall.policy.lint import Finding

__all__ = ["Policy"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_numbers = itertools.count(1)


class _Generated:
    """Stands for `call` and `acall` until they are first asked for; then the policy has a frame in their place."""

    def __init__(self, method: Callable[..., Any], *, is_async: bool) -> None:
        self.__doc__ = method.__doc__
        self.__wrapped__ = method
        self._name = method.__name__
        self._is_async = is_async

    def __get__(self, policy: Policy | None, owner: type[Policy]) -> Any:
        if policy is None:
            return self.__wrapped__
        call = vars(policy)[self._name] = policy.caller.functions(is_async=self._is_async)[1]
        return call


def _generated(method: F) -> F:
    return cast("F", _Generated(method, is_async=method.__name__ == "acall"))


class Policy:
    """A live chain of layers, outermost first. It owns the state: one breaker, one bulkhead, one budget for each layer.

    Args:
        layers: specs (`Retry(...)`, `CircuitBreaker()`, ...); a `Policy` among them is entered as it is, with its own
        state, which is
            how state is shared. The usual order: Fallback, Timeout (total), Retry or Hedge, CircuitBreaker, Bulkhead,
            Timeout (of an attempt); `lint()` tells what is odd about another.
        name: appears in errors, events and snapshots. Default: "policy-N".
        shadow: watch only. Every layer counts and reports what it would have done, and the call is made once,
        unchanged. max_keys: how many keys `for_key` keeps.

    Raises:
        ConfigError: a layer is not one.

    Example:
        >>> from seawall import Policy, Retry, CircuitBreaker, Bulkhead
        >>> pay = Policy(Retry(on=ConnectionError), CircuitBreaker(), Bulkhead(20), name="payments")
        >>> @pay
        ... def charge(order: str) -> str: return f"charged {order}"
        >>> charge("A-1")
        'charged A-1'
        >>> pay.call(str.upper, "ok")
        'OK'
    """

    def __init__(
        self, *layers: Spec | Policy, name: str | None = None, shadow: bool = False, max_keys: int = MOST_KEYS
    ) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Policy(name={name!r}): expected a string")
        self.name = f"policy-{next(_numbers)}" if name is None else name
        self.shadow = flag_of(shadow, "Policy(shadow)")
        self.specs: tuple[Spec | Policy, ...] = layers
        count_of(max_keys, "Policy(max_keys)", most=1_000_000)
        site = Site(self.name, shadow)
        self._meter = Meter(site)
        bound: list[Live] = [self._meter]
        for layer in layers:
            if isinstance(layer, Policy):
                if shadow and not layer.shadow:
                    raise ConfigError(
                        f"{self.name}: shadow=True, but {layer.name} in it is not in shadow and would act"
                    )
                bound.extend(layer.layers)
            elif isinstance(layer, Spec):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
                bound.extend(_named_apart(layer.bind(site), bound))
            else:
                raise ConfigError(f"Policy({layer!r}): expected layers such as Retry(...), or another Policy")
        self.layers: tuple[Live, ...] = tuple(bound)
        """The live layers, outermost first, those of nested policies included."""
        self.caller = Caller(self.name, self.layers)
        """Builds and makes the calls; for layers and integrations, not for users."""
        self._by_key: KeyedMap[Policy] = KeyedMap(self._make_for, max_keys)

    # -- calling -------------------------------------------------------------------------------------------------

    @_generated
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function under the policy. Raises what the layers let through, and `TypeError` for an async
        function."""
        raise AssertionError("generated at the first use")

    @_generated
    async def acall(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function (or, with `Bulkhead(threads=True)`, a blocking one) under the policy, and await it."""
        raise AssertionError("generated at the first use")

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """As `call`, but the end comes back as an `Outcome`; only cancellation and exit are raised."""
        return self.caller.run(function, args, kwargs)

    async def arun(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """As `acall`, but the end comes back as an `Outcome`; only cancellation and exit are raised."""
        return await self.caller.arun(function, args, kwargs)

    def __call__(self, function: F, /) -> F:
        """Decorate a function or method, sync or async. Its signature, name and types stay.

        Raises `TypeError` for what cannot be protected: classes, generator functions, properties.
        """
        if isinstance(function, (staticmethod, classmethod)):
            method = cast("Any", function)
            return cast("F", type(method)(self(method.__func__)))
        _refuse_undecoratable(function)
        is_async = is_coroutine_function(function)
        if is_async and self.caller.on_threads:
            raise ConfigError(f"{self.name}: Bulkhead(threads=True) runs blocking functions, and {function!r} is async")
        bind = self.caller.functions(is_async=is_async)[0]
        return cast("F", update_wrapper(bind(function), function))

    def guard(self) -> Guard:
        """One attempt at a block: `with policy.guard(): ...` or `async with policy.guard(): ...`.

        Raises `TypeError` if the policy would have to repeat the block or to answer in its place, and whatever the
        guards refuse with.

        >>> from seawall import Policy, Bulkhead
        >>> reports = Policy(Bulkhead(2))
        >>> with reports.guard():
        ...     print(reports[Bulkhead].in_use)
        1
        """
        self._fit_for_blocks("guard()", repeats=False)
        return Guard(self.caller.begin_block)

    def attempts(self) -> Attempts:
        """A block that may be tried again: `for attempt in policy.attempts():` with `with attempt:` in its body.

        In async code it is `async for`, with the same `with`. Raises `TypeError` if the policy would have to answer
        in the block's place.

        >>> from seawall import Policy, Retry
        >>> answers = iter([ConnectionError("refused"), None])
        >>> for attempt in Policy(Retry(on=ConnectionError)).attempts():
        ...     with attempt:
        ...         error = next(answers)
        ...         if error: raise error
        ...         print("done in attempt", attempt.number)
        done in attempt 2
        """
        self._fit_for_blocks("attempts()", repeats=True)
        return Attempts(self.caller.begin_block)

    # -- state -----------------------------------------------------------------------------------------------------

    def for_key(self, key: Hashable) -> Policy:
        """The same policy with state of its own for `key` (a tenant, a shard, a replica); nested policies stay shared.

        Up to `max_keys` are kept; the one unused for longest makes room, but never one whose breaker is open or whose
        bulkhead is in use. If there are too many of those, new keys share one. Raises `ConfigError` for None.
        """
        return self._by_key.get(key)

    def keys(self) -> list[Hashable]:
        """The keys for which `for_key` keeps a policy now, the one unused for longest first."""
        return [key for key, _ in self._by_key.items()]

    def _make_for(self, key: Hashable) -> Policy:
        return Policy(*self.specs, name=f"{self.name}[{str(key)[:64]}]", shadow=self.shadow, max_keys=1)

    @property
    def busy(self) -> bool:
        """Whether a layer of its own is in a state that matters: an open breaker, a bulkhead in use."""
        return any(layer.busy for layer in self.layers if layer.policy == self.name)

    @overload
    def __getitem__(self, which: type[CircuitBreaker]) -> BreakerGuard: ...
    @overload
    def __getitem__(self, which: type[Bulkhead]) -> BulkheadGuard: ...
    @overload
    def __getitem__(self, which: type[Per]) -> Keyed: ...
    @overload
    def __getitem__(self, which: type[Spec] | str) -> Any: ...
    def __getitem__(self, which: type[Spec] | str) -> Any:
        """The live layer of a kind, or of a name, to be worked by hand: `policy[CircuitBreaker].force_open()`.

        A layer made by `.per(key)` is `policy[Per]`, and that of one key `policy[Per].of(key)`.
        Raises `KeyError` if there is none, or if there are several and it takes the name to tell which.
        """
        found = [layer for layer in self.layers if layer.by_hand and _is(layer, which)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(layer.name) for layer in found or self.layers if layer.by_hand)
        wanted = which if isinstance(which, str) else which.__name__
        if found:
            raise KeyError(f"{self.name}: {len(found)} layers fit {wanted}; ask by name, policy[name]: {names}")
        raise KeyError(f"{self.name} has no layer {wanted}; it has {names}")

    def snapshot(self) -> dict[str, Any]:
        """The state of the policy and its layers as JSON-ready values."""
        layers = [
            {"kind": layer.kind, "name": layer.name, "policy": layer.policy, **layer.snapshot()}
            for layer in self.layers
            if not isinstance(layer, Meter)
        ]
        return {"policy": self.name, "shadow": self.shadow, **self._meter.snapshot(), "layers": layers}

    def explain(self) -> str:
        """A readable paragraph: what would happen to the next call, and why."""
        from seawall.policy.explain import explain  # noqa: PLC0415  # for operators, not for start-up

        return explain(self)

    def lint(self, *, calls_per_second: float | None = None) -> list[Finding]:
        """What is odd about this policy; empty if nothing is. See `seawall.policy.lint` for the rules.

        `calls_per_second` is the traffic you expect; it lets the rules tell whether a breaker can ever see enough
        calls.
        """
        from seawall.policy.lint import lint  # noqa: PLC0415  # for developers, not for start-up

        return lint(self, calls_per_second=calls_per_second)

    def __repr__(self) -> str:
        return f"Policy({', '.join([*map(repr, self.specs), f'name={self.name!r}'])})"

    def _fit_for_blocks(self, what: str, *, repeats: bool) -> None:
        for layer in self.layers:
            if layer.replaces or layer.wraps or (layer.repeats and not repeats):
                doing = "repeat the block" if layer.repeats else "answer in place of the block"
                reason = f"cannot be used with {layer.name}, which would have to {doing}"
                raise TypeError(f"{self.name}: {what} {reason}; give it a function")
            if layer.judges_results:
                raise TypeError(f"{self.name}: {what} has no result for {layer.name} to judge; give it a function")
            if isinstance(layer.spec, Per):
                raise TypeError(
                    f"{self.name}: {what} has no arguments to take the key of {layer.name} from; use for_key()"
                )
        if self.caller.on_threads:
            raise TypeError(
                f"{self.name}: {what} cannot move a block to a thread of Bulkhead(threads=True); give it a function"
            )


def _named_apart(layers: Sequence[Live], others: Sequence[Live]) -> Sequence[Live]:
    """Give a layer whose name is taken a number, so that `policy[name]`, errors and events can tell them apart."""
    taken = {other.name for other in others}
    for layer in layers:
        name, number = layer.name, 2
        while layer.name in taken:
            layer.name = f"{name}-{number}"
            number += 1
    return layers


def _refuse_undecoratable(function: object) -> None:
    hint = None
    if isinstance(function, type):
        hint = "a class: decorate its methods"
    elif isinstance(function, property):
        hint = "a property: put @property above the policy"
    elif not callable(function):
        hint = "not callable"
    elif is_generator_function(function):
        hint = "a generator function: its body runs later, without protection; protect what it calls"
    if hint is not None:
        raise TypeError(f"cannot protect {function!r}: {hint}")


def _is(layer: Live, which: type[Spec] | str) -> bool:
    if isinstance(which, str):
        return layer.name == which
    return isinstance(layer.spec, which)
