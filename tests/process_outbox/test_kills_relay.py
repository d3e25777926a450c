"""kill -9 between a commit and the outbox: what the database has committed is done, once by its key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.process_outbox.ground import KILLED, Fate, Ground

if not hasattr(os, "fork"):  # pragma: no cover
    pytest.skip("no fork here", allow_module_level=True)

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

DEATHS = 25


def fate_of(ground: Ground, folder: Path, number: int) -> Fate:
    fate = Fate(ground, f"sqlite:///{folder}/{number}.db", str(number))
    fate.database = f"sqlite:///{folder}/{number}-own.db"
    return fate


@pytest.mark.parametrize("dies", ["post", "relay"])
def test_whoever_dies_between_a_commit_and_the_store_what_was_committed_is_done(
    dies: str, ground: Ground, folder: Path
) -> None:
    whole = fate_of(ground, folder, 0)
    whole.produce("post")
    steps = whole.steps
    if dies == "relay":
        whole.relay()
        steps = whole.steps
    killed = 0
    for number in range(1, DEATHS + 1):
        step = 1 + (number - 1) * steps // DEATHS
        fate = fate_of(ground, folder, number)
        killed += fate.produce("post", kill_at=step if dies == "post" else None) == KILLED
        if dies == "relay":
            killed += fate.relay(kill_at=step) == KILLED
        assert fate.relay() == 0
        fate.work_until_done()
        done = fate.check()
        assert dies == "post" or done == len(fate.keys)
    assert killed >= DEATHS * 0.9
