"""The door of a front, the same for both sides: HTTP in, a page or an error out, and what was counted.

Run as `python -m seawall.demo.door --side seawall ...`. It answers

    GET  /items/{item}      the page of an item
    POST /orders/{item}     an order; ?order=NUMBER, or a new number
    GET  /explain           what would happen to the next calls, and why
    GET  /stats             what was counted since the start
"""

import argparse
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Final
from uuid import uuid4

from aiohttp import web

from seawall.demo import ledger
from seawall.demo.client import NO_ANSWER, CallFailed, Client, session
from seawall.demo.deeds import DeedCounter
from seawall.demo.front import SeawallFront
from seawall.demo.layout import SIDES, Replicas
from seawall.demo.lifeline import application, json_line, live, serve
from seawall.demo.page import Front, Page
from seawall.demo.plain import PlainFront
from seawall.errors import DeadlineExceeded, Rejected

FRONTS: Final[Mapping[str, Callable[[Replicas, Client], Front]]] = {"plain": PlainFront, "seawall": SeawallFront}


class Door:
    """Answers the users of one front."""

    def __init__(self, front: Front, client: Client) -> None:
        self._front = front
        self._client = client
        self._deeds = DeedCounter()
        self._cpu_at_start = time.process_time()

    async def view(self, request: web.Request) -> web.Response:
        """The page of an item."""
        item, user = int(request.match_info["item"]), request.query.get("user", "0")
        if not (user.isascii() and user.isdigit() and len(user) <= 9):
            return json_line({"error": "user must be a number"}, 400)
        return await _answer(self._front.view(item, int(user)))

    async def order(self, request: web.Request) -> web.Response:
        """One order."""
        order = request.query.get("order") or uuid4().hex
        if not ledger.ORDER.fullmatch(order):
            return json_line({"error": "order must be 1 to 64 letters, digits and hyphens"}, 400)
        return await _answer(self._front.order(int(request.match_info["item"]), order))

    async def explain(self, request: web.Request) -> web.Response:
        """For people."""
        return web.Response(text=self._front.explain() + "\n")

    async def stats(self, request: web.Request) -> web.Response:
        """For the demo."""
        return json_line(
            {
                "sent": self._client.sent,
                "deeds": self._deeds.counts,
                "backlog": await self._front.backlog(),
                "cpu_seconds": time.process_time() - self._cpu_at_start,
                "snapshot": self._front.snapshot(),
            }
        )


async def _answer(making: Coroutine[object, object, Page]) -> web.Response:
    try:
        page = await making
    except (CallFailed, DeadlineExceeded, Rejected) as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001  # a fault of the demo; it ends with this text
        return json_line({"error": f"{type(error).__name__}: {error}"}, 500)
    return json_line({**page.body, "degraded": page.degraded})


def _failed(error: CallFailed | DeadlineExceeded | Rejected) -> web.Response:
    """The error as the user sees it: whose fault it was, and when to come back, if that is known."""
    if isinstance(error, CallFailed):
        return json_line({"error": str(error)}, 502)
    who = error.policy.partition("[")[0]
    if isinstance(error, DeadlineExceeded):
        return json_line({"error": f"{who}: {NO_ANSWER}"}, 504)
    return json_line({"error": f"{who}: {error.reason}"}, status=error.status, headers=error.headers())


async def open_door(side: str, replicas: Replicas, port: int) -> None:
    """Serve for ever."""
    async with session() as http:
        client = Client(http)
        front = FRONTS[side](replicas, client)
        door = Door(front, client)
        app = application()
        app.router.add_get(r"/items/{item:[0-9]{1,9}}", door.view)
        app.router.add_post(r"/orders/{item:[0-9]{1,9}}", door.order)
        app.router.add_get("/explain", door.explain)
        app.router.add_get("/stats", door.stats)
        async with front.at_work():
            await serve(app, port)


def main() -> None:
    """Run one front."""
    parser = argparse.ArgumentParser(prog="seawall.demo.door")
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--replicas", type=json.loads, required=True, help="addresses by service, as JSON")
    parser.add_argument("--seed", default="0", help="only to be seen in the list of processes")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    live(open_door(options.side, options.replicas, options.port))


if __name__ == "__main__":
    main()
