"""Leases against the plainest model of them; clocks stand still, jump and go back."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as some

from seawall.machines.leases import Leases, Renewed

TOKENS = "abcdefgh"
MORE = int(os.environ.get("SEAWALL_MORE", "1"))


class Model:
    """All that ever was: for each token when its lease ends, on a clock that never goes back."""

    def __init__(self) -> None:
        self.time = 0
        self.told: int | None = None
        self.ends: dict[str, int] = {}

    def inside(self, now: int) -> dict[str, int]:
        """Who is inside. A step ahead of the clock counts, a step back does not."""
        if self.told is not None:
            self.time += max(0, now - self.told)
        self.told = now
        return {token: end for token, end in self.ends.items() if end > self.time}

    def begin(self, token: str, length: int) -> None:
        self.ends[token] = self.time + length


def steps(draw: Any, now: int, length: int, wait: int) -> int:
    """The next instant: the same, a tick on, at an edge or beside it, far ahead, or back."""
    ahead = some.sampled_from([0, 0, 1, length - 1, length, length + 1, max(0, wait - 1), wait, wait + 1, 10 * length])
    back = some.sampled_from([-1, -length, -10 * length])
    return now + draw(some.one_of(ahead, ahead, back, some.integers(-length, 2 * length)))


@settings(max_examples=300 * MORE, deadline=None, database=None, phases=(Phase.explicit, Phase.generate))
@given(data=some.data())
def test_leases_are_those_of_the_model_on_any_trace(data: Any) -> None:
    draw = data.draw
    leases, model = Leases(), Model()
    now = draw(some.sampled_from([0, 1, 1 << 62]))
    most, length, wait = draw(some.integers(1, 4)), draw(some.integers(2, 1_000)), 0
    for _ in range(40):
        now = steps(draw, now, length, wait)
        token = draw(some.sampled_from(TOKENS))
        inside = model.inside(now)
        step = draw(some.sampled_from("eeeerrrllpn"))
        if step == "e" and token not in inside:
            entered = leases.enter(token, now, most, length)
            assert entered == (len(inside) < most)
            if entered:
                model.begin(token, length)
        elif step == "r":
            kept, room = token in inside, len(inside) < most
            expected = Renewed.KEPT if kept else Renewed.RETAKEN if room else Renewed.LOST
            assert leases.renew(token, now, most, length) is expected
            if expected is not Renewed.LOST:
                model.begin(token, length)
        elif step == "l":
            assert leases.leave(token, now) == (token in inside)
            model.ends.pop(token, None)
        elif step == "n":
            most, length = draw(some.integers(1, 4)), draw(some.integers(2, 1_000))
        inside = model.inside(now)
        ends = sorted(end - model.time for end in inside.values())
        assert leases.live(now) == len(ends)
        assert leases.rest(now) == (ends[-1] if ends else 0)
        wait = leases.wait(now, most)
        assert wait == (ends[len(ends) - most] if len(ends) >= most else 0)


def test_the_wait_is_tight_to_one_tick() -> None:
    for early, admitted in ((1, False), (0, True)):
        leases = Leases()
        assert leases.enter("a", 1_000, 2, 50)
        assert leases.enter("b", 1_020, 2, 50)
        wait = leases.wait(1_030, 2)
        assert leases.enter("c", 1_030 + wait - early, 2, 50) is admitted


def test_with_a_smaller_limit_nobody_enters_until_enough_have_gone_and_nobody_is_thrown_out() -> None:
    leases = Leases()
    for number, token in enumerate("abcd"):
        assert leases.enter(token, number, 4, 100)
    assert not leases.enter("e", 10, 2, 100)
    assert leases.live(10) == 4
    assert leases.wait(10, 2) == 92  # a, b and c have to go
    assert leases.renew("a", 10, 2, 100) is Renewed.KEPT
    for gone in "bc":
        assert leases.leave(gone, 20)
    assert not leases.enter("e", 20, 2, 100)
    assert leases.leave("d", 20)
    assert leases.enter("e", 20, 2, 100)


def test_a_lease_that_was_given_away_is_not_taken_back_and_leaving_late_throws_nobody_out() -> None:
    leases = Leases()
    assert leases.enter("slow", 0, 1, 100)
    assert leases.enter("next", 100, 1, 100)
    assert leases.renew("slow", 110, 1, 100) is Renewed.LOST
    assert not leases.leave("slow", 120)
    assert not leases.leave("slow", 120)
    assert leases.live(120) == 1
    assert leases.leave("next", 130)
    assert leases.renew("slow", 140, 1, 100) is Renewed.RETAKEN


def test_who_is_overdue_may_be_prolonged_as_long_as_nobody_has_asked() -> None:
    leases = Leases()
    assert leases.enter("a", 0, 1, 100)
    assert leases.overdue(99) == []
    assert leases.overdue(500) == ["a"]
    leases.prolong("a", 500, 100)
    assert not leases.enter("b", 599, 1, 100)
    assert leases.enter("b", 600, 1, 100)
    leases.prolong("a", 600, 100)
    assert leases.live(600) == 1
