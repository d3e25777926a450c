"""What kind of function a user handed in, and whether it will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seawall.errors import ConfigError
from seawall.units import given

__all__ = ["check_predicate", "is_coroutine_function", "is_generator_function"]

ASYNC = 0x80 | 0x200
"""The flags of a code object that is a coroutine or an async generator (`inspect.CO_COROUTINE`, without `inspect`)."""


def check_predicate(function: object, field: str, expected: str) -> None:
    """Raise `ConfigError` unless it is None or a plain function: the coroutine of an async one would always be true."""
    if function is None:
        return
    if not callable(function):
        raise ConfigError(f"{given(field, function)}: expected {expected}")
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & ASYNC:
        raise ConfigError(f"{given(field, function)}: expected {expected} that is not async")


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: `async def`, a partial of one, or an object with an async `__call__`."""
    import inspect  # noqa: PLC0415  # ten milliseconds that `import seawall` need not take

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, of either kind."""
    import inspect  # noqa: PLC0415  # as above

    if getattr(function, "__globals__", {}).get("__name__") == "contextlib":
        return True  # made by @contextmanager: what it guards has not run when it returns
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
