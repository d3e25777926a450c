"""The registry of operations: which function does the work of a name, through what, and how patiently."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, cast

from seawall.errors import ConfigError
from seawall.machines.backoff import Backoff
from seawall.outbox.payloads.codec import Codec, Parameters
from seawall.policies.classify import Errors, Matcher, matcher
from seawall.policies.functions import check_predicate, is_coroutine_function, is_generator_function
from seawall.policy.outcome import Outcome
from seawall.units import Duration, count_of, duration_ns, given

__all__ = ["ATTEMPTS", "SCHEDULE", "Operation", "Operations", "Through", "label", "order_of", "priority_of"]

ATTEMPTS = 20
BASE: Duration = 1
CAP: Duration = "15min"
MAX_AGE: Duration = "24h"
SCHEDULE = Backoff(duration_ns(BASE, "base"), 2.0, duration_ns(CAP, "cap"))
"""The pauses of an operation that gives none of its own, and of work whose operation nobody knows."""
MOST_LABEL = 255


class Through(Protocol):
    """A `Cluster` or a `Policy`: what attempts are made through."""

    @property
    def name(self) -> str: ...
    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Outcome[Any]: ...
    async def arun(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Outcome[Any]: ...


def label(value: object, field: str) -> str:
    """`value` if it may serve as a name or key, in headers and stores too. Raises `ConfigError` otherwise."""
    if not isinstance(value, str) or not 1 <= len(value) <= MOST_LABEL or not all("!" <= char <= "~" for char in value):
        bare = '; as in @outbox.operation("mail.send")' if callable(value) else ""
        raise ConfigError(
            f"{given(field, value)}: expected 1 to {MOST_LABEL} visible ASCII characters without blanks{bare}"
        )
    return value


def order_of(value: str | None, field: str) -> str | None:
    """`value` if it may be an order key. Raises `ConfigError` otherwise."""
    if value is None:
        return None
    good = isinstance(value, str) and 1 <= len(value) <= 255 and value.isprintable()  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
    if not good:
        raise ConfigError(f"{given(field, value)}: expected 1 to 255 printable characters, or None")
    return value


class Operation:
    """A function under its name. Made by `outbox.operation(...)`, whose settings it holds."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        through: Through | None,
        codec: Codec,
        key: Callable[..., str] | None,
        order: Callable[..., str | None] | None,
        priority: int,
        attempts: int,
        base: Duration,
        cap: Duration,
        max_age: Duration,
        final: Errors | None,
    ) -> None:
        field = f"operation({name!r})"
        _refuse_unfit(function, field)
        if through is not None and not (hasattr(through, "run") and hasattr(through, "arun")):
            raise ConfigError(f"{field}: {given('through', through)}: expected a Cluster or a Policy")
        check_predicate(key, f"{field} key", "a function of the call's arguments")
        check_predicate(order, f"{field} order", "a function of the call's arguments")
        self.name = name
        self.function = function
        self.through = through
        self.through_cluster = hasattr(through, "twin")
        self.codec = codec
        self.key = key
        self.order = order
        self.priority = priority_of(priority, f"{field} priority")
        self.attempts = count_of(attempts, f"{field} attempts", most=1_000)
        self.max_age_ns = duration_ns(max_age, f"{field} max_age", zero=False)
        base_ns, cap_ns = duration_ns(base, f"{field} base"), duration_ns(cap, f"{field} cap")
        if base_ns > cap_ns:
            raise ConfigError(f"{field}: {given('base', base)}: more than cap={cap!r}")
        self.schedule = Backoff(base_ns, 2.0, cap_ns)
        self.is_final: Matcher = _never if final is None else matcher(final, f"{field} final", refusals=True)
        self.is_async = is_coroutine_function(function)
        self.parameters = Parameters(name, function, takes_endpoint=self.through_cluster)
        check: Callable[[Parameters], None] | None = getattr(codec, "check", None)
        if check is not None:
            check(self.parameters)

    def __repr__(self) -> str:
        return f"Operation({self.name!r}, {self.function!r})"


def _never(_error: BaseException, /) -> bool:
    return False


def priority_of(priority: int, field: str) -> int:
    """`priority` if it is one. Raises `ConfigError` otherwise."""
    return count_of(priority, field, least=0, most=9)


def _refuse_unfit(function: object, field: str) -> None:
    shown, hint = given("function", function), None
    if isinstance(function, (staticmethod, classmethod)):
        hint = "put the decorator of the outbox under it, or register a plain function"
    elif isinstance(function, (type, property)) or not callable(function):
        hint = "expected a function"
    elif is_generator_function(function):
        hint = "a generator function runs only while it is iterated; give a plain or an async function"
    elif not _is_hashable(cast("object", function)):
        hint = "it cannot be hashed, so not be found again"
    if hint is not None:
        raise ConfigError(f"{field}: {shown}: {hint}")


class Operations:
    """Operations by name and by function. Registering a name again replaces it, so that reloading and tests work."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.RLock()
        # Replaced as wholes: readers take no lock.
        self._by_name: dict[str, Operation] = {}
        self._by_function: dict[Callable[..., Any], Operation] = {}

    def add(self, operation: Operation) -> None:
        """Register it. Raises `ConfigError` if its function has another name already."""
        with self._lock:
            namesake = self._by_function.get(operation.function)
            if namesake is not None and namesake.name != operation.name:
                hint = f"{namesake.function!r} is registered as {namesake.name!r} already; it can have one name"
                raise ConfigError(f"operation({operation.name!r}): {hint}")
            by_name = {**self._by_name, operation.name: operation}
            self._by_function = {each.function: each for each in by_name.values()}
            self._by_name = by_name

    def get(self, name: str) -> Operation | None:
        """The operation of a name, or None if it is not registered here."""
        return self._by_name.get(name)

    def of(self, function: Callable[..., Any]) -> Operation:
        """The operation of a function. Raises `ConfigError` with what to do if it is not registered."""
        try:
            found = self._by_function.get(function)
        except TypeError:
            found = None
        if found is None:
            raise ConfigError(
                f"{self._owner}: {_name_of(function)} is no operation, so it cannot be queued; {self._remedy(function)}"
            )
        return found

    def all(self) -> list[Operation]:
        """All that are registered now."""
        return list(self._by_name.values())

    def _remedy(self, function: Callable[..., Any]) -> str:
        unbound = getattr(function, "__func__", None)
        if unbound is not None:
            if unbound in self._by_function:
                return (
                    "what was registered is the function in the class, not this method of one instance; use a function"
                )
            return "a method is found again only if it is registered itself, outbox.operation(name)(thing.method)"
        inner: Any = function
        for _ in range(20):
            inner = getattr(inner, "__wrapped__", None) or getattr(inner, "func", None)
            if inner is None:
                break
            if _is_hashable(inner) and inner in self._by_function:
                return f"it wraps {_name_of(inner)}, which is one; put @outbox.operation above the other decorators"
        return "register it: @outbox.operation(name, through=...)"


def _is_hashable(thing: object) -> bool:
    try:
        hash(thing)
    except TypeError:
        return False
    return True


def _name_of(function: object) -> str:
    return cast("str", getattr(function, "__qualname__", None)) or given("function", function)
