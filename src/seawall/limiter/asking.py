"""What a caller of a limiter writes, brought to one form: keys and costs."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast

from seawall.errors import ConfigError
from seawall.machines.limit import Limit
from seawall.stores.fast_hit import LONGEST_KEY
from seawall.stores.spill import SECRET

__all__ = ["Cost", "Costs", "Key", "key_of"]

Key = str | bytes
Cost = int | Mapping[str, int]


def key_of(key: object) -> str:
    """The key as stores keep it: long ones as a keyed hash, so that nobody can fill the memory with one key.

    Raises `ConfigError` for what is no text or bytes: None above all, which would put everybody into one bucket.
    """
    if isinstance(key, bytes):
        key = key.decode("utf-8", "surrogateescape")
    if not isinstance(key, str):
        hint = "; a limiter without keys is used without one" if key is None else ""
        raise ConfigError(f"key={str(key)[:60]!r}: expected str or bytes that tell callers apart{hint}")
    if len(key) <= LONGEST_KEY:
        return str(key)
    digest = blake2b(key.encode("utf-8", "surrogatepass"), key=SECRET, digest_size=16).hexdigest()
    return f"#{digest}"


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
        if isinstance(cost, Mapping):
            given: dict[str, Any] = dict(cast("Mapping[str, Any]", cost))
            if not given or any(name not in self._limits for name in given):
                known = ", ".join(map(repr, self._limits))
                raise ConfigError(f"{self._limiter}: cost={cost!r}: expected a number for some of {known}")
        else:
            given = {name: cost for name in self._limits}  # noqa: C420  # keeps its type
        for name, number in given.items():
            self._check(name, number, bounded=bounded)
        return given

    def _check(self, name: str, number: object, *, bounded: bool) -> None:
        where = f"{self._limiter}: cost" if name == self._single else f"{self._limiter}: cost of {name!r}"
        if type(number) is not int or number < 0:
            shown = str(number)[:40] if not isinstance(number, int) or abs(number) < 10**30 else "a huge number"
            raise ConfigError(f"{where}={shown}: expected a whole number from 0")
        capacity = self._limits[name].capacity
        if bounded and number > capacity:
            shown = str(number) if number < 10**30 else "a huge number"
            raise ConfigError(f"{where}={shown}: more than the limit can ever admit at once, which is {capacity}")
