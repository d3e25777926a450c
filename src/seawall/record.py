"""`Record`: small frozen values with named fields, cheap to define.

A dataclass compiles its methods when it is defined, and so does a NamedTuple: half a millisecond to more than one for
each, and `import seawall` is on the start-up path of every service and command. A record compiles nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform

__all__ = ["Record"]


@dataclass_transform(frozen_default=True)
class Record:
    """The base of frozen values: fields are annotated in the class, in order, with defaults if they have any.

    Compared and shown by their fields. Raises `TypeError` for unknown, repeated or missing fields.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  # inspect costs ten milliseconds to import
        cls._fields = (*cls._fields, *(name for name, kind in own.items() if not kind.startswith("ClassVar")))
        cls._known = frozenset(cls._fields)

    def __init__(self, *values: Any, **named: Any) -> None:
        fields, own = self._fields, self.__dict__
        own.update(zip(fields, values, strict=False))
        given = len(values) + len(named)
        own.update(named)
        if len(own) != given or not named.keys() <= self._known:
            raise TypeError(f"{type(self).__name__}: a field was given twice, or is none of {', '.join(fields)}")
        if given < len(fields):
            for name in fields:
                if name not in own:
                    if not hasattr(type(self), name):
                        raise TypeError(f"{type(self).__name__} needs {name}")
                    own[name] = getattr(type(self), name)

    def replace(self, **changes: Any) -> Self:
        """The same value, but for the changes."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({inside})"
