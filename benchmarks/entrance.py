"""Section `asgi`: what a limit at the entrance adds to a request, called in this process, and under uvicorn by wrk."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .entrances import MAKES, NOTHING, SEAWALL, SEAWALL_SILENT, App
from .measure import FULL, Effort, Role, Subject, Timing, async_timings, describe
from .settings import ANSWER
from .tables import Table, compared

HEADERS = [(b"host", b"localhost:8000"), (b"user-agent", b"wrk"), (b"accept", b"*/*"), (b"x-request-id", b"4711")]
SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": HEADERS,
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 8_000),
}
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
CONNECTIONS = 8
READY_SECONDS = 20
ROLES: dict[str, Role] = {NOTHING: "bare", SEAWALL: "ours", SEAWALL_SILENT: "ours"}
ADDED = "Added per request"


def asgi(effort: Effort) -> list[Table]:
    """The application called directly, and through uvicorn if wrk is there; each also as what is added to nothing."""
    subjects = [Subject(name, _asked(make), ROLES.get(name, "peer")) for name, make in MAKES.items()]
    direct = async_timings(subjects, effort)
    title = "ASGI middleware, a Starlette application called in this process"
    tables = [
        Table("asgi", title, compared(direct), bare=NOTHING),
        Table("asgi added", f"{ADDED}, called in this process", compared(_added(direct)), bare=""),
    ]
    served = _served(effort)
    if served:
        title = (
            f"ASGI middleware under uvicorn, {CONNECTIONS} connections of wrk (the server's processor time a request)"
        )
        tables.append(Table("asgi wrk", title, compared(served), bare=NOTHING))
        tables.append(Table("asgi wrk added", f"{ADDED}, under uvicorn", compared(_added(served)), bare=""))
    else:
        tables[-1].notes.append(
            "wrk is not installed (Debian: apt-get install wrk): nothing was measured under uvicorn."
        )
    return tables


def _asked(make: Callable[[], App]) -> Callable[[], Callable[[], Any]]:
    """One request of the application, checked for its status."""

    def made() -> Callable[[], Any]:
        app = make()

        async def receive() -> dict[str, Any]:
            return REQUEST

        async def call() -> int:
            statuses: list[int] = []

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await app({**SCOPE, "headers": list(HEADERS), "state": {}}, receive, send)
            return ANSWER if statuses == [200] else 0

        return call

    return made


def _added(timings: Sequence[Timing]) -> list[Timing]:
    """The same rounds, less what the middleware that does nothing took in them."""
    bare = next(timing for timing in timings if timing.subject.role == "bare")
    return [
        Timing(
            timing.subject,
            [sample - other for sample, other in zip(timing.samples, bare.samples, strict=False)],
            timing.error or bare.error,
        )
        for timing in timings
        if timing is not bare
    ]


def _served(effort: Effort) -> list[Timing]:
    """Rounds of a second each under wrk; none if it is not installed, or this is not Linux."""
    wrk = shutil.which("wrk")
    if wrk is None or not Path("/proc/self/schedstat").exists():
        return []
    timings = [Timing(Subject(name, lambda: None, ROLES.get(name, "peer"))) for name in MAKES]  # type: ignore[arg-type, return-value]
    with contextlib.ExitStack() as stack:
        servers: dict[str, tuple[int, str]] = {}
        for timing in timings:
            try:
                servers[timing.subject.name] = stack.enter_context(_server(timing.subject.name))
            except Exception as error:  # a peer that does not start is a row of the report
                timing.error = describe(error)
        for _ in range(5 if effort is FULL else 2):
            for timing in timings:
                if timing.error is None:
                    timing.samples.append(_wrk(wrk, *servers[timing.subject.name]))
    return timings


@contextlib.contextmanager
def _server(name: str) -> Iterator[tuple[int, str]]:
    """Its process, and where it is asked."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.entrances", name, str(listening.fileno())]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(command, cwd=root, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL)
    try:
        _wait_for(process, port)
        yield process.pid, f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()
        listening.close()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Until it answers with 200."""
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if connection.recv(64).startswith(b"HTTP/1.1 200 "):
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not come up")


def _wrk(wrk: str, server: int, url: str) -> float:
    """Nanoseconds of the server's processor a request: whatever else the machine does meanwhile."""
    command = [wrk, "-t1", f"-c{CONNECTIONS}", "-d1s", url]
    before = _processor_ns(server)
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    spent = _processor_ns(server) - before
    count = re.search(r"(\d+) requests in", said)
    if count is None or "Non-2xx" in said or not spent:
        raise RuntimeError(f"wrk said: {said}"[:200])
    return spent / int(count[1])


def _processor_ns(process: int) -> int:
    """What it has spent so far; Linux tells it exactly for the one thread that it has."""
    return int(Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split(maxsplit=1)[0])
