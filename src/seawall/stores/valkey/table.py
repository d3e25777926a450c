"""`ValkeyTable`: the states of one limiter on a server, as limiters ask for them (stores/protocol.py).

Keys: `prefix:{subject}:algorithm:policy:limit`, and `prefix:{subject}:holds:policy`. `subject` is a keyed hash of the
caller's key, and the hash tag: all keys of one decision lie together on a cluster. `policy` is a hash of the limiter's
name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.machines.limit import Limit
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from seawall.stores.decision import Decision, Origin, combined, told
from seawall.stores.protocol import Ask
from seawall.stores.valkey.answers import ONE, answer
from seawall.stores.valkey.codes import ASKED, code_of
from seawall.stores.valkey.faults import Outage
from seawall.stores.valkey.hints import Hints
from seawall.stores.valkey.outage import Without
from seawall.stores.valkey.parcels import Op, Parcel, bulk, unit
from seawall.stores.valkey.routes import slot_of

if TYPE_CHECKING:
    from seawall.runtime.protocol import Runtime
    from seawall.stores.valkey.core import Core

__all__ = ["ValkeyTable"]

MOST_SUBJECTS = 10_000
"""How many subjects' keys are remembered as they are written."""
MOST_BODIES = 1_000
HOLD = Struct(">8sd")
HELD = Struct(">Bd")
SLOT = Struct(">Bdddd")
LEAVE = Struct(">ddd")
FOR_EVER = 1e18


class ValkeyTable:
    """See above."""

    def __init__(self, core: Core, limiter: str, limits: Mapping[str, Limit[Any]]) -> None:
        self._core = core
        self._limiter = limiter
        self._hints = Hints()
        self._take(limits)
        self._without = Without(core.label, core.on_outage, core.standing, self._origins)

    def _take(self, limits: Mapping[str, Limit[Any]]) -> None:
        codes = {name: code_of(self._limiter, name, limit) for name, limit in limits.items()}
        if len(codes) > 255:
            raise ConfigError(f"{self._limiter}: {len(codes)} limits: expected at most 255 in one decision")
        self._origins = {name: Origin(self._limiter, name, limit) for name, limit in limits.items()}
        self._codes = codes
        self._only = next(zip(self._origins.values(), codes.values(), strict=True)) if len(codes) == 1 else None
        self._holds = not any(code.kind == "leaky_bucket" for code in codes.values())
        self._keep_us = max(code.longest_us for code in codes.values())
        policy = blake2b(self._limiter.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        self._tails = [f"{code.kind}:{policy}:{name}".encode("utf-8", "surrogatepass") for name, code in codes.items()]
        if self._holds:
            self._tails.append(f"holds:{policy}".encode())
        self._answers = Struct(">" + ONE.format.strip("><") * len(codes))
        self._keys: dict[str, tuple[bytes, int]] = {}
        self._bodies: dict[tuple[int, ...], bytes] = {}

    # -- the table of a store ----------------------------------------------------------------------------------------

    async def take(self, runtime: Runtime, asks: Sequence[Ask]) -> list[Decision]:
        """Decide each, in order. Several go out one by one, each with whatever else goes out then."""
        decisions: list[Decision] = []
        for ask in asks:
            key, costs, peek = ask.key, ask.costs, ask.peek
            if not peek and key in self._hints.by_key and (hinted := self._hinted(ask)) is not None:
                decisions.append(hinted)
                continue
            asked_ns = clock.now_ns()
            parcel = self._parcel(Op.PEEK if peek else Op.TAKE, key, costs, self._answers.size)
            await self._core.client(runtime).carry(parcel)
            if parcel.error is not None:
                outage = self._core.outage(parcel.error)
                decisions.append(self._without.decide(ask, outage, self._core.wait_ns(parcel.slot)))
                continue
            decision = self._decision(parcel, costs)
            if not decision.allowed and not peek:
                self._remember(key, decision, asked_ns)
            decisions.append(decision)
        return decisions

    async def hold(self, runtime: Runtime, ask: Ask, lasts_ns: int) -> tuple[Decision, Any]:
        name = os.urandom(8)
        extra = HOLD.pack(name, -(-lasts_ns // 1_000))
        size = self._answers.size + HELD.size
        parcel = self._parcel(Op.HOLD, ask.key, ask.costs, size, extra)
        client = self._core.client(runtime)

        def give_back() -> None:
            # Whoever is cancelled has no hold that he could settle.
            nothing = dict.fromkeys(self._codes, 0)
            drive(client.post(self._parcel(Op.SETTLE, ask.key, nothing, 1, name)))

        await client.deliver(parcel, give_back)
        if parcel.error is not None:
            outage = self._core.outage(parcel.error)
            return self._without.hold(ask, lasts_ns, outage, self._core.wait_ns(parcel.slot))
        decision = self._decision(parcel, ask.costs)
        held, wait_us = HELD.unpack_from(parcel.reply, parcel.at + self._answers.size)
        if held:
            return decision, (ask.key, name)
        if decision.allowed:  # there are too many holds
            wait = int(wait_us) * 1_000
            decision = told(decision.origin, decision.cost, (0, wait, wait), allowed=False)
        return decision, None

    async def settle(self, runtime: Runtime, held: Any, actual: Mapping[str, int]) -> bool:
        """While the store is out it tells False: the hold counts in full at its end."""
        where, name = held
        if not isinstance(where, str):
            return bool(where.settle_now(name, actual))
        costs = {limit: min(actual.get(limit, 0), 2 * code.capacity) for limit, code in self._codes.items()}
        parcel = self._parcel(Op.SETTLE, where, costs, 1, name)
        self._hints.forget(where)
        await self._core.client(runtime).deliver(parcel)
        if parcel.error is not None:
            self._core.outage(parcel.error)
            return False
        return parcel.reply[parcel.at] == 1

    async def reset(self, runtime: Runtime, key: str) -> None:
        """Raises `BackendUnavailable` while the store is out: whoever wants this wants to know."""
        parcel = self._parcel(Op.FORGET, key, dict.fromkeys(self._codes, 0), 0)
        outage = await self._carry(runtime, parcel)
        self._hints.forget(key)
        if outage is not None:
            raise self._core.unavailable(outage)

    async def next_slot(self, runtime: Runtime, ask: Ask, most_ns: int | None) -> tuple[Decision, int, Any]:
        """Take the next slot of the one `LeakyBucket`: the decision, the wait, and what `free_slot` wants."""
        ((name, cost),) = ask.costs.items()
        most = FOR_EVER if most_ns is None else most_ns // 1_000
        parcel = self._parcel(Op.QUEUE_UP, ask.key, ask.costs, SLOT.size, ASKED.pack(most))
        client = self._core.client(runtime)

        def leave() -> None:
            # Whoever is cancelled does not wait for his slot; if it is the last it is free again.
            if parcel.error is None and parcel.reply:
                allowed, _, *state = SLOT.unpack_from(parcel.reply, parcel.at)
                if allowed:
                    drive(client.post(self._parcel(Op.LEAVE, ask.key, ask.costs, 0, LEAVE.pack(*state))))

        await client.deliver(parcel, leave)
        if parcel.error is not None:
            outage = self._core.outage(parcel.error)
            return self._without.queue_up(ask, most_ns, outage, self._core.wait_ns(parcel.slot))
        allowed, wait, at, q, r = SLOT.unpack_from(parcel.reply, parcel.at)
        rest_ns = (int(q) + (r > 0)) * 1_000
        decision = told(self._origins[name], cost, (0, 0 if allowed else rest_ns, rest_ns), allowed=bool(allowed))
        return decision, int(wait) * 1_000, (ask, LEAVE.pack(at, q, r)) if allowed else None

    async def free_slot(self, runtime: Runtime, slot: Any) -> None:
        """Free a slot that nobody will use, if it is the last; does not wait for it."""
        if slot is None:
            return
        ask, state = slot
        if not isinstance(ask, Ask):
            ask.leave_slot(state)
            return
        await self._core.client(runtime).post(self._parcel(Op.LEAVE, ask.key, ask.costs, 0, state))

    def reconfigure(self, limits: Mapping[str, Limit[Any]]) -> None:
        self._take(limits)
        self._hints.clear()
        self._without.change(self._origins)

    def snapshot(self) -> dict[str, Any]:
        return self._core.snapshot()

    # -- there and back ----------------------------------------------------------------------------------------------

    async def _carry(self, runtime: Runtime, parcel: Parcel) -> Outage | None:
        await self._core.client(runtime).carry(parcel)
        return None if parcel.error is None else self._core.outage(parcel.error)

    def _parcel(self, op: Op, key: str, costs: Mapping[str, int], size: int, extra: bytes = b"") -> Parcel:
        keys, slot = self._keys.get(key) or self._keys_of(key)
        # Bodies without anything of this one call are kept: most calls ask for the same.
        shape = (op, *[costs.get(name, -1) for name in self._codes])
        body = None if extra else self._bodies.get(shape)
        if body is None:
            asked = zip(self._codes.values(), shape[1:], strict=True)
            limits = [code.numbers + ASKED.pack(cost) for code, cost in asked]
            body = unit(op, limits, holds=self._holds, keep_us=self._keep_us, extra=extra)
            if not extra and len(self._bodies) < MOST_BODIES:
                self._bodies[shape] = body
        return Parcel(body, keys, len(self._tails), slot, size)

    def _keys_of(self, key: str) -> tuple[bytes, int]:
        if len(self._keys) >= MOST_SUBJECTS:
            self._keys.clear()
        subject = self._core.subject(key)
        head = self._core.prefix + b":{" + subject + b"}:"
        found = b"".join([bulk(head + tail) for tail in self._tails]), slot_of(subject)
        self._keys[key] = found
        return found

    def _decision(self, parcel: Parcel, costs: Mapping[str, int]) -> Decision:
        numbers = self._answers.unpack_from(parcel.reply, parcel.at)
        if self._only is not None:
            origin, code = self._only
            return answer(origin, code, costs[origin.name], numbers)
        parts: dict[str, Decision] = {}
        for place, (name, code) in enumerate(self._codes.items()):
            if name in costs:
                parts[name] = answer(self._origins[name], code, costs[name], numbers[5 * place : 5 * place + 5])
        return next(iter(parts.values())) if len(parts) == 1 else combined(parts)

    # -- hints -------------------------------------------------------------------------------------------------------

    def _hinted(self, ask: Ask) -> Decision | None:
        hint = self._hints.find(ask.key, ask.costs)
        if hint is None:
            return None
        now = clock.now_ns()
        numbers = (hint.left, max(1, hint.wait_until_ns - now), max(1, hint.rest_until_ns - now))
        return told(self._origins[hint.name], ask.costs[hint.name], numbers, allowed=False)

    def _remember(self, key: str, decision: Decision, asked_ns: int) -> None:
        """Keep a refusal that only time can end: while something is held, whoever settles it may end it sooner."""
        parts = list(decision.parts.values()) or [decision]
        if any(part.state[4] for part in parts):
            return
        tightest = max((part for part in parts if not part.allowed), key=lambda part: part.retry_after_ns)
        numbers = (tightest.remaining, tightest.retry_after_ns, round(tightest.reset_after * 1e9))
        self._hints.keep(key, tightest.name, tightest.cost, asked_ns, numbers)
