"""Who owns state: only policies; nesting shares it, `policy[...]` finds it, snapshots and `explain` show it."""

from __future__ import annotations

import json

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Fallback,
    Hedge,
    Policy,
    Retry,
    Switch,
    Timeout,
    deadline,
    disable,
    enable,
)
from seawall.policies.registry import Registry
from tests.policies.worlds import World, fail, in_both_worlds


@in_both_worlds
async def test_a_nested_policy_shares_its_state(world: World) -> None:
    inventory = Policy(CircuitBreaker(consecutive=2), name="inventory")
    reading = Policy(Retry(on=LookupError), inventory, name="reading")
    writing = Policy(inventory, name="writing")
    await world.error_of(reading, fail())
    await world.error_of(writing, fail())
    for policy in (inventory, reading, writing):
        error = await world.error_of(policy, str)
        assert isinstance(error, CircuitOpen)
        assert error.policy == "inventory", "the breaker speaks for the policy it lives in"


@in_both_worlds
async def test_calls_through_an_outer_policy_are_counted_by_both(world: World) -> None:
    inner = Policy(CircuitBreaker(), name="inner")
    outer = Policy(Fallback("cached"), inner, name="outer")
    await world.call(outer, fail())
    await world.call(inner, str)
    counts = [(shown["calls"], shown["ok"], shown["failed"]) for shown in (outer.snapshot(), inner.snapshot())]
    assert counts == [(1, 1, 0), (2, 1, 1)]


@in_both_worlds
async def test_the_ends_of_calls_are_counted_apart(world: World) -> None:
    policy = Policy(CircuitBreaker(), name="stock")
    await world.call(policy, str)
    await world.error_of(policy, fail())
    await world.error_of(policy, fail(KeyboardInterrupt))
    policy[CircuitBreaker].force_open()
    await world.error_of(policy, str)
    for _ in range(3):  # reading changes nothing
        shown = policy.snapshot()
        assert [shown[key] for key in ("calls", "ok", "failed", "rejected", "cancelled")] == [4, 1, 1, 1, 1]


@in_both_worlds
async def test_a_call_that_ends_in_a_queue_is_counted_once(world: World) -> None:
    inner = Policy(CircuitBreaker(), Bulkhead(1, queue=5, max_wait=1), name="inner")
    policy = Policy(CircuitBreaker(), inner, name="outer")
    place = inner[Bulkhead]._gate.take()
    await world.error_of(policy, str)
    with deadline("500ms"):
        await world.error_of(policy, str)
    for shown in (policy.snapshot(), inner.snapshot()):
        assert (shown["calls"], shown["rejected"], shown["failed"]) == (2, 1, 1)
    inner[Bulkhead]._give_back(place)


def test_a_layer_is_found_by_kind_and_by_name() -> None:
    policy = Policy(
        Timeout(9, name="total"), Retry(on=OSError), CircuitBreaker(), Timeout(1, name="each"), name="stock"
    )
    assert policy[CircuitBreaker].state == "closed"
    assert policy["each"].time_ns == 10**9
    assert policy[Retry] is policy["Retry"]


def test_two_that_fit_are_told_by_name() -> None:
    policy = Policy(Timeout(9, name="total"), Timeout(1, name="each"), name="stock")
    with pytest.raises(KeyError, match="stock: 2 layers fit Timeout; ask by name.*'total', 'each'"):
        policy[Timeout]


def test_one_that_is_missing_is_told_with_what_there_is() -> None:
    policy = Policy(Retry(on=OSError), name="stock")
    with pytest.raises(KeyError, match="stock has no layer CircuitBreaker; it has 'Retry'"):
        policy[CircuitBreaker]
    with pytest.raises(KeyError, match="stock has no layer breaker"):
        policy["breaker"]


def test_layers_of_nested_policies_are_found_too() -> None:
    inner = Policy(CircuitBreaker(), name="inner")
    assert Policy(Retry(on=OSError), inner)[CircuitBreaker] is inner[CircuitBreaker]


def everything() -> Policy:
    switch = Switch("peak", names=Registry())
    return Policy(
        Fallback("cached", when=switch),
        Timeout(9, name="total"),
        Retry(on=OSError, budget=None),
        Hedge(),
        CircuitBreaker(slow_after=1, consecutive=7),
        Bulkhead(2, queue=3, max_wait="1s"),
        Timeout(None, name="each"),
        Policy(Retry(on=KeyError), CircuitBreaker(window_calls=50).per(lambda key: key), name="nested"),
        name="stock",
    )


def test_a_snapshot_is_json_ready_and_names_every_layer() -> None:
    policy = everything()
    shown = json.loads(json.dumps(policy.snapshot(), allow_nan=False))
    assert (shown["policy"], shown["shadow"]) == ("stock", False)
    assert [(layer["kind"], layer["name"], layer["policy"]) for layer in shown["layers"]] == [
        ("fallback", "Fallback", "stock"),
        ("switch", "the switch 'peak'", "stock"),
        ("timeout", "total", "stock"),
        ("retry", "Retry", "stock"),
        ("hedge", "Hedge", "stock"),
        ("breaker", "CircuitBreaker", "stock"),
        ("bulkhead", "Bulkhead", "stock"),
        ("timeout", "each", "stock"),
        ("retry", "Retry", "nested"),
        ("breaker", "CircuitBreaker", "nested"),
    ]


def test_explain_has_a_sentence_for_each_layer() -> None:
    said = everything().explain()
    for sentence in (
        "stock: The next call would be made.",
        "If the call fails, the fallback answers.",
        "The switch 'peak' is off.",
        "The timeout gives what lies inside it 9 s.",
        "The retry makes up to 3 attempts, without a budget.",
        "The hedge has seen too few calls",
        "The breaker is closed (0 of 0 calls failed in 30 s): it would let the call through, and opens when "
        "50 % of at least 10 fail or 100 % take over 1 s or 7 fail in a row.",
        "The bulkhead has 2 of 2 permits free: it would let the call through.",
        "The timeout has no limit of its own; a deadline of the caller holds.",
        "The retry makes up to 3 attempts; its budget has 30 left.",
        "The breaker has a compartment for each key (0 in use).",
    ):
        assert sentence in said, said


@in_both_worlds
async def test_explain_says_what_an_open_breaker_would_do(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, open_for=2_000, probes=2), name="stock")
    await world.error_of(policy, fail())
    said = policy.explain()
    assert said.startswith(
        "stock: The next call would be refused by CircuitBreaker, with an error. The breaker is open"
    )
    assert "(1 call failed in a row): it would refuse it for another" in said
    assert "e+" not in said
    assert "and answered by the fallback" in Policy(Fallback(1), policy).explain()
    await world.passes(2_300)
    assert "let it through as the first probe" in policy.explain()
    assert "The next call would be made." in policy.explain()
    await world.call(policy, str)
    assert "half-open (1 call failed in a row): 2 probes decide" in policy.explain()
    policy[CircuitBreaker].force_open()
    assert "forced open by hand" in policy.explain()
    assert "would be refused" in policy.explain()
    policy[CircuitBreaker].disable()
    assert "disabled by hand" in policy.explain()


def test_explain_says_what_a_full_bulkhead_would_do() -> None:
    policy = Policy(Bulkhead(1), name="stock")
    with policy.guard():
        assert "would be refused by Bulkhead, with an error" in policy.explain()
        assert "The bulkhead is full (1 of 1, 0 waiting): it would refuse the call." in policy.explain()
    waits = Policy(Bulkhead(1, queue=1, max_wait="1s"))
    with waits.guard():
        assert "The next call would be made." in waits.explain()
        assert "the call would wait for up to 1 s" in waits.explain()
    forever = Policy(Bulkhead(1, queue=1, max_wait=None))
    with forever.guard():
        assert "the call would wait until its deadline" in forever.explain()


def test_explain_says_that_everything_is_off_or_only_watched() -> None:
    policy = Policy(CircuitBreaker(), name="stock")
    disable()
    try:
        assert "switched off by disable()" in policy.explain()
    finally:
        enable()
    assert "Shadow: the next call would be made once and unchanged" in Policy(CircuitBreaker(), shadow=True).explain()


def test_names_are_numbered_if_none_is_given_and_repr_reads_as_code() -> None:
    assert Policy().name != Policy().name
    assert repr(Policy(Timeout(1), name="stock")) == "Policy(Timeout(time=1), name='stock')"
