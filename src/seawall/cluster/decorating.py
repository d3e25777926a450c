"""A cluster as a decorator: which functions it takes, and how the protected ones look."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from seawall.policies.functions import is_generator_function

if TYPE_CHECKING:
    from inspect import Signature

__all__ = ["dressed", "refuse_undecoratable"]


def dressed(protected: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """With the name and the text of the function; the signature without the endpoint."""
    update_wrapper(protected, function)
    signature = _signature_of(function)
    if signature is not None:
        first, *others = signature.parameters.values()
        kept = [first, *others] if first.kind is first.VAR_POSITIONAL else others
        protected.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return protected


def _signature_of(function: Callable[..., Any]) -> Signature | None:
    """None for a function of which it cannot be known, such as some built-in ones."""
    import inspect  # noqa: PLC0415  # ten milliseconds that `import seawall` need not take

    try:
        return inspect.signature(function)
    except ValueError:
        return None


def _takes_an_endpoint(function: Callable[..., Any]) -> bool:
    signature = _signature_of(function)
    if signature is None:
        return True
    first = next(iter(signature.parameters.values()), None)
    return first is not None and first.kind not in (first.KEYWORD_ONLY, first.VAR_KEYWORD)


def refuse_undecoratable(function: Callable[..., Any]) -> None:
    """Raise `TypeError` for what cannot be protected: it has no endpoint to leave out, or its body runs later."""
    hint = None
    if isinstance(function, type) or not callable(function):
        hint = "expected a function whose first parameter is the endpoint"
    elif is_generator_function(function):
        hint = "a generator function: its body runs later, without protection; protect what it calls"
    else:
        outer, dot, _ = getattr(function, "__qualname__", "").rpartition(".")
        if dot and not outer.endswith("<locals>"):
            hint = "a method: its first parameter is not the endpoint; use cluster.call(self.method, ...) instead"
        elif not _takes_an_endpoint(function):
            hint = "expected a function whose first parameter is the endpoint"
    if hint is not None:
        raise TypeError(f"cannot protect {function!r}: {hint}")
