"""Probes learn how a worker is, whatever it is stuck in and whatever other clients do; metrics name no users."""

from __future__ import annotations

import errno
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from seawall.errors import ConfigError
from seawall.outbox import HealthServer, MemoryOutbox, metrics_text
from seawall.outbox.worker import health as module
from seawall.testing import run
from tests.outbox.yards import Yard

REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


class FakeWorker:
    """A worker in whatever state."""

    def __init__(self, **changes: Any) -> None:
        self.state: dict[str, Any] = {
            **MemoryOutbox().worker().snapshot(),
            "state": "working",
            "turned_before": 0.5,
            "store_answers": True,
            **changes,
        }

    def snapshot(self) -> dict[str, Any]:
        if "raises" in self.state:
            raise RuntimeError("a fault")
        return self.state


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with HealthServer(FakeWorker(), "127.0.0.1:0") as server:  # type: ignore[arg-type]
        yield server


def connect(server: HealthServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def ask(server: HealthServer, request: bytes) -> tuple[int, dict[str, str], str]:
    with connect(server) as client:
        client.sendall(request)
        return read(client)


def read(client: socket.socket) -> tuple[int, dict[str, str], str]:
    answer = b""
    while data := client.recv(65_536):
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body)
    return int(first.split()[1]), headers, body.decode()


def get(path: str, **state: Any) -> tuple[int, str]:
    with HealthServer(FakeWorker(**state), "127.0.0.1:0") as server:  # type: ignore[arg-type]
        code, _, body = ask(server, REQUEST % path.encode())
        return code, body


@pytest.mark.parametrize(
    ("state", "alive", "ready"),
    [
        ({}, (200, "ok\n"), (200, "ok\n")),
        ({"state": "stopping"}, (200, "ok\n"), (503, "the worker is stopping\n")),
        ({"state": "idle", "turned_before": None}, (503, "the worker does not work\n"), (503, "the worker is idle\n")),
        ({"store_answers": False}, (200, "ok\n"), (503, "the store does not answer\n")),
        (
            {"turned_before": 61.0},
            (503, "the worker's loop has been stuck for 61 s\n"),
            (503, "the worker's loop has been stuck for 61 s\n"),
        ),
        ({"turned_before": 59.0}, (200, "ok\n"), (200, "ok\n")),
    ],
)
def test_probes_are_told_what_they_ask_for(
    state: dict[str, Any], alive: tuple[int, str], ready: tuple[int, str]
) -> None:
    assert get("/healthz", **state) == alive
    assert get("/readyz?verbose=1", **state) == ready


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /../healthz HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /healthz HTTP/2\r\n\r\n", 400),
        (b"\x16\x03\x01\xff\xfe\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 9_000 + b"\r\n\r\n", 431),
    ],
)
def test_anything_but_a_get_of_what_there_is_is_refused(server: HealthServer, request_: bytes, code: int) -> None:
    with connect(server) as client:
        client.sendall(request_)
        first = client.recv(100)
    assert first.startswith(f"HTTP/1.1 {code} ".encode())
    assert ask(server, REQUEST % b"/healthz")[0] == 200


def test_answers_are_not_to_be_kept_or_guessed_at(server: HealthServer) -> None:
    _, headers, _ = ask(server, REQUEST % b"/healthz")
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Connection"] == "close"


def test_a_request_may_come_byte_by_byte(server: HealthServer) -> None:
    with connect(server) as client:
        for byte in REQUEST % b"/healthz":
            client.sendall(bytes([byte]))
        assert read(client)[0] == 200


def test_who_is_slow_is_put_out_and_nobody_waits_for_him(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFE_NS", 500_000_000)
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 4)
    with HealthServer(FakeWorker(), "127.0.0.1:0") as server:  # type: ignore[arg-type]
        slow = [connect(server) for _ in range(8)]
        try:
            for client in slow:
                client.sendall(b"GET /he")
            began = time.monotonic()
            assert ask(server, REQUEST % b"/healthz")[0] == 200
            assert time.monotonic() - began < 5
        finally:
            for client in slow:
                client.close()


def test_a_client_that_leaves_is_forgotten(server: HealthServer) -> None:
    for _ in range(40):
        with connect(server) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert ask(server, REQUEST % b"/healthz")[0] == 200


def test_without_file_descriptors_it_waits_for_some_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_NS", 200_000_000)
    accept, tries = socket.socket.accept, list[float]()

    def full(self: socket.socket) -> Any:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", full)
    with HealthServer(FakeWorker(), "127.0.0.1:0") as server:  # type: ignore[arg-type]
        assert ask(server, REQUEST % b"/healthz")[0] == 200
    assert all(later - earlier > 0.15 for earlier, later in itertools.pairwise(tries[:4]))


def test_a_fault_of_ours_does_not_end_the_server() -> None:
    with HealthServer(FakeWorker(raises=True), "127.0.0.1:0") as server:  # type: ignore[arg-type]
        for _ in range(2):
            code, _, body = ask(server, REQUEST % b"/stats")
            assert (code, body) == (500, "RuntimeError\n")


def test_it_can_be_stopped_with_guests_and_started_again(server: HealthServer) -> None:
    with connect(server) as client:
        client.sendall(b"GET")
        server.stop()
        server.stop()
        with suppress(ConnectionResetError):
            assert client.recv(10) == b""
    server.start()
    assert ask(server, REQUEST % b"/healthz")[0] == 200
    with pytest.raises(RuntimeError, match="listens already"):
        server.start()


def test_no_thread_and_no_socket_is_left_behind() -> None:
    before = threading.active_count()
    for _ in range(5):
        with HealthServer(FakeWorker(), "127.0.0.1:0"):  # type: ignore[arg-type]
            pass
    assert threading.active_count() == before


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_it_listens_on_ipv6() -> None:
    try:
        server = HealthServer(FakeWorker(), "[::1]:0").start()  # type: ignore[arg-type]
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        assert ask(server, REQUEST % b"/healthz")[0] == 200
    finally:
        server.stop()


@pytest.mark.parametrize("address", ["8081", ":8081", "host:", "host:x", "host:65536", "::1:8081", "", "h:-1", "h:١"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected host:port, such as 127\.0\.0\.1:8081"):
        HealthServer(FakeWorker(), address)  # type: ignore[arg-type]


def test_stats_are_the_snapshot_without_texts_that_may_speak_of_users() -> None:
    code, body = get("/stats", last_error="mail.send: no such user ann@example.org", done=3)
    assert code == 200 and "ann" not in body
    told = json.loads(body)
    assert told["done"] == 3 and told["outbox"] == "outbox" and "last_store_error" not in told


def test_metrics_tell_everything_and_can_be_read_by_prometheus() -> None:
    async def main() -> str:
        import asyncio

        def act(name: str, attempt: int) -> None:
            raise ConnectionError(f"no mail for {name}")

        yard = Yard(act, backlog=10)
        yard.outbox.name = 'a "quoted"\\name'
        yard.put("ann", "bob")
        worker = yard.outbox.worker(alarm_depth=2)
        async with worker:
            await asyncio.sleep(25)
            return metrics_text(worker.snapshot())

    text = run(main)
    sample = re.compile(r'[a-z_]+\{outbox="a \\"quoted\\"\\\\name"(,[a-z]+="[a-z]+")?\} -?[0-9.e+-]+')
    families: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families
            families[name] = kind
        elif not line.startswith("# HELP "):
            assert sample.fullmatch(line), line
            assert line.partition("{")[0] in families
    values = {
        line.rpartition(" ")[0].partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#") and "state" not in line and "alarm" not in line
    }
    assert values["seawall_outbox_pending"] == 2 and values["seawall_outbox_store_up"] == 1
    assert values["seawall_outbox_retried_total"] >= 2 and values["seawall_outbox_target_allowed"] == 1
    assert all(name.endswith("_total") for name, kind in families.items() if kind == "counter")
    assert 'alarm="depth"} 1' in text and 'alarm="age"} 0' in text and 'state="working"} 1' in text
    assert "ann" not in text and "bob" not in text


def test_before_the_first_look_nothing_is_said_of_the_backlog() -> None:
    text = metrics_text(MemoryOutbox().worker().snapshot())
    assert "seawall_outbox_pending" not in text and "seawall_outbox_done_total" in text and 'state="idle"} 1' in text
