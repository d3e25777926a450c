"""Which server has what: the one there is, the one that sentinels name, or the owner of a slot of a cluster.

One object for all threads and loops of a process. It only remembers; exchange.py asks the servers.
"""

from __future__ import annotations

import threading
from binascii import crc_hqx
from typing import Any, cast

from seawall.runtime import clock
from seawall.stores.valkey.site import Address, Site

__all__ = ["SLOTS", "Routes", "slot_of"]

SLOTS = 16_384
AGAIN_NS = 1_000_000_000
"""A map in doubt is asked for again at most so often, unless a server itself said that it is wrong."""


def slot_of(tag: bytes) -> int:
    """The slot of all keys with this hash tag."""
    return crc_hqx(tag, 0) % SLOTS


class Routes:
    """What is known of the place of each slot."""

    def __init__(self, site: Site) -> None:
        self.mode = site.mode
        self.service = site.service
        self._lock = threading.Lock()
        self._guides = list(site.addresses)
        """Whom to ask for the way: sentinels, or nodes of the cluster; the one that answered last stands first."""
        self._only: Address | None = site.addresses[0] if site.mode == "single" else None
        self._slots: list[Address | None] = []
        self._doubted = site.mode != "single"
        self._asked_ns = -AGAIN_NS

    def address_of(self, slot: int) -> Address | None:
        """Who has it, as far as is known."""
        return self._slots[slot] if self._slots else self._only

    @property
    def knows(self) -> bool:
        """Whether there is a map, in doubt or not."""
        return bool(self._slots) or self._only is not None

    def servers(self) -> list[Address]:
        """All that have something, as far as is known."""
        return list(dict.fromkeys(address for address in [self._only, *self._slots] if address is not None))

    def must_ask(self) -> bool:
        """Whether the map should be asked for before it is used."""
        return self._doubted and (not self.knows or clock.now_ns() >= self._asked_ns + AGAIN_NS)

    def guides(self) -> list[Address]:
        """Whom to ask, in this order."""
        self._asked_ns = clock.now_ns()
        with self._lock:
            known = dict.fromkeys([*self._guides, *(address for address in self._slots if address is not None)])
        return list(known)[:16]

    def unhelpful(self, guide: Address) -> None:
        """It did not answer: it is asked last from now on."""
        with self._lock:
            if guide in self._guides:
                self._guides.remove(guide)
                self._guides.append(guide)

    @property
    def question(self) -> tuple[bytes, ...]:
        """The command that asks for the map."""
        if self.mode == "cluster":
            return (b"CLUSTER", b"SLOTS")
        return (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.service.encode())

    def learn(self, reply: Any, guide: Address) -> bool:
        """Take the answer of a guide; False if it says nothing."""
        if self.mode == "sentinel":
            found = _named(reply)
            if found is None:
                return False
            self._only = found
        else:
            slots = _table(reply, guide)
            if slots is None:
                return False
            self._slots = slots
        with self._lock:
            self._doubted = False
            if guide in self._guides:
                self._guides.remove(guide)
                self._guides.insert(0, guide)
        return True

    def doubt(self) -> None:
        """A server failed, or is none any more: another may have taken its place."""
        if self.mode != "single":
            self._doubted = True

    def moved(self, slot: int, address: Address) -> None:
        """A server said who has a slot now: more than that one may have moved."""
        with self._lock:
            if self._slots:
                self._slots[slot] = address
        self._doubted = True
        self._asked_ns = min(self._asked_ns, clock.now_ns() - AGAIN_NS // 2)


def _named(reply: Any) -> Address | None:
    try:
        host, port = cast("list[bytes]", reply)
        return host.decode(), int(port)
    except (TypeError, ValueError, AttributeError):
        return None


def _table(reply: Any, guide: Address) -> list[Address | None] | None:
    """`CLUSTER SLOTS`: ranges, each with its nodes, the primary first. An empty host is the one that was asked."""
    slots: list[Address | None] = [None] * SLOTS
    try:
        for first, last, (host, port, *_), *_ in reply:
            address = (host.decode() or guide[0] if host else guide[0], int(port))
            for slot in range(first, last + 1):
                slots[slot] = address
    except (TypeError, ValueError, AttributeError, IndexError):
        return None
    return slots if any(slots) else None
