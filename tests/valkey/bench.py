"""The script on a real server under a clock of the test's own, behind a real table: what the other one is held against.

The clock is put in by taking another text for the first part of the script. The script of production has no such door.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis

from seawall.machines.limit import Limit
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.stores.decision import Decision
from seawall.stores.memory import MemoryTable
from seawall.stores.protocol import Ask
from seawall.stores.valkey.codes import code_of
from seawall.stores.valkey.parcels import Parcel, deliver
from seawall.stores.valkey.script import PARTS, Script, part
from seawall.stores.valkey.standing import Standing
from seawall.stores.valkey.table import ValkeyTable

__all__ = ["Bench", "Both", "Numbers", "numbers_of"]

Numbers = tuple[bool, int, int, int]


class Bench:
    """In the place of a core: carries parcels to a server, at an instant of the test's choosing."""

    label = "bench"
    on_outage = "closed"

    def __init__(self, client: redis.Redis) -> None:
        self.plain = client
        self.prefix = os.urandom(6).hex().encode()
        self.standing = Standing("bench", 1)
        # Keys of the server expire in its own time, which goes on while the clock of the test stands still.
        parts = [text.replace("/ 1000) + 1000", "/ 1000) + 1000000") for text in map(part, PARTS[1:])]
        assert parts != list(map(part, PARTS[1:]))
        self.script = Script(("local now = tonumber(ARGV[2])\n", *parts))
        self.now = 0

    def subject(self, key: str) -> bytes:
        return key.encode().hex().encode()

    def client(self, runtime: Any) -> Bench:
        return self

    async def carry(self, parcel: Parcel) -> None:
        self.send([parcel])
        if parcel.error is not None:
            raise parcel.error

    async def deliver(self, parcel: Parcel, orphaned: Any = None) -> None:
        await self.carry(parcel)

    async def post(self, parcel: Parcel) -> None:
        self.send([parcel])

    def send(self, parcels: list[Parcel]) -> None:
        """All in one call."""
        keys = [key for parcel in parcels for key in self.keys(parcel)]
        body = b"".join(parcel.body for parcel in parcels)
        try:
            reply = self.plain.execute_command("EVALSHA", self.script.sha, len(keys), *keys, body, self.now)
        except redis.exceptions.NoScriptError:
            reply = self.plain.execute_command("EVAL", self.script.text, len(keys), *keys, body, self.now)
        for parcel in deliver(reply, parcels):
            parcel.settle(AssertionError(parcel.reply.decode()))

    def keys(self, parcel: Parcel) -> list[bytes]:
        found, at = [], 0
        while at < len(parcel.keys):
            length = int(parcel.keys[at + 1 : parcel.keys.index(b"\r\n", at)])
            begin = parcel.keys.index(b"\r\n", at) + 2
            found.append(parcel.keys[begin : begin + length])
            at = begin + length + 2
        return found


def numbers_of(decision: Decision) -> Numbers:
    """Whether it is admitted, what is left, and microseconds to wait and to rest."""
    return decision.allowed, decision.remaining, decision.retry_after_ns, round(decision.reset_after * 1e9)


class Both:
    """One limiter in two forms, the script and the machines, whose instants are microseconds; all steps must agree."""

    def __init__(self, bench: Bench, limits: Mapping[str, Limit[Any]], now: int) -> None:
        self.bench = bench
        self.now = now
        self.table: Any = ValkeyTable(bench, os.urandom(6).hex(), limits)  # type: ignore[arg-type]
        self.machines = {name: code_of("both", name, limit).machine for name, limit in limits.items()}
        self.model = MemoryTable("both", self.machines, 1_000_000)
        self.capacity = {name: machine.capacity for name, machine in self.machines.items()}

    @contextmanager
    def at_now(self) -> Iterator[None]:
        self.bench.now = self.now
        restore = clock.install(lambda: self.now, lambda _: None, lambda: self.now)
        try:
            self.table._hints.clear()
            yield
        finally:
            restore()

    def ask(self, costs: dict[str, int], *, peek: bool = False) -> Decision:
        """Take, or look."""
        with self.at_now():
            ask = Ask("ann", costs, peek)
            (told,) = drive(self.table.take(BLOCKING, [ask]))
            expected = self.model.decide(ask)
            self.compare(told, expected, f"{'peek' if peek else 'take'} {costs}")
            return told

    def hold(self, costs: dict[str, int], lasts_us: int) -> tuple[Any, Any] | None:
        with self.at_now():
            told, held = drive(self.table.hold(BLOCKING, Ask("ann", costs), lasts_us * 1_000))
            expected, holding = self.model.hold_now(Ask("ann", costs), lasts_us)
            self.compare(told, expected, f"hold {costs} for {lasts_us}")
            return None if held is None else (held, holding)

    def settle(self, held: tuple[Any, Any], actual: dict[str, int]) -> None:
        with self.at_now():
            was_open = drive(self.table.settle(BLOCKING, held[0], actual))
            assert was_open == self.model.settle_now(held[1], actual), f"settle {actual}"

    def reset(self) -> None:
        with self.at_now():
            drive(self.table.reset(BLOCKING, "ann"))
            self.model.reset_now("ann")

    def queue_up(self, cost: int, most_us: int | None) -> tuple[int, Any]:
        (name,) = self.machines
        with self.at_now():
            ask = Ask("ann", {name: cost})
            told, wait, slot = drive(self.table.next_slot(BLOCKING, ask, None if most_us is None else most_us * 1_000))
            expected, waiting, place = self.model.queue_up("ann", cost, most_us)
            assert (told.allowed, wait // 1_000) == (expected.allowed, waiting), f"queue up {cost}, {most_us}"
            return waiting, (slot, place)

    def leave(self, slot: Any) -> None:
        with self.at_now():
            drive(self.table.free_slot(BLOCKING, slot[0]))
            self.model.leave_slot(slot[1])

    def compare(self, told: Decision, expected: Decision, what: str) -> None:
        got, wanted = numbers_of(told), numbers_of(expected)
        in_us = got[0], got[1], -(-got[2] // 1_000), round(told.reset_after * 1e6)
        assert in_us == wanted, f"{what} at {self.now}: the script says {in_us}, the machine {wanted}"
        assert told.name == expected.name
        for name, one in expected.parts.items():
            self.compare(told.parts[name], one, f"{what}, {name}")
