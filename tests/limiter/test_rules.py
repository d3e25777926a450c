"""`Rules`: the most specific rule that matches decides, the first among equals, and nobody shares a bucket by accident."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import ConfigError, Limiter, Memory, RateLimited, Rule, Rules, TokenBucket, events
from seawall.limiter import rules as module
from seawall.testing import VirtualClock, run
from tests.machines.effort import QUICK
from tests.policies.worlds import World, heard, in_both_worlds


def api(*rules: Rule, **settings: Any) -> Rules:
    return Rules(*rules, **{"per": ("user",), "name": "api", **settings})


def request(user: str = "ann", **parts: str) -> dict[str, str]:
    return {"user": user, **parts}


@in_both_worlds
async def test_the_most_specific_rule_decides(world: World) -> None:
    rules = api(
        Rule(TokenBucket("9/h"), name="all"),
        Rule(TokenBucket("1/h"), {"operation": "search", "role": "free"}),
        Rule(TokenBucket("5/h"), {"operation": "search"}),
    )

    async def hits(parts: dict[str, str]) -> int:
        return sum([bool(await rules.ahit(parts) if world.is_async else rules.hit(parts)) for _ in range(12)])

    assert await hits(request(operation="search", role="free")) == 1
    assert await hits(request(operation="search", role="paid")) == 5
    assert await hits(request(operation="search")) == 0, "the same user by the same rule"
    assert await hits(request("bob", operation="search")) == 5
    assert await hits(request(operation="order")) == 9
    assert await hits(request(role="free")) == 0, "by the rule for all, with the order"


def test_among_equals_the_first_decides() -> None:
    one, other = Rule(TokenBucket("1/h"), {"role": "free"}), Rule(TokenBucket("5/h"), {"operation": "search"})
    parts = request(role="free", operation="search")
    assert api(one, other).find(parts) is one
    assert api(other, one).find(parts) is other


VALUES = st.sampled_from("xy")
NAMES = st.text(alphabet="a:1", max_size=3)
PARTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


@QUICK
@given(st.lists(PARTS, min_size=1, max_size=6), PARTS)
def test_it_finds_what_a_search_of_all_finds(matches: list[dict[str, str]], parts: dict[str, str]) -> None:
    made = [Rule(TokenBucket("1/h"), match, name=f"{number}") for number, match in enumerate(matches)]
    fitting = [rule for rule in made if set(rule.match.items()) <= set(parts.items())]
    best = max((len(rule.match) for rule in fitting), default=0)
    expected = next((rule for rule in fitting if len(rule.match) == best), None)
    assert Rules(*made).find(parts) is expected


@QUICK
@given(st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=12, unique=True))
def test_no_two_callers_share_a_bucket_whatever_they_are_called(callers: list[tuple[str, str]]) -> None:
    """`("a:1", "")` and `("a", ":1")` are two, and so is everything else that joins to one text."""
    rules = Rules(Rule(TokenBucket("1/h")), per=("org", "user"))
    for org, user in callers:
        assert rules.hit({"org": org, "user": user}).allowed
    for org, user in callers:
        assert not rules.hit({"org": org, "user": user}).allowed


@pytest.mark.parametrize("parts", [{}, {"user": None}, {"user": 5}, {"User": "ann"}, {"user": b"ann"}])
def test_a_part_that_is_missing_puts_nobody_into_one_bucket_with_others(parts: Any) -> None:
    rules = api(Rule(TokenBucket("9/h"), name="each"))
    for ask in (rules.hit, rules.take, rules.limiter_for):
        with pytest.raises(ConfigError, match="api: the request has no user, by which each counts"):
            ask(parts)


def test_a_rule_may_count_by_other_parts_or_by_none() -> None:
    rules = api(
        Rule(TokenBucket("2/h"), {"operation": "login"}, per=("address",)),
        Rule(TokenBucket("3/h"), {"operation": "backup"}, per=()),
    )
    assert [rules.hit(request(f"{number}", operation="login", address="::1")).allowed for number in range(3)] == [
        True,
        True,
        False,
    ]
    assert [rules.hit({"operation": "backup"}).allowed for _ in range(4)] == [True] * 3 + [False]


@in_both_worlds
async def test_costs_are_numbers_or_functions_of_the_request(world: World) -> None:
    rules = api(
        Rule(TokenBucket("10/h"), {"operation": "bulk"}, cost=lambda parts: int(parts["size"])),
        Rule(
            {"requests": TokenBucket("10/h"), "tokens": TokenBucket("100/h")},
            {"operation": "ask"},
            cost={"requests": 1, "tokens": 40},
        ),
        Rule(TokenBucket("10/h"), cost=4),
    )
    assert rules.hit(request(operation="bulk", size="7")).remaining == 3
    assert {name: part.remaining for name, part in rules.hit(request(operation="ask")).parts.items()} == {
        "requests": 9,
        "tokens": 60,
    }
    assert rules.hit(request()).remaining == 6
    assert rules.hit(request(), 1).remaining == 5, "whoever asks may say otherwise"
    with pytest.raises(ConfigError):
        rules.hit(request(operation="bulk", size="11"))
    with pytest.raises(KeyError):
        rules.hit(request(operation="bulk"))


@in_both_worlds
async def test_take_waits_as_a_limiter_does(world: World) -> None:
    rules = api(Rule(TokenBucket("2/s")))
    for _ in range(3):
        decision = await rules.atake(request()) if world.is_async else rules.take(request())
        assert decision.allowed
    assert world.now == pytest.approx(0.5)
    with pytest.raises(RateLimited):
        _ = await rules.atake(request(), max_wait=0) if world.is_async else rules.take(request(), max_wait=0)


@in_both_worlds
async def test_what_no_rule_matches_is_admitted_or_refused_as_is_said(world: World) -> None:
    rule = Rule(TokenBucket("1/h"), {"operation": "search"})
    free, closed = api(rule), api(rule, otherwise="refuse")
    for _ in range(5):
        assert free.hit({}).allowed
        assert free.take({}).allowed
        refused = closed.hit({})
        assert (refused.allowed, refused.limiter, refused.remaining) == (False, "api", 0)
        with pytest.raises(RateLimited, match="api: no rule matches"):
            _ = await closed.atake({}) if world.is_async else closed.take({})
        with pytest.raises(RateLimited):
            refused.raise_if_refused()
    assert free.limiter_for({}) is None


# -- limits that a function gives --------------------------------------------------------------------------------------


def test_a_limit_may_be_a_function_of_the_request() -> None:
    plans = {"free": "2/h", "paid": "5/h"}
    rules = api(Rule(lambda parts: TokenBucket(plans[parts["plan"]])))
    assert sum(rules.hit(request("ann", plan="free")).allowed for _ in range(9)) == 2
    assert sum(rules.hit(request("bob", plan="free")).allowed for _ in range(9)) == 2
    assert sum(rules.hit(request("eve", plan="paid")).allowed for _ in range(9)) == 5
    plans["free"] = "3/h"
    assert sum(rules.hit(request("ann", plan="free")).allowed for _ in range(9)) == 3, "another limit, another count"
    several = api(Rule(lambda parts: {"a": TokenBucket("2/h"), "b": TokenBucket("9/h")}))
    assert sum(several.hit(request()).allowed for _ in range(9)) == 2
    for wrong in (None, 5, "2/h", {}):
        with pytest.raises(ConfigError):
            api(Rule(lambda parts, wrong=wrong: wrong)).hit(request())


def test_no_more_limits_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can choose his limit cannot fill the memory; the one unused for longest starts anew."""
    monkeypatch.setattr(module, "MOST_MADE", 20)
    rules = api(Rule(lambda parts: TokenBucket(f"1/{parts['span']}s")))
    for number in range(1, 200):
        rules.hit(request(span="3600"))
        rules.hit(request(span=str(number)))
        assert len(rules._made) <= 20
    assert not rules.hit(request(span="3600")).allowed, "in use all the time"


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rules(),
        lambda: Rules(TokenBucket("1/h")),
        lambda: Rules(Rule(TokenBucket("1/h")), otherwise="maybe"),
        lambda: Rules(Rule(TokenBucket("1/h")), per="user"),
        lambda: Rules(Rule(TokenBucket("1/h")), Rule(TokenBucket("2/h"))),
        lambda: Rules(Rule(TokenBucket("1/h"), {"a": "b"}), Rule(TokenBucket("2/h"), {"a": "b"})),
        lambda: Rules(Rule(5)),
        lambda: Rules(Rule("1/h")),
        lambda: Rules(Rule(TokenBucket("1/h")), shadow="yes"),
        lambda: Rules(Rule(TokenBucket("1/h"), cost=2)),
        lambda: Rules(Rule(TokenBucket("1/h"), cost=-1)),
        lambda: Rules(Rule(TokenBucket("1/h"), cost=1.0)),
        lambda: Rules(Rule(TokenBucket("1/h"), cost=None)),
        lambda: Rules(Rule(TokenBucket("1/h"), cost={"other": 1})),
        lambda: Rule(TokenBucket("1/h"), {"a": 5}),
        lambda: Rule(TokenBucket("1/h"), {5: "a"}),
        lambda: Rule(TokenBucket("1/h"), per="user"),
        lambda: Rule(_async_limit),
        lambda: Rule(TokenBucket("1/h"), cost=_async_limit),
    ],
)
def test_what_is_wrong_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


async def _async_limit(parts: Any) -> Any:
    return TokenBucket("1/h")


def test_store_shadow_and_names_are_those_of_its_limiters() -> None:
    rules = api(Rule(TokenBucket("1/h"), {"role": "free"}), store=Memory(max_keys=1), shadow=True)
    with heard(events.LimitReached) as seen:
        assert all(rules.hit(request(f"{number % 3}", role="free")).allowed for number in range(9))
    assert {(event.policy, event.shadow) for event in seen} == {("api/role=free", True)}
    shot = rules.snapshot()
    assert shot["rules"] == "api"
    assert shot["limiters"]["role=free"]["keys"] == {"TokenBucket": 1}
    found = rules.limiter_for(request(role="free"))
    assert found is not None
    assert isinstance(found[0], Limiter)
    assert found[2] == 1


def test_tasks_share_the_rules() -> None:
    async def main() -> None:
        rules = api(Rule(TokenBucket("5/s")))
        await asyncio.gather(*[rules.atake(request()) for _ in range(10)])
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run(main)
    with VirtualClock():
        assert api(Rule(TokenBucket("5/s"))).hit(request(), 5).remaining == 0
