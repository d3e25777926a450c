"""A small HTTP service that fails when it is told to, and never outlives the process that holds its standard input.

Run as `python -m seawall.demo.service [--port N] [--seed S]`. It prints one line of JSON with its port, then serves

    GET  /recommendations/{user}    the business endpoint: WORKERS at a time, WORK_SECONDS each, a queue in front
    POST /control                   {"mode": "normal" | "errors" | "hang", "rate": 0.3}

Like most real services it works on for clients that have gone: that is what makes a traffic peak last.
"""

import argparse
import asyncio
import json
import os
import sys
import threading
from random import Random
from typing import Final

WORKERS: Final = 4
WORK_SECONDS: Final = 0.040
CAPACITY: Final = WORKERS / WORK_SECONDS
"""Requests a second that the service can answer when nothing is wrong."""

MAX_QUEUED: Final = 2_000
MAX_HELD: Final = 2_000
MAX_HANG_SECONDS: Final = 30.0
MISSING: Final = "the demo needs aiohttp, which is not installed; run: pip install 'seawall[demo]'"

try:
    from aiohttp import web
except ImportError:  # pragma: no cover - needs an environment without the extra
    sys.exit(MISSING)


class Recommendations:
    """The service's behaviour: bounded work, and one mode that a control request changes."""

    def __init__(self, seed: str) -> None:
        self._dice = Random(f"{seed}:service")
        self._workers = asyncio.Semaphore(WORKERS)
        self._queued = 0
        self._held = 0
        self._mode = "normal"
        self._error_rate = 0.0
        self._released = asyncio.Event()

    async def control(self, request: web.Request) -> web.Response:
        """Change the mode; what hangs is let go when the service stops hanging."""
        order = await request.json()
        if order.get("mode") not in ("normal", "errors", "hang"):
            return web.json_response({"error": "mode must be normal, errors or hang"}, status=400)
        self._mode = order["mode"]
        self._error_rate = float(order.get("rate", 0.0))
        if self._mode == "hang":
            self._released.clear()
        else:
            self._released.set()
        return web.json_response({"mode": self._mode})

    async def recommend(self, request: web.Request) -> web.Response:
        """Answer one user, or misbehave."""
        if self._mode == "errors" and self._dice.random() < self._error_rate:
            return web.json_response({"error": "told to fail"}, status=500)
        if self._mode == "hang" and not await self._hang():
            return web.json_response({"error": "too many hanging requests"}, status=503)
        if self._queued >= MAX_QUEUED:
            return web.json_response({"error": "queue full"}, status=503)
        self._queued += 1
        try:
            async with self._workers:
                await asyncio.sleep(WORK_SECONDS)
        finally:
            self._queued -= 1
        user = request.match_info["user"]
        return web.json_response({"user": user, "items": [f"picked-for-{user}-{n}" for n in range(3)]})

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


def _die_with_parent() -> None:
    """End this process when standard input ends: the pipe closes however the parent dies, kill -9 included."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()


async def serve(port: int, seed: str) -> None:
    """Serve on the loopback address until the parent goes; port 0 takes a free one."""
    shop = Recommendations(seed)
    app = web.Application()
    app.router.add_get("/recommendations/{user}", shop.recommend)
    app.router.add_post("/control", shop.control)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run the service; an error before it serves ends it with one line on standard error."""
    parser = argparse.ArgumentParser(prog="seawall.demo.service")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    _die_with_parent()
    try:
        asyncio.run(serve(options.port, options.seed))
    except OSError as error:
        sys.exit(f"cannot serve on 127.0.0.1:{options.port}: {error.strerror or error}")


if __name__ == "__main__":
    main()
