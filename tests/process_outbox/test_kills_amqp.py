"""kill -9 of producers and workers at steps spread over their whole way, on RabbitMQ: what was confirmed is not lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outbox_amqp.brokers import Broker
from tests.outbox_amqp.conftest import broker
from tests.process_outbox.ground import KILLED, Fate, Ground, Service

__all__ = ["broker"]

if not hasattr(os, "fork"):  # pragma: no cover
    pytest.skip("no fork here", allow_module_level=True)

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

DEATHS = 10


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with Service() as service, Ground(tmp_path, service, pause_ms=300) as ground:
        yield ground


def test_a_producer_killed_at_any_step_loses_nothing_that_was_confirmed(ground: Ground, broker: Broker) -> None:
    killed = 0
    for number, step in ground.spread(DEATHS, "produce", broker.url, one_outbox=True):
        fate = Fate(ground, broker.url, str(number), one_outbox=True)
        killed += fate.produce("produce", kill_at=step) == KILLED
        fate.work_until_done()
        fate.check()
    assert killed >= DEATHS * 0.8


def test_a_worker_killed_at_any_step_does_all_its_work_in_the_end(ground: Ground, broker: Broker) -> None:
    killed = 0
    for number, step in ground.spread(DEATHS, "work", broker.url, one_outbox=True):
        fate = Fate(ground, broker.url, str(number), one_outbox=True)
        fate.produce("produce")
        killed += fate.work(kill_at=step) == KILLED
        fate.work_until_done()
        assert fate.check() == len(fate.keys)
    assert killed >= DEATHS * 0.8
