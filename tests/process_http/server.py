"""A server in a process of its own that misbehaves to order: the path of a request says how. It ends with its parent.

    python -m tests.process_http.server PORTS

prints a line of JSON: that many ports that listen, one that refuses connections, and one whose queue is full, so that
connections are never made. What a replica answers below /replica can be changed: PUT /mode/down, /mode/flapping, ...
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
PAUSE = 0.02
CHUNK = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"


class Request:
    def __init__(
        self, line: str, headers: list[tuple[str, str]], reader: Reader, writer: Writer, replica: Replica
    ) -> None:
        self.method, self.path, _ = line.split(" ")
        self.headers = headers
        self.reader, self.writer = reader, writer
        self.replica = replica

    def header(self, name: str) -> str | None:
        return next((value for other, value in self.headers if other.lower() == name), None)

    async def body(self) -> bytes:
        length = self.header("content-length")
        if length is not None:
            return await self.reader.readexactly(int(length))
        if self.header("transfer-encoding") is None:
            return b""
        parts: list[bytes] = []
        while size := int(await self.reader.readline(), 16):
            parts.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readline()
        return b"".join(parts)

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()

    async def send(self, data: bytes, *, every: float | None = None) -> None:
        """For ever, as fast as the other side reads, or now and then."""
        while True:
            self.writer.write(data)
            await self.writer.drain()
            await asyncio.sleep(0 if every is None else every)


class Limit:
    """Five requests in each second of the clock, for one caller, as many services have it."""

    QUOTA = 5

    def __init__(self) -> None:
        self.window = 0
        self.count = 0
        self.refused = 0

    def take(self) -> tuple[int, int, float]:
        """The status for one more request, how many may follow, and the time at which there will be more."""
        now = time.time()
        if int(now) != self.window:
            self.window, self.count = int(now), 0
        self.count += 1
        self.refused += self.count > self.QUOTA
        return 200 if self.count <= self.QUOTA else 429, max(0, self.QUOTA - self.count), self.window + 1


class Replica:
    """What a listening port is now, and what it was asked."""

    def __init__(self) -> None:
        self.mode = "up"
        self.asked = 0
        self.connections = 0
        self.open = 0
        self.limits: dict[str, Limit] = {}


async def ok(request: Request) -> None:
    body = await request.body()
    told = {"method": request.method, "headers": request.headers, "body": body.decode("latin-1")}
    await request.answer(200, json.dumps(told).encode(), Content_Type="application/json")


async def replica(request: Request) -> None:
    state = request.replica
    state.asked += 1
    await request.body()
    if state.mode == "down" or (state.mode == "flapping" and state.asked % 2):
        await request.answer(503, b"down")
    elif state.mode == "hang":
        await hang(request)
    elif state.mode == "reset":
        await reset(request)
    else:
        port = request.writer.get_extra_info("sockname")[1]
        await request.answer(200, str(port).encode())


async def mode(request: Request) -> None:
    request.replica.mode = request.path.rpartition("/")[2]
    request.replica.asked = request.replica.connections = 0
    await request.answer(204)


async def asked(request: Request) -> None:
    state = request.replica
    told = {"asked": state.asked, "connections": state.connections, "open": state.open}
    await request.answer(200, json.dumps(told).encode())


async def status(request: Request) -> None:
    await request.body()
    await request.answer(int(request.path.rpartition("/")[2]), b"as you wish")


async def limited(request: Request) -> None:
    """/limited/CALLER/FAMILY: by what fields the limit is told."""
    caller, family = request.path.split("/")[2:]
    status, left, end = request.replica.limits.setdefault(caller, Limit()).take()
    fields = {
        "draft": {"RateLimit": f'"s";r={left};t=1', "RateLimit_Policy": '"s";q=5;w=1'},
        "older": {"RateLimit_Limit": "5", "RateLimit_Remaining": f"{left}", "RateLimit_Reset": "1"},
        "epoch": {"X_RateLimit_Limit": "5", "X_RateLimit_Remaining": f"{left}", "X_RateLimit_Reset": f"{end:.0f}"},
    }[family]
    await request.answer(status, b"a page", **fields)


async def refused(request: Request) -> None:
    limit = request.replica.limits.get(request.path.rpartition("/")[2], Limit())
    await request.answer(200, str(limit.refused).encode())


async def hang(request: Request) -> None:
    """Says nothing until the other side is gone."""
    await request.reader.read()


async def drip_headers(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    await request.send(b"x", every=PAUSE)


async def drip_body(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    await request.send(b"x", every=PAUSE)


async def drip_chunks(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await request.send(b"1\r\nx\r\n", every=PAUSE)


async def drip_error(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\n")
    await request.send(b"x", every=PAUSE)


async def late_error(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n")
    await request.writer.drain()
    await asyncio.sleep(0.005)
    request.writer.write(b"down")


async def slow_1xx(request: Request) -> None:
    await request.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", every=PAUSE)


async def endless_1xx(request: Request) -> None:
    await request.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20)


async def endless_headers(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\n")
    await request.send(b"X-More: of the same\r\n" * 50)


async def endless_chunks(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await request.send(CHUNK)


async def endless_body(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    await request.send(b"x" * 65_536)


async def garbage(request: Request) -> None:
    request.writer.write(b"\x00\xffthis is no HTTP\r\n\r\n")
    await request.writer.drain()


async def endless_garbage(request: Request) -> None:
    await request.send(b"\x00" * 4096)


async def reset(request: Request) -> None:
    linger = struct.pack("ii", 1, 0)
    request.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.writer.transport.abort()


async def close(request: Request) -> None:
    request.writer.close()


async def short(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthat is all")
    await request.writer.drain()
    request.writer.close()


async def deaf(request: Request) -> None:
    """Reads nothing of the body, for longer than anybody here waits."""
    transport: Any = request.writer.transport
    transport.pause_reading()
    await asyncio.sleep(3)
    transport.abort()


async def redirect(request: Request) -> None:
    await request.body()
    await request.answer(307, Location=f"http://{request.header('host')}/replica")


async def stream(request: Request) -> None:
    request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        request.writer.write(b"5\r\nchunk\r\n")
        await request.writer.drain()
        await asyncio.sleep(0.1)
    request.writer.write(b"0\r\n\r\n")


async def quota(request: Request) -> None:
    kind = "https://iana.org/assignments/http-problem-types#quota-exceeded"
    body = json.dumps({"type": kind, "title": "Quota exceeded"}).encode()
    await request.answer(429, body, Content_Type="application/problem+json", Retry_After="0")


PATHS: dict[str, Callable[[Request], Awaitable[None]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(ok, replica, mode, asked, status, hang, drip_headers, drip_body, drip_chunks, drip_error, late_error),
        *(
            slow_1xx,
            endless_1xx,
            endless_headers,
            endless_chunks,
            endless_body,
            garbage,
            endless_garbage,
            reset,
            close,
            short,
        ),
        *(deaf, redirect, stream, quota, limited, refused),
    )
}
ENDS = {"reset", "close", "short", "garbage"}


async def serve(reader: Reader, writer: Writer, state: Replica) -> None:
    state.connections += 1
    state.open += 1
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
            line, *fields = head.split("\r\n")[:-2]
            headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
            request = Request(line, headers, reader, writer, state)
            what = request.path.split("/")[1].partition("?")[0]
            if state.mode in ("reset", "hang") and what == "ok":
                what = state.mode
            await PATHS[what](request)
            if what in ENDS:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        state.open -= 1
        writer.close()


def refusing_port() -> tuple[Any, int]:
    """A port that nobody listens on; bound, so that nobody else does."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


def full_port() -> tuple[Any, int]:
    """A port whose queue of connections is full: the next one is never made."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(sock.getsockname())
    return (sock, waiting), sock.getsockname()[1]


async def main(count: int) -> None:
    keep: list[Any] = []
    ports: list[int] = []
    for _ in range(count):
        state = Replica()
        server = await asyncio.start_server(lambda r, w, state=state: serve(r, w, state), "127.0.0.1", 0)
        keep.append(server)
        ports.append(server.sockets[0].getsockname()[1])
    refusing, full = refusing_port(), full_port()
    sys.stdout.write(json.dumps({"ports": ports, "refusing": refusing[1], "full": full[1]}) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent is gone


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
