"""The retry budget: on by default, 20 % of the calls in 10 s plus 3/s; shared by name; empty, the error goes out."""

from __future__ import annotations

import pytest

from seawall import ConfigError, Hedge, Policy, Registry, Retry, RetryBudget, registry
from seawall.events import RetryGaveUp
from seawall.policies.budget import meter_for
from seawall.testing import Script
from tests.policies.worlds import World, fail, heard, in_both_worlds, in_threads


@pytest.fixture(autouse=True)
def no_shared_budgets() -> object:
    """Budgets of earlier tests must not be found by their names."""
    kept = dict(registry.budgets)
    registry.budgets.clear()
    yield
    registry.budgets.clear()
    registry.budgets.update(kept)


@in_both_worlds
async def test_by_default_3_a_second_for_quiet_times_and_a_fifth_of_the_calls(world: World) -> None:
    policy = Policy(Retry(on=OSError, attempts=2, delay=0))
    target = Script(OSError)
    for _ in range(30):
        await world.error_of(policy, target)
    assert len(target.calls) == 60, "30 for 10 s are free"
    for _ in range(970):
        await world.error_of(policy, target)
    assert len(target.calls) == 1_000 + 200 + 30


@in_both_worlds
async def test_successes_count_as_calls(world: World) -> None:
    policy = Policy(Retry(on=OSError, attempts=2, delay=0, budget=RetryBudget(0.1, per_second=0)))
    for _ in range(100):
        await world.call(policy, str)
    target = Script(OSError)
    for _ in range(50):
        await world.error_of(policy, target)
    assert len(target.calls) == 50 + 15, "a tenth of the 100 that went well and the 50 that did not"


@in_both_worlds
async def test_empty_means_the_original_error_with_a_note(world: World) -> None:
    policy = Policy(Retry(on=OSError, delay=0, budget=RetryBudget(0, per_second=0)), name="stock")
    original = OSError("refused")
    with heard(RetryGaveUp) as seen:
        assert await world.error_of(policy, fail(original)) is original
    assert original.__notes__ == ["seawall: stock did not retry: the retry budget is empty"]
    assert [(event.attempts, event.reason) for event in seen] == [(1, "budget")]


@in_both_worlds
async def test_the_window_forgets(world: World) -> None:
    policy = Policy(Retry(on=OSError, attempts=100, delay=0, budget=RetryBudget(0, per_second=1, window=10)))
    target = Script(OSError)
    await world.error_of(policy, target)
    assert len(target.calls) == 11
    await world.passes(11)
    await world.error_of(policy, target)
    assert len(target.calls) == 22


@in_both_worlds
async def test_a_named_budget_is_shared_by_policies(world: World) -> None:
    shared = RetryBudget(0, per_second=1, name="outbound")
    first = Policy(Retry(on=OSError, attempts=8, delay=0, budget=shared))
    second = Policy(Retry(on=OSError, attempts=8, delay=0, budget="outbound"))
    targets = Script(OSError), Script(OSError)
    await world.error_of(first, targets[0])
    error = await world.error_of(second, targets[1])
    assert (len(targets[0].calls), len(targets[1].calls)) == (8, 4)
    assert "the retry budget 'outbound' is empty" in error.__notes__[0]


def test_a_name_nobody_has_used_makes_a_budget_of_the_default_size() -> None:
    policy = Policy(Retry(on=OSError, budget="fresh"))
    assert policy.snapshot()["layers"][0]["budget"]["left"] == 30
    assert registry.budgets["fresh"].name == "fresh"


@in_both_worlds
async def test_budgets_without_a_name_are_not_shared_though_the_spec_is(world: World) -> None:
    spec = Retry(on=OSError, attempts=20, delay=0, budget=RetryBudget(0, per_second=1))
    for _ in range(2):
        target = Script(OSError)
        await world.error_of(Policy(spec), target)
        assert len(target.calls) == 11


@in_both_worlds
async def test_keys_of_a_policy_have_budgets_of_their_own(world: World) -> None:
    policy = Policy(Retry(on=OSError, attempts=20, delay=0, budget=RetryBudget(0, per_second=1)))
    for key in "ab":
        target = Script(OSError)
        await world.error_of(policy.for_key(key), target)
        assert len(target.calls) == 11


@in_both_worlds
async def test_none_switches_it_off(world: World) -> None:
    target = Script(OSError)
    await world.error_of(Policy(Retry(on=OSError, attempts=500, delay=0, budget=None)), target)
    assert len(target.calls) == 500


@in_both_worlds
async def test_a_retry_that_gives_up_for_another_reason_takes_nothing(world: World) -> None:
    policy = Policy(Retry(on=OSError, delay=1, total=0))
    for _ in range(5):
        await world.error_of(policy, fail(OSError))
    assert policy.snapshot()["layers"][0]["budget"]["extra"] == 0


def test_threads_take_no_more_than_the_budget_holds() -> None:
    policy = Policy(Retry(on=OSError, attempts=50, delay=0, budget=RetryBudget(0, per_second=10)))
    target = Script(OSError)

    def call() -> None:
        with pytest.raises(OSError, match="^$"):
            policy.call(target)

    in_threads([call] * 8)
    assert len(target.calls) == 8 + 100


def test_hedges_have_a_budget_of_their_own() -> None:
    policy = Policy(Hedge(), Retry(on=OSError))
    assert policy["Hedge"]._budget is not policy["Retry"]._budget
    assert policy["Hedge"]._budget.snapshot()["left"] == 10


@pytest.mark.parametrize("bad", [3, 0.2, True, object(), Retry(on=OSError)])
def test_a_budget_that_is_none_is_named(bad: object) -> None:
    for make in (lambda: Retry(on=OSError, budget=bad), lambda: Hedge(budget=bad)):
        with pytest.raises(ConfigError, match=r"\(budget"):
            make()


def test_another_registry_keeps_its_own_names() -> None:
    names = Registry()
    meter = meter_for("apart", "Retry(budget)", RetryBudget(), names)
    assert names.budgets == {"apart": meter}
    assert "apart" not in registry.budgets
