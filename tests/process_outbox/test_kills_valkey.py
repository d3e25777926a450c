"""kill -9 at every step, of producers, workers and the server itself, on Valkey: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.process_outbox.ground import KILLED, Fate, Ground
from tests.valkey.servers import Server, until

if not hasattr(os, "fork"):  # pragma: no cover
    pytest.skip("no fork here", allow_module_level=True)

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

DEATHS = 20
"""Of each role; they are spread evenly over its steps."""
CRASHES = 10


@pytest.fixture
def server() -> Iterator[Server]:
    logging = Server("--appendonly", "yes", "--appendfsync", "everysec")
    yield logging
    logging.close()


@pytest.mark.parametrize("role", ["produce", "aproduce"])
def test_a_producer_killed_at_any_step_loses_nothing_that_was_acknowledged(
    role: str, ground: Ground, server: Server
) -> None:
    killed = 0
    for number, step in ground.spread(DEATHS, role, server.url):
        fate = Fate(ground, server.url, str(number))
        killed += fate.produce(role, kill_at=step) == KILLED
        fate.work_until_done()
        fate.check()
    assert killed >= DEATHS * 0.9


def test_a_worker_killed_at_any_step_does_all_its_work_in_the_end(ground: Ground, server: Server) -> None:
    killed = 0
    for number, step in ground.spread(DEATHS, "work", server.url):
        fate = Fate(ground, server.url, str(number))
        fate.produce("produce")
        killed += fate.work(kill_at=step) == KILLED
        fate.work_until_done()
        assert fate.check() == len(fate.keys)
    assert killed >= DEATHS * 0.9


@pytest.mark.parametrize("role", ["produce", "work"])
def test_a_server_killed_at_any_step_of_its_clients_loses_nothing_that_was_acknowledged(
    role: str, ground: Ground, server: Server
) -> None:
    acknowledged = set[int]()
    for number, step in ground.spread(CRASHES, role, server.url):
        fate = Fate(ground, server.url, str(number))
        assert server.process is not None
        victim = server.process.pid
        if role == "produce":
            fate.produce("produce", kill_at=step, victim=victim)
        else:
            fate.produce("produce")
            fate.work(kill_at=step, victim=victim)
        server.kill()
        server.start()
        until(lambda: server.do("PING"), "it has read its log")
        fate.work_until_done()
        acknowledged.add(fate.check())
    assert role == "work" or len(acknowledged) > 2, "deaths before, among and after the acknowledgements"
