"""`hit`, `peek` and `reset`: now or not at all, a refusal changes nothing, and every bad key or cost is refused by name."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Any

import pytest

import seawall
from seawall import (
    ConfigError,
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    Memory,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
    events,
)
from seawall.testing import VirtualClock
from tests.limiter.ways import Way
from tests.policies.worlds import World, heard, in_both_worlds

LIMITS = [TokenBucket("5/s"), FixedWindow("5/s"), SlidingWindow("5/s"), SlidingLog("5/s")]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
@in_both_worlds
async def test_so_much_is_admitted_for_each_key_and_no_more(world: World, limit: Any) -> None:
    way = Way(world, Limiter(limit, name="search"))
    for key in ("ann", "bob", ""):
        decisions = [await way.hit(key) for _ in range(7)]
        assert [bool(decision) for decision in decisions] == [True] * 5 + [False] * 2
        assert [decision.remaining for decision in decisions] == [4, 3, 2, 1, 0, 0, 0]
        assert (decisions[-1].limiter, decisions[-1].name, decisions[-1].capacity) == ("search", limit.name, 5)
    await world.passes((await way.peek("ann")).reset_after)
    assert (await way.hit("ann", 5)).allowed
    assert way.limiter.refused == 6


@in_both_worlds
async def test_a_leaky_bucket_admits_only_what_need_not_wait(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("10/s", queue=5)))
    assert (await way.hit("a", 3)).allowed
    refused = await way.hit("a")
    assert (refused.allowed, refused.retry_after, refused.remaining) == (False, 0.3, 0)
    await world.passes(0.3)
    assert (await way.hit("a")).allowed


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
@in_both_worlds
async def test_a_refusal_changes_nothing_and_its_wait_is_tight(world: World, limit: Any) -> None:
    """However often one asks for what does not fit, it fits exactly when it was said to."""
    way = Way(world, Limiter(limit))
    await way.hit("a", 3)
    refused = await way.hit("a", 4)
    before = refused.remaining, refused.retry_after_ns, refused.reset_after
    for _ in range(50):
        again = await way.hit("a", 4)
        assert (again.remaining, again.retry_after_ns, again.reset_after) == before
    if not world.is_async:  # a loop's own clock has no nanoseconds
        await world.passes((refused.retry_after_ns - 1) / 1e9)
        assert not (await way.hit("a", 4)).allowed
        await world.passes(1e-9)
        assert (await way.hit("a", 4)).allowed


@in_both_worlds
async def test_looking_takes_nothing(world: World) -> None:
    """By `peek`, and by a hit of 0."""
    way = Way(world, Limiter(TokenBucket("5/s")))
    await way.hit("a", 2)
    for _ in range(9):
        assert (await way.peek("a", 3)).allowed
        assert not (await way.peek("a", 4)).allowed
        assert (await way.hit("a", 0)).allowed
        assert (await way.hit("a", 0)).remaining == 3
    assert way.limiter.refused == 0, "nobody was refused"
    assert way.limiter.snapshot()["keys"] == {"TokenBucket": 1}


@in_both_worlds
async def test_a_reset_forgets_one_key(world: World) -> None:
    way = Way(world, Limiter({"one": TokenBucket("5/s"), "two": FixedWindow("5/d")}))
    for key in ("a", b"b", "x" * 100):
        await way.hit(key, 5)
        await way.reset(key)
        assert (await way.hit(key, 5)).allowed
        assert not (await way.hit(key)).allowed
    await way.reset("a")
    assert not (await way.hit(b"b")).allowed
    await way.reset("never seen")


# -- several limits ----------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_several_limits_are_taken_all_or_none(world: World) -> None:
    """Whichever refuses, none of the others has lost anything; the decision names it."""
    limits = {"requests": TokenBucket("10/s"), "tokens": SlidingWindow("100/min"), "day": FixedWindow("12/d")}
    way = Way(world, Limiter(limits, name="model"))
    assert (await way.hit("org", {"requests": 1, "tokens": 90, "day": 1})).allowed
    for _ in range(30):
        refused = await way.hit("org", {"requests": 1, "tokens": 20, "day": 1})
        assert (refused.allowed, refused.name) == (False, "tokens")
        assert {name: part.allowed for name, part in refused.parts.items()} == {
            "requests": True,
            "tokens": False,
            "day": True,
        }
    assert {name: part.remaining for name, part in refused.parts.items()} == {"requests": 9, "tokens": 10, "day": 11}
    assert (await way.hit("org", {"requests": 1, "tokens": 10, "day": 1})).remaining == 0
    await world.passes(1)
    assert [(await way.hit("org", {"requests": 1, "day": 1})).allowed for _ in range(10)] == [True] * 10
    both = await way.hit("org", {"requests": 1, "day": 1})
    assert both.name == "day", "the refusal that lasts longest"
    assert both.retry_after == both.parts["day"].retry_after > both.parts["requests"].retry_after > 0


@in_both_worlds
async def test_one_number_is_asked_of_all_and_a_mapping_of_those_that_it_names(world: World) -> None:
    way = Way(world, Limiter({"a": TokenBucket("5/s"), "b": TokenBucket("9/s")}))
    decision = await way.hit("k", 2)
    assert {name: part.remaining for name, part in decision.parts.items()} == {"a": 3, "b": 7}
    assert decision.remaining == 3, "the one with the least left speaks"
    decision = await way.hit("k", {"b": 3})
    assert (decision.name, decision.remaining, dict(decision.parts)) == ("b", 4, {})
    assert (await way.hit("k", {"a": 0, "b": 1})).parts["a"].remaining == 3


# -- bad costs and keys ------------------------------------------------------------------------------------------------


class Two(enum.IntEnum):
    TWO = 2


BAD_COSTS: list[Any] = [
    float("nan"), float("inf"), float("-inf"), -1, -(10**30), 1.0, 0.5, True, False, "3", b"3", None, Decimal(1),
    Decimal("NaN"), [1], (1,), object, Two.TWO, {}, {"other": 1}, {"TokenBucket": 1.0}, {"TokenBucket": -1},
    {"TokenBucket": 10**5000}, {1: 1}, 6, 10**30, 10**5000,
]  # fmt: skip


@pytest.mark.parametrize("cost", BAD_COSTS, ids=range(len(BAD_COSTS)))
@in_both_worlds
async def test_a_cost_that_cannot_be_is_refused_by_name_and_takes_nothing(world: World, cost: Any) -> None:
    """At once, also by those who would wait for ever; `ConfigError` is permanent, `RateLimited` would pass."""
    way = Way(world, Limiter(TokenBucket("5/s"), name="search"))
    await way.hit("a")
    for ask in (way.hit, way.take, way.reserve, way.peek):
        with pytest.raises(ConfigError, match="search: cost") as caught:
            await ask("a", cost)
        assert len(str(caught.value)) < 300
    assert (await way.peek("a")).remaining == 4
    assert way.limiter.refused == 0


def test_numbers_of_numpy_are_no_whole_numbers_of_python() -> None:
    numpy = pytest.importorskip("numpy")
    limiter = Limiter(TokenBucket("5/s"))
    for cost in (numpy.int64(1), numpy.float64(1), numpy.array([1, 2])):
        with pytest.raises(ConfigError):
            limiter.hit("a", cost)


@pytest.mark.parametrize(
    "key", [None, 5, 5.0, True, ("a",), ["a"], object(), 10**5000, bytearray(b"a")], ids=lambda key: type(key).__name__
)
@in_both_worlds
async def test_a_key_that_tells_nobody_apart_is_refused(world: World, key: Any) -> None:
    """`None` above all: it would put everybody into one bucket."""
    way = Way(world, Limiter(TokenBucket("5/s")))
    for ask in (way.hit, way.take, way.reserve, way.peek, way.reset):
        with pytest.raises(ConfigError, match="key="):
            await ask(key)
    assert way.limiter.snapshot()["keys"] == {"TokenBucket": 0}


class Shown(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "everybody"


STRANGE = ["", "a\x00", "a\x00b", "a\nb", "\ud800", "\udcff", "ß" * 33, "😀" * 64, "é" * 64, "a" * 64, "a" * 65, "x" * 10**6, "x" * 10**6 + "y", "#" + "0" * 32]  # fmt: skip


@pytest.mark.parametrize("limit", [TokenBucket("2/s"), SlidingWindow("2/s")], ids=lambda limit: limit.name)
@in_both_worlds
async def test_strange_keys_are_keys_like_any_other(world: World, limit: Any) -> None:
    """Each has its own limit, by whatever method; a long one is kept as a hash."""
    way = Way(world, Limiter(limit))
    for key in STRANGE:
        assert (await way.hit(key)).allowed
        assert (await way.hit(key)).remaining == 0
        assert not (await way.hit(key)).allowed, ascii(key)[:80]
        assert (await way.peek(key)).remaining == 0
    table = way.limiter._table
    kept = list(table.drawers[limit.name].young)
    assert len(kept) == len(STRANGE)
    assert max(len(key.encode("utf-8", "surrogatepass")) for key in kept) <= 64


def test_bytes_are_the_text_that_they_spell_and_a_kind_of_text_is_its_text() -> None:
    limiter = Limiter(TokenBucket("9/s"))
    for key in ("ann", b"ann", Shown("ann")):
        limiter.hit(key)
    assert limiter.peek("ann").remaining == 6
    limiter.hit(b"\xff\x00")
    assert limiter.peek(b"\xff\x00").remaining == 8
    assert limiter.peek("everybody").remaining == 9


def test_a_long_key_of_one_process_is_not_known_to_another_store() -> None:
    """The hash of this process stays in it: a shared store gets the key itself."""
    limiter = Limiter(TokenBucket("9/s"))
    limiter._memory = None
    assert limiter._ask("x" * 100, 1).key == "x" * 100


# -- what it is made of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "settings"),
    [
        (None, {}), ({}, {}), ("5/s", {}), ([TokenBucket("5/s")], {}), ({"a": "5/s"}, {}), ({"": TokenBucket("5/s")}, {}),
        ({1: TokenBucket("5/s")}, {}), ({"a": TokenBucket("5/s"), "b": LeakyBucket("5/s")}, {}),
        (TokenBucket("5/s"), {"name": ""}), (TokenBucket("5/s"), {"name": 5}), (TokenBucket("5/s"), {"shadow": "yes"}),
        (TokenBucket("5/s"), {"max_waiting": -1}), (TokenBucket("5/s"), {"max_waiting": True}),
        (TokenBucket("5/s"), {"max_waiting": 2.0}),
    ],
)  # fmt: skip
def test_a_limiter_that_cannot_be_is_refused_by_name(limits: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Limiter(limits, **settings)


@pytest.mark.parametrize("most", [0, -1, True, 1.0, "5", None, 10**12])
def test_a_memory_that_cannot_be_is_refused_by_name(most: Any) -> None:
    with pytest.raises(ConfigError, match=r"Memory\(max_keys"):
        Memory(max_keys=most)


def test_every_refusal_is_told_once_with_its_wait() -> None:
    with VirtualClock(), heard(events.LimitReached) as seen:
        limiter = Limiter({"second": TokenBucket("2/s"), "day": TokenBucket("9/d")}, name="api")
        for _ in range(4):
            limiter.hit("a", 1)
        with pytest.raises(RateLimited):
            limiter.take("a", max_wait=0)
    assert [(event.policy, event.layer, event.cost, event.retry_after, event.shadow) for event in seen] == [
        ("api", "second", 1, 0.5, False)
    ] * 3
    assert limiter.refused == limiter.snapshot()["refused"] == 3


def test_a_decision_raises_what_it_says() -> None:
    limiter = Limiter(TokenBucket("2/min"), name="api")
    limiter.hit("a", 2).raise_if_refused()
    decision = limiter.hit("a")
    with pytest.raises(RateLimited) as caught:
        decision.raise_if_refused()
    error = caught.value
    assert (error.policy, error.measured, error.threshold, error.status) == ("api", 2, 2, 429)
    assert error.decision is decision
    assert 29 < (error.retry_after or 0) <= 30
    assert error.headers()["Retry-After"] == "30"
    assert "limit 'TokenBucket' reached (2 of 2 used, 1 more asked)" in str(error)
    assert repr(decision).startswith("Decision(refused by 'TokenBucket', retry_after=")


# -- switches ----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_shadow_limiter_refuses_nobody_counts_and_tells(world: World) -> None:
    """And delays nobody either."""
    way = Way(world, Limiter(TokenBucket("2/min"), name="api", shadow=True))
    with heard(events.LimitReached) as seen:
        assert [(await way.hit("a")).allowed for _ in range(4)] == [True] * 4
        assert (await way.take("a", 2)).allowed
        async_held = await way.reserve("a", 2)
        assert not await way.settle(async_held, 1), "nothing was held"
    assert world.now == 0
    assert way.limiter.refused == len(seen) == 4
    assert all(event.shadow for event in seen)
    assert not (await way.peek("a")).allowed, "what would have been"


@in_both_worlds
async def test_a_shadow_leaky_bucket_lets_nobody_wait(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("1/min", queue=1), shadow=True))
    for _ in range(4):
        assert (await way.take("a")).allowed
    assert (world.now, way.limiter.refused) == (0, 2)


@in_both_worlds
async def test_switched_off_everything_is_free(world: World) -> None:
    """And counts nothing; switched on again it goes on where it was."""
    for limit in (TokenBucket("2/min"), LeakyBucket("1/h"), SlidingLog("1/d")):
        way = Way(world, Limiter(limit))
        await way.hit("a")
        seawall.disable()
        try:
            decisions = [await way.hit("a") for _ in range(9)] + [await way.take("a")]
            assert all(decisions)
            assert {decision.retry_after for decision in decisions} == {0}
            if not isinstance(limit, LeakyBucket):
                assert not await way.settle(await way.reserve("a"), 1)
        finally:
            seawall.enable()
        assert (await way.peek("a")).remaining == {"TokenBucket": 1}.get(limit.name, 0)
    assert world.now == 0


def test_an_unlimited_decision_says_so() -> None:
    for allowed in (True, False):
        decision = Limiter.unlimited("api", allowed=allowed)
        assert isinstance(decision, Decision)
        assert (bool(decision), decision.limiter, decision.retry_after, decision.reset_after) == (allowed, "api", 0, 0)
