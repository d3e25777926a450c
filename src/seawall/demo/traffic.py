"""The users: when they come, what they want, and how it ended; the same on both sides, and for the same seed."""

import asyncio
import json
from dataclasses import dataclass
from random import Random

import aiohttp

from seawall.demo.layout import ITEMS, ORDER_SHARE, USER_PATIENCE, USERS
from seawall.demo.measure import Tally


@dataclass(frozen=True, slots=True)
class Arrival:
    """One user who comes `at` seconds after the phase began."""

    at: float
    user: int
    item: int
    buys: bool


def arrivals(seed: str, rate: float, seconds: float) -> tuple[Arrival, ...]:
    """Poisson arrivals at `rate` a second over `seconds`: users do not wait for each other."""
    dice = Random(f"{seed}:arrivals")
    found: list[Arrival] = []
    at = dice.expovariate(rate)
    while at < seconds:
        found.append(Arrival(at, dice.randrange(USERS), dice.randrange(ITEMS), dice.random() < ORDER_SHARE))
        at += dice.expovariate(rate)
    return tuple(found)


class FrontBroken(Exception):
    """A front did what no front may do, such as answering 500: a fault of the demo."""


class Users:
    """The users of one side."""

    def __init__(self, session: aiohttp.ClientSession, front: str, tally: Tally) -> None:
        self._session = session
        self._front = front
        self.tally = tally

    async def visit(self, arrival: Arrival, order: str) -> None:
        """One user's visit; `order` is its number if he buys."""
        loop = asyncio.get_running_loop()
        came, reason, degraded = loop.time(), "", False
        try:
            degraded, reason = await self._ask(arrival, order)
        except TimeoutError:
            reason = "the front: no answer in time"
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the front: {type(error).__name__}"
        if reason and arrival.buys:
            self.tally.orders_lost.add(order)
        self.tally.end("error" if reason else "degraded" if degraded else "served", loop.time() - came, reason)

    async def _ask(self, arrival: Arrival, order: str) -> tuple[bool, str]:
        """Whether the page was a lesser one, and the error it showed."""
        if arrival.buys:
            method, url = "POST", f"{self._front}/orders/{arrival.item}?order={order}"
        else:
            method, url = "GET", f"{self._front}/items/{arrival.item}?user={arrival.user}"
        patience = aiohttp.ClientTimeout(total=USER_PATIENCE)
        async with self._session.request(method, url, timeout=patience) as reply:
            if reply.status in (200, 429, 502, 503, 504):
                page = json.loads(await reply.read())
                return (bool(page["degraded"]), "") if reply.status == 200 else (False, str(page["error"]))
            raise FrontBroken(f"a front answered {reply.status} to {method} {url}: {await reply.text()}")
