"""One run of a worker, from its start until it has stopped: leases work, has it done, and tells the store.

One loop leases, starts, renews and waits; each record is done in a task or thread of its own. It waits until something
may have changed: news from the store, a record done, a lease to renew, the end of a target's rest.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from seawall.outbox.record import error_text
from seawall.outbox.store import Lease
from seawall.outbox.worker.alarms import Watch
from seawall.outbox.worker.attempt import Attempts, Unreadable
from seawall.outbox.worker.bell import Bell
from seawall.outbox.worker.held import Held
from seawall.outbox.worker.judgement import Step, judge, judge_before, verdict_on
from seawall.outbox.worker.pace import Limits, Pace
from seawall.outbox.worker.reports import Reports
from seawall.outbox.worker.room import Room
from seawall.outbox.worker.supply import Supply
from seawall.outbox.worker.tally import Tally
from seawall.policies.classify import retry_after_of
from seawall.runtime import chance, clock
from seawall.runtime.blocking import drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.section import Section

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["Shift"]

SECOND = 1_000_000_000
LEAST_WAIT_NS = 1_000_000
DEAF_SECONDS = 5
"""How long a stop waits for tasks that were cancelled."""


class Shift:
    """A worker at work."""

    def __init__(
        self,
        box: Outbox,
        runtime: Runtime,
        tally: Tally,
        attempts: Attempts,
        pace: Pace,
        watch: Watch,
        *,
        concurrency: int,
        lease_ns: int,
    ) -> None:
        self._box = box
        self._runtime = runtime
        self._tally = tally
        self._attempts = attempts
        self._watch = watch
        self._lease_ns = lease_ns
        self._store = box.store.open(runtime)
        self._bell = Bell(runtime)
        self._lock = Section()
        self._reports = Reports(box.name, self._store, runtime, tally)
        self._supply = Supply(box, self._store, self._reports, lease_ns)
        self._room = Room(box, runtime, pace, self._lock, concurrency)
        self._held: dict[tuple[str, str], Held] = {}
        self._abandons = False
        self._beside = False
        """Whether each record has a task or thread of its own."""
        self._head: Any = None
        """The task that the loop runs in; None in threads."""
        self.stopping = False
        self.turned_ns = clock.now_ns()
        """When the loop came round last."""

    @property
    def store_answers(self) -> bool:
        """Whether the store did, when it was last asked for work or for its counts."""
        return self._supply.answers

    def stop(self) -> None:
        """Lease nothing more; from any thread, and from a signal handler."""
        self.stopping = True
        self._bell.ring_in_handler()

    @property
    def in_work(self) -> int:
        """How many records are in work."""
        return len(self._held)

    def targets(self) -> list[dict[str, Any]]:
        """How the targets stand, as JSON-ready values."""
        return self._room.snapshot()

    # -- the loop --------------------------------------------------------------------------------------------------

    async def work(self, grace_ns: int) -> None:
        """Work until `stop()`; then let what is in work end, for `grace_ns`."""
        deaf = self._box.store.listen(self._bell.ring)
        self._beside = True
        if self._runtime.is_async:
            import asyncio  # noqa: PLC0415  # loaded already, since this is an async worker

            self._head = asyncio.current_task()
        try:
            while not self.stopping:
                wait = await self._turn()
                if not self.stopping:
                    await self._bell.wait(wait)
            await self._finish(grace_ns)
        except GeneratorExit:
            raise  # nothing can be awaited any more; the leases run out
        except BaseException:
            await self._abandon()
            raise
        finally:
            deaf()

    async def _turn(self) -> int:
        """Renew, lease and start what can be; returns how long to wait if nothing happens before."""
        self.turned_ns = clock.now_ns()
        await self._renew()
        hints: list[int] = []
        passed: set[str] = set()
        """Operations of targets that want a probe, of which nothing is due."""
        while not self.stopping:
            try:
                n, skip = await self._room.look(len(self._held), passed)
            except Exception as error:  # noqa: BLE001  # a limiter that cannot be asked: as a store that is down
                hints.append(self._supply.trouble("limit", error))
                break
            if n <= 0:
                break
            wanted = self._room.probed(skip)
            leases, hint = await self._supply.sample(wanted, skip) if wanted else await self._supply.lease(n, skip)
            hints += [] if hint is None else [hint]
            await self._start_all(leases)
            if wanted and not leases and not self._supply.troubles:
                passed |= wanted
            elif len(leases) < n:
                break
        await self._look()
        return self._patience(hints)

    async def _look(self) -> None:
        if self._watch.wait_ns(clock.now_ns()):
            return
        try:
            await self._watch.look(self._store)
            self._supply.answers = True
        except Exception as error:  # noqa: BLE001  # as above
            self._supply.answers = False
            self._reports.failed("stats", error)

    def _patience(self, hints: Sequence[int]) -> int:
        now = clock.now_ns()
        with self._lock:
            waits = [*hints]
            waits += [held.renew_ns - now for held in self._held.values() if held.renew_ns is not None]
        return max(LEAST_WAIT_NS, min([*waits, *self._room.waits(now), self._watch.wait_ns(now)]))

    async def _renew(self) -> None:
        now = clock.now_ns()
        for held in list(self._held.values()):
            if held.renew_ns is not None and held.renew_ns <= now:
                held.renew_ns = now + self._lease_ns // 3
                try:
                    if not await self._store.renew(held.lease, self._lease_ns):
                        held.renew_ns = None
                except Exception as error:  # noqa: BLE001  # as above; the lease may last until the next try
                    self._reports.failed("renew", error)

    # -- records in work -------------------------------------------------------------------------------------------

    def _hold(self, lease: Lease) -> Held:
        work = lease.work
        with self._lock:
            operation = self._box.operations.get(work.operation)
            target = None if operation is None else self._room.targets.of(operation)
            held = Held(lease, operation, target, clock.now_ns() + self._lease_ns // 3)
            if target is not None:
                held.began = target.recovery.begin()
                held.knocks = target.gait.begin()
            self._held[work.id, lease.token] = held
        return held

    async def _start_all(self, leases: Sequence[Lease]) -> None:
        begun = 0
        try:
            for lease in leases:
                begun += 1
                await self._start(lease)
        except GeneratorExit:
            raise  # as above
        except BaseException:
            await self._supply.put_all_back(leases[begun:])
            raise

    async def _start(self, lease: Lease) -> None:
        held = self._hold(lease)
        if not await self._enter(held):
            return
        doing = self._do(held)
        if self._runtime.is_async:
            import asyncio  # noqa: PLC0415  # loaded already, since this is an async worker

            held.task = asyncio.get_running_loop().create_task(doing)
            held.task.add_done_callback(_look_at)
            return
        try:
            run: Callable[..., Any] = contextvars.copy_context().run
            self._attempts.threads.submit(partial(run, drive, doing))
        except RuntimeError as error:
            doing.close()
            self._reports.failed("start", error)
            held.step = Step(what="release", pause_ns=SECOND // 10, text=error_text(error))
            await self._reports.give_back(held, error, ending=True)
            self._ended(held)

    async def _enter(self, held: Held) -> bool:
        """Whether the worker's limiter lets it begin. If not, the record keeps its place, and the target waits."""
        held.step = judge_before(held.lease.work, held.operation, clock.wall_ns())
        if held.step is not None or held.target is None:
            return True
        try:
            if await self._room.take(held.target) is None:
                return True
        except GeneratorExit:
            self._ended(held)
            raise
        except BaseException as error:
            await self._put_back(held)
            if not isinstance(error, Exception):
                raise
            self._reports.failed("limit", error)
            return False
        await self._put_back(held)
        return False

    async def _put_back(self, held: Held) -> None:
        try:
            await self._reports.put_back(held.lease)
        finally:
            self._ended(held)

    async def _do(self, held: Held) -> None:
        """See to one record, from its lease to its end."""
        try:
            await self._attempt(held)
            await self._reports.settle(held)
        except GeneratorExit:
            raise  # as above
        except Exception as error:  # noqa: BLE001  # a fault of ours or of a sink: the lease runs out
            self._reports.failed("settle", error)
        except BaseException as error:
            await self._reports.give_back(held, error, ending=self._is_ending())
            raise
        finally:
            self._ended(held)

    async def _attempt(self, held: Held) -> None:
        work, operation, target = held.lease.work, held.operation, held.target
        if held.step is not None:
            return  # judged before it began
        if operation is None or target is None:
            held.error = Unreadable(f"no operation {work.operation!r} is registered here")
        elif operation.is_async and not self._runtime.is_async:
            held.error = Unreadable(f"operation {operation.name!r} is async and needs an async worker")
        else:
            held.on_thread = self._runtime.is_async and not operation.is_async
            begun = None if target.limits == Limits.NONE else partial(self._admitted, held)
            try:
                held.error = await self._attempts.make(operation, work, target, self._runtime, begun)
            except SystemExit:
                held.on_thread = False  # it came out of the thread, which is not at work any more
                raise
            held.on_thread = False
        held.verdict = verdict_on(operation, held.error)
        held.step = judge(work, operation, held.error, clock.wall_ns(), chance.random())
        self._room.judge(held)

    def _admitted(self, held: Held) -> None:
        """Its function is called, perhaps in another thread."""
        held.admitted = True
        if held.knocks:
            self._room.know(held)
            self._bell.ring()

    def _ended(self, held: Held) -> None:
        wish = retry_after_of(held.error) or 0
        self._room.know(held)
        held.error = None  # it knows the frames that know what is held
        with self._lock:
            del self._held[held.lease.work.id, held.lease.token]
            if held.target is not None:
                held.target.recovery.end(
                    held.began,
                    held.verdict,
                    held.lease.work.id,
                    clock.now_ns(),
                    chance.random(),
                    attempts=held.lease.work.attempts,
                    retry_after_ns=wish,
                )
        self._bell.ring()

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _finish(self, grace_ns: int) -> None:
        """Let what is in work end; after `grace_ns` tasks are cancelled and threads left to themselves."""
        end = clock.now_ns() + grace_ns
        while self._held and (left := end - clock.now_ns()) > 0:
            self.turned_ns = clock.now_ns()
            await self._renew()
            await self._look()
            await self._bell.wait(min(left, self._patience(())))
        await self._abandon()

    def _is_ending(self) -> bool:
        """Whether a record may have been ended with the worker, and not by its own function."""
        return not self._beside or self._abandons or (self._head is not None and self._head.cancelling() > 0)

    async def _abandon(self) -> None:
        self._abandons = True
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            import asyncio  # noqa: PLC0415  # as above

            # Not for ever: one that will not be cancelled is as a thread, and its lease runs out.
            await asyncio.wait(tasks, timeout=DEAF_SECONDS)
        for held in [held for held in self._held.values() if held.task is not None and held.task.done()]:
            await self._put_back(held)  # cancelled before its first step: nothing of it has run

    async def drain(self, most: int) -> int:
        """Do what is due now, one after another, here; returns how many were done."""
        before = self._tally.done
        for _ in range(most):
            _, skip = await self._room.look(len(self._held))
            leases, _ = await self._store.lease(1, self._lease_ns, skip)
            if not leases:
                break
            held = self._hold(leases[0])
            if await self._enter(held):
                await self._do(held)
        return self._tally.done - before


def _look_at(task: Any) -> None:
    """Its error was reported where it arose."""
    if not task.cancelled():
        task.exception()
