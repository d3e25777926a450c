"""A directory with its rosters, without strategies and calls: for tests of who is picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from seawall import CircuitBreaker, NoEndpoints, Policy, RoundRobin
from seawall.cluster.balancers import Balancer
from seawall.cluster.directory import Directory
from seawall.cluster.endpoint import Endpoint
from seawall.cluster.member import Member, Seat
from seawall.cluster.roster import Roster
from seawall.cluster.serving import report
from seawall.machines.ejection import Health, Rules
from seawall.machines.verdict import Verdict
from seawall.policies.spec import Spec
from seawall.runtime import chance, clock
from seawall.testing import VirtualClock

__all__ = ["QUICK", "Lab", "counted_looks", "middle_of_jitter"]

QUICK = Rules(consecutive=1, failure_rate_ppm=None, base_ns=10_000_000_000)
"""One failure ejects, for 10 s."""


@contextmanager
def middle_of_jitter() -> Iterator[None]:
    """Lengths are what the rules say, without jitter; draws by chance take the middle."""
    restore = chance.install(lambda: 0.5)
    try:
        yield
    finally:
        restore()


class Lab:
    """Members in virtual time."""

    def __init__(
        self,
        size: int,
        rules: Rules | None = QUICK,
        *,
        balancer: Balancer | None = None,
        each: Sequence[Spec] = (),
        weights: Iterable[int] = (),
    ) -> None:
        self.each = each
        given = [*weights] or [1] * size
        endpoints = tuple(Endpoint(f"e{number}:80", weight) for number, weight in enumerate(given))
        self.directory = Directory("stock", endpoints, self._policy)
        self.balancer = RoundRobin(slow_start=0) if balancer is None else balancer
        self.roster = self.another(rules)

    def _policy(self, endpoint: Endpoint) -> Policy:
        return Policy(*self.each, name=f"stock[{endpoint}]")

    def another(self, rules: Rules | None) -> Roster:
        roster = Roster(self.directory, self.balancer, rules)
        self.directory.rosters.append(roster)
        return roster

    def member(self, number: int) -> Member:
        return self.directory.member(f"e{number}:80")

    def breaker(self, number: int) -> Any:
        return self.member(number).policy[CircuitBreaker]

    def update(self, *numbers: int) -> None:
        self.directory.update(tuple(Endpoint(f"e{number}:80") for number in numbers))

    # -- attempts ----------------------------------------------------------------------------------------------------

    @staticmethod
    def end(seat: Seat, verdict: Verdict) -> None:
        report(seat, verdict, clock.now_ns())

    def seat_at(self, number: int) -> Seat:
        """A seat of the roster at that member."""
        for _ in range(1_000):
            seat = self.roster.pick()
            if seat.member is self.member(number):
                return seat
        raise AssertionError(f"e{number}:80 is not picked")

    def eject(self, *numbers: int) -> None:
        for number in numbers:
            self.end(self.seat_at(number), Verdict.FAIL)
            assert self.standing(number) == "out"

    def picks(self, count: int) -> Counter[int]:
        """Who is picked, by number."""
        return Counter(self.number_of(self.roster.pick()) for _ in range(count))

    @staticmethod
    def number_of(seat: Seat) -> int:
        return int(seat.endpoint.address[1:-3])

    def refusal(self) -> NoEndpoints:
        with pytest.raises(NoEndpoints) as caught:
            self.roster.pick()
        return caught.value

    # -- looking -----------------------------------------------------------------------------------------------------

    def health(self, number: int, roster: Roster | None = None) -> Health:
        wanted = self.roster if roster is None else roster
        (health,) = [health for known, health in self.member(number).healths if known is wanted]
        return health

    def standing(self, number: int, roster: Roster | None = None) -> str:
        return str((self.roster if roster is None else roster).standing(self.member(number))["standing"])

    def standings(self) -> list[str]:
        return [self.roster.standing(member)["standing"] for member in self.directory.members]


@contextmanager
def counted_looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Member]]:
    """Every look of a roster at a member: a recount is one look at each."""
    looked: list[Member] = []
    look_of = Member.look

    def look(member: Member) -> bool:
        looked.append(member)
        return look_of(member)

    with monkeypatch.context() as patch:
        patch.setattr(Member, "look", look)
        yield looked


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    """Virtual time, from 100 s on, and the same chance every time."""
    restore = chance.install(Random("roster").random)
    try:
        with VirtualClock(100) as virtual:
            yield virtual
    finally:
        restore()
