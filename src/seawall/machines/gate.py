"""The permits of a bulkhead: at most `limit` at work, at most `queue` waiting, first come first served.

State
    free      permits that nobody holds. `limit` = free + held - excess.
    waiting   tickets in the order of their arrival; while there is one, newcomers may not take a permit.
    excess    permits still held that a smaller `limit` no longer allows; they vanish as they come back.
    permit    the one object that all permits handed out now are; only their number matters. A shrinking limit puts
              another in its place, and so does a fork.

Rules
    a permit that comes back goes to the first ticket, else to `free`, unless it pays off `excess`.
    a ticket that leaves after it was granted hands its permit on.
    a permit from before a fork is no longer counted when it comes back.

The fast lane. A caller may take `free.pop()` if `waiting` is empty, and give back by `free.append(permit)` if
`waiting` is empty and the permit is still `gate.permit`, without a lock: both are atomic. Having given back, it looks
again, and if somebody waits now it calls `pass_on` under the lock; a new ticket looks at `free` after it has been put
in the queue. So of two that meet, at least one sees the other, and no permit lies idle while somebody waits. (One
that meets a shrinking limit may be handed out once more before it vanishes.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

__all__ = ["Gate", "GatePermit", "Ticket"]


class GatePermit:
    """Leave to do one piece of work, handed out in a certain `epoch`."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


class Sleeper(Protocol):
    """Whoever waits with a ticket. The machine only keeps it; waking is the caller's business."""

    def unpark(self) -> bool: ...


class Ticket:
    """A place in the queue; `granted` is the permit once it has come."""

    __slots__ = ("granted", "sleeper")

    def __init__(self) -> None:
        self.granted: GatePermit | None = None
        self.sleeper: Sleeper | None = None


class Gate:
    """Permits and queue of one bulkhead. Not safe for threads by itself, but for the fast lane described above."""

    __slots__ = ("epoch", "excess", "free", "limit", "permit", "queue", "waiting")

    def __init__(self, limit: int, queue: int = 0) -> None:
        self.limit = limit
        self.queue = queue
        self.excess = 0
        self.epoch = 0
        self.permit = GatePermit(self.epoch)
        self.free: deque[GatePermit] = deque([self.permit] * limit)
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def in_use(self) -> int:
        """How many permits are held. While others work in the fast lane it is a snapshot."""
        return max(0, self.limit + self.excess - len(self.free))

    def take(self) -> GatePermit | None:
        """A permit, if one is free and nobody waits for it."""
        if self.waiting:
            return None
        try:
            return self.free.pop()
        except IndexError:
            return None

    def join(self) -> Ticket | None:
        """A ticket, granted at once if a permit is free after all; None if the queue is full."""
        if len(self.waiting) >= self.queue:
            return None
        ticket = Ticket()
        self.waiting[ticket] = None
        if len(self.waiting) == 1:
            # Whoever gives back while others wait passes on himself; granted here, they would not be woken.
            self.pass_on()
        return ticket

    def release(self, permit: GatePermit) -> list[Ticket]:
        """Give a permit back; returns the tickets that were granted by it."""
        if permit.epoch == self.epoch:
            self.free.append(self.permit)
        return self.pass_on()

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give up waiting; returns the tickets that were granted by it."""
        self.waiting.pop(ticket, None)
        permit, ticket.granted = ticket.granted, None
        return [] if permit is None else self.release(permit)

    def pass_on(self) -> list[Ticket]:
        """Settle free permits against `excess`, then against `waiting`; returns the tickets granted."""
        granted: list[Ticket] = []
        while self.excess or self.waiting:
            try:
                permit = self.free.pop()
            except IndexError:
                break
            if self.excess:
                self.excess -= 1
            else:
                ticket, _ = self.waiting.popitem(last=False)
                ticket.granted = permit
                granted.append(ticket)
        return granted

    def resize(self, limit: int) -> list[Ticket]:
        """Change the limit: growth is used at once, below use it drains; returns the tickets granted."""
        grown = limit - self.limit
        self.limit = limit
        if grown < 0:
            self.excess -= grown
            # Those handed out are no longer `permit`, so each comes back by the slow way and finds the excess. The idle
            # ones are left alone: others may take them at this moment.
            self.permit = GatePermit(self.epoch)
        else:
            paid = min(grown, self.excess)
            self.excess -= paid
            self.free.extend([self.permit] * (grown - paid))
        return self.pass_on()

    def begin_epoch(self) -> None:
        """Forget who holds and who waits: in a forked child those threads do not exist."""
        self.epoch += 1
        self.permit = GatePermit(self.epoch)
        self.excess = 0
        self.waiting.clear()
        self.free.clear()
        self.free.extend([self.permit] * self.limit)
