"""The front of the shop without Seawall: aiohttp, the same timeouts, replicas in turn; an error is the user's.

Nothing is wrong with it. It is what one writes before the first bad day.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import cycle

from seawall.demo.client import Client
from seawall.demo.layout import SERVICES, Replicas
from seawall.demo.page import Page


class PlainFront:
    """One attempt for each call."""

    def __init__(self, replicas: Replicas, client: Client) -> None:
        self._turns = {service: cycle(addresses) for service, addresses in replicas.items()}
        self._client = client

    async def view(self, item: int, user: int) -> Page:
        stock = await self._client.get("inventory", *self._next("inventory", f"items/{item}"))
        picked = await self._client.get("recommendations", *self._next("recommendations", f"picks/{user}"))
        await self._client.post("audit", *self._next("audit", f"views/{item}"))
        return Page({"item": stock, "recommended": picked["picks"]})

    async def order(self, item: int, order: str) -> Page:
        stock = await self._client.get("inventory", *self._next("inventory", f"items/{item}"))
        await self._client.post("payments", *self._next("payments", f"charges/{order}"))
        await self._client.post("audit", *self._next("audit", f"orders/{order}"))
        return Page({"order": order, "item": stock, "audit": "written"})

    def _next(self, service: str, path: str) -> tuple[str, float]:
        """Where the next request goes, and how long it may take."""
        return f"{next(self._turns[service])}/{path}", SERVICES[service].timeout

    def at_work(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def backlog(self) -> int:
        return 0

    def explain(self) -> str:
        return "The replica whose turn it is will be asked, once. If that fails, the page fails."

    def snapshot(self) -> Mapping[str, object]:
        return {}
