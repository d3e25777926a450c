"""How a process of the shop lives: it serves on the loopback address, tells its port, and never outlives its parent."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final

from aiohttp import web

LONGEST_BODY: Final = 10_000


def json_line(body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON that also looks well behind a curl."""
    return web.json_response(text=json.dumps(body) + "\n", status=status, headers=headers)


@web.middleware
async def _only_from_here(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    # A page on the web can reach a loopback port by a name of its own that points here; its Host gives it away.
    if request.host.partition(":")[0] not in ("127.0.0.1", "localhost"):
        return json_line({"error": "this shop serves its own machine only"}, 403)
    return await handler(request)


def application() -> web.Application:
    """An application that answers this machine only."""
    return web.Application(middlewares=[_only_from_here], client_max_size=LONGEST_BODY)


async def serve(app: web.Application, port: int) -> None:
    """Serve for ever; port 0 takes a free one. Prints one line of JSON with the port once it serves."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        sys.exit(f"cannot serve on 127.0.0.1:{port}: {error.strerror or error}")
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


def live(main: Coroutine[object, object, None]) -> None:
    """Run the process until its standard input ends: the pipe closes however the parent dies, kill -9 included."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
    asyncio.run(main)
