"""For the tests with real servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall import Valkey
from tests.valkey.servers import Server

Make = Callable[..., Valkey]


@pytest.fixture(scope="session")
def shared() -> Iterator[Server]:
    """One server for all tests that leave it as it was; each takes a prefix of its own."""
    server = Server(unix=True)
    yield server
    server.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    servers: list[Server] = []

    def begin(*args: Any, **options: Any) -> Server:
        servers.append(Server(*args, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """A server that the test may ill-treat."""
    return start()


@pytest.fixture
def store(shared: Server) -> Iterator[Make]:
    """Makes stores with a prefix of this test, patient unless told otherwise, whose connections of threads are closed
    at the end."""
    made: list[Valkey] = []
    prefix = f"t{os.urandom(4).hex()}"

    def make(url: Any = None, **options: Any) -> Valkey:
        patient = {"connect_timeout": "5s", "timeout": "5s", "prefix": prefix}
        made.append(Valkey(shared.url if url is None else url, **{**patient, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
