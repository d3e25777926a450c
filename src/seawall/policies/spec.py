"""The base of all specs: small frozen values, compared and shown by their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from seawall.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seawall.policies.layer import Live, Site

__all__ = ["Spec"]


class Spec:
    """Describes one layer and holds no state.

    Written out instead of a dataclass for two reasons: each field is checked and brought to one form on the way
    in, and a dataclass would cost over a millisecond of `import seawall` for every spec.
    """

    __slots__ = ("name",)

    name: str
    """Distinguishes layers of one kind in a policy: `policy["name"]`, events, `explain()`."""

    def _init(self, name: str | None, **fields: object) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{type(self).__name__}(name={name!r}): expected a string")
        object.__setattr__(self, "name", type(self).__name__ if name is None else name)
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def bind(self, site: Site) -> Sequence[Live]:
        """The live layers for one policy, outermost first, each with state of its own."""
        raise ConfigError(f"{type(self).__name__} is not a layer: expected Retry(...), CircuitBreaker(...) or the like")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; they are checked as in the constructor."""
        fields = {field: getattr(self, field) for field in self._fields()}
        return type(self)(**{**fields, **changes})

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return (*cls._own_fields(), "name")

    @classmethod
    def _own_fields(cls) -> tuple[str, ...]:
        """The settings, those of a base class first."""
        kinds = [kind for kind in reversed(cls.__mro__) if issubclass(kind, Spec) and kind is not Spec]
        return tuple(field for kind in kinds for field in vars(kind).get("__slots__", ()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; use .replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __setstate__(self, state: tuple[None, dict[str, object]]) -> None:
        for field, value in state[1].items():
            object.__setattr__(self, field, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, f) == getattr(other, f) for f in self._fields())

    def __hash__(self) -> int:
        # Fields may hold any value a user gives (a fallback answer, say), hashable or not; the kind and name suffice.
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._own_fields())
        return f"{type(self).__name__}({shown})"
