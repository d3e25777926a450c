"""What was refused a moment ago, and until when: it is refused here, without asking again, if no less is asked for.

A hint is dated from before the question went out, so it never lasts longer than the refusal did. It lasts a second at
most: what another process resets or changes is noticed by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from seawall.record import Record
from seawall.runtime import clock

__all__ = ["Hint", "Hints"]

MOST = 10_000
LONGEST_NS = 1_000_000_000


class Hint(Record):
    """A refusal: of which limit, of how much, what it said, and until when it stands."""

    name: str
    cost: int
    until_ns: int
    left: int
    wait_until_ns: int
    rest_until_ns: int


class Hints:
    """By key, and bounded: the oldest goes first."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[str, Hint] = {}

    def find(self, key: str, costs: Mapping[str, int]) -> Hint | None:
        """The hint that refuses this."""
        hint = self.by_key.get(key)
        if hint is None:
            return None
        if clock.now_ns() >= hint.until_ns:
            self.by_key.pop(key, None)
            return None
        return hint if costs.get(hint.name, 0) >= hint.cost else None

    def keep(self, key: str, name: str, cost: int, asked_ns: int, numbers: tuple[int, int, int]) -> None:
        """Keep a refusal for which nothing is held; `numbers` are what is left, the wait, and the time to rest."""
        left, wait, rest = numbers
        if len(self.by_key) >= MOST:
            for oldest in list(self.by_key)[: MOST // 10]:
                self.by_key.pop(oldest, None)
        until = asked_ns + min(wait, LONGEST_NS)
        self.by_key[key] = Hint(name, cost, until, left, asked_ns + wait, asked_ns + rest)

    def forget(self, key: str) -> None:
        """It does not stand any more."""
        self.by_key.pop(key, None)

    def clear(self) -> None:
        """None of them does."""
        self.by_key.clear()
