"""`ConcurrencyLimit`: so many at a time and no more, of a user, a tenant, a key; in one process or in a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.limiter.asking import Key, key_of
from seawall.limiter.slots import SlotBlock
from seawall.limiter.turnstile import Turnstile
from seawall.limiter.workers import warn_of_several_workers
from seawall.machines.leases import LeaseRules
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime
from seawall.stores.decision import Decision
from seawall.stores.leases import LeaseStore
from seawall.stores.memory import Memory
from seawall.units import Duration, count_of, duration_ns, flag_of, given

if TYPE_CHECKING:
    from seawall.policy import Policy

__all__ = ["ConcurrencyLimit"]

MOST = 100_000
SHORTEST_LEASE_NS = 10_000_000
LONGEST_LEASE_NS = 86_400 * 1_000_000_000
_numbers = itertools.count(1)


class ConcurrencyLimit:
    """Let at most so many calls of one key run at a time, in all processes that share the store.

    A `Bulkhead` protects this process from calls that pile up; this one limits a user, a tenant, a job, wherever his
    calls run. Each holder has a lease, which is renewed while his block runs. If he dies with it, his slot is free when
    the lease has run out. Never are more than `limit` leases live, by the clock of the store.

    Args:
        limit: how many may run at a time for each key; whole number from 1 to 100,000.
        lease: after so long the slot of a holder who died is free; 10 ms to one day. It is renewed after a third of
            it, so a holder loses his slot if he is frozen, or the store cannot be asked, for nearly as long.
            Default 30 s.
        name: appears in errors, events and snapshots, and is how processes share a limit on a server. Default:
            "concurrency-N".
        store: where the leases are. Default `Memory()`: this process; with a `RuntimeWarning` if there are signs of
            several worker processes. Else `Valkey(url)`.
        shadow: refuse nobody; count and tell what would have been refused.
        max_waiting: how many callers may wait at once, in all. Default 1,000.

    Raises:
        ConfigError: a setting is wrong, or the store keeps no leases.

    Example:
        >>> from seawall import ConcurrencyLimit, RateLimited
        >>> exports = ConcurrencyLimit(2, name="exports")
        >>> with exports.slot("user:42"), exports.slot("user:42"):
        ...     exports.peek("user:42").remaining, exports.peek("user:7").remaining
        ...     try: exports.slot("user:42").__enter__()
        ...     except RateLimited as error: print(str(error).split(";")[0])
        (0, 2)
        exports: limit 'ConcurrencyLimit' reached (2 of 2 used, 1 more asked)
        >>> exports.peek("user:42").remaining
        2
    """

    def __init__(
        self,
        limit: int,
        *,
        lease: Duration = "30s",
        name: str | None = None,
        store: LeaseStore | None = None,
        shadow: bool = False,
        max_waiting: int = 1_000,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"ConcurrencyLimit(name={name!r}): expected a text")
        self.name = f"concurrency-{next(_numbers)}" if name is None else name
        self.shadow = flag_of(shadow, "ConcurrencyLimit(shadow)")
        rules = _rules_of("ConcurrencyLimit", limit, lease)
        count_of(max_waiting, "ConcurrencyLimit(max_waiting)", least=0, most=1_000_000)
        if store is not None and not isinstance(store, LeaseStore):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{given('ConcurrencyLimit(store)', store)}: expected Memory() or Valkey(...)")
        if store is None:
            warn_of_several_workers(self.name)
        self.store: LeaseStore = Memory() if store is None else store
        self._table = self.store.open_leases(self.name, rules)
        self._turnstile = Turnstile(self.name, self._table, rules, shadow=self.shadow, max_waiting=max_waiting)

    @property
    def limit(self) -> int:
        """How many may run at a time for each key."""
        return self._turnstile.rules.capacity

    @property
    def lease(self) -> float:
        """After so many seconds the slot of a holder who died is free."""
        return self._turnstile.rules.lease_ns / 1e9

    @property
    def refused(self) -> int:
        """How often it refused, or in shadow would have."""
        return self._turnstile.answers.refused

    @property
    def lost(self) -> int:
        """How many slots of this process ran out while they were held."""
        return self._turnstile.lost

    # -- around blocks and functions ---------------------------------------------------------------------------------

    def slot(self, key: Key = "", *, max_wait: Duration | None = 0) -> SlotBlock:
        """A block: `with exports.slot("user:42") as slot:`, or `async with`; the slot is given back at its end.

        Waits up to `max_wait` for a slot (default 0: not at all; None: as long as it takes, within the deadline of the
        call): first come, first served, for each key of this process. Raises `RateLimited` before the block if there is
        none; its `retry_after` is when the first lease ends if nobody renews it, and a slot may be free much sooner.
        `DeadlineExceeded` if the deadline passes in the line.

        `slot.lost` tells whether the lease ran out in the midst of the block.

        >>> from seawall import ConcurrencyLimit
        >>> with ConcurrencyLimit(1, name="reports").slot("ann") as slot:
        ...     slot.lost
        False
        """
        patience = None if max_wait is None else duration_ns(max_wait, "slot(max_wait)")
        return SlotBlock(self._turnstile, self._key(key), patience)

    def around(self, *, key: Callable[..., Key] | None = None, max_wait: Duration | None = 0) -> Policy:
        """A decorator, sync and async: `@exports.around(key=lambda user: user)`; a `Policy` with this one layer.

        `key` is given the arguments of the call. Refused calls raise `RateLimited`.

        >>> from seawall import ConcurrencyLimit
        >>> exports = ConcurrencyLimit(2, name="exports")
        >>> @exports.around(key=lambda user: user)
        ... def export(user: str) -> str: return f"{exports.peek(user).remaining} more for {user}"
        >>> export("ann")
        '1 more for ann'
        """
        from seawall.limiter.concurrency_layer import Concurrency  # noqa: PLC0415  # it is made of this module
        from seawall.policy import Policy  # noqa: PLC0415  # a limit alone does without

        return Policy(Concurrency(self, key=key, max_wait=max_wait), name=self.name)

    # -- by hand -----------------------------------------------------------------------------------------------------

    def peek(self, key: Key = "") -> Decision:
        """Whether there is a slot, and how many (`remaining`), without taking one."""
        return drive(self._table.look(BLOCKING, self._key(key)))

    async def apeek(self, key: Key = "") -> Decision:
        """As `peek`."""
        return await self._table.look(asyncio_runtime(), self._key(key))

    def reset(self, key: Key = "") -> None:
        """Forget who is inside. They go on, and come to know it: their slots are `lost`, and taken again while there is
        room, at the next renewal; in memory they just do not count any more."""
        drive(self._reset(BLOCKING, key))

    async def areset(self, key: Key = "") -> None:
        """As `reset`."""
        await self._reset(asyncio_runtime(), key)

    async def _reset(self, runtime: Runtime, key: Key) -> None:
        subject = self._key(key)
        await self._table.reset(runtime, subject)
        self._turnstile.woken(subject)

    def reconfigure(self, limit: int | None = None, *, lease: Duration | None = None) -> None:
        """Take other numbers now. With a smaller limit those who are inside stay, and nobody enters until enough left.

        Raises `ConfigError`, and changes nothing, if one is outside its range.
        """
        was = self._turnstile.rules
        rules = _rules_of(
            f"{self.name}: reconfigure",
            was.capacity if limit is None else limit,
            was.lease_ns / 1e9 if lease is None else lease,
        )
        self._turnstile.change(rules)

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        return {
            "limiter": self.name,
            "limit": self.limit,
            "lease": self.lease,
            "shadow": self.shadow,
            "refused": self.refused,
            "waiting": len(self._turnstile.lines),
            "lost": self.lost,
            **self._table.snapshot(),
        }

    def _key(self, key: Any) -> str:
        # A store that several processes share must not be given a name that only this one knows.
        return key_of(key, shorten=self._table.hears_of_releases)

    def __repr__(self) -> str:
        return f"ConcurrencyLimit({self.limit}, lease={self.lease!r}, name={self.name!r}, store={self.store!r})"


def _rules_of(where: str, limit: int, lease: Duration) -> LeaseRules:
    most = count_of(limit, f"{where}(limit)", most=MOST)
    length = duration_ns(lease, f"{where}(lease)", zero=False)
    if not SHORTEST_LEASE_NS <= length <= LONGEST_LEASE_NS:
        raise ConfigError(f"{given(f'{where}(lease)', lease)}: expected 10 ms to one day")
    return LeaseRules(most, length)
