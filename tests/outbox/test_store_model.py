"""The store in memory does what its model does, whatever comes, under both policies of a full backlog."""

from __future__ import annotations

from seawall.outbox.memory.store import MemoryStore
from seawall.outbox.store import Store
from tests.machines.effort import MODEL
from tests.outbox.store_model import StoreModel


class Rejecting(StoreModel):
    def make_store(self) -> Store:
        return MemoryStore(backlog=self.backlog)


class Dropping(StoreModel):
    drops = True

    def make_store(self) -> Store:
        return MemoryStore(backlog=self.backlog, when_full="drop-oldest")


TestRejecting = Rejecting.TestCase
TestRejecting.settings = MODEL
TestDropping = Dropping.TestCase
TestDropping.settings = MODEL
