"""The sockets under the transports for httpx and httpx2: every wait is cut to what is left, and little is read at once."""

from __future__ import annotations

import socket
from typing import Any

import httpcore
import httpcore2
import httpx
import httpx2
import pytest

from seawall.integrations.httpx import AsyncTransport, Transport
from seawall.integrations.httpx._calm import CalmBackend, calm, reading_little
from seawall.integrations.httpx._capped import LITTLE, CappedBackend, cap, until
from seawall.testing import VirtualClock, run

SECOND = 1_000_000_000


class Stream:
    """A socket that notes what is asked of it; each wait takes `takes` seconds."""

    def __init__(self, clock: VirtualClock, takes: float = 0) -> None:
        self.clock = clock
        self.takes = takes
        self.calls: list[tuple[Any, ...]] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.calls.append(("read", max_bytes, timeout))
        self.clock.advance(self.takes)
        return b"x"

    def write(self, buffer: Any, timeout: float | None = None) -> None:
        self.calls.append(("write", len(buffer), timeout))
        self.clock.advance(self.takes)

    def start_tls(self, context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Stream:
        self.calls.append(("start_tls", server_hostname, timeout))
        return self

    def close(self) -> None:
        self.calls.append(("close",))

    def get_extra_info(self, info: str) -> str:
        return info.upper()


def backend_of(core: Any, stream: Stream, refuses: tuple[str, ...] = ()) -> Any:
    class Backend:
        def connect_tcp(self, host: str, port: int, timeout: float | None = None, **more: Any) -> Stream:
            stream.calls.append(("connect", host, timeout))
            stream.clock.advance(stream.takes)
            if host in refuses:
                raise core.ConnectError("refused")
            return stream

        def connect_unix_socket(self, path: str, timeout: float | None = None, **more: Any) -> Stream:
            stream.calls.append(("unix", path, timeout))
            return stream

        def sleep(self, seconds: float) -> None:
            stream.calls.append(("sleep", seconds))

    Backend.__module__ = f"{core.__name__}._backends.sync"
    return CappedBackend(Backend())


each_core = pytest.mark.parametrize("core", [httpcore, httpcore2], ids=lambda core: core.__name__)


@each_core
def test_every_wait_is_cut_to_what_is_left(core: Any) -> None:
    with VirtualClock() as clock:
        stream = Stream(clock, takes=0.25)

        def work() -> None:
            connection = backend_of(core, stream).connect_tcp("127.0.0.1", 80, timeout=5)
            connection = connection.start_tls(None, "name", timeout=None)
            connection.read(100, timeout=0.1)
            connection.read(100, timeout=5)
            connection.write(b"x", timeout=None)

        until(SECOND, work, begun=False)
    assert stream.calls == [
        ("connect", "127.0.0.1", 1),
        ("start_tls", "name", 0.75),
        ("read", 100, 0.1),
        ("read", 100, 0.5),
        ("write", 1, 0.25),
    ]


@each_core
def test_when_nothing_is_left_nothing_is_waited_for(core: Any) -> None:
    with VirtualClock() as clock:
        stream = Stream(clock)
        backend = backend_of(core, stream)
        connection = backend.connect_tcp("127.0.0.1", 80)
        clock.advance(1)
        stream.calls.clear()
        for error, step in (
            (core.ReadTimeout, lambda: connection.read(1)),
            (core.WriteTimeout, lambda: connection.write(b"x")),
            (core.ConnectTimeout, lambda: connection.start_tls(None)),
            (core.ConnectTimeout, lambda: backend.connect_tcp("127.0.0.1", 80)),
            (core.ConnectTimeout, lambda: backend.connect_unix_socket("/s")),
            (core.ConnectTimeout, lambda: backend.sleep(1)),
        ):
            with pytest.raises(error):
                until(SECOND, step, begun=False)
    assert stream.calls == []


@each_core
def test_without_a_deadline_all_is_as_it_was(core: Any) -> None:
    with VirtualClock() as clock:
        stream = Stream(clock)
        connection = backend_of(core, stream).connect_tcp("some.name", 80, timeout=5)
        connection.write(b"x" * 100_000, timeout=None)
        connection.read(65_536, timeout=7)
        assert connection.get_extra_info("socket") == "SOCKET"
        connection.close()
    assert stream.calls == [
        ("connect", "some.name", 5),
        ("write", 100_000, None),
        ("read", 65_536, 7),
        ("close",),
    ]


@each_core
def test_little_is_read_until_the_response_has_begun(core: Any) -> None:
    with VirtualClock() as clock:
        stream = Stream(clock)
        connection = backend_of(core, stream).connect_tcp("127.0.0.1", 80)
        until(SECOND, connection.read, 65_536, begun=False)
        until(SECOND, connection.read, 100, begun=False)
        until(SECOND, connection.read, 65_536, begun=True)
        until(None, connection.read, 65_536, begun=False)
    assert [call[1] for call in stream.calls if call[0] == "read"] == [LITTLE, 100, 65_536, 65_536]


@each_core
def test_what_is_written_is_written_in_pieces_each_with_what_is_left(core: Any) -> None:
    with VirtualClock() as clock:
        stream = Stream(clock, takes=0.25)
        connection = backend_of(core, stream).connect_tcp("127.0.0.1", 80)
        with pytest.raises(core.WriteTimeout):
            until(int(1.25 * SECOND), connection.write, b"x" * 100_000, begun=False)
    assert [call for call in stream.calls if call[0] == "write"] == [
        ("write", 8192, left) for left in (1, 0.75, 0.5, 0.25)
    ]


@each_core
def test_the_addresses_of_a_name_share_the_time(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(None, None, None, "", (address, 80)) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    with VirtualClock() as clock:
        stream = Stream(clock, takes=0.25)
        backend = backend_of(core, stream, refuses=("10.0.0.1",))
        until(SECOND, backend.connect_tcp, "some.name", 80, begun=False)
        assert stream.calls == [("connect", "10.0.0.1", 1), ("connect", "10.0.0.2", 0.75)]
        backend = backend_of(core, stream, refuses=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        with pytest.raises(core.ConnectError, match="refused"):
            until(9 * SECOND, backend.connect_tcp, "some.name", 80, begun=False)

        def fail(*args: Any, **options: Any) -> Any:
            raise socket.gaierror("unknown")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(core.ConnectError, match="unknown"):
            until(9 * SECOND, backend.connect_tcp, "some.name", 80, begun=False)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [])
        with pytest.raises(core.ConnectError, match="has no address"):
            until(9 * SECOND, backend.connect_tcp, "some.name", 80, begun=False)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=lambda package: package.__name__)
def test_the_clients_own_transports_get_such_sockets_once(package: Any) -> None:
    inner = package.HTTPTransport(verify=False)
    assert cap(inner) and cap(inner)
    backend = inner._pool._network_backend
    assert isinstance(backend, CappedBackend) and not isinstance(backend._inner, CappedBackend)
    Transport(inner=inner)
    assert inner._pool._network_backend is backend
    proxied = package.HTTPTransport(verify=False, proxy="http://127.0.0.1:1")
    assert cap(proxied)
    asynchronous = package.AsyncHTTPTransport(verify=False)
    AsyncTransport(inner=asynchronous)
    AsyncTransport(inner=asynchronous)
    backend = asynchronous._pool._network_backend
    assert isinstance(backend, CalmBackend) and not isinstance(backend._inner, CalmBackend)


def test_other_transports_are_left_alone() -> None:
    class Pool:
        _network_backend = object()

    class Other:
        _pool = Pool()

    for other in (httpx.MockTransport(lambda request: httpx.Response(200)), Other(), object()):
        assert not cap(other)
        calm(other)


def test_a_task_reads_little_until_the_response_has_begun() -> None:
    sizes: list[int] = []

    class Inner:
        write = aclose = get_extra_info = None

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
            sizes.append(max_bytes)
            return b""

        async def start_tls(self, *args: Any, **options: Any) -> Inner:
            return self

    class Backend:
        async def connect_tcp(self, *args: Any, **options: Any) -> Inner:
            return Inner()

        connect_unix_socket = connect_tcp

        async def sleep(self, seconds: float) -> None: ...

    async def main() -> None:
        backend = CalmBackend(Backend())
        await backend.sleep(1)
        for connect in (backend.connect_tcp, backend.connect_unix_socket):
            stream = await (await connect("x")).start_tls()
            with reading_little():
                await stream.read(65_536)
                await stream.read(10)
            await stream.read(65_536)

    run(main)
    assert sizes == [LITTLE, 10, 65_536] * 2
