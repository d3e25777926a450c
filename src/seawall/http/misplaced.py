"""A decorator above the one that registers a function does nothing: found out when it is applied, and said."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from seawall.errors import ConfigError

__all__ = ["refuse_if_registered"]


def refuse_if_registered(function: object, owner: str, holds: Callable[[Any], bool]) -> None:
    """Raise `ConfigError` if something in sight of whoever decorates has the function already.

    `holds(thing)` tells whether a thing is a router that has it. In sight are the variables of the calling function and
    its module, the attributes of its own package's modules there, and those of `self` and the like.
    """
    for name, thing in _in_sight():
        if holds(thing):
            called = getattr(function, "__name__", "the function")
            raise ConfigError(
                f"@{owner} stands above the decorator of {name} that registers {called!r}: it was registered as it is, "
                f"and would never be limited. Put @{owner} below, next to the function"
            )


def _in_sight() -> Iterator[tuple[str, Any]]:
    """Names and things, as whoever decorates sees them."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "seawall":
        frame = frame.f_back
    if frame is None:
        return
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    # One of the two is enough in a module, where they are the same.
    scopes: list[Mapping[str, Any]] = [frame.f_globals]
    if frame.f_locals is not frame.f_globals:
        scopes.insert(0, frame.f_locals)
    for scope in scopes:
        for name, thing in list(scope.items()):
            yield name, thing
            # By the class itself, here and below: a proxy would be asked for what it stands for.
            is_own = issubclass(type(thing), ModuleType) and thing.__name__.partition(".")[0] == package
            if is_own or name in ("self", "cls"):
                for inner, part in list(_attributes(thing).items()):
                    yield f"{name}.{inner}", part


def _attributes(thing: object) -> Mapping[str, Any]:
    try:
        return cast("Mapping[str, Any]", object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}
