"""A dead HTTP service with 20,000 queued records comes back: what reaches it, and what fresh calls lose meanwhile.

Run it by itself: `./dev python -m benchmarks.outbox_drain`. It takes about a minute. The service is a process of its
own that serves ten requests at once, 20 ms each; fresh callers are sixteen who ask again as soon as they are answered:
it is fully used without the backlog. Records lie in a SQLite file.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from seawall import Cluster, Endpoint, Limiter, Timeout, TokenBucket
from seawall.outbox import Failback, Outbox, current

COUNT = 20_000
RATE, BURST = 20, 2
CALLERS = 16
SECONDS = 8.0
SERVICE = """
import asyncio, sys

async def main():
    places = asyncio.Semaphore(10)

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\\r\\n\\r\\n"):
                async with places:
                    await asyncio.sleep(0.02)
                writer.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Client:
    """Requests over connections that are kept."""

    def __init__(self) -> None:
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.fresh = 0
        self.stored: list[float] = []

    async def post(self, endpoint: Endpoint, number: int) -> None:
        run = current()
        stored = run is not None and run.attempt > 0
        host, _, port = endpoint.address.rpartition(":")
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(host, int(port))
        if stored:
            self.stored.append(time.monotonic())
        writer.write(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % number)
        await reader.readuntil(b"\r\n\r\n")
        self._free.append((reader, writer))
        self.fresh += not stored

    def forget(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def start(port: int) -> tuple[Process, int]:
    """The service, and where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def throughput(client: Client, call: Callable[[], Awaitable[Any]]) -> float:
    """Fresh calls a second."""
    end, before = time.monotonic() + SECONDS, client.fresh

    async def caller() -> None:
        while time.monotonic() < end:
            await call()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (client.fresh - before) / SECONDS


async def drained(
    outbox: Outbox, client: Client, call: Callable[[], Awaitable[Any]], limiter: Limiter | None, alone: float
) -> None:
    """Measure beside a worker that drains."""
    async with outbox.worker(concurrency=CALLERS, limiter=limiter):
        await asyncio.sleep(3)  # probes find that the service is back
        begun = len(client.stored)
        beside = await throughput(client, call)
        at = client.stored[begun:]
    most = max((sum(1 for other in at if 0 <= other - one < 1) for one in at), default=0)
    limit = "no limiter" if limiter is None else f"limiter {RATE}/s, burst {BURST}"
    stored = f"{len(at) / SECONDS:5.1f} stored/s, at most {most} in a second"
    print(f"  {limit:<24} {beside:6.0f} fresh/s ({beside / alone:.0%}) beside {stored}")


async def main() -> None:
    client = Client()
    service, port = await start(0)
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(f"sqlite:///{Path(folder) / 'outbox.db'}", name="audit")
        audit = Cluster("audit", [f"127.0.0.1:{port}"], strategy=Failback(outbox), each=(Timeout("5s"),))

        @outbox.operation("audit.write", through=audit, attempts=100)
        async def write(endpoint: Endpoint, number: int) -> None:
            await client.post(endpoint, number)

        async def call() -> None:
            await audit.acall(write, 0)

        alone = await throughput(client, call)
        print(f"  {'alone':<24} {alone:6.0f} fresh/s")
        service.kill()
        await service.wait()
        client.forget()
        for start_at in range(0, COUNT, 200):
            await asyncio.gather(*(audit.acall(write, number) for number in range(start_at, start_at + 200)))
        stats = await outbox.astats()
        print(f"  the service is dead:     {stats.waiting:,} calls were queued")
        service, _ = await start(port)
        await drained(outbox, client, call, Limiter(TokenBucket(f"{RATE}/s", burst=BURST), name="drain"), alone)
        await drained(outbox, client, call, None, alone)
        service.kill()
        await service.wait()
        client.forget()
        await outbox.aclose()


if __name__ == "__main__":
    asyncio.run(main())
