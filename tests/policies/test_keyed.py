"""State by key: `.per(key)` makes compartments, `for_key` whole policies; bounded, and never dropping what is busy."""

from __future__ import annotations

import asyncio
import json

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    Fallback,
    Per,
    Policy,
    Retry,
    Timeout,
)
from seawall.testing import Script, run, slow
from tests.policies.worlds import World, all_end, fail, in_both_worlds, in_threads


def tenant_of(tenant: str, *_: object) -> str:
    return tenant


@in_both_worlds
async def test_a_full_compartment_leaves_the_others_untouched(world: World) -> None:
    policy = Policy(Bulkhead(1).per(tenant_of), name="reports")

    def report(tenant: str) -> str:
        if tenant == "acme":
            with pytest.raises(BulkheadFull, match=r"reports\[acme\]: bulkhead full"):
                policy.call(report, "acme")
        return policy.call(report, "other") if tenant == "acme" else tenant

    assert await world.call(policy, report, "acme") == "other"
    assert policy.snapshot()["layers"][0]["keys"]["acme"]["in_use"] == 0


@in_both_worlds
async def test_a_broken_target_does_not_open_the_breaker_of_another(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1).per(tenant_of))
    await world.error_of(policy, fail(), "shard-1")
    assert isinstance(await world.error_of(policy, str, "shard-1"), CircuitOpen)
    assert await world.call(policy, str, "shard-2") == "shard-2"
    assert policy[Per].of("shard-1").state == "open"
    assert policy[Per].of("shard-2").state == "closed"


def test_each_compartment_has_its_own_queue() -> None:
    async def main() -> None:
        policy = Policy(Retry(on=OSError), CircuitBreaker(), Bulkhead(1, queue=2, max_wait=60).per(tenant_of))
        work = Script(slow(1, "done"))
        ends = await all_end([policy.acall(work.aio, tenant) for tenant in "abcabc"])
        assert ends == ["done"] * 6
        assert work.most_running == 3
        assert asyncio.get_running_loop().time() == 2
        assert not policy[Per].busy

    run(main)


@in_both_worlds
async def test_a_key_that_is_none_or_cannot_be_found_is_an_error_and_no_permit_is_taken(world: World) -> None:
    policy = Policy(Bulkhead(1, name="all"), Bulkhead(1, name="each").per(lambda tenant: tenant))
    assert isinstance(await world.error_of(policy, str, None), ConfigError)
    assert isinstance(await world.error_of(policy, str), TypeError)
    assert isinstance(await world.error_of(policy, str, []), TypeError)
    assert policy["all"].in_use == 0


@in_both_worlds
async def test_compartments_are_bounded_and_the_longest_unused_makes_room(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1).per(tenant_of, most=3))
    for tenant in "abcad":
        await world.call(policy, str, tenant)
    assert set(policy.snapshot()["layers"][0]["keys"]) == {"a", "c", "d"}


@in_both_worlds
async def test_an_open_breaker_is_never_evicted(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1).per(tenant_of, most=3))
    await world.error_of(policy, fail(), "broken")
    for number in range(50):
        await world.call(policy, str, str(number))
    assert isinstance(await world.error_of(policy, str, "broken"), CircuitOpen)
    assert len(policy.snapshot()["layers"][0]["keys"]) <= 3


@in_both_worlds
async def test_when_all_are_busy_newcomers_share_one(world: World) -> None:
    """Memory stays bounded, and they are guarded all the same."""
    policy = Policy(CircuitBreaker(consecutive=1).per(tenant_of, most=2))
    for tenant in ("a", "b", "c"):
        await world.error_of(policy, fail(), tenant)
    assert isinstance(await world.error_of(policy, str, "d"), CircuitOpen)
    assert set(policy.snapshot()["layers"][0]["keys"]) == {"a", "b", "*"}


@pytest.mark.parametrize("bad", [None, 3, "tenant"])
def test_what_is_no_key_function_is_named(bad: object) -> None:
    with pytest.raises(ConfigError, match="per\\("):
        Bulkhead(1).per(bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None])
def test_bounds_are_checked(bad: object) -> None:
    with pytest.raises(ConfigError, match="most"):
        Bulkhead(1).per(tenant_of, most=bad)
    with pytest.raises(ConfigError, match="max_keys"):
        Policy(max_keys=bad)


@in_both_worlds
async def test_for_key_gives_each_key_a_policy_with_its_own_state(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1), name="shard")
    await world.error_of(policy.for_key(1), fail())
    assert isinstance(await world.error_of(policy.for_key(1), str), CircuitOpen)
    assert await world.call(policy.for_key(2), str) == ""
    assert await world.call(policy, str) == ""
    assert policy.for_key(1) is policy.for_key(1)
    assert policy.for_key(1).name == "shard[1]"


def test_for_key_shares_nested_policies() -> None:
    shared = Policy(CircuitBreaker(), name="shared")
    policy = Policy(Retry(on=OSError), shared)
    assert policy.for_key("a")[CircuitBreaker] is policy.for_key("b")[CircuitBreaker] is shared[CircuitBreaker]


def test_for_key_is_bounded_and_never_drops_a_busy_policy() -> None:
    policy = Policy(CircuitBreaker(consecutive=1), Bulkhead(1), max_keys=4)
    with pytest.raises(ConnectionError):
        policy.for_key("open").call(fail())
    with policy.for_key("used").guard():
        kept = policy.for_key("open"), policy.for_key("used")
        for number in range(100):
            policy.for_key(number)
        assert (policy.for_key("open"), policy.for_key("used")) == kept
        assert len(policy._by_key.items()) <= 4


def test_for_key_refuses_none() -> None:
    with pytest.raises(ConfigError, match="key=None"):
        Policy().for_key(None)


def test_threads_that_ask_at_once_get_the_same_policy() -> None:
    policy = Policy(CircuitBreaker())
    assert len({id(found) for found in in_threads([lambda: policy.for_key("a")] * 8)}) == 1


def test_only_guards_can_be_kept_by_key() -> None:
    for spec in (Retry(on=OSError), Timeout(1), Fallback(1)):
        assert not hasattr(spec, "per")


def test_a_policy_with_compartments_can_be_shown() -> None:
    policy = Policy(Bulkhead(2).per(tenant_of), CircuitBreaker().per(tenant_of), name="reports")
    policy.call(str, "acme")
    assert json.loads(json.dumps(policy.snapshot()))["layers"][0]["keys"]["acme"]["limit"] == 2
    assert "compartment for each key (1 in use)" in policy.explain()
    assert policy["Bulkhead"].kind == "bulkhead"


@in_both_worlds
async def test_a_block_has_no_arguments_to_take_the_key_from(world: World) -> None:
    with pytest.raises(TypeError, match="for_key"):
        Policy(Bulkhead(1).per(tenant_of)).guard()


def test_a_compartment_that_made_room_before_it_was_entered_is_not_used() -> None:
    policy = Policy(Bulkhead(1).per(tenant_of, most=1))
    layers = policy[Per].layers
    get, once = layers.get, ["b"]

    def evicting(key: object) -> object:
        cell = get(key)
        if once:
            get(once.pop())  # another thread needs the room, just now
        return cell

    layers.get = evicting  # type: ignore[method-assign]
    seen: list[int] = []
    policy.call(lambda tenant: seen.append(policy[Per].of(tenant).in_use), "a")
    assert seen == [1]
    assert not policy[Per].busy
