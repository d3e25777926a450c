"""`Told` by a server: a decision whose counts and times are worked out when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from seawall.stores.decision import Decision, Origin
from seawall.stores.valkey.codes import Code, Raw

__all__ = ["ONE", "Answer", "answer"]

ONE = Struct(">B4d")
"""A limit in the answer of the script: whether it admits, and what is told of it."""


class Answer(Decision):
    """What the script said of one limit."""

    __slots__ = ("code",)

    code: Code

    @property
    def remaining(self) -> int:
        return max(0, self.code.left(self.state))

    @property
    def retry_after_ns(self) -> int:
        """Exact to one microsecond, the tick of the server's clock."""
        return 0 if self.allowed else int(self.state[2]) * 1_000

    @property
    def reset_after(self) -> float:
        return self.code.rest_us(self.state) / 1e6

    @property
    def held(self) -> int:
        """How much of it is set aside."""
        return int(self.state[3])


def answer(origin: Origin, code: Code, cost: int, raw: Sequence[float]) -> Answer:
    """`raw` is what `ONE` unpacks."""
    allowed, *state = raw
    decision = Answer()
    decision.allowed = allowed == 1
    decision.cost = cost
    decision.origin = origin
    decision.code = code
    decision.state = tuple[float](state)
    decision.now_ns = 0
    return decision


def raw_of(decision: Answer) -> Raw:
    """What the script told."""
    raw: Raw = decision.state
    return raw
