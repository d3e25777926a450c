"""Settings for single pieces of work: `outbox.using(delay="1h").put(...)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall.outbox.operations import label, order_of, priority_of
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.which import asyncio_runtime
from seawall.units import Duration, duration_ns

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox
    from seawall.outbox.record import Queued
    from seawall.runtime.protocol import Runtime

__all__ = ["NO_SETTINGS", "Putting", "Settings"]


class Settings:
    """What `using` was given, checked; None leaves it to the operation."""

    __slots__ = ("delay_ns", "key", "max_age_ns", "order", "priority")

    def __init__(
        self,
        delay: Duration = 0,
        key: str | None = None,
        order: str | None = None,
        priority: int | None = None,
        max_age: Duration | None = None,
    ) -> None:
        self.delay_ns = duration_ns(delay, "using(delay)")
        self.key = None if key is None else label(key, "using(key)")
        self.order = order_of(order, "using(order)")
        self.priority = None if priority is None else priority_of(priority, "using(priority)")
        self.max_age_ns = None if max_age is None else duration_ns(max_age, "using(max_age)", zero=False)


NO_SETTINGS = Settings()


class Putting:
    """An outbox with settings for single pieces of work; made by `outbox.using(...)`."""

    def __init__(self, box: Outbox, settings: Settings) -> None:
        self._box = box
        self._settings = settings

    def put(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """As `Outbox.put`, with these settings."""
        return drive(self._put(BLOCKING, function, args, kwargs))

    async def aput(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Queued:
        """As `Outbox.aput`, with these settings."""
        return await self._put(asyncio_runtime(), function, args, kwargs)

    async def _put(
        self, runtime: Runtime, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Queued:
        work = self._box.prepare(self._box.operations.of(function), args, kwargs, self._settings)
        return await self._box.store_work(work, runtime)
