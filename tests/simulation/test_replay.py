"""A seed decides a world to the last step, in this process and in any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.load import load
from tests.simulation.sync_world import play_sync
from tests.simulation.world import Options, play

ROOT = Path(__file__).resolve().parents[2]
DIGEST = """
import hashlib
from tests.simulation.load import load
from tests.simulation.sync_world import play_sync
from tests.simulation.world import Options, play
seen = [load(300), *(play(Options(seed)) for seed in range(12)), *(play_sync(Options(seed)) for seed in range(12))]
print(hashlib.sha256(repr(seen).encode()).hexdigest())
"""


def test_the_same_seed_is_the_same_run() -> None:
    for seed in range(8):
        assert play(Options(seed)) == play(Options(seed))
        assert play_sync(Options(seed)) == play_sync(Options(seed))
    assert load(300, 5) == load(300, 5)


def test_seeds_differ() -> None:
    assert len({play(Options(seed)).trace for seed in range(10)}) == 10


def test_a_run_is_the_same_in_every_process_whatever_the_hash_seed() -> None:
    digests = {digest_in_a_process_with(hash_seed) for hash_seed in ("0", "4242")}
    assert len(digests) == 1, "the order of sets or addresses decides something"


def digest_in_a_process_with(hash_seed: str) -> str:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    ended = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
