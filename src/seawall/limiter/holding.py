"""A cost that is known only afterwards: held by its estimate, settled by what was used."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seawall.limiter.asking import Costs
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.which import asyncio_runtime

if TYPE_CHECKING:
    from seawall.runtime.protocol import Runtime
    from seawall.stores.decision import Decision
    from seawall.stores.protocol import Table

__all__ = ["AwaitedReservation", "Reservation"]


class Reservation:
    """An open hold. Settle it once; a block that ends without counts the estimate in full.

    >>> from seawall import Limiter, TokenBucket
    >>> tokens = Limiter(TokenBucket("1000/min"), name="tokens")
    >>> with tokens.reserve("org:7", 800) as held:
    ...     held.settle(120)
    True
    >>> tokens.peek("org:7").remaining
    880
    """

    __slots__ = ("_costs", "_freed", "_held", "_table", "costs", "decision", "settled")

    def __init__(
        self,
        table: Table,
        checked: Costs,
        decision: Decision,
        costs: Mapping[str, int],
        held: Any,
        freed: Callable[[], object],
    ) -> None:
        self._table = table
        self._costs = checked
        self._held = held
        self._freed = freed
        self.decision = decision
        self.costs = costs
        """What is held, by limit."""
        self.settled = False

    def settle(self, actual: int | None = None, /, **by_limit: int) -> bool:
        """Count what was used: one number for all limits held, or some by name (the others count as held).

        More than was held goes into debt, down to one capacity. Tells whether the hold was still open: it may have
        expired, and counts in full then. In async code use `asettle` where the store is a server.
        """
        return drive(self._settle(BLOCKING, self._actual(actual, by_limit)))

    async def asettle(self, actual: int | None = None, /, **by_limit: int) -> bool:
        """As `settle`."""
        return await self._settle(asyncio_runtime(), self._actual(actual, by_limit))

    def cancel(self) -> bool:
        """Count nothing: the work was not done."""
        return drive(self._settle(BLOCKING, {}))

    async def acancel(self) -> bool:
        """As `cancel`."""
        return await self._settle(asyncio_runtime(), {})

    def _actual(self, actual: int | None, by_limit: dict[str, int]) -> dict[str, int]:
        if actual is not None:
            return self._costs.of(dict.fromkeys(self.costs, actual), bounded=False)
        return {**self.costs, **(self._costs.of(by_limit, bounded=False) if by_limit else {})}

    async def _settle(self, runtime: Runtime, actual: Mapping[str, int]) -> bool:
        if self.settled:
            return False
        self.settled = True
        if self._held is None:
            return False
        was_open = await self._table.settle(runtime, self._held, actual)
        self._freed()
        return was_open

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.settled:
            self.settle()

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.settled:
            await self.asettle()


class AwaitedReservation:
    """`await limiter.areserve(...)`, or `async with limiter.areserve(...) as held:`."""

    __slots__ = ("_begin", "_open")

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Reservation]]) -> None:
        self._begin = begin
        self._open: Reservation | None = None

    def __await__(self) -> Generator[Any, Any, Reservation]:
        return self._begin().__await__()

    async def __aenter__(self) -> Reservation:
        self._open = await self._begin()
        return self._open

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None, "a block is left after it was entered"
        await self._open.__aexit__(kind, error, trace)
