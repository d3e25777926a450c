"""How much a worker may take up now, and of which operations nothing: by its places, its targets and their limits."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from seawall.machines.verdict import Verdict
from seawall.outbox.worker.held import Held
from seawall.outbox.worker.pace import Limits, Pace, limit_reached
from seawall.outbox.worker.targets import Target, Targets
from seawall.policies.classify import retry_after_of
from seawall.runtime import clock
from seawall.runtime.protocol import Runtime
from seawall.runtime.section import Section
from seawall.stores.decision import Decision

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["Room"]

LEAST_WAIT_NS = 1_000_000


class Room:
    """What one run of a worker may begin."""

    def __init__(self, box: Outbox, runtime: Runtime, pace: Pace, lock: Section, concurrency: int) -> None:
        self._box = box
        self._runtime = runtime
        self._pace = pace
        self._lock = lock
        self._concurrency = concurrency
        self.targets = Targets(concurrency)
        self._opens: list[int] = []
        """When what the latest look found shut opens again."""

    async def look(self, in_work: int, passed: Collection[str] = ()) -> tuple[int, set[str]]:
        """How much may be leased now, and of which operations nothing; those `passed` are not asked for again. Raises
        what a limiter raises."""
        now = clock.now_ns()
        self._opens = []
        with self._lock:
            operations = self._box.operations.all()
            self.targets.keep_only(operations)
            of = {operation.name: self.targets.of(operation) for operation in operations}
            bears = {target: target.room(now) for target in of.values()}
            bears.update((of[name], 0) for name in passed if name in of)
            self._opens += [now + wait for target in bears if (wait := target.wait_ns(now))]
        if self._pace.limits:
            for target, room in bears.items():
                if room:
                    bears[target] = min(room, await self._admits(target))
        room = min([self._concurrency - in_work, *(n for n in bears.values() if n)])
        return room, {name for name, target in of.items() if not bears[target]}

    async def _admits(self, target: Target) -> int:
        n, wait_ns = await self._pace.look(target.name, self._runtime)
        if not n:
            self._shut(target, wait_ns)
        return n

    def _shut(self, target: Target, wait_ns: int) -> None:
        with self._lock:
            target.gait.until_ns = clock.now_ns() + wait_ns
        self._opens.append(target.gait.until_ns)

    async def take(self, target: Target) -> Decision | None:
        """A piece of work begins. The limiter's refusal if it has no room after all, else None. Raises what it does."""
        decision = await self._pace.take(target.name, self._runtime)
        if decision is None or decision.allowed:
            return None
        self._shut(target, decision.retry_after_ns)
        return decision

    def know(self, held: Held) -> None:
        """What became of a record that others may wait for: whether the limits on its way let it in."""
        with self._lock:
            if held.knocks and held.target is not None:
                held.knocks = False
                held.target.gait.know(admitted=held.admitted)

    def judge(self, held: Held) -> None:
        """If a limit on its way refused it, that is no sign of trouble, and may be one for all others."""
        target = held.target
        if target is None or held.admitted or target.limits == Limits.NONE or not limit_reached(held.error):
            return
        held.verdict = Verdict.IGNORE
        if target.limits == Limits.ALL and held.step is not None and held.step.what == "release":
            held.step = held.step.replace(keeps_place=True)
            with self._lock:
                target.gait.refused(clock.now_ns(), retry_after_of(held.error) or LEAST_WAIT_NS)

    def probed(self, skip: Collection[str]) -> set[str]:
        """The operations of targets that may have been in trouble: these are to be asked by one record."""
        with self._lock:
            operations = [each for each in self._box.operations.all() if each.name not in skip]
            return {each.name for each in operations if self.targets.of(each).recovery.probing}

    def waits(self, now_ns: int) -> list[int]:
        """In how long targets that rest, or wait for their limits, may be looked at again; 0 for those whose time came
        after the latest look, which has not seen it."""
        with self._lock:
            waits = [target.wait_ns(now_ns) for target in self.targets.all()]
        return [*(wait for wait in waits if wait), *(max(0, opens - now_ns) for opens in self._opens)]

    def snapshot(self) -> list[dict[str, Any]]:
        """How the targets stand, as JSON-ready values."""
        now = clock.now_ns()
        with self._lock:
            return [target.snapshot(now) for target in self.targets.all()]
