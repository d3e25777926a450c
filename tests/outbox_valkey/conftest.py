"""Outboxes on real servers; each test's has a name of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest

from seawall.outbox.valkey import ValkeyStore
from tests.valkey.conftest import server, shared, start
from tests.valkey.servers import Server

__all__ = ["server", "shared", "start"]

Make = Callable[..., ValkeyStore]
NUMBERS = itertools.count()


def fresh_name() -> str:
    return f"t{os.getpid()}-{next(NUMBERS)}"


@pytest.fixture
def make(shared: Server) -> Make:
    """Makes stores on the shared server, patient unless told otherwise."""

    def make(url: Any = None, **settings: Any) -> ValkeyStore:
        patient = {"timeout": "10s", "connect_timeout": "5s", "name": fresh_name()}
        return ValkeyStore(shared.url if url is None else url, **{**patient, **settings})

    return make
