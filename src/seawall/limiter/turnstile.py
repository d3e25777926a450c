"""The inside of a concurrency limit: who is let in, who waits, in this process; the store counts who is inside."""

from __future__ import annotations

from seawall.limiter.answers import Answers
from seawall.limiter.keeper import Keeper
from seawall.limiter.line import Lines
from seawall.limiter.slots import Slot
from seawall.limiter.waiting import left_of
from seawall.machines.leases import LeaseRules
from seawall.runtime import chance, clock, forks, off
from seawall.runtime.protocol import Runtime
from seawall.stores.leases import LIMIT_NAME, LeaseTable, origin_of
from seawall.stores.protocol import Ask

__all__ = ["Turnstile"]

FIRST_PAUSE_NS = 10_000_000
LONGEST_PAUSE_NS = 200_000_000


class Turnstile:
    """Of one limit."""

    def __init__(self, name: str, table: LeaseTable, rules: LeaseRules, *, shadow: bool, max_waiting: int) -> None:
        self.name = name
        self.table = table
        self.rules = rules
        self.lines = Lines(max_waiting)
        self.answers = Answers(name, origin_of(name, rules), shadow=shadow)
        self.lost = 0
        """How many slots of this process ran out while they were held."""
        self.generation = 0
        self.keeper = Keeper(name, table)
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        """Slots of the parent are its own, and so is the thread that renews them."""
        self.generation += 1
        self.keeper = Keeper(self.name, self.table)

    def change(self, rules: LeaseRules) -> None:
        """Take other numbers."""
        self.table.reconfigure(rules)
        self.rules = rules
        self.answers.origin = origin_of(self.name, rules)
        self.keeper.hurry()
        self.lines.wake()

    def woken(self, key: str) -> None:
        """A slot has come free: the head of the line may ask again."""
        self.lines.wake(key)

    async def enter(self, runtime: Runtime, key: str, patience: int | None) -> Slot:
        """A slot within `patience` nanoseconds (None: as long as it takes), or it raises what a caller is told."""
        ask, answers = Ask(key, {LIMIT_NAME: 1}), self.answers
        if off.everything:
            return Slot(self, answers.free(ask), None)
        if key not in self.lines:
            decision, lease = await self.table.enter(runtime, key)
            if decision.allowed or answers.shadow:
                return Slot(self, answers.judged(decision), lease)
            if patience == 0:
                raise answers.refusal(decision)
        elif patience == 0:
            raise answers.refusal(answers.behind(ask))
        return await self._wait(runtime, ask, patience)

    async def _wait(self, runtime: Runtime, ask: Ask, patience: int | None) -> Slot:
        began, pause = clock.now_ns(), FIRST_PAUSE_NS
        lines, answers, table = self.lines, self.answers, self.table
        place = lines.join(ask.key, runtime)
        if place is None:
            raise answers.too_many(ask, len(lines), lines.most)
        try:
            while True:
                wait = left_of(began, patience)
                if lines.is_head(ask.key, place):
                    decision, lease = await table.enter(runtime, ask.key)
                    if decision.allowed:
                        return Slot(self, decision, lease)
                    wait = left_of(began, patience)
                    if wait is None or wait > 0:
                        soon = decision.retry_after_ns
                        if not table.hears_of_releases:
                            # Nobody tells of releases elsewhere. Jitter keeps processes from asking in step.
                            soon = min(soon, round(pause * (0.5 + 0.5 * chance.random())))
                            pause = min(pause * 3 // 2, LONGEST_PAUSE_NS)
                        wait = soon if wait is None else min(wait, soon)
                if wait is not None and wait <= 0:
                    raise answers.out_of_time(ask, began)
                await lines.wait(place, wait)
        finally:
            lines.leave(ask.key, place)
