"""What kind of function a user handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["is_coroutine_function", "is_generator_function"]


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: `async def`, a partial of one, or an object with an async `__call__`."""
    import inspect  # noqa: PLC0415  # ten milliseconds that `import seawall` need not take

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, of either kind."""
    import inspect  # noqa: PLC0415  # as above

    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
