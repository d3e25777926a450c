"""A folder and a ground for processes that die."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.process_outbox.ground import Ground, Service


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where that can be: a process that dies takes nothing from the system's cache with it, so no disk need
    be waited for. (Power cuts are tests/outbox_sqlite's.)"""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.fixture
def ground(folder: Path) -> Iterator[Ground]:
    """With workers that look again at once."""
    with Service() as service, Ground(folder, service) as ground:
        yield ground
