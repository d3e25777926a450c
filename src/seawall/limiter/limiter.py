"""`Limiter`: so much and no more, of an operation, a caller, a model's tokens; in one process or in a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.limiter.answers import Answers, keep_quiet
from seawall.limiter.asking import Cost, Costs, Key, key_of
from seawall.limiter.holding import AwaitedReservation, Reservation
from seawall.limiter.line import Lines
from seawall.limiter.specs import LeakyBucket, LimitSpec
from seawall.limiter.waiting import wait_for_slot, wait_in_line
from seawall.limiter.workers import warn_of_several_workers
from seawall.machines.limit import Limit
from seawall.machines.token_bucket import TokenBucket
from seawall.runtime import off
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime
from seawall.stores.decision import Decision, Origin, told
from seawall.stores.fast_hit import fast_hit
from seawall.stores.memory import Memory, MemoryTable
from seawall.stores.protocol import Ask, Slots, Store
from seawall.units import Duration, count_of, duration_ns, flag_of

if TYPE_CHECKING:
    from seawall.limiter.layer import LimitedBlock
    from seawall.policy import Policy

__all__ = ["Limiter"]

_numbers = itertools.count(1)
HOLD_FOR = "60s"
NO_LIMIT = TokenBucket(1_000_000_000, 1_000_000_000, 1_000_000_000)


class Limiter:
    """Admit so much per key and no more.

    Args:
        limits: a limit (`TokenBucket("100/s")`, `SlidingWindow("60/min")`, ...), or several by name, of which a call
            takes all or none.
        name: appears in errors, events and snapshots. Default: "limiter-N".
        store: where the states live. Default `Memory()`: this process; with a `RuntimeWarning` if there are signs of
            several worker processes, each of which would admit the whole limit.
        shadow: refuse nobody; count and tell what would have been refused.
        max_waiting: how many callers may wait in `take` at once, in all. Default 1,000.

    Raises:
        ConfigError: a setting is wrong, or the store cannot keep such a limit.

    Example:
        >>> from seawall import Limiter, TokenBucket
        >>> search = Limiter(TokenBucket("100/s", burst=2), name="search")
        >>> decision = search.hit("user:42", cost=2)
        >>> bool(decision), decision.remaining
        (True, 0)
        >>> refused = search.hit("user:42")
        >>> bool(refused), round(refused.retry_after, 3)
        (False, 0.01)
    """

    def __init__(
        self,
        limits: LimitSpec | Mapping[str, LimitSpec],
        *,
        name: str | None = None,
        store: Store | None = None,
        shadow: bool = False,
        max_waiting: int = 1_000,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Limiter(name={name!r}): expected a text")
        self.name = f"limiter-{next(_numbers)}" if name is None else name
        self.shadow = flag_of(shadow, "Limiter(shadow)")
        if store is None:
            warn_of_several_workers(self.name)
        self.store: Store = Memory() if store is None else store
        self.specs = _by_name(self.name, limits)
        self._limits: dict[str, Limit[Any]] = {key: spec.machine() for key, spec in self.specs.items()}
        self._costs = Costs(self.name, self._limits)
        self._answers = Answers(self.name, self._first(), shadow=self.shadow)
        self._lines = Lines(count_of(max_waiting, "Limiter(max_waiting)", least=0, most=1_000_000))
        self._table = self.store.open(self.name, self._limits)
        self._memory = self._table if isinstance(self._table, MemoryTable) else None
        self._install()

    def _first(self) -> Origin:
        return Origin(self.name, *next(iter(self._limits.items())))

    @property
    def refused(self) -> int:
        """How often it refused, or in shadow would have."""
        return self._answers.refused

    def _install(self) -> None:
        """Put the closure of the healthy way in the place of the method, where there is one."""
        ways = {"hit": (self._hit, self._answers.note), "try_now": (self._try_now, keep_quiet)}
        for name, (careful, refused) in ways.items():
            vars(self).pop(name, None)
            if self._memory is not None and not self.shadow:
                fast = fast_hit(self._memory, self._lines.waiting, careful, refused)
                if fast is not None:
                    vars(self)[name] = fast

    # -- now or not at all -----------------------------------------------------------------------------------------

    def hit(self, key: Key = "", cost: Cost = 1) -> Decision:
        """Take `cost` now, or be refused; a refusal changes nothing.

        `cost` is a whole number from 0 (which only looks), or one for each limit by name. Raises `ConfigError` for None
        as key, for a cost that is no whole number, and for one that could never be admitted.
        """
        return self._hit(key, cost)

    def try_now(self, key: Key = "", cost: Cost = 1) -> Decision:
        """As `hit`, but a refusal is not counted: the caller will wait. A shadow limiter refuses here too."""
        return self._try_now(key, cost)

    def _hit(self, key: Any, cost: Any) -> Decision:
        return self._answers.judged(self._try_now(key, cost))

    def _try_now(self, key: Any, cost: Any) -> Decision:
        ask = self._ask(key, cost)
        if self._memory is None:
            return drive(self._now(BLOCKING, ask))
        blocked = self._blocked(ask)
        return blocked if blocked is not None else self._memory.decide(ask)

    def _ask(self, key: Any, cost: Any, *, peek: bool = False) -> Ask:
        # A store that several processes share must not be given a name that only this one knows.
        return Ask(key_of(key, shorten=self._memory is not None), self._costs.of(cost), peek)

    async def ahit(self, key: Key = "", cost: Cost = 1) -> Decision:
        """As `hit`, for stores that are asked over the network; awaits nothing with `Memory()`."""
        if self._memory is not None:
            return self.hit(key, cost)
        return self._answers.judged(await self._now(asyncio_runtime(), self._ask(key, cost)))

    async def _now(self, runtime: Runtime, ask: Ask) -> Decision:
        blocked = self._blocked(ask)
        return blocked if blocked is not None else (await self._table.take(runtime, [ask]))[0]

    def peek(self, key: Key = "", cost: Cost = 1) -> Decision:
        """What `hit` would answer, without taking anything."""
        return drive(self._peek(BLOCKING, key, cost))

    async def apeek(self, key: Key = "", cost: Cost = 1) -> Decision:
        """As `peek`."""
        return await self._peek(asyncio_runtime(), key, cost)

    async def _peek(self, runtime: Runtime, key: Key, cost: Cost) -> Decision:
        return (await self._table.take(runtime, [self._ask(key, cost, peek=True)]))[0]

    # -- waiting ---------------------------------------------------------------------------------------------------

    def take(self, key: Key = "", cost: Cost = 1, *, max_wait: Duration | None = None) -> Decision:
        """Take `cost`, and wait for it: first come, first served, for each key; big costs do not starve.

        Waits up to `max_wait` (None: as long as it takes, within the deadline of the call). Raises `RateLimited` when
        that will not do, at once if it is known; `DeadlineExceeded` if the deadline passes in the line. Within one
        process nobody overtakes: while somebody waits for a key, `hit` is refused for that key.
        """
        return drive(self._take(BLOCKING, key, cost, max_wait))

    async def atake(self, key: Key = "", cost: Cost = 1, *, max_wait: Duration | None = None) -> Decision:
        """As `take`."""
        return await self._take(asyncio_runtime(), key, cost, max_wait)

    async def _take(self, runtime: Runtime, key: Key, cost: Cost, max_wait: Duration | None) -> Decision:
        patience = None if max_wait is None else duration_ns(max_wait, "take(max_wait)")
        ask = self._ask(key, cost)
        slots = next((spec for spec in self.specs.values() if isinstance(spec, LeakyBucket)), None)
        if slots is not None and isinstance(self._table, MemoryTable | Slots):
            longest = None if slots.max_wait is None else duration_ns(slots.max_wait, "max_wait")
            return await wait_for_slot(runtime, ask, patience, longest, table=self._table, answers=self._answers)

        async def attempt(ask: Ask) -> tuple[Decision, None]:
            self._costs.of(ask.costs)  # a live change may have made it impossible
            return (await self._table.take(runtime, [ask]))[0], None

        return (await wait_in_line(runtime, ask, patience, attempt, lines=self._lines, answers=self._answers))[0]

    # -- costs known afterwards ------------------------------------------------------------------------------------

    def reserve(
        self, key: Key = "", cost: Cost = 1, *, max_wait: Duration | None = 0, lasts: Duration = HOLD_FOR
    ) -> Reservation:
        """Set an estimate aside, and settle what was really used: `with limiter.reserve(...) as held: held.settle(n)`.

        Raises `RateLimited` if it is not admitted within `max_wait` (default 0: now). A hold that is not settled within
        `lasts` (default 60 s) counts in full. The limit must have room for all holds that are open at once.
        """
        return drive(self._reserve(BLOCKING, key, cost, max_wait, lasts))

    def areserve(
        self, key: Key = "", cost: Cost = 1, *, max_wait: Duration | None = 0, lasts: Duration = HOLD_FOR
    ) -> AwaitedReservation:
        """As `reserve`: `async with limiter.areserve(...) as held:`, or `held = await limiter.areserve(...)`."""
        return AwaitedReservation(lambda: self._reserve(asyncio_runtime(), key, cost, max_wait, lasts))

    async def _reserve(
        self, runtime: Runtime, key: Key, cost: Cost, max_wait: Duration | None, lasts: Duration
    ) -> Reservation:
        patience = None if max_wait is None else duration_ns(max_wait, "reserve(max_wait)")
        lasts_ns = duration_ns(lasts, "reserve(lasts)", zero=False)
        if any(isinstance(spec, LeakyBucket) for spec in self.specs.values()):
            raise ConfigError(f"{self.name}: a LeakyBucket hands out slots, which cannot be held; use another limit")
        ask = self._ask(key, cost)

        async def attempt(ask: Ask) -> tuple[Decision, Any]:
            self._costs.of(ask.costs)
            return await self._table.hold(runtime, ask, lasts_ns)

        lines, answers = self._lines, self._answers
        decision, held = await wait_in_line(runtime, ask, patience, attempt, lines=lines, answers=answers)
        return Reservation(self._table, self._costs, decision, ask.costs, held, lambda: self._lines.wake(ask.key))

    # -- around functions and blocks ---------------------------------------------------------------------------------

    def limit(
        self,
        *,
        key: Callable[..., Key] | None = None,
        cost: Cost | Callable[..., Cost] = 1,
        max_wait: Duration | None = 0,
    ) -> Policy:
        """A decorator, sync and async: `@search.limit(key=lambda user, text: user)`; a `Policy` with this one layer.

        `key` and `cost` are given the arguments of the call. Refused calls raise `RateLimited`.

        >>> from seawall import Limiter, TokenBucket
        >>> search = Limiter(TokenBucket("100/s"), name="search")
        >>> @search.limit(key=lambda user, text: user)
        ... def find(user: str, text: str) -> str: return f"found {text}"
        >>> find("ann", "it")
        'found it'
        """
        from seawall.limiter.layer import RateLimit  # noqa: PLC0415  # it is made of this module
        from seawall.policy import Policy  # noqa: PLC0415  # a limiter alone does without

        return Policy(RateLimit(self, key=key, cost=cost, max_wait=max_wait), name=self.name)

    def guard(self, key: Key = "", cost: Cost = 1, *, max_wait: Duration | None = 0) -> LimitedBlock:
        """A block: `with search.guard("user:42"):`, or `async with`; raises `RateLimited` before it if refused."""
        from seawall.limiter.layer import LimitedBlock  # noqa: PLC0415  # it is made of this module

        return LimitedBlock(self, key, cost, max_wait)

    # -- by hand -----------------------------------------------------------------------------------------------------

    @property
    def answers_at_once(self) -> bool:
        """Whether it decides without asking anybody: with `Memory()`."""
        return self._memory is not None

    def check_cost(self, cost: Cost) -> None:
        """Raise `ConfigError` if `cost` can never be asked for."""
        self._costs.of(cost)

    def give_back(self, key: Key, cost: Cost, decision: Decision) -> None:
        """Undo a take of a moment ago that led to nothing; what time has given back since is not given twice.

        Without effect where a store is asked: there it is spent.
        """
        if self._memory is None or not decision.allowed:
            return
        costs, subject = self._costs.of(cost, bounded=False), key_of(key)
        self._memory.give_back(subject, costs, {name: decision.parts.get(name, decision) for name in costs})
        self._lines.wake(subject)

    @staticmethod
    def unlimited(limiter: str, *, allowed: bool) -> Decision:
        """The decision where no limit applies."""
        return told(Origin(limiter, "none", NO_LIMIT), 0, (NO_LIMIT.capacity if allowed else 0, 0, 0), allowed=allowed)

    def reset(self, key: Key = "") -> None:
        """Forget what `key` has used; what it holds stays held."""
        drive(self._reset(BLOCKING, key))

    async def areset(self, key: Key = "") -> None:
        """As `reset`."""
        await self._reset(asyncio_runtime(), key)

    async def _reset(self, runtime: Runtime, key: Key) -> None:
        subject = key_of(key, shorten=self._memory is not None)
        await self._table.reset(runtime, subject)
        self._lines.wake(subject)

    def reconfigure(self, limits: LimitSpec | Mapping[str, LimitSpec]) -> None:
        """Take other numbers now: what is used stays used, as far as the new limit has room.

        Raises `ConfigError`, and changes nothing, if a name or a kind is another.
        """
        specs = _by_name(self.name, limits)
        machines: dict[str, Limit[Any]] = {name: spec.machine() for name, spec in specs.items()}
        kinds = {name: type(machine) for name, machine in machines.items()}
        if kinds != {name: type(machine) for name, machine in self._limits.items()}:
            raise ConfigError(f"{self.name}: reconfigure() keeps names and kinds: expected {self.specs!r} otherwise")
        changed = {name: machine for name, machine in machines.items() if specs[name] != self.specs[name]}
        self._table.reconfigure(changed)
        machines = {**self._limits, **changed}
        self.specs, self._limits = specs, machines
        self._costs = Costs(self.name, machines)
        self._answers.origin = self._first()
        self._install()
        self._lines.wake()

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        limits = {name: repr(spec) for name, spec in self.specs.items()}
        return {
            "limiter": self.name,
            "limits": limits,
            "shadow": self.shadow,
            "refused": self.refused,
            "waiting": len(self._lines),
            **self._table.snapshot(),
        }

    def __repr__(self) -> str:
        return f"Limiter({self.specs!r}, name={self.name!r}, store={self.store!r})"

    # -- answers -------------------------------------------------------------------------------------------------------

    def _blocked(self, ask: Ask) -> Decision | None:
        """An answer that needs no look at the states: free when switched off, refused while others wait in line."""
        if off.everything:
            return self._answers.free(ask)
        if ask.key not in self._lines or not any(ask.costs.values()):
            return None
        return self._answers.behind(ask)


def _by_name(limiter: str, limits: LimitSpec | Mapping[str, LimitSpec]) -> dict[str, LimitSpec]:
    named = dict(limits) if isinstance(limits, Mapping) else {getattr(limits, "name", ""): limits}
    for name, spec in named.items():
        if not isinstance(spec, LimitSpec):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            hint = "; a ConcurrencyLimit is used by itself: with limit.slot(key)" if hasattr(spec, "slot") else ""
            raise ConfigError(f"{limiter}: {spec!r}: expected TokenBucket(...), SlidingWindow(...) or the like{hint}")
        if not name or not isinstance(name, str):
            raise ConfigError(f"{limiter}: {name!r}: expected a name for each limit")
    if not named:
        raise ConfigError(f"{limiter}: expected at least one limit")
    if len(named) > 1 and any(isinstance(spec, LeakyBucket) for spec in named.values()):
        raise ConfigError(f"{limiter}: a LeakyBucket hands out slots, and cannot be one of several limits")
    return named
