"""Errors: one tree, readable messages, headers for an edge, and a pickle that brings everything back."""

from __future__ import annotations

import copy
import pickle

import pytest

from seawall import (
    BackendUnavailable,
    BroadcastError,
    BudgetSpent,
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    Degraded,
    FixedWindow,
    Limiter,
    NoEndpoints,
    NotQueued,
    Policy,
    RateLimited,
    Rejected,
    SeawallError,
    TokenBucket,
)
from tests.policies.worlds import World, in_both_worlds

REFUSALS = [CircuitOpen, BulkheadFull, RateLimited, BudgetSpent, NoEndpoints, Degraded]


def test_the_tree() -> None:
    for kind in REFUSALS:
        assert issubclass(kind, Rejected)
    for kind in (Rejected, DeadlineExceeded, NotQueued, BroadcastError, ConfigError, BackendUnavailable):
        assert issubclass(kind, SeawallError)
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(SeawallError, (OSError, ValueError))


@pytest.mark.parametrize("kind", [Rejected, *REFUSALS])
def test_a_refusal_survives_pickling_and_copying(kind: type[Rejected]) -> None:
    error = kind("no", policy="stock", measured=0.7, threshold=0.5, retry_after=12.4)
    error.add_note("noted")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == str(error) == "stock: no; retry in 12.4 s"
        assert vars(again) == vars(error)
        assert again.__notes__ == ["noted"]


def test_the_others_survive_pickling() -> None:
    late = DeadlineExceeded("no answer", policy="stock", timeout=1.5, inherited=True)
    again = pickle.loads(pickle.dumps(late))
    assert (str(again), again.timeout, again.inherited) == ("stock: no answer", 1.5, True)
    for kind in (SeawallError, ConfigError, NotQueued, BroadcastError, BackendUnavailable):
        assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"


@in_both_worlds
async def test_refusals_of_live_layers_survive_pickling(world: World) -> None:
    policy = Policy(CircuitBreaker(), Bulkhead(1), name="stock")
    policy[CircuitBreaker].force_open()
    error = await world.error_of(policy, str)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0"),
        (0.0123, "0.0123"),
        (1, "1"),
        (12.4, "12.4"),
        (99.96, "100"),
        (999.4, "999"),
        (999.7, "1000"),
        (3_600.0, "3600"),
        (86_400, "86400"),
    ],
)
def test_times_read_without_exponents(seconds: float, shown: str) -> None:
    assert str(CircuitOpen("open", policy="stock", retry_after=seconds)) == f"stock: open; retry in {shown} s"


def test_what_is_unknown_is_left_out() -> None:
    assert str(Rejected()) == "rejected"
    assert str(BulkheadFull("full")) == "full"
    assert str(DeadlineExceeded()) == "deadline exceeded"


@pytest.mark.parametrize(
    ("seconds", "header"), [(0, "1"), (0.2, "1"), (1, "1"), (1.2, "2"), (59.0, "59"), (3_600.5, "3601")]
)
def test_retry_after_is_rounded_up_to_whole_seconds(seconds: float, header: str) -> None:
    assert dict(CircuitOpen("open", retry_after=seconds).headers()) == {"Retry-After": header}


def test_without_a_time_there_is_no_header() -> None:
    assert dict(Rejected("no").headers()) == {}


@pytest.mark.parametrize(
    ("kind", "reason", "status"),
    [
        (CircuitOpen, "circuit_open", 503),
        (BulkheadFull, "bulkhead_full", 503),
        (RateLimited, "rate_limited", 429),
        (BudgetSpent, "budget_spent", 429),
        (NoEndpoints, "no_endpoints", 503),
        (Degraded, "degraded", 503),
    ],
)
def test_each_refusal_has_a_code_and_a_status(kind: type[Rejected], reason: str, status: int) -> None:
    error = kind()
    assert (error.reason, error.status) == (reason, status)


@pytest.mark.parametrize("wait", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_wait_that_is_none_is_not_told(wait: float) -> None:
    assert Rejected("no", retry_after=wait).headers() == {}


def test_what_a_broadcast_tells_survives_pickling() -> None:
    told = BroadcastError("caches", succeeded={"a:80": 1}, failed={"b:80": OSError("down")}, needed=2)
    again = pickle.loads(pickle.dumps(told))
    assert str(again) == str(told) == "caches: 1 of 2 endpoints succeeded, 2 had to (b:80: OSError: down)"
    assert again.succeeded == {"a:80": 1}


def test_the_refusal_of_a_limiter_survives_pickling_with_its_decision() -> None:
    limiter = Limiter({"a": TokenBucket("1/h"), "b": FixedWindow("1/d")}, name="api")
    limiter.hit()
    error = limiter.hit().error()
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.decision.parts.keys() == {"a", "b"}
    assert again.headers() == error.headers()
