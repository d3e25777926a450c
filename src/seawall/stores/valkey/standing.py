"""What a process knows of its store and of the others who use it; and how often it had to do without."""

from __future__ import annotations

import os
import threading
from collections import Counter
from struct import unpack_from

from seawall.runtime import clock
from seawall.stores.valkey.parcels import Op, Parcel, bulk, unit
from seawall.stores.valkey.routes import slot_of

__all__ = ["Standing", "evicts"]

CALL_EVERY_NS = 3_000_000_000
CALM_NS = 10_000_000_000
"""A store that answers for so long without a failure is well again; until then one outage goes on."""


class Standing:
    """For all threads and loops of a process."""

    def __init__(self, prefix: str, nodes: int) -> None:
        self._key = bulk(f"{prefix}:{{nodes}}".encode())
        self._slot = slot_of(b"nodes")
        self.configured = nodes
        self._lock = threading.Lock()
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a forked child: another node, which has not seen the store yet."""
        self._lock = threading.Lock()
        self._name = os.urandom(8)
        self._call_ns = 0
        self.seen = False
        """Whether this process has ever had an answer."""
        self.nodes_seen = 0
        """How many processes there were when it last asked, itself included."""
        self.since_ns: int | None = None
        """When the outage began; None in good times."""
        self._failed_ns = 0
        self.looked = False
        """Whether somebody has looked at how the server is set up."""
        self.doubt: str | None = None
        """What was found then, until somebody is told."""
        self.decided: Counter[str] = Counter()
        """How often a decision was made without the store, by what became of it."""

    @property
    def nodes(self) -> int:
        """Among how many the limits are to be shared while the store is out."""
        return max(self.configured, self.nodes_seen, 1)

    def heard(self) -> None:
        """The store has answered."""
        self.seen = True
        if self.since_ns is not None and clock.now_ns() - self._failed_ns > CALM_NS:
            self.since_ns = None

    def begin(self) -> int:
        """A decision is to be made without it; returns when the outage began."""
        with self._lock:
            self._failed_ns = clock.now_ns()
            if self.since_ns is None:
                self.since_ns = self._failed_ns
            return self.since_ns

    def decide(self, what: str) -> None:
        """Count what became of it."""
        with self._lock:
            self.decided[what] += 1

    # -- the others ------------------------------------------------------------------------------------------------

    def more(self) -> list[Parcel]:
        """Every few seconds, a parcel that says that this process is there."""
        now = clock.now_ns()
        if now < self._call_ns:
            return []
        self._call_ns = now + CALL_EVERY_NS
        body = unit(Op.NODES, (), holds=True, extra=self._name)
        parcel = Parcel(body, self._key, 1, self._slot, 8)
        parcel.waiter = _Count(self, parcel)
        return [parcel]

    def count(self, parcel: Parcel) -> None:
        """Take the answer to it."""
        if parcel.error is None:
            (nodes,) = unpack_from(">d", parcel.reply, parcel.at)
            self.nodes_seen = int(nodes)


def evicts(memory: bytes) -> str | None:
    """What is wrong if a server, by its `INFO memory`, drops states when its memory is full; else None."""
    lines = bytes(memory).decode().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    policy, most = facts.get("maxmemory_policy", "noeviction"), facts.get("maxmemory", "0")
    if policy == "noeviction" or most == "0":
        return None
    return (
        f"maxmemory-policy is {policy}: when its memory is full the server drops counters, and whoever had used up his "
        "limit begins anew. Set it to noeviction, or keep limits on a server of their own"
    )


class _Count:
    """Waits for the answer, and for nothing else."""

    def __init__(self, standing: Standing, parcel: Parcel) -> None:
        self._standing = standing
        self._parcel = parcel

    def done(self) -> bool:
        return False

    def set_result(self, result: None, /) -> None:
        self._standing.count(self._parcel)
