"""Specs are frozen values that hold no state; what a `Policy` is made of is checked when it is made."""

from __future__ import annotations

import pickle

import pytest

from seawall import CircuitBreaker, ConfigError, Outcome, Policy, Retry, RetryBudget
from tests.policies.worlds import fail


@pytest.mark.parametrize("bad", [Retry, "Retry", 3, None, (Retry(on=OSError),), RetryBudget()])
def test_what_is_no_layer_is_named(bad: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Policy(bad)


@pytest.mark.parametrize("settings", [{"name": 3}, {"name": b"x"}, {"shadow": "no"}, {"shadow": 1}])
def test_settings_of_the_policy_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"Policy.*{next(iter(settings))}"):
        Policy(**settings)


def test_specs_are_frozen_values() -> None:
    spec = Retry(on=OSError, attempts=5)
    assert spec == Retry(on=OSError, attempts=5) != Retry(on=OSError)
    assert hash(spec) == hash(Retry(on=OSError, attempts=5))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.replace(attempts=2).attempts == 2
    assert "attempts=5" in repr(spec)
    for change in (lambda: setattr(spec, "attempts", 9), lambda: delattr(spec, "attempts")):
        with pytest.raises(AttributeError, match="frozen"):
            change()
    with pytest.raises(ConfigError):
        spec.replace(attempts=0)


def test_one_spec_in_two_policies_shares_nothing() -> None:
    breaker = CircuitBreaker(consecutive=1)
    first, second = Policy(breaker), Policy(breaker)
    with pytest.raises(ConnectionError):
        first.call(fail())
    assert second.call(str) == ""


def test_outcomes_are_typed_values_with_defaults_for_clusters() -> None:
    outcome = Outcome("value", None, attempts=1)
    assert (outcome.endpoint, outcome.queued, outcome.degraded) == (None, False, False)
    assert repr(outcome) == "Outcome(value='value', attempts=1, degraded=False)"
