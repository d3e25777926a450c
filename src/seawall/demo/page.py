"""What a front shows, and what a front is: the two sides differ only in how they make it."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from seawall.demo.client import Answer


class Page(NamedTuple):
    """An answer to a user; `degraded` if something is missing that belongs there."""

    body: Answer
    degraded: bool = False


class Front(Protocol):
    """The shop as its users see it."""

    async def view(self, item: int, user: int) -> Page:
        """The page of an item."""
        ...

    async def order(self, item: int, order: str) -> Page:
        """Buy an item; `order` is the number of the order."""
        ...

    def at_work(self) -> AbstractAsyncContextManager[object]:
        """What has to go on beside the requests."""
        ...

    async def backlog(self) -> int:
        """How much work waits to be done later."""
        ...

    def explain(self) -> str:
        """What would happen to the next calls, and why."""
        ...

    def snapshot(self) -> Mapping[str, object]:
        """The state, as JSON-ready values."""
        ...
