"""What a caller of a limiter writes, brought to one form: keys and costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from seawall.errors import ConfigError
from seawall.machines.limit import Limit
from seawall.stores.fast_hit import is_long
from seawall.stores.spill import hashed
from seawall.units import given

__all__ = ["Cost", "Costs", "Key", "key_of"]

Key = str | bytes
Cost = int | Mapping[str, int]


def key_of(key: object, *, shorten: bool = True) -> str:
    """The key as stores keep it: long ones as a keyed hash, so that nobody can fill the memory with one key.

    The hash is that of this process; `shorten=False` leaves it to the store. Raises `ConfigError` for what is no text
    or bytes: None above all, which would put everybody into one bucket.
    """
    if isinstance(key, bytes):
        key = key.decode("utf-8", "surrogateescape")
    if not isinstance(key, str):
        hint = "; a limiter without keys is used without one" if key is None else ""
        hint = "; give the text of it, str(...)" if isinstance(key, int) else hint
        raise ConfigError(f"{given('key', key)}: expected str or bytes that tell callers apart{hint}")
    if shorten and is_long(key):
        return f"#{hashed(key):032x}"
    return str.__str__(key)  # the text itself, whatever a class derived from str makes of it


class Costs:
    """Checks what one call asks of each limit."""

    def __init__(self, limiter: str, limits: Mapping[str, Limit[Any]]) -> None:
        self._limiter = limiter
        self._limits = limits
        self._single = next(iter(limits)) if len(limits) == 1 else None

    def of(self, cost: Any, *, bounded: bool = True) -> dict[str, int]:
        """A cost for each limit that is named; one number is asked of all. Raises `ConfigError` for what can never be.

        `bounded=False` allows costs above the capacity: of work that has been done already.
        """
        if type(cost) is int and self._single is not None and 0 <= cost <= self._limits[self._single].capacity:
            return {self._single: cost}  # what most ask
        if isinstance(cost, Mapping):
            costs: dict[str, Any] = dict(cast("Mapping[str, Any]", cost))
            if not costs or any(name not in self._limits for name in costs):
                known = ", ".join(map(repr, self._limits))
                raise ConfigError(f"{given(f'{self._limiter}: cost', costs)}: expected a number for some of {known}")
        else:
            costs = {name: cost for name in self._limits}  # noqa: C420  # keeps its type
        for name, number in costs.items():
            self._check(name, number, bounded=bounded)
        return costs

    def _check(self, name: str, number: object, *, bounded: bool) -> None:
        where = f"{self._limiter}: cost" if name == self._single else f"{self._limiter}: cost of {name!r}"
        if type(number) is not int or number < 0:
            raise ConfigError(f"{given(where, number)}: expected a whole number from 0")
        capacity = self._limits[name].capacity
        if bounded and number > capacity:
            most = f"more than the limit can ever admit at once, which is {capacity}"
            raise ConfigError(f"{given(where, number)}: {most}")
