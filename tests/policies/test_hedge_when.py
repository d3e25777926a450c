"""When a `Hedge` starts a second attempt: after a time, or a quantile of the recent ones, and within its budget."""

from __future__ import annotations

import asyncio

import pytest

from seawall import ConfigError, Hedge, Policy, RetryBudget
from seawall.testing import Script, run, slow
from tests.policies.worlds import all_end

FREE = {"budget": None}


def now() -> float:
    return asyncio.get_running_loop().time()


def test_p95_starts_no_hedge_before_it_knows_what_is_slow() -> None:
    async def main() -> None:
        policy = Policy(Hedge(**FREE))
        quick, late = Script(slow(1, "quick")), Script(slow(30, "late"))
        for _ in range(19):
            await policy.acall(quick.aio)
        assert policy["Hedge"].delay_ns is None
        assert await policy.acall(late.aio) == "late"
        assert len(late.calls) == 1

    run(main)


def test_p95_is_the_95th_percentile_of_the_recent_durations() -> None:
    target = Script(slow(60), slow(0.1, "second"))

    async def main() -> None:
        policy = Policy(Hedge("p95", **FREE))
        for number in range(100):
            await policy.acall(asyncio.sleep, 1 if number < 95 else 20)
        began = now()
        assert 1 <= policy.snapshot()["layers"][0]["after"] <= 1.125
        assert await policy.acall(target.aio) == "second"
        assert 1.1 <= now() - began <= 1.225 + 1e-6

    run(main)


def test_hedges_are_at_most_a_tenth_of_the_calls_and_one_a_second() -> None:
    target = Script(slow(0.01, "late"))

    async def main() -> None:
        policy = Policy(Hedge(after="1ms"))
        await all_end([policy.acall(target.aio) for _ in range(1_000)])
        assert policy["Hedge"].hedges == 100 + 10
        assert len(target.calls) == 1_110

    run(main)


def test_a_hedge_budget_can_be_shared_or_left_out() -> None:
    target = Script(slow(5, "late"))

    async def main() -> None:
        policy = Policy(Hedge(after=1, budget=RetryBudget(0, per_second=0)))
        assert await policy.acall(target.aio) == "late"
        assert len(target.calls) == 1

    run(main)


def test_a_synchronous_call_is_refused_with_the_reason() -> None:
    policy = Policy(Hedge(), name="prices")
    for use in (lambda: policy.call(str), lambda: policy(lambda: 1), lambda: policy.run(str)):
        with pytest.raises(ConfigError, match="prices: Hedge works in async calls only"):
            use()


@pytest.mark.parametrize("bad", ["p49", "p100", "p5", "p9x", "p", "p９５", "fast", -1, None, True, float("nan")])
def test_when_to_hedge_is_checked(bad: object) -> None:
    with pytest.raises(ConfigError, match=r"Hedge\(after"):
        Hedge(after=bad)


@pytest.mark.parametrize("bad", [0, 11, 1.5, True, None])
def test_how_often_is_checked(bad: object) -> None:
    with pytest.raises(ConfigError, match=r"Hedge\(max"):
        Hedge(max=bad)
