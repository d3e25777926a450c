"""The embedded store agrees with the model of a store, whatever the order of the steps."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

from seawall.outbox.sqlite import SqliteStore
from seawall.runtime.blocking import drive
from tests.machines.effort import MODEL
from tests.outbox.store_model import StoreModel


class _OnFile(StoreModel):
    civil = True

    def make_store(self) -> SqliteStore:
        self.directory = Path(tempfile.mkdtemp())
        when_full = "drop-oldest" if self.drops else "reject"
        # What a step does is the same; that it lasts is shown elsewhere.
        path = str(self.directory / "outbox.db")
        return SqliteStore(path, backlog=self.backlog, when_full=when_full, synchronous="normal")

    def teardown(self) -> None:
        drive(self.open.close())
        shutil.rmtree(self.directory)
        super().teardown()


class Rejecting(_OnFile):
    pass


class Dropping(_OnFile):
    backlog = 5
    drops = True


FEW = settings(MODEL, max_examples=40)
Rejecting.TestCase.settings = FEW
Dropping.TestCase.settings = FEW
TestRejecting = Rejecting.TestCase
TestDropping = Dropping.TestCase
