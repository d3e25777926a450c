"""Five hundred clusters of fifty replicas in trouble keep every invariant, and all of them become well again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall.cluster import calls, forking, serving
from seawall.cluster.failover import LiveFailover
from seawall.cluster.member import Seat
from seawall.cluster.serving import Serving
from seawall.machines.ejection import Ejector
from seawall.machines.verdict import Verdict
from seawall.policies.budget import BudgetMeter
from seawall.policies.layer import Ending
from tests.simulation.cluster_world import Options, play

ROOT = Path(__file__).resolve().parents[2]
SEEDS, GROUP = 500, 25


@pytest.fixture(autouse=True, scope="module")
def _less_to_collect() -> Iterator[None]:
    """A world is full of circles; the collector looks for them among what is new only, which saves a quarter."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    "first",
    # The first hundred under every interpreter, all of them under one.
    [pytest.param(first, marks=[pytest.mark.once] if first >= 100 else []) for first in range(0, SEEDS, GROUP)],
)
def test_safe_in_trouble_and_well_in_peace(first: int) -> None:
    play_all(range(first, first + GROUP))


@pytest.mark.parametrize("endpoints", [1, 2, 3, 5])
def test_few_endpoints(endpoints: int) -> None:
    play_all(range(10_000, 10_020), endpoints=endpoints)


def play_all(seeds: Iterable[int], **options: Any) -> None:
    for seed in seeds:
        play(Options(seed, **options))


SIGNS = (
    *(
        "ok -1",
        "endpoints succeeded",
        "NoEndpoints",
        "BroadcastError",
        "ExceptionGroup",
        "DeadlineExceeded",
        "cancelled",
    ),
    *("ReplicaFailed", "ConnectionRefusedError", "did not fail over", "endpoints refuse"),
)
EVENTS = (
    *("EndpointEjected", "EndpointReturned", "EndpointsChanged", "AttemptFailed", "'refused': True", "FailedOver"),
    *("GaveUp", "ForkStarted", "FailedSafe", "BroadcastFailed", "BreakerChanged", "TimedOut", "its probe failed"),
    *("'reason': 'budget'", "'reason': 'deadline'", "'reason': 'attempts'", "'reason': 'final'"),
)


def test_worlds_see_every_kind_of_trouble() -> None:
    """The seeds are worth something: everything that can happen to a call happens in the first few."""
    reports = [play(Options(seed)) for seed in range(40)]
    outcomes = " ".join(call for report in reports for call in report.calls)
    assert [sign for sign in SIGNS if sign not in outcomes] == []
    events = " ".join(event for report in reports for event in report.events)
    assert [sign for sign in EVENTS if sign not in events] == []


def test_the_same_seed_is_the_same_run() -> None:
    for seed in range(5):
        assert play(Options(seed)) == play(Options(seed))
    assert len({play(Options(seed)).trace for seed in range(10)}) == 10


DIGEST = """
import hashlib
from tests.simulation.cluster_world import Options, play
print(hashlib.sha256(repr([play(Options(seed)) for seed in range(12)]).encode()).hexdigest())
"""


def test_a_run_is_the_same_in_every_process_whatever_the_hash_seed() -> None:
    digests = {digest_in_a_process_with(hash_seed) for hash_seed in ("0", "4242")}
    assert len(digests) == 1, "the order of sets or addresses decides something"


def digest_in_a_process_with(hash_seed: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# -- the world is worth its time: faults planted in the library are found ----------------------------------------------

real_report, real_at, real_next = serving.report, Serving.at, Serving._next
real_obstacle = LiveFailover._obstacle


def forget_probes_that_say_nothing(seat: Seat, verdict: Verdict, now_ns: int) -> None:
    if verdict is not Verdict.IGNORE:
        real_report(seat, verdict, now_ns)


async def leave_cancelled_attempts_in_flight(call: Serving, seat: Seat) -> Ending:
    value, error = await real_at(call, seat)
    if error is not None and not isinstance(error, Exception):
        seat.flying.append(None)
    return value, error


def miscount(live: LiveFailover, call: Serving, made: int, *rest: Any) -> Any:
    return real_obstacle(live, call, made - 1, *rest)


def pick_anybody(call: Serving, *, again: bool = False) -> Seat | None:
    return call.roster.pick_other((), call._refusing) if call._tried else real_next(call, again=again)


PLANTED: dict[str, tuple[Any, str, object]] = {
    "probes that say nothing are forgotten": (serving, "report", forget_probes_that_say_nothing),
    "any number may be ejected": (Ejector, "may_eject", property(lambda ejector: True)),
    "cancelled attempts stay in flight": (Serving, "at", leave_cancelled_attempts_in_flight),
    "anybody is tried again": (Serving, "_next", pick_anybody),
    "a failure wins": (forking, "_decides", lambda call, error: True),
    "budgets grant everything": (BudgetMeter, "take", lambda budget: True),
    "deadlines are for others": (calls, "ends_this_task", lambda context: True),
    "failover makes one attempt too many": (LiveFailover, "_obstacle", miscount),
    "every attempt is the first": (serving, "derive", lambda context, attempt: context),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, planted = PLANTED[fault]
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(AssertionError) as caught:
        play_all(range(200))
    assert "replay: tests.simulation.cluster_world.play(Options(seed=" in "".join(caught.value.__notes__)
