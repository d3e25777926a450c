"""For the tests with a real RabbitMQ: without one they are skipped, but never where CI says that it must be there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall.errors import SeawallError
from seawall.outbox.amqp import AmqpStore
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox_amqp.brokers import MISSING, Broker

Make = Callable[..., AmqpStore]


def _start() -> Broker:
    if MISSING:
        if os.environ.get("SEAWALL_REQUIRE_SERVERS"):
            pytest.fail(f"{MISSING}, and SEAWALL_REQUIRE_SERVERS says that it must be")
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
    """Makes stores, which are emptied and closed at the end. All have one name: to make queues takes a broker long."""
    made: list[AmqpStore] = []

    def begin(url: str | None = None, **options: Any) -> AmqpStore:
        if url is None:
            url = request.getfixturevalue("shared").url
        made.append(AmqpStore(url, **{"name": "tests", "poll": "20ms", **options}))
        return made[-1]

    yield begin
    for store in made:
        end(store)


def end(store: AmqpStore) -> None:
    """Empty a store and close it."""
    if store.home.running:
        asyncio.run_coroutine_threadsafe(empty(store), store.home._running()).result(10)
        drive(store.open(BLOCKING).close())


async def empty(store: AmqpStore) -> None:
    """In the store's loop."""
    with contextlib.suppress(SeawallError):
        for held in [*store.desk.leases.values(), *store.desk.aside]:
            with contextlib.suppress(Exception):
                await held.answer()
        for queue in store.topology.queues():
            await store.broker.purge(queue)
    store.desk.leases.clear()
    store.desk.aside.clear()
