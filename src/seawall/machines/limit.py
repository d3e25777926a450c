"""What every rate limit is: a pure function of a state, an instant and a cost, in integers.

A limit does not keep states: a store does, one for each key, and `None` stands for a key that was never seen. Instants
are nanoseconds, and do not go back; where they come from (a monotonic clock, the civil one, a server's) is the store's
affair. A cost is a whole number; 0 asks and takes nothing.

    take(state, now, cost)     the state after admission, or None if it is refused: a refusal changes nothing.
    add(state, now, cost)      the state after the cost was counted without being asked, up to a debt of one capacity.
    give_back(state, now, cost, taken)   the state after a cost that was taken at the instant `taken` was not used after
                               all; what time has given back since is not given twice.
    left(state, now)           how much would be admitted now; negative in debt.
    wait(state, now, cost)     nanoseconds until `cost` is admitted if nobody else comes, to the nanosecond; 0: now. Not
                               for a cost above the capacity, which never is.
    rest(state, now)           nanoseconds until nothing is used any more.
    forget_ns                  after so long without a take a state means no more than None; one in debt when it rests.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeVar

__all__ = ["Limit"]

S = TypeVar("S")


class Limit(Protocol[S]):
    """A limit with its numbers."""

    kind: ClassVar[str]
    civil: ClassVar[bool]
    """Whether its instants are those of the civil calendar (since 1970, UTC)."""

    @property
    def capacity(self) -> int:
        """The largest cost that can ever be admitted."""
        ...

    @property
    def forget_ns(self) -> int: ...
    def take(self, state: S | None, now: int, cost: int) -> S | None: ...
    def add(self, state: S | None, now: int, cost: int) -> S: ...
    def give_back(self, state: S | None, now: int, cost: int, taken: int) -> S | None: ...
    def left(self, state: S | None, now: int) -> int: ...
    def wait(self, state: S | None, now: int, cost: int) -> int: ...
    def rest(self, state: S | None, now: int) -> int: ...
