"""Section `transport`: an HTTP request through a cluster beside the same request by the bare client, to a real server.

The server is a process of its own on a loopback port, and ends with the run. One request follows the other, so the
figures are the latency of a request with both processes' share; ratios of neighbours in time are what to look at.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .measure import Effort, Subject, async_timings, sync_timings
from .settings import ANSWER
from .tables import Table, compared

SERVER = """
import asyncio, os, sys, threading

HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n{}"


class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        while b"\\r\\n\\r\\n" in self.seen:
            self.seen = self.seen.partition(b"\\r\\n\\r\\n")[2]
            self.transport.write(HEAD)


async def main():
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
asyncio.run(main())
"""


@contextmanager
def server() -> Iterator[str]:
    """The address of a server that answers everything at once; it ends with the block, or with this process."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _each() -> tuple[Any, ...]:
    from seawall import CircuitBreaker, Timeout

    return (CircuitBreaker(), Timeout(5))


def _cluster(address: str) -> Any:
    from seawall import Cluster, Registry

    return Cluster("benchmark", [address], each=_each(), names=Registry())


def _sync(package: str, address: str, *, through: bool) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        import importlib

        client_of: Any = importlib.import_module(package)
        if through:
            from seawall.integrations.httpx import Transport

            client = client_of.Client(transport=Transport(_cluster(address)))
        else:
            client = client_of.Client()
        url = "http://benchmark/items/7" if through else f"{address}/items/7"

        def call() -> int:
            client.get(url).raise_for_status()
            return ANSWER

        return call

    return make


def _async(package: str, address: str, *, through: bool) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        import importlib

        client_of: Any = importlib.import_module(package)
        if through:
            from seawall.integrations.httpx import AsyncTransport

            client = client_of.AsyncClient(transport=AsyncTransport(_cluster(address)))
        else:
            client = client_of.AsyncClient()
        url = "http://benchmark/items/7" if through else f"{address}/items/7"

        async def call() -> int:
            (await client.get(url)).raise_for_status()
            return ANSWER

        return call

    return make


def _aiohttp(address: str, *, through: bool) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        import aiohttp

        settings: dict[str, Any] = {}
        if through:
            from seawall.integrations.aiohttp import Middleware

            settings["middlewares"] = [Middleware(_cluster(address))]
        session = aiohttp.ClientSession(**settings)
        url = "http://benchmark/items/7" if through else f"{address}/items/7"

        async def call() -> int:
            async with session.get(url) as response:
                await response.read()
            return ANSWER

        return call

    return make


def transport(effort: Effort) -> list[Table]:
    """Three clients, each bare and through a cluster of one endpoint with breaker and timeout."""
    tables: list[Table] = []
    with server() as address:
        for package in ("httpx", "httpx2"):
            for is_async, make in ((False, _sync), (True, _async)):
                kind = "async" if is_async else "sync"
                subjects = [
                    Subject(f"{package}, bare", make(package, address, through=False), role="bare"),
                    Subject(f"{package}, through a cluster", make(package, address, through=True), role="ours"),
                ]
                rows = compared((async_timings if is_async else sync_timings)(subjects, effort))
                title = f"{package}, {kind}: one request to a real server"
                tables.append(Table(f"transport {package} {kind}", title, rows, bare="the bare client"))
        subjects = [
            Subject("aiohttp, bare", _aiohttp(address, through=False), role="bare"),
            Subject("aiohttp, through a cluster", _aiohttp(address, through=True), role="ours"),
        ]
        rows = compared(async_timings(subjects, effort))
        tables.append(Table("transport aiohttp", "aiohttp: one request to a real server", rows, bare="the bare client"))
    return tables
