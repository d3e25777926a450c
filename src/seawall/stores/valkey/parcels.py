"""What is sent and what comes back: units of the script in binary, many to one call.

A `Parcel` is one unit with its keys, its way to the server, and its answer. Layouts: stores/lua/units.lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Protocol

from seawall.stores.valkey.script import Script

__all__ = ["MOST_UNITS", "Op", "Parcel", "Waiter", "bulk", "call_of", "command", "deliver", "unit"]

MOST_UNITS = 256
"""In one call of the script: it holds up the server for as long as it runs."""
HEAD = Struct(">HBBBd")
ERROR = Struct(">I")


class Op(IntEnum):
    """What a unit does."""

    PEEK = 0
    TAKE = 1
    HOLD = 2
    SETTLE = 3
    FORGET = 4
    QUEUE_UP = 5
    LEAVE = 6
    NODES = 7
    ENTER = 8
    RENEW = 9
    RELEASE = 10
    LOOK = 11
    VACATE = 12


class Waiter(Protocol):
    """Who waits for a parcel: a future, or what looks like one."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> object: ...


class Parcel:
    """One unit on its way: `keys` are `count` keys as the protocol wants them, `size` is the length of its answer."""

    __slots__ = ("at", "body", "count", "error", "keys", "reply", "settled", "size", "slot", "waiter")

    def __init__(self, body: bytes, keys: bytes, count: int, slot: int, size: int) -> None:
        self.body = body
        self.keys = keys
        self.count = count
        self.slot = slot
        self.size = size
        self.reply = b""
        self.at = 0
        """Where in `reply` its answer begins."""
        self.error: Exception | None = None
        self.settled = False
        self.waiter: Waiter | None = None

    def settle(self, error: Exception | None = None) -> None:
        """It has its answer, or an error in its place; only the first time counts."""
        if not self.settled:
            self.settled = True
            self.error = error
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)


def unit(op: Op, limits: Sequence[bytes], *, holds: bool, keep_us: int = 0, extra: bytes = b"") -> bytes:
    """The body of a unit; each of `limits` is the numbers of a limit and the cost."""
    body = b"".join(limits) + extra
    return HEAD.pack(HEAD.size + len(body), op, len(limits), holds, keep_us) + body


def bulk(data: bytes) -> bytes:
    """A string as the protocol wants it."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(*words: bytes) -> bytes:
    """A command as the protocol wants it."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


def call_of(script: Script, parcels: Sequence[Parcel], *, with_text: bool = False) -> bytes:
    """One call of the script for all of them; with its text where the server does not know it."""
    count = sum([parcel.count for parcel in parcels])
    first = b"$4\r\nEVAL\r\n" + bulk(script.text) if with_text else b"$7\r\nEVALSHA\r\n$40\r\n" + script.sha + b"\r\n"
    keys = b"".join([parcel.keys for parcel in parcels])
    wants = bulk(b"".join([parcel.body for parcel in parcels]))
    return b"*%d\r\n%b%b%b%b" % (4 + count, first, bulk(b"%d" % count), keys, wants)


def deliver(reply: bytes, parcels: Sequence[Parcel]) -> list[Parcel]:
    """Give each its part of the answer; returns those whose answer is an error, with its text as `reply`.

    Raises `ValueError` for an answer of another form: that is no server of ours.
    """
    failed: list[Parcel] = []
    at, end = 0, len(reply)
    for parcel in parcels:
        if at >= end:
            raise ValueError("the answer of the script is too short")
        if not reply[at]:
            parcel.reply, parcel.at = reply, at + 1
            at += 1 + parcel.size
            continue
        (length,) = ERROR.unpack_from(reply, at + 1)
        parcel.reply, parcel.at = reply[at + 5 : at + 5 + length], 0
        at += 5 + length
        failed.append(parcel)
    if at != end:
        raise ValueError("the answer of the script is too long")
    return failed
