"""What becomes of a record after an attempt, rule by rule, and for every mixture of its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.cluster import Cluster
from seawall.errors import CircuitOpen, RateLimited
from seawall.machines.verdict import Verdict
from seawall.outbox import MemoryOutbox, Work
from seawall.outbox.operations import Operation
from seawall.outbox.worker.attempt import Unreadable
from seawall.outbox.worker.judgement import judge, judge_before, verdict_on
from seawall.policies.registry import Registry
from tests.machines.effort import QUICK
from tests.outbox.benches import HOUR, SECOND, make_work

NOW = 10**18
MINUTE = 60 * SECOND


def operation(**settings: Any) -> Operation:
    outbox = MemoryOutbox()
    outbox.operation("audit.write", **settings)(lambda entry: None)
    return outbox.operations.all()[0]


def record(**changes: Any) -> Work:
    fields = {"created_ns": NOW, "due_ns": NOW, "expires_ns": NOW + 24 * HOUR, "attempts": 1, **changes}
    return make_work(**fields)


class Wish(ConnectionError):
    def __init__(self, retry_after: Any) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def test_no_error_is_done() -> None:
    assert judge(record(), operation(), None, NOW, 0.5).what == "ack"


def test_a_failure_is_tried_again_by_full_jitter_from_1_s_to_15_min() -> None:
    for attempts, ceiling in [(1, 1), (2, 2), (3, 4), (10, 512), (11, 900), (19, 900)]:
        for rand in (0.0, 0.25, 0.999):
            step = judge(record(attempts=attempts), operation(), OSError("no"), NOW, rand)
            assert (step.what, step.text) == ("retry", "OSError: no")
            assert step.pause_ns == int(ceiling * SECOND * rand)


def test_the_twentieth_failure_is_the_last() -> None:
    assert judge(record(attempts=19), operation(), OSError("no"), NOW, 0.5).what == "retry"
    step = judge(record(attempts=20), operation(), OSError("no"), NOW, 0.5)
    assert (step.what, step.why, step.text) == ("bury", "attempts", "OSError: no")


def test_an_attempt_due_after_expiry_is_not_waited_for() -> None:
    soon = record(attempts=12, expires_ns=NOW + 5 * MINUTE)
    assert judge(soon, operation(), OSError("no"), NOW, 0.3).what == "retry"
    step = judge(soon, operation(), OSError("no"), NOW, 0.9)
    assert (step.what, step.why) == ("bury", "age")


def test_a_final_error_is_a_dead_letter_at_once() -> None:
    final = operation(final=(ValueError, CircuitOpen))
    step = judge(record(), final, ValueError("no such user"), NOW, 0.5)
    assert (step.what, step.why, step.text) == ("bury", "final", "ValueError: no such user")
    assert judge(record(), final, OSError("no"), NOW, 0.5).what == "retry"
    assert judge(record(), final, CircuitOpen("open"), NOW, 0.5).what == "bury", "refusals too, if they are named"
    assert verdict_on(final, ValueError("no such user")) is Verdict.OK, "the target has answered"


def test_an_error_that_is_an_answer_of_the_cluster_is_tried_again_but_is_no_sign_of_trouble() -> None:
    cluster = Cluster("audit", ["a:80"], on=ConnectionError, names=Registry())
    outbox = MemoryOutbox()
    outbox.operation("audit.write", through=cluster)(lambda endpoint, entry: None)
    own = outbox.operations.all()[0]
    assert judge(record(), own, ValueError("no"), NOW, 0.5).what == "retry"
    assert verdict_on(own, ValueError("no")) is Verdict.OK
    assert verdict_on(own, ConnectionError("no")) is Verdict.FAIL
    assert verdict_on(own, RateLimited("limited")) is Verdict.FAIL


def test_a_predicate_of_final_errors_that_breaks_buries_nothing() -> None:
    broken = operation(final=lambda error: error.code == 404)
    assert judge(record(), broken, OSError("no"), NOW, 0.5).what == "retry"


def test_errors_of_the_program_are_tried_again_and_say_nothing_about_the_target() -> None:
    for error in (TypeError("x"), NameError("x"), AttributeError("x"), AssertionError("x"), Unreadable("x")):
        assert judge(record(), operation(), error, NOW, 0.5).what == "retry"
        assert verdict_on(operation(), error) is Verdict.IGNORE


def test_a_refusal_is_no_attempt_and_its_wish_is_obeyed() -> None:
    step = judge(record(attempts=20), operation(), CircuitOpen("breaker open", retry_after=12.5), NOW, 0.1)
    assert (step.what, step.pause_ns) == ("release", round(12.5 * SECOND))
    step = judge(record(attempts=3), operation(), RateLimited("limited"), NOW, 0.5)
    assert (step.what, step.pause_ns) == ("release", 2 * SECOND)
    assert verdict_on(operation(), RateLimited("limited")) is Verdict.FAIL


def test_even_what_is_only_refused_expires() -> None:
    step = judge(record(expires_ns=NOW + SECOND), operation(), CircuitOpen("open", retry_after=5), NOW, 0.1)
    assert (step.what, step.why) == ("bury", "age")


@pytest.mark.parametrize(
    ("wish", "pause"),
    [(30, 30), (0.001, 0.5), (1e300, 900), (float("inf"), 900), (-5, 0.5), ("soon", 0.5), (None, 0.5)],
)
def test_a_targets_wish_is_obeyed_up_to_the_longest_pause(wish: Any, pause: float) -> None:
    assert judge(record(), operation(), Wish(wish), NOW, 0.5).pause_ns == pause * SECOND


def test_an_operation_may_have_a_schedule_of_its_own() -> None:
    own = operation(attempts=3, base="10s", cap="15s", max_age="1h")
    assert judge(record(attempts=1), own, OSError(), NOW, 0.5).pause_ns == 5 * SECOND
    assert judge(record(attempts=2), own, OSError(), NOW, 0.5).pause_ns == 7.5 * SECOND
    assert judge(record(attempts=3), own, OSError(), NOW, 0.5).why == "attempts"


def test_before_an_attempt_a_record_may_be_too_old_or_have_killed_too_many_workers() -> None:
    assert judge_before(record(), operation(), NOW) is None
    step = judge_before(record(expires_ns=NOW), operation(), NOW)
    assert step is not None
    assert (step.what, step.why, step.text) == ("bury", "age", "it expired before any attempt was made")
    step = judge_before(record(expires_ns=NOW, last_error="OSError: no"), operation(), NOW)
    assert step is not None and step.text == "OSError: no"
    assert judge_before(record(attempts=20), operation(), NOW) is None
    step = judge_before(record(attempts=21, last_error="OSError: no"), operation(), NOW)
    assert step is not None and (step.what, step.why) == ("bury", "attempts")
    assert step.text.startswith("the last attempt never came back") and step.text.endswith("before: OSError: no")


def test_an_unknown_operation_has_the_default_schedule() -> None:
    error = Unreadable("no operation 'x' is registered here")
    assert judge(record(attempts=2), None, error, NOW, 0.5).pause_ns == SECOND
    assert judge(record(attempts=20), None, error, NOW, 0.5).why == "attempts"
    assert judge_before(record(attempts=21), None, NOW) is not None


ERRORS = st.sampled_from(
    [None, OSError("no"), ValueError("final"), TypeError("x"), CircuitOpen("open", retry_after=7), Wish(100)]
)


@QUICK
@given(st.integers(1, 25), st.integers(-HOUR, 48 * HOUR), ERRORS, st.floats(0, 1, exclude_max=True), st.integers(1, 30))
def test_whatever_is_due_again_is_due_before_it_expires_and_within_its_attempts(
    attempts: int, left: int, error: Exception | None, rand: float, most: int
) -> None:
    """So every record ends: done, or as a dead letter by its age at the latest."""
    work = record(attempts=attempts, expires_ns=NOW + left)
    own = operation(attempts=most, final=ValueError)
    if judge_before(work, own, NOW) is not None:
        assert left <= 0 or attempts > most
        return
    step = judge(work, own, error, NOW, rand)
    assert (step.what == "ack") is (error is None)
    if step.what in ("retry", "release"):
        assert NOW + step.pause_ns < work.expires_ns
        assert step.pause_ns <= 900 * SECOND
        assert step.what == "release" or attempts < most
    if step.what == "bury":
        assert step.why in ("attempts", "age", "final") and step.text
