"""For the tests with a real RabbitMQ: without one they are skipped, but never where CI says that it must be there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall.outbox.amqp import AmqpStore
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox_amqp.brokers import MISSING, Broker

Make = Callable[..., AmqpStore]
NUMBERS = itertools.count()


def _start() -> Broker:
    if MISSING:
        if os.environ.get("SEAWALL_REQUIRE_RABBITMQ"):
            pytest.fail(f"{MISSING}, and SEAWALL_REQUIRE_RABBITMQ says that it must be")
        pytest.skip(f"{MISSING} (Debian: apt-get install rabbitmq-server)")
    return Broker()


@pytest.fixture(scope="session")
def shared() -> Iterator[Broker]:
    """One broker for all tests that leave it as it was; each takes a name of its own."""
    broker = _start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that the tests of a module ill-treat, and leave running."""
    broker = _start()
    yield broker
    broker.close()


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes stores with a name of this test, which are closed at the end, and their queues deleted."""
    made: list[AmqpStore] = []
    name = f"test{next(NUMBERS)}"

    def begin(url: str | None = None, **options: Any) -> AmqpStore:
        if url is None:
            url = request.getfixturevalue("shared").url
        made.append(AmqpStore(url, **{"name": name, "poll": "20ms", **options}))
        return made[-1]

    yield begin
    for store in made:
        try:
            drive(store.open(BLOCKING).close())
        finally:
            store.home.end()
