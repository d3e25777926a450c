"""What could only go wrong in silence is refused, with the remedy, before the first call."""

from __future__ import annotations

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    Fallback,
    Per,
    Policy,
    Retry,
    Timeout,
    events,
)
from seawall.errors import UnwantedResult
from seawall.testing import Script, VirtualClock, run, slow


def test_a_block_has_no_result_for_until_to_judge() -> None:
    with pytest.raises(TypeError, match="no result for Retry to judge"):
        Policy(Retry(on=OSError, until=bool)).attempts()


def test_a_block_has_no_result_for_a_breaker_to_judge() -> None:
    with pytest.raises(TypeError, match="no result for CircuitBreaker to judge"):
        Policy(CircuitBreaker(ok=bool)).guard()


def test_a_policy_that_acts_cannot_hide_in_a_shadow() -> None:
    with pytest.raises(ConfigError, match="stock in it is not in shadow"):
        Policy(Policy(CircuitBreaker(), name="stock"), shadow=True)
    watching = Policy(Policy(CircuitBreaker(), name="stock", shadow=True), shadow=True)
    assert watching.call(str, 1) == "1"


@pytest.mark.parametrize("answer", [ValueError, dict, ValueError("x")])
def test_a_class_or_an_exception_is_no_fallback(answer: object) -> None:
    with pytest.raises(ConfigError, match="say what you mean by a function of the error"):
        Fallback(answer)


def test_layers_of_one_kind_have_names_of_their_own() -> None:
    policy = Policy(Timeout(9), Retry(on=OSError), Timeout(1), name="stock")
    assert (policy["Timeout"].time_ns, policy["Timeout-2"].time_ns) == (9 * 10**9, 10**9)
    with pytest.raises(KeyError, match="'Timeout', 'Timeout-2'"):
        policy[Timeout]


def test_compartments_are_found_as_per() -> None:
    policy = Policy(Bulkhead(2).per(lambda tenant: tenant))
    policy.call(lambda tenant: tenant, "acme")
    policy[Per].of("acme").resize(5)
    assert policy[Per].of("acme").limit == 5


def test_the_keys_of_a_policy_can_be_listed() -> None:
    policy = Policy(Bulkhead(1))
    assert policy.for_key("a") is not policy.for_key("b")
    assert policy.keys() == ["a", "b"]


def test_a_late_result_of_a_synchronous_call_is_kept_and_counted() -> None:
    policy = Policy(Timeout(1))
    with VirtualClock():
        assert policy.call(Script(slow(2, "late"))) == "late"
        assert policy.call(Script(slow("0.5s", "in time"))) == "in time"
    assert policy[Timeout].snapshot() == {"timeout": 1.0, "timed_out": 0, "late": 1}


def test_an_event_about_an_unwanted_result_shows_the_result() -> None:
    seen: list[events.RetryScheduled] = []
    stop = events.subscribe(seen.append, events.RetryScheduled)
    with VirtualClock():
        assert Policy(Retry(on=OSError, until=lambda n: n > 1)).call(Script(1, 2)) == 2
    stop()
    assert isinstance(seen[0].error, UnwantedResult)
    assert str(seen[0].error) == "the result 1 was not accepted"


def test_an_operator_sees_that_a_breaker_only_watches() -> None:
    policy = Policy(CircuitBreaker(consecutive=1), name="stock")
    policy[CircuitBreaker].watch()
    with pytest.raises(ConnectionError):
        policy.call(Script(ConnectionError))
    said = policy.explain()
    assert "The next call would be made." in said
    assert "It only watches: in fact it lets every call through." in said


def test_by_hand_events_name_the_mode_and_the_hand() -> None:
    policy, seen = Policy(CircuitBreaker()), []
    stop = events.subscribe(seen.append, events.BreakerChanged)
    for by_hand in ("watch", "auto", "force_open", "reset"):
        getattr(policy[CircuitBreaker], by_hand)()
    stop()
    changes = [(event.before, event.after, event.why) for event in seen]
    assert changes == [
        ("closed", "shadow", "by hand"),
        ("shadow", "closed", "by hand"),
        ("closed", "forced_open", "by hand"),
        ("forced_open", "closed", "by hand"),
    ]


def test_consecutive_failures_are_measured_in_calls() -> None:
    policy = Policy(CircuitBreaker(consecutive=3), name="stock")
    for _ in range(3):
        with pytest.raises(ConnectionError):
            policy.call(Script(ConnectionError))
    with pytest.raises(CircuitOpen) as caught:
        policy.call(str)
    assert (caught.value.measured, caught.value.threshold) == (3, 3)


def test_a_blocking_function_in_an_async_call_is_told_the_way() -> None:
    policy = Policy(CircuitBreaker(), name="stock")

    async def main() -> None:
        with pytest.raises(TypeError) as caught:
            await policy.acall(str, 1)
        assert "Bulkhead(threads=True)" in caught.value.__notes__[0]

    run(main)
