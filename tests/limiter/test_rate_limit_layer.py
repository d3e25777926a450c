"""`RateLimit` in a policy, the decorator and the block: refused before the call, and given back what was not used."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import seawall
from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    Decision,
    Fallback,
    LeakyBucket,
    Limiter,
    Policy,
    RateLimit,
    RateLimited,
    Retry,
    SlidingLog,
    Timeout,
    TokenBucket,
    deadline,
    events,
)
from seawall.stores.decision import Origin, told
from seawall.testing import Script, run, slow
from tests.limiter.ways import begin
from tests.policies.worlds import World, all_end, fail, heard, in_both_worlds


@in_both_worlds
async def test_calls_beyond_the_limit_are_refused_and_not_made(world: World) -> None:
    target = Script("an answer")
    policy = Policy(RateLimit(TokenBucket("2/min")), name="search")
    with heard(events.CallRefused, events.LimitReached) as seen:
        for _ in range(2):
            assert await world.call(policy, target) == "an answer"
        error = await world.error_of(policy, target)
    assert isinstance(error, RateLimited)
    assert (error.policy, error.retry_after, len(target.calls)) == ("search", 30, 2)
    assert isinstance(error.decision, Decision)
    assert [(type(event), event.policy, event.layer) for event in seen] == [
        (events.LimitReached, "search", "TokenBucket"),
        (events.CallRefused, "search", "RateLimit"),
    ]
    shot = policy.snapshot()
    assert (shot["calls"], shot["ok"], shot["rejected"]) == (3, 2, 1)
    assert (shot["layers"][0]["refused"], shot["layers"][0]["keys"]) == (1, {"TokenBucket": 1})


@in_both_worlds
async def test_a_call_that_failed_was_made_and_counts(world: World) -> None:
    policy = Policy(RateLimit(TokenBucket("2/min")))
    for _ in range(2):
        assert isinstance(await world.error_of(policy, fail()), ConnectionError)
    assert isinstance(await world.error_of(policy, fail()), RateLimited)


@in_both_worlds
async def test_keys_and_costs_are_functions_of_the_call(world: World) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="api")
    policy = Policy(RateLimit(limiter, key=lambda user, **_: user, cost=lambda user, size=1: size))

    def work(user: str, size: int = 1) -> str:
        return user

    assert await world.call(policy, work, "ann", size=7) == "ann"
    assert await world.call(policy, work, "bob") == "bob"
    assert (limiter.peek("ann").remaining, limiter.peek("bob").remaining) == (3, 9)
    with pytest.raises(RateLimited):
        await world.call(policy, work, "ann", size=4)
    with pytest.raises(ConfigError, match="api: cost"):
        await world.call(policy, work, "ann", size=11)
    with pytest.raises(ConfigError, match="key="):
        await world.call(policy, work, None)
    with pytest.raises(TypeError):
        await world.call(policy, work, 1, 2, 3)
    assert (limiter.peek("ann").remaining, limiter.peek("bob").remaining) == (3, 9)


@in_both_worlds
async def test_a_shared_limiter_counts_for_all_and_a_limit_of_its_own_for_one(world: World) -> None:
    limiter = Limiter(TokenBucket("3/h"))
    one, other = Policy(RateLimit(limiter)), Policy(RateLimit(limiter))
    for policy in (one, other, one):
        await world.call(policy, str)
    assert isinstance(await world.error_of(other, str), RateLimited)
    spec = RateLimit(TokenBucket("1/h"))
    for policy in (Policy(spec), Policy(spec)):
        await world.call(policy, str)
        assert isinstance(await world.error_of(policy, str), RateLimited)


@in_both_worlds
async def test_it_may_wait_for_its_turn(world: World) -> None:
    """And then nobody was refused."""
    policy = Policy(RateLimit(TokenBucket("10/s"), max_wait=None), name="p")
    await world.call(policy, str)
    limiter = policy[RateLimit].limiter
    limiter.hit("", 9)
    with heard(events.LimitReached, events.CallRefused) as seen:
        for _ in range(3):
            await world.call(policy, str)
    assert world.now == pytest.approx(0.3)
    assert (limiter.refused, policy[RateLimit].refused, seen) == (0, 0, [])


@in_both_worlds
async def test_it_waits_no_longer_than_it_may(world: World) -> None:
    policy = Policy(RateLimit(TokenBucket("1/min"), max_wait=30), name="p")
    await world.call(policy, str)
    error = await world.error_of(policy, str)
    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.policy, world.now) == (60, "p", 0)
    assert (policy[RateLimit].refused, policy[RateLimit].limiter.refused) == (1, 1)
    with deadline(10):
        assert isinstance(
            await world.error_of(Policy(RateLimit(policy[RateLimit].limiter, max_wait=None)), str), RateLimited
        )
    total = Policy(Timeout(10), RateLimit(policy[RateLimit].limiter, max_wait=None))
    assert isinstance(await world.error_of(total, str), RateLimited)
    assert world.now == 0


def test_a_total_timeout_ends_the_wait_in_line() -> None:
    async def main() -> None:
        policy = Policy(Timeout(2), RateLimit(TokenBucket("1/s", burst=1), max_wait=None))
        ends = await all_end([policy.acall(asyncio.sleep, 0) for _ in range(6)])
        kinds = [type(end) for end in ends]
        assert kinds.count(type(None)) in (2, 3), "at 0, at 1, and perhaps at 2"
        assert {kind for kind in kinds if kind is not type(None)} <= {RateLimited, DeadlineExceeded}
        assert asyncio.get_running_loop().time() <= 2

    for seed in range(10):
        run(main, seed=seed)


@in_both_worlds
async def test_a_leaky_bucket_paces_a_policy(world: World) -> None:
    policy = Policy(RateLimit(LeakyBucket("2/s", queue=5), max_wait=None))
    times = []
    for _ in range(4):
        await world.call(policy, str)
        times.append(world.now)
    assert times == pytest.approx([0, 0.5, 1, 1.5])


# -- what is not used is given back ------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_refusal_further_inside_costs_nothing(world: World) -> None:
    """The function was not called: an open breaker, a full bulkhead, another limit stood in the way."""
    limiter = Limiter(TokenBucket("5/h"))
    breaker = Policy(RateLimit(limiter), CircuitBreaker(consecutive=1, open_for=1_000), name="p")
    assert isinstance(await world.error_of(breaker, fail()), ConnectionError)
    for _ in range(20):
        assert isinstance(await world.error_of(breaker, str), CircuitOpen)
    assert limiter.peek().remaining == 4
    full = Policy(RateLimit(limiter), Bulkhead(1), name="r")
    with full.guard():
        for _ in range(9):
            assert isinstance(await world.error_of(full, str), BulkheadFull)
        assert limiter.peek().remaining == 3
    two = Policy(RateLimit(limiter), RateLimit(TokenBucket("1/h")), name="s")
    await world.call(two, str)
    for _ in range(9):
        assert isinstance(await world.error_of(two, str), RateLimited)
    assert limiter.peek().remaining == 2


@in_both_worlds
async def test_what_is_given_back_is_no_more_than_what_was_taken(world: World) -> None:
    """And not what time has given back meanwhile."""
    limiter = Limiter(TokenBucket("1/s", burst=5))
    decision = limiter.hit("a", 3)
    await world.passes(2)
    limiter.give_back("a", 3, decision)
    assert limiter.peek("a").remaining == 5
    decision = limiter.hit("a", 3)
    limiter.hit("a", 2)
    limiter.give_back("a", 1, decision)
    assert limiter.peek("a").remaining == 1
    for _ in range(3):
        limiter.give_back("a", 10**6, decision)
        assert limiter.peek("a").remaining == 3, "nor is it given back twice"
    for refused in (limiter.hit("a", 4), Limiter.unlimited("x", allowed=True)):
        limiter.give_back("a", 4, refused)
    assert limiter.peek("a").remaining == 3


@in_both_worlds
async def test_what_was_taken_under_a_hold_is_given_back_too(world: World) -> None:
    limiter = Limiter(TokenBucket("9/h"))
    limiter.reserve("", 2)
    policy = Policy(RateLimit(limiter), Bulkhead(1))
    with policy.guard():
        for _ in range(20):
            assert isinstance(await world.error_of(policy, str), BulkheadFull)
    assert limiter.peek().remaining == 6


def test_while_a_call_waits_further_inside_it_holds_no_token() -> None:
    """It takes it anew when it comes to its turn, so nothing is lost and nothing taken twice."""

    async def main() -> None:
        limiter = Limiter(TokenBucket("10/h"))
        policy = Policy(RateLimit(limiter), Bulkhead(1, queue=5, max_wait=None))
        work = Script(slow(1, "done"))
        tasks = [await begin(policy.acall(work.aio)) for _ in range(3)]
        assert limiter.peek().remaining == 9, "only the one at work"
        assert [await task for task in tasks] == ["done"] * 3
        assert limiter.peek().remaining == 7

    run(main)


# -- switches and words ------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_in_shadow_nobody_is_refused_or_delayed_and_all_is_counted(world: World) -> None:
    for max_wait in (0, None):
        policy = Policy(RateLimit(TokenBucket("2/h"), max_wait=max_wait), shadow=True, name="p")
        with heard(events.CallRefused, events.LimitReached) as seen:
            for _ in range(5):
                assert await world.call(policy, str) == ""
        assert policy[RateLimit].refused == 3
        assert [(type(event), event.shadow) for event in seen] == [(events.CallRefused, True)] * 3
    assert world.now == 0


@in_both_worlds
async def test_a_policy_that_only_watches_takes_nothing_of_what_others_share(world: World) -> None:
    """Nor gives back what it has not taken."""
    limiter = Limiter(TokenBucket("3/h"))
    live = Policy(RateLimit(limiter))
    watching = Policy(RateLimit(limiter), Bulkhead(1), shadow=True)
    await world.call(live, str)
    for _ in range(9):
        await world.call(watching, str)
    with watching.guard():
        await world.call(watching, str)
    assert (limiter.peek().remaining, watching[RateLimit].refused) == (2, 0)
    limiter.hit("", 2)
    for _ in range(4):
        await world.call(watching, str)
    assert (watching[RateLimit].refused, limiter.refused) == (4, 0)
    broken = Policy(RateLimit(limiter), RateLimit(TokenBucket("1/h"), key=lambda: None), shadow=True)  # type: ignore[arg-type,return-value]
    limiter.reset()
    limiter.hit("", 2)
    for _ in range(3):
        assert isinstance(await world.error_of(broken, str), ConfigError)
    assert limiter.peek().remaining == 1


@in_both_worlds
async def test_a_shadow_limiter_refuses_nobody_in_a_live_policy(world: World) -> None:
    limiter = Limiter(TokenBucket("2/h"), shadow=True)
    for max_wait in (0, None):
        policy = Policy(RateLimit(limiter, max_wait=max_wait))
        for _ in range(4):
            await world.call(policy, str)
    assert (world.now, limiter.refused) == (0, 6)


@in_both_worlds
async def test_switched_off_it_takes_nothing(world: World) -> None:
    policy = Policy(RateLimit(TokenBucket("1/h")))
    seawall.disable()
    try:
        for _ in range(5):
            await world.call(policy, str)
    finally:
        seawall.enable()
    assert policy[RateLimit].limiter.peek().remaining == 1


def test_it_explains_what_it_would_do() -> None:
    limiter = Limiter(TokenBucket("2/h"), name="api")
    policy = Policy(RateLimit(limiter))
    assert "2 of 2 are left; it would let the call through" in policy.explain()
    limiter.hit("", 2)
    assert "0 of 2 are left; it would refuse the call" in policy.explain()
    assert limiter.peek().remaining == 0
    assert "each key apart" in Policy(RateLimit(limiter, key=lambda: "x")).explain()


@pytest.mark.parametrize(
    ("limiter", "settings"),
    [
        (None, {}), ("5/s", {}), (TokenBucket, {}), (TokenBucket("5/s"), {"key": "user"}),
        (TokenBucket("5/s"), {"cost": -1}), (TokenBucket("5/s"), {"cost": 6}), (TokenBucket("5/s"), {"cost": 1.0}),
        (TokenBucket("5/s"), {"cost": None}), (TokenBucket("5/s"), {"max_wait": -1}),
        (TokenBucket("5/s"), {"max_wait": float("nan")}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_when_the_policy_is_made(limiter: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Policy(RateLimit(limiter, **settings))


# -- decorator and blocks ----------------------------------------------------------------------------------------------


def test_the_decorator_works_on_both_kinds_of_function() -> None:
    limiter = Limiter(TokenBucket("2/h"), name="search")

    @limiter.limit(key=lambda user, text="": user)
    def find(user: str, text: str = "") -> str:
        return f"{user} found {text}"

    @limiter.limit(key=lambda user: user)
    async def afind(user: str) -> str:
        return user

    assert find("ann", "it") == "ann found it"
    assert asyncio.run(afind("ann")) == "ann"
    with pytest.raises(RateLimited, match="search: "):
        find("ann")
    with pytest.raises(RateLimited):
        asyncio.run(afind("ann"))
    assert find.__name__ == "find"


@in_both_worlds
async def test_a_block_is_entered_only_if_admitted(world: World) -> None:
    limiter = Limiter(TokenBucket("2/min"))
    entered: list[int] = []

    async def block(max_wait: Any = 0) -> None:
        if world.is_async:
            async with limiter.guard("a", max_wait=max_wait) as decision:
                entered.append(decision.remaining)
        else:
            with limiter.guard("a", max_wait=max_wait) as decision:
                entered.append(decision.remaining)

    await block()
    await block()
    with pytest.raises(RateLimited):
        await block()
    assert entered == [1, 0]
    await block(60)
    assert (entered, world.now) == ([1, 0, 0], pytest.approx(30))


@in_both_worlds
async def test_an_error_in_a_block_is_the_blocks_own(world: World) -> None:
    limiter = Limiter(TokenBucket("2/min"))
    with pytest.raises(ZeroDivisionError), limiter.guard():
        _ = 1 / 0
    assert limiter.peek().remaining == 1


# -- beside other layers -----------------------------------------------------------------------------------------------


@in_both_worlds
async def test_inside_a_retry_each_attempt_asks_again(world: World) -> None:
    target = Script(OSError, OSError, "an answer")
    policy = Policy(Retry(on=OSError, delay=0, budget=None), RateLimit(TokenBucket("2/h")))
    assert isinstance(await world.error_of(policy, target), RateLimited)
    assert len(target.calls) == 2


@in_both_worlds
async def test_outside_a_retry_the_call_is_counted_once(world: World) -> None:
    target = Script(OSError, OSError, "an answer")
    policy = Policy(RateLimit(TokenBucket("2/h")), Retry(on=OSError, delay=0, budget=None))
    assert await world.call(policy, target) == "an answer"
    assert policy[RateLimit].limiter.peek().remaining == 1


@in_both_worlds
async def test_a_fallback_answers_for_whoever_is_refused(world: World) -> None:
    policy = Policy(Fallback("later"), RateLimit(TokenBucket("1/h")))
    assert [await world.call(policy, Script("now", "now")) for _ in range(3)] == ["now", "later", "later"]


@in_both_worlds
async def test_a_refusal_is_no_failure_of_the_target(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1), RateLimit(TokenBucket("1/h")))
    await world.call(policy, str)
    for _ in range(5):
        assert isinstance(await world.error_of(policy, str), RateLimited)
    assert policy[CircuitBreaker].state == "closed"


# -- a store that has to be asked --------------------------------------------------------------------------------------


class Far:
    """A table elsewhere: every answer takes a while, and is that of a table in memory."""

    def __init__(self, table: Any, trip: float) -> None:
        self._table, self._trip = table, trip
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        async def ask(runtime: Any, *args: Any) -> Any:
            self.asked += 1
            await runtime.sleep(round(self._trip * 1e9))
            return await getattr(self._table, name)(runtime, *args)

        return ask if name in ("take", "hold", "settle", "reset") else getattr(self._table, name)


class FarStore:
    def __init__(self, trip: float = 0.01) -> None:
        self._trip = trip
        self.tables: list[Far] = []

    def open(self, limiter: str, limits: Any) -> Any:
        self.tables.append(Far(seawall.Memory().open(limiter, limits), self._trip))
        return self.tables[-1]


@in_both_worlds
async def test_a_store_that_is_asked_works_by_every_method(world: World) -> None:
    """In tasks by awaiting; in threads by blocking."""
    store = FarStore()
    limiter = Limiter({"a": TokenBucket("5/s"), "b": TokenBucket("9/s")}, store=store, name="far")
    if world.is_async:
        assert (await limiter.ahit("k", 2)).remaining == 3
        assert (await limiter.apeek("k")).allowed
        held = await limiter.areserve("k", 2)
        assert await held.asettle(1)
        assert (await limiter.atake("k", 5)).allowed
        await limiter.areset("k")
        assert (await limiter.ahit("k", 5)).allowed
    else:
        assert limiter.hit("k", 2).remaining == 3
        assert limiter.peek("k").allowed
        held = limiter.reserve("k", 2)
        assert held.settle(1)
        assert limiter.take("k", 5).allowed
        limiter.reset("k")
        assert limiter.hit("k", 5).allowed
    assert store.tables[0].asked >= 7
    assert world.now == pytest.approx(0.64, abs=0.1)


@in_both_worlds
async def test_a_policy_over_a_store_that_is_asked(world: World) -> None:
    store = FarStore()
    limiter = Limiter(TokenBucket("2/min"), store=store, name="far")
    policy = Policy(RateLimit(limiter), name="p")
    await world.call(policy, str)
    await world.call(policy, str)
    error = await world.error_of(policy, str)
    assert isinstance(error, RateLimited)
    assert error.policy == "p"
    assert error.retry_after == pytest.approx(30, abs=0.1)
    assert (policy[RateLimit].refused, limiter.refused) == (1, 1)
    waiting = Policy(RateLimit(limiter, max_wait=None), name="w")
    await world.call(waiting, str)
    assert world.now == pytest.approx(30, abs=0.1)
    watching = Policy(RateLimit(limiter), shadow=True)
    await world.call(watching, str)
    assert watching[RateLimit].refused == 1
    assert "kept in a store" in policy.explain()


def test_a_change_that_makes_a_cost_impossible_ends_a_wait_in_any_store() -> None:
    """The store may not know: it refuses, and says when to come again."""

    class Never(FarStore):
        def open(self, limiter: str, limits: Any) -> Any:
            table = super().open(limiter, limits)

            async def take(runtime: Any, asks: Any) -> list[Decision]:
                await runtime.sleep(1)
                return [told(Origin(limiter, "x", next(iter(limits.values()))), 1, (0, 10**9, 0), allowed=False)]

            table.take = table.hold = take
            return table

    async def main() -> None:
        limiter = Limiter(SlidingLog("9/h"), store=Never())
        waiting = await begin(limiter.atake("a", 5))
        await asyncio.sleep(3)
        limiter.reconfigure(SlidingLog("4/h"))
        with pytest.raises(ConfigError, match="more than the limit can ever admit"):
            await waiting

    run(main)


def test_a_blocking_call_of_a_store_that_needs_a_loop_says_so() -> None:
    class Loops(FarStore):
        def open(self, limiter: str, limits: Any) -> Any:
            table = super().open(limiter, limits)

            async def take(runtime: Any, asks: Any) -> Any:
                await asyncio.sleep(0)

            table.take = take
            return table

    with pytest.raises(RuntimeError, match="event loop"):
        Limiter(TokenBucket("1/s"), store=Loops()).hit()


def test_a_policy_finds_its_layer_by_name() -> None:
    policy = Policy(RateLimit(TokenBucket("2/h"), name="front"), RateLimit(TokenBucket("9/h"), name="back"))
    assert [policy[name].limiter.peek().capacity for name in ("front", "back")] == [2, 9]
