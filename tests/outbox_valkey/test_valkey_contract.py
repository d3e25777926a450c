"""The store on a real server keeps the contract, in threads' way and in asyncio's, and agrees with the model."""

from __future__ import annotations

import atexit
from typing import Any

import pytest
from hypothesis import settings

from seawall.outbox.valkey import ValkeyStore
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from tests.machines.effort import MODEL
from tests.outbox.benches import Bench
from tests.outbox.store_contract import CONTRACT
from tests.outbox.store_model import StoreModel
from tests.outbox_sqlite.test_sqlite_contract import RealLoopBench
from tests.outbox_valkey.conftest import Make, fresh_name
from tests.valkey.servers import Server

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:.*keeps no log:RuntimeWarning")]


@pytest.mark.parametrize("scenario", CONTRACT, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_contract(scenario: Any, kind: str, make: Make) -> None:
    def in_virtual_time(**options: Any) -> ValkeyStore:
        store = make(**options)
        store.clock = clock.wall_ns
        return store

    bench = Bench(in_virtual_time, is_async=False) if kind == "sync" else RealLoopBench(in_virtual_time)
    bench.run(scenario)


class _OnServer(StoreModel):
    civil = True
    server: Server | None = None

    def make_store(self) -> ValkeyStore:
        if _OnServer.server is None:
            _OnServer.server = Server()
            atexit.register(_OnServer.server.close)
        when_full = "drop-oldest" if self.drops else "reject"
        store = ValkeyStore(
            _OnServer.server.url, name=fresh_name(), backlog=self.backlog, when_full=when_full, timeout="10s"
        )
        store.clock = clock.wall_ns
        return store

    def teardown(self) -> None:
        drive(self.open.close())
        super().teardown()


class Rejecting(_OnServer):
    pass


class Dropping(_OnServer):
    backlog = 5
    drops = True


FEW = settings(MODEL, max_examples=60)
Rejecting.TestCase.settings = FEW
Dropping.TestCase.settings = FEW
TestRejecting = Rejecting.TestCase
TestDropping = Dropping.TestCase
