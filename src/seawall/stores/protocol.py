"""What a store of limits is: it opens a table for a limiter, and each step on a table is atomic.

A limiter has one or more named limits. An `Ask` is what one subject wants of them: a cost for each, all or none. A
refusal changes nothing. A `hold` takes the costs aside without counting them yet; `settle` gives them back and counts
what was really used, at that moment; a hold that is never settled counts in full when it expires.

`Memory` also does the same without a coroutine (see memory.py); a limiter uses that where it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from seawall.record import Record

if TYPE_CHECKING:
    from seawall.machines.limit import Limit
    from seawall.runtime.protocol import Runtime
    from seawall.stores.decision import Decision

__all__ = ["Ask", "Slots", "Store", "Table"]


class Ask(Record):
    """What one subject wants: `costs` by the name of the limit. With `peek` it is only looked at."""

    key: str
    costs: Mapping[str, int]
    peek: bool = False

    def __init__(self, key: str, costs: Mapping[str, int], peek: bool = False) -> None:
        # There is one for each decision of a store, and the way that serves every record takes five times as long.
        own = self.__dict__
        own["key"] = key
        own["costs"] = costs
        own["peek"] = peek


class Table(Protocol):
    """The states of one limiter."""

    async def take(self, runtime: Runtime, asks: Sequence[Ask]) -> list[Decision]:
        """Decide each, in order, each seeing what the ones before it took."""
        ...

    async def hold(self, runtime: Runtime, ask: Ask, lasts_ns: int) -> tuple[Decision, Any]:
        """As `take`, but set aside; the second is what `settle` wants, None after a refusal."""
        ...

    async def settle(self, runtime: Runtime, held: Any, actual: Mapping[str, int]) -> bool:
        """End a hold and count what was used; tells whether it was still open. Nothing used is a cancellation."""
        ...

    async def reset(self, runtime: Runtime, key: str) -> None:
        """Forget a subject."""
        ...

    def reconfigure(self, limits: Mapping[str, Limit[Any]]) -> None:
        """Take other numbers for limits of the same names and kinds; what is used stays used, as far as there is
        room."""
        ...

    def snapshot(self) -> dict[str, Any]: ...


@runtime_checkable
class Slots(Protocol):
    """A table that hands out slots of a leaky bucket before their time; `MemoryTable` does so without a coroutine."""

    async def next_slot(self, runtime: Runtime, ask: Ask, most_ns: int | None) -> tuple[Decision, int, Any]:
        """Take the next slot if its wait is at most so long: the decision, the wait, and what `free_slot` wants."""
        ...

    async def free_slot(self, runtime: Runtime, slot: Any) -> None:
        """Nobody will use it: free it if it is the last. Does not wait for a server."""
        ...


class Store(Protocol):
    """A place for tables."""

    def open(self, limiter: str, limits: Mapping[str, Limit[Any]]) -> Table:
        """Raises `ConfigError` for a limit that it cannot keep."""
        ...
