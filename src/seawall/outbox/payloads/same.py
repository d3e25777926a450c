"""Whether what comes back is what went in: two values compared part by part, with their types.

`==` would not do: 1 == True == 1.0, Decimal("1.0") == Decimal("1.00"), and many classes compare by identity.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable
from datetime import datetime, time
from decimal import Decimal
from typing import Any, cast

from seawall.outbox.payloads.codec import DEEPEST, MOST_VALUES, Unfit, shown

__all__ = ["Comparison"]

_PLAIN = frozenset({str, int, bool, bytes, bytearray, type(None)})
_MISSING = object()


class Comparison:
    """Looks at every part once; bounded in depth and number."""

    def __init__(self) -> None:
        self._seen = 0

    def check(self, given: Any, back: Any, depth: int = 0) -> None:
        """Raises `Unfit` with the path to the first part that differs."""
        kind = cast("Any", type(given))
        if kind is int and type(back) is float and back == given:
            return  # as type checkers have it: an int will do where a float is asked for
        if kind is not type(back):
            raise Unfit(_other_kind(kind, type(back)))
        if kind in _PLAIN:
            same: bool = given == back
        elif kind is float:
            same = given == back or (math.isnan(given) and math.isnan(back))
        elif isinstance(given, enum.Enum):
            same = given is back
        elif isinstance(given, (datetime, time)):
            same = _same_time(given, back)
        elif isinstance(given, Decimal):
            same = given.as_tuple() == cast("Decimal", back).as_tuple()
        else:
            same = self._check_inside(given, back, depth)
        if not same:
            raise Unfit(f"this {kind.__name__} would come back as another value", ValueError)

    def _check_inside(self, given: Any, back: Any, depth: int) -> bool:
        names = _fields_of(given)
        if names is None and not issubclass(cast("Any", type(given)), (list, tuple, set, frozenset, dict)):
            return bool(given == back)
        self._count(given if names is None else names, depth)
        if names is not None:
            for name in names:
                self._part(f".{name}", getattr(given, name, _MISSING), getattr(back, name, _MISSING), depth)
            return True
        if isinstance(back, dict):
            return self._check_dict(given, cast("Any", back), depth)
        if isinstance(back, (set, frozenset)):
            found = {each: each for each in cast("Any", back)}
            return len(given) == len(found) and all(self._is_same(each, found, depth) for each in given)
        if len(given) != len(back):
            return False
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            self._part(f"[{number}]", one, other, depth)
        return True

    def _check_dict(self, given: dict[Any, Any], back: dict[Any, Any], depth: int) -> bool:
        found = {each: each for each in back}
        if len(given) != len(found):
            return False
        for key, value in given.items():
            if not self._is_same(key, found, depth):
                return False
            self._part(f"[{shown(key)}]", value, back[key], depth)
        return True

    def _is_same(self, each: Any, found: dict[Any, Any], depth: int) -> bool:
        if each not in found:
            return False
        self._part(f"[{shown(each)}]", each, found[each], depth)
        return True

    def _part(self, place: str, given: Any, back: Any, depth: int) -> None:
        try:
            if (given is _MISSING) is not (back is _MISSING):
                raise Unfit("it is not set, or would not be when it comes back", ValueError)
            self.check(given, back, depth + 1)
        except Unfit as refusal:
            refusal.path.append(place)
            raise

    def _count(self, parts: Any, depth: int) -> None:
        self._seen += len(parts)
        if depth >= DEEPEST:
            raise Unfit(f"more than {DEEPEST} levels deep, or inside itself", ValueError)
        if self._seen > MOST_VALUES:
            raise Unfit(f"more than {MOST_VALUES} values", ValueError)


def _same_time(given: Any, back: Any) -> bool:
    if (given.tzinfo is None) is not (back.tzinfo is None):
        return False
    if given.tzinfo is not None and given.tzinfo.utcoffset(None) is None:
        # Its rules for summer time would be lost: a day later it may be another hour.
        hint = "convert it to UTC: .astimezone(timezone.utc)"
        raise Unfit(f"of the time zone {shown(given.tzinfo)} only the offset would come back; {hint}", ValueError)
    # Where the offset is fixed, `fold` says nothing.
    folded = given.tzinfo is None and given.fold != back.fold
    return bool(given == back and given.utcoffset() == back.utcoffset() and not folded)


def _fields_of(value: Any) -> list[str] | None:
    """The names of the fields of a structure, None for what is none."""
    kind = cast("Any", type(value))
    if hasattr(kind, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(value)]
    names: Iterable[str] | None = getattr(kind, "__struct_fields__", None)  # msgspec
    if names is not None:
        return list(names)
    attributes: Any = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return [attribute.name for attribute in attributes]
    names = getattr(kind, "__pydantic_fields__", None)
    if names is None:
        return None
    return [*names, *(getattr(value, "__pydantic_extra__", None) or ())]


def _other_kind(given: Any, back: Any) -> str:
    if issubclass(given, back):
        return f"{given.__name__} would come back as {back.__name__}, and what it adds be lost; annotate what is given"
    return f"{given.__name__} would come back as {back.__name__}; give {back.__name__}, or annotate what is given"
