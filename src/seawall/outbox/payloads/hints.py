"""What the annotations of an operation say: resolved one by one, and which of them plain JSON can carry."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, cast

from seawall.errors import ConfigError
from seawall.outbox.payloads.codec import Parameters

__all__ = ["hints_of", "is_plain", "mentions_pydantic", "named"]

_LEAVES: frozenset[Any] = frozenset({Any, object, str, int, float, bool, None, type(None)})
_LISTS: frozenset[Any] = frozenset(
    {
        list,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Collection,
        collections.abc.Iterable,
    }
)
_DICTS: frozenset[Any] = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def hints_of(parameters: Parameters) -> dict[str, Any]:
    """The type of each parameter that is annotated; of `*args: T` it is `list[T]`, of `**kwargs: T` `dict[str, T]`.

    Raises `ConfigError` for an annotation that cannot be resolved.
    """
    home = _home_of(parameters.function)
    found: dict[str, Any] = {}
    for name, parameter in parameters.signature.parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            continue
        hint = _resolved(parameters.operation, name, parameter.annotation, home)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            hint = cast("Any", list)[hint]
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            fields = (
                getattr(typing.get_origin(hint), "__name__", getattr(typing.get_origin(hint), "_name", "")) == "Unpack"
            )
            hint = typing.get_args(hint)[0] if fields else cast("Any", dict)[str, hint]
        found[name] = hint
    return found


def _resolved(operation: str, name: str, annotation: Any, home: Any) -> Any:
    def holder() -> None: ...

    # One at a time: the endpoint's and the result's may be unknown at run time, and nobody asks for them.
    holder.__annotations__ = {name: annotation}
    if hasattr(home, "__type_params__"):  # of `def ship[T](order: T)`
        cast("Any", holder).__type_params__ = home.__type_params__
    try:
        return typing.get_type_hints(holder, getattr(home, "__globals__", {}), include_extras=True)[name]
    except Exception as error:  # an annotation may be any expression
        hint = "its names must be known to its module at run time, not only under TYPE_CHECKING or inside a function"
        raise ConfigError(
            f"operation({operation!r}): parameter {name}: {named(annotation)} cannot be resolved "
            f"({type(error).__name__}: {error}); {hint}"
        ) from error


def _home_of(function: Callable[..., Any]) -> Any:
    """The function in whose module the annotations were written."""
    home: Any = function
    for _ in range(20):
        inner = getattr(home, "__wrapped__", None) or getattr(home, "__func__", None)
        if inner is None and not hasattr(home, "__globals__"):
            inner = getattr(home, "func", None) or getattr(cast("Any", type(home)), "__call__", None)  # noqa: B004  # the function itself is wanted
        if inner is None:
            break
        home = inner
    return home


def is_plain(hint: Any, _inside: frozenset[Any] = frozenset()) -> bool:  # noqa: PLR0911  # one for each kind of type
    """Whether strict JSON carries all that this type describes."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.TypeVar):
        parts = hint.__constraints__ or (hint.__bound__,)
        return all(is_plain(part, _inside) for part in parts)
    if isinstance(hint, typing.NewType):
        return is_plain(hint.__supertype__, _inside)
    if hasattr(hint, "__value__") and not isinstance(hint, type):  # `type X = ...`
        return id(hint) in _inside or is_plain(hint.__value__, _inside | {id(hint)})
    if origin is typing.Annotated:
        return not any(_has_limits(remark) for remark in args[1:]) and is_plain(args[0], _inside)
    if origin is typing.Literal:
        return all(type(arg) in _LEAVES for arg in args)
    if origin in (typing.Union, types.UnionType):
        return all(is_plain(arg, _inside) for arg in args)
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        return hint in _inside or all(is_plain(field, _inside | {hint}) for field in fields.values())
    if _is_one_of(hint, _LEAVES):
        return True
    kind = hint if origin is None else origin
    if _is_one_of(kind, _LISTS):
        return all(is_plain(arg, _inside) for arg in args)
    if _is_one_of(kind, _DICTS):
        return not args or (_is_text(args[0]) and is_plain(args[1], _inside))
    return False


def _is_one_of(hint: Any, kinds: frozenset[Any]) -> bool:
    try:
        return hint in kinds
    except TypeError:  # it cannot be hashed
        return False


def _is_text(hint: Any) -> bool:
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    if typing.get_origin(hint) is typing.Literal:
        return all(type(arg) is str for arg in typing.get_args(hint))
    return hint is str or hint is Any


def _has_limits(metadata: Any) -> bool:
    """Whether it is a limit of values that a library sees to, and not a remark of the user's own."""
    return type(metadata).__module__.partition(".")[0] in ("msgspec", "pydantic", "annotated_types")


def mentions_pydantic(hint: Any) -> bool:
    """Whether a type made with pydantic stands in this one, at any depth that can be seen without pydantic."""
    return any(_is_of_pydantic(part) for part in _parts(hint, []))


def _is_of_pydantic(part: Any) -> bool:
    # "pydantic" is asked for last, since annotated_types are understood by both.
    made = hasattr(part, "__get_pydantic_core_schema__") or hasattr(part, "__pydantic_validator__")
    return made or type(part).__module__.partition(".")[0] in ("pydantic", "annotated_types")


def _parts(hint: Any, seen: list[Any]) -> Iterator[Any]:
    if any(hint is each for each in seen) or len(seen) > 1_000:
        return
    seen.append(hint)
    yield hint
    inside = [*typing.get_args(hint), *getattr(hint, "__metadata__", ())]
    if hasattr(hint, "__value__") and not isinstance(hint, type):
        inside.append(hint.__value__)
    kind = typing.get_origin(hint) or hint
    if isinstance(kind, type) and any(
        hasattr(kind, mark)
        for mark in ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__", "__annotations__")
    ):
        with contextlib.suppress(Exception):  # whoever carries it will say so better
            inside += typing.get_type_hints(kind, include_extras=True).values()
    for part in inside:
        yield from _parts(part, seen)


def named(annotation: Any) -> str:
    """An annotation as it was written, or nearly."""
    if isinstance(annotation, str):
        text = annotation
    elif isinstance(annotation, type) and not typing.get_args(annotation):
        text = annotation.__qualname__
    else:
        text = repr(annotation)
    return text if len(text) <= 120 else text[:117] + "..."
