"""One replica of one service: it works, and misbehaves when it is told to.

Run as `python -m seawall.demo.service --service inventory ...`. It answers

    any business request            `workers` at a time, `work` seconds each, a queue in front
    PUT /mode/{mode}                healthy, errors (30 % of the answers are 500), hang, slow

Like most real services it works on for clients that have gone: that is what makes a traffic peak last.
"""

import argparse
import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Final

from aiohttp import web

from seawall.demo import ledger
from seawall.demo.layout import SERVICES
from seawall.demo.lifeline import application, json_line, live, serve

ERROR_RATE: Final = 0.3
SLOW_SECONDS: Final = 1.5
MODES: Final = ("healthy", "errors", "hang", "slow")
MAX_QUEUED: Final = 200
MAX_HELD: Final = 2_000
MAX_HANG_SECONDS: Final = 30.0


class Replica:
    """The behaviour of one replica: bounded work, and one mode."""

    def __init__(self, service: str, seed: str, ledger_fileno: int) -> None:
        self._service = service
        self._plan = SERVICES[service]
        self._ledger = ledger_fileno
        self._dice = Random(f"{seed}:errors")
        self._workers = asyncio.Semaphore(self._plan.workers)
        self._queued = 0
        self._held = 0
        self._mode = "healthy"
        self._released = asyncio.Event()

    async def set_mode(self, request: web.Request) -> web.Response:
        """Change the mode; what hangs is let go when the replica stops hanging."""
        mode = request.match_info["mode"]
        if mode not in MODES:
            return json_line({"error": f"mode must be one of {', '.join(MODES)}"}, 400)
        self._mode = mode
        if mode == "hang":
            self._released.clear()
        else:
            self._released.set()
        return json_line({"mode": mode})

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request, or misbehave."""
        if self._mode == "errors" and self._dice.random() < ERROR_RATE:
            return json_line({"error": "told to fail"}, 500)
        if self._mode == "hang" and not await self._hang():
            return json_line({"error": "too many hanging requests"}, 503)
        if self._queued >= MAX_QUEUED:
            return json_line({"error": "queue full"}, 503)
        self._queued += 1
        try:
            async with self._workers:
                await asyncio.sleep(SLOW_SECONDS if self._mode == "slow" else self._plan.work)
        finally:
            self._queued -= 1
        return json_line(await self._deed(request))

    async def _hang(self) -> bool:
        """Hold the request without an answer; bounded in number and time, so that the demo cannot fill a machine."""
        if self._held >= MAX_HELD:
            return False
        self._held += 1
        try:
            async with asyncio.timeout(MAX_HANG_SECONDS):
                await self._released.wait()
        except TimeoutError:
            pass
        finally:
            self._held -= 1
        return True

    async def _deed(self, request: web.Request) -> Mapping[str, object]:
        """What the service is there for."""
        subject = request.match_info["subject"]
        if self._service == "inventory":
            return {"item": subject, "stock": 1 + len(subject) * 7 % 40, "price": f"{10 + len(subject)}.90"}
        if self._service == "recommendations":
            return {"picks": [f"picked-for-{subject}-{number}" for number in range(3)]}
        if not ledger.ORDER.fullmatch(subject):
            raise web.HTTPBadRequest(text=json.dumps({"error": "no order number"}), content_type="application/json")
        if self._service == "payments":
            ledger.write(self._ledger, "charged", subject)
            return {"charged": subject}
        if request.match_info["what"] == "orders":
            ledger.write(self._ledger, "audited", subject)
        return {"noted": subject}


def main() -> None:
    """Run one replica."""
    parser = argparse.ArgumentParser(prog="seawall.demo.service")
    parser.add_argument("--service", choices=tuple(SERVICES), required=True)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", type=int, required=True, help="a file descriptor")
    options = parser.parse_args()
    replica = Replica(options.service, options.seed, options.ledger)
    app = application()
    app.router.add_put("/mode/{mode}", replica.set_mode)
    app.router.add_route("*", "/{what}/{subject}", replica.answer)
    live(serve(app, options.port))


if __name__ == "__main__":
    main()
