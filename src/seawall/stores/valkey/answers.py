"""`Told` by a server: a decision whose counts and times are worked out when somebody asks for them."""

from __future__ import annotations

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
        return 0 if self.allowed else int(self.state[3]) * 1_000

    @property
    def reset_after(self) -> float:
        return self.code.rest_us(self.state) / 1e6

    @property
    def held(self) -> int:
        """How much of it is set aside."""
        return int(self.state[4])


def answer(origin: Origin, code: Code, cost: int, raw: Raw) -> Answer:
    """`raw` is what `ONE` unpacks."""
    decision = Answer()
    decision.allowed = raw[0] == 1
    decision.cost = cost
    decision.origin = origin
    decision.code = code
    decision.state = raw
    decision.now_ns = 0
    return decision
