"""A replica at work: its policy, what is in flight there, and what the rosters know of its health."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from seawall.machines.ejection import Health

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint
    from seawall.cluster.roster import Roster
    from seawall.policy import Policy

__all__ = ["Member", "Seat"]


class Member:
    """One endpoint with all that lives as long as it does."""

    __slots__ = ("endpoint", "flying", "guards", "healths", "policy", "shunned", "since_ns", "there")

    def __init__(self, endpoint: Endpoint, policy: Policy, since_ns: int | None) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self.guards = frozenset(layer.policy for layer in policy.layers)
        """The names in which its own guards refuse."""
        self.flying: deque[None] = deque()
        """One entry for each attempt in flight: adding and taking one, and counting them, is atomic."""
        self.since_ns = since_ns
        """When it joined; None if it was there from the beginning."""
        self.healths: tuple[tuple[Roster, Health], ...] = ()
        """What each roster that ejects knows of it."""

        self.there = True
        """Whether it is in the list of endpoints now."""
        self.shunned = False
        """Whether it refused when a roster looked at it last."""

    @property
    def refuses(self) -> bool:
        """Whether a breaker of its own would refuse an attempt now."""
        return any(layer.kind == "breaker" and layer.refuses for layer in self.policy.layers)

    @property
    def retry_after(self) -> float | None:
        """How long its breakers refuse, in seconds; None if they do not, or do not know."""
        waits = [layer.snapshot()["retry_after"] for layer in self.policy.layers if layer.kind == "breaker"]
        return max((wait for wait in waits if wait), default=None)

    def look(self) -> bool:
        """Whether it refuses, for a roster that acts upon it."""
        self.shunned = self.refuses
        return self.shunned

    def __repr__(self) -> str:
        return f"Member({self.endpoint.address})"


class Seat:
    """A member as a roster hands it out for one attempt; `stay` is the state of its health that the attempt is in, None
    if that is not known."""

    __slots__ = ("endpoint", "flying", "member", "policy", "roster", "stay")

    def __init__(self, roster: Roster, member: Member, stay: int | None) -> None:
        self.roster = roster
        self.member = member
        self.endpoint = member.endpoint
        self.policy: Any = member.policy
        self.flying = member.flying
        self.stay = stay
