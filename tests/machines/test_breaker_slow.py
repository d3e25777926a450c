"""Slow calls open the breaker, also while they still run, and each counts once."""

from __future__ import annotations

from seawall.machines.breaker import Breaker, Mode, Permit, Rules, State
from seawall.machines.verdict import Ended, Verdict
from tests.machines.test_breaker_rules import admitted, attempt, refused

SLOW = 1_000
OK, FAIL, IGNORE = Ended(Verdict.OK), Ended(Verdict.FAIL), Ended(Verdict.IGNORE)


def watching(**settings: object) -> Breaker:
    settings = {"slow_rate_ppm": 500_000, "min_calls": 4, **settings}
    return Breaker(Rules(slow_after_ns=SLOW, **settings))


def slow_probes(machine: Breaker, count: int) -> tuple[list[Permit], int]:
    """Opens by failures, then lets `count` probes run for longer than they should."""
    while machine.state is State.CLOSED:
        attempt(machine, FAIL, 0)
    now = machine.until_ns
    return [admitted(machine, now) for _ in range(count)], now + SLOW + 1


def test_an_attempt_is_slow_beyond_slow_after_and_not_at_it() -> None:
    """Exactly `slow_after` is still in time."""
    machine = watching()
    attempt(machine, Ended(Verdict.OK, SLOW), 0)
    attempt(machine, Ended(Verdict.OK, SLOW + 1), 0)
    assert (machine.window.calls, machine.window.slow) == (2, 1)


def test_a_hung_attempt_counts_at_the_next_admission_and_not_again_when_it_ends() -> None:
    """Once as slow, whatever its end; a failure is added to the same outcome, not beside it."""
    for ended, failed in ((OK, 0), (IGNORE, 0), (FAIL, 1)):
        machine = watching()
        hung = admitted(machine, 0)
        admitted(machine, SLOW)
        assert machine.window.calls == 0
        admitted(machine, SLOW + 1)
        admitted(machine, SLOW + 1)
        assert (machine.window.calls, machine.window.slow) == (1, 1)
        machine.settle(hung, Ended(ended.verdict, 9 * SLOW), 9 * SLOW, 0.5)
        assert (machine.window.calls, machine.window.failed, machine.window.slow) == (1, failed, 1)


def test_hung_attempts_open_the_breaker_before_they_end() -> None:
    """Four hang, and the next caller is refused; the transition comes with that very refusal, once."""
    machine = watching()
    for _ in range(4):
        admitted(machine, 0)
    refusal = refused(machine, SLOW + 1)
    assert refusal.transition is not None and refusal.transition.trip is not None
    assert (refusal.transition.trip.rule, refusal.transition.trip.bad) == ("slow", 4)
    assert refused(machine, SLOW + 1).transition is None


def test_in_shadow_the_caller_who_finds_it_open_is_let_through_with_the_news() -> None:
    """SHADOW moves as AUTO does and refuses nobody; how many it would have refused is counted."""
    machine = watching()
    machine.set_mode(Mode.SHADOW, 0)
    for _ in range(4):
        admitted(machine, 0)
    permit = admitted(machine, SLOW + 1)
    assert permit.transition is not None and permit.transition.after == "open"
    assert (machine.state, machine.passed_over) == (State.OPEN, 1)
    assert machine.settle(permit, FAIL, SLOW + 1, 0.5) is None


def test_probes_that_are_slow_reopen_it_while_they_still_run() -> None:
    """The share of slow ones among the probes counts as the share of failures does."""
    machine = watching(probes=4)
    probes, late = slow_probes(machine, 2)
    admission = machine.admit(late, 0.5)
    assert admission.transition is not None and admission.transition.trip is not None
    assert (admission.transition.trip.rule, admission.transition.trip.bad) == ("slow probes", 2)
    assert machine.settle(probes[0], OK, late, 0.5) is None


def test_a_probe_that_hung_counts_once_as_slow_though_it_ends_slowly() -> None:
    """Two of four would reopen it; one that was counted while it ran is not counted again."""
    machine = watching(probes=4)
    (hung,), late = slow_probes(machine, 1)
    admitted(machine, late)
    assert machine.settle(hung, Ended(Verdict.OK, SLOW + 1), late, 0.5) is None
    assert machine.state is State.HALF_OPEN


def test_a_probe_counted_as_slow_is_not_expected_to_become_slow_again() -> None:
    """One of four hangs and two were well: at most two can be slow, so it closes without waiting for the others."""
    machine = watching(probes=4, slow_rate_ppm=750_000, failure_rate_ppm=1_000_000)
    _, late = slow_probes(machine, 1)
    quick = [admitted(machine, late) for _ in range(3)]
    assert machine.settle(quick[0], OK, late, 0.5) is None
    change = machine.settle(quick[1], OK, late, 0.5)
    assert change is not None and change.after == "closed", "at most two of four can be slow, three would be needed"


def test_slow_probes_given_back_never_make_more_bad_calls_than_calls() -> None:
    """Their slowness has been seen, so it counts; the trip still reads as a share of at most 1."""
    machine = watching(probes=2, slow_rate_ppm=1_000_000, probe_lease_ns=2 * SLOW)
    _, late = slow_probes(machine, 1)
    admitted(machine, late - 1)
    admitted(machine, late + SLOW - 1)
    refusal = refused(machine, late + 9 * SLOW)
    assert refusal.transition is not None and refusal.transition.trip is not None
    assert refusal.transition.trip.bad <= refusal.transition.trip.calls
