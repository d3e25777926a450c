"""kill -9 at every step, on SQLite: what was acknowledged is done, once by its key, or a dead letter; nothing is lost."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tests.process_outbox.ground import KILLED, Fate, Ground

if not hasattr(os, "fork"):  # pragma: no cover
    pytest.skip("no fork here", allow_module_level=True)

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

DEATHS = 70
"""Of each role; they are spread evenly over its steps."""


def fresh(folder: Path, number: int) -> tuple[str, Path]:
    file = folder / f"{number}.db"
    return f"sqlite:///{file}", file


@pytest.mark.parametrize("role", ["produce", "aproduce"])
def test_a_producer_killed_at_any_step_loses_nothing_that_was_acknowledged(
    role: str, ground: Ground, folder: Path
) -> None:
    killed, acknowledged = 0, set[int]()
    for number, step in ground.spread(DEATHS, role, fresh(folder, 0)[0]):
        url, file = fresh(folder, number)
        fate = Fate(ground, url, str(number))
        killed += fate.produce(role, kill_at=step) == KILLED
        fate.work_until_done()
        acknowledged.add(fate.check())
        check_file(file)
    assert killed >= DEATHS * 0.9
    assert len(acknowledged) > 2, "deaths before, among and after the acknowledgements"


def test_a_worker_killed_at_any_step_does_all_its_work_in_the_end(ground: Ground, folder: Path) -> None:
    killed = repeated = 0
    for number, step in ground.spread(DEATHS, "work", fresh(folder, 0)[0]):
        url, file = fresh(folder, number)
        fate = Fate(ground, url, str(number))
        fate.produce("produce")
        killed += fate.work(kill_at=step) == KILLED
        fate.work_until_done()
        assert fate.check() == len(fate.keys)
        repeated += fate.repeated
        check_file(file)
    assert killed >= DEATHS * 0.9
    assert repeated > 0, "some died between the deed and its report: at least once, and once by the key"


def check_file(file: Path) -> None:
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()
