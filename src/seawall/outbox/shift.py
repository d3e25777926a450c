"""One run of a worker, from its start until it has stopped: leases work, has it done, and tells the store.

One loop leases, starts, renews and waits; each record is done in a task or thread of its own. It waits until something
may have changed: news from the store, a record done, a lease to renew, the end of a target's rest.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.machines.backoff import Backoff
from seawall.machines.verdict import Verdict
from seawall.outbox.attempt import Attempts, Unreadable
from seawall.outbox.bell import Bell
from seawall.outbox.judgement import Step, judge, judge_before, verdict_on
from seawall.outbox.operations import Operation
from seawall.outbox.record import error_text
from seawall.outbox.store import Lease
from seawall.outbox.tally import Tally
from seawall.outbox.targets import Target, Targets
from seawall.policies.classify import retry_after_of
from seawall.runtime import chance, clock
from seawall.runtime.blocking import drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.section import Section

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["Shift"]

SECOND = 1_000_000_000
SAMPLE = 64
"""Among how many records a probe is chosen."""
LEAST_WAIT_NS = 1_000_000
STORE_PAUSES = Backoff(SECOND, 2.0, 30 * SECOND)
TELL_AGAIN_NS = (SECOND // 10, SECOND)


class Held:
    """A record in work."""

    __slots__ = ("began", "error", "lease", "on_thread", "operation", "renew_ns", "step", "target", "task", "verdict")

    def __init__(self, lease: Lease, operation: Operation | None, target: Target | None, renew_ns: int) -> None:
        self.lease = lease
        self.operation = operation
        self.target = target
        self.began = 0
        self.renew_ns: int | None = renew_ns
        """When its lease is renewed next; None once it is lost."""
        self.on_thread = False
        """Whether a thread works at it, which cannot be stopped."""
        self.verdict = Verdict.IGNORE
        self.error: Exception | None = None
        self.step: Step | None = None
        """What is to be told to the store, once it is known."""
        self.task: Any = None


class Shift:
    """A worker at work."""

    def __init__(
        self, box: Outbox, runtime: Runtime, tally: Tally, attempts: Attempts, *, concurrency: int, lease_ns: int
    ) -> None:
        self._box = box
        self._runtime = runtime
        self._tally = tally
        self._attempts = attempts
        self._concurrency = concurrency
        self._lease_ns = lease_ns
        self._store = box.store.open(runtime)
        self._bell = Bell(runtime)
        self._lock = Section()
        self._targets = Targets(concurrency)
        self._held: dict[tuple[str, str], Held] = {}
        self._store_troubles = 0
        self.stopping = False

    def stop(self) -> None:
        """Lease nothing more; from any thread."""
        self.stopping = True
        self._bell.ring()

    @property
    def in_work(self) -> int:
        """How many records are in work."""
        return len(self._held)

    def targets(self) -> list[dict[str, Any]]:
        """How the targets stand, as JSON-ready values."""
        now = clock.now_ns()
        with self._lock:
            return [target.snapshot(now) for target in self._targets.all()]

    # -- the loop --------------------------------------------------------------------------------------------------

    async def work(self, grace_ns: int) -> None:
        """Work until `stop()`; then let what is in work end, for `grace_ns`."""
        deaf = self._box.store.listen(self._bell.ring)
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

    async def _turn(self) -> int | None:
        """Renew, lease and start what can be; returns how long to wait if nothing happens before."""
        await self._renew()
        hint: int | None = None
        while not self.stopping:
            n, skip = self._room()
            if n <= 0:
                break
            leases, hint = await self._sample(skip) if self._probes(skip) else await self._lease(n, skip)
            for lease in leases:
                await self._start(lease)
            if len(leases) < n:
                break
        return self._patience(hint)

    def _room(self) -> tuple[int, set[str]]:
        """How much may be leased now, and of which operations nothing."""
        now = clock.now_ns()
        with self._lock:
            room, skip = self._concurrency - len(self._held), set[str]()
            operations = self._box.operations.all()
            self._targets.keep_only(operations)
            for operation in operations:
                bears = self._targets.of(operation).recovery.room(now)
                if bears:
                    room = min(room, bears)
                else:
                    skip.add(operation.name)
        return room, skip

    def _probes(self, skip: set[str]) -> bool:
        """Whether a target that may have been in trouble is to be asked by one record."""
        with self._lock:
            operations = [each for each in self._box.operations.all() if each.name not in skip]
            return any(self._targets.of(operation).recovery.probing for operation in operations)

    async def _sample(self, skip: set[str]) -> tuple[Sequence[Lease], int | None]:
        """One record, that tells most of the target: of those due, the newest of the least attempted. The others keep
        their places."""
        leases, hint = await self._lease(SAMPLE, skip)
        if not leases:
            return leases, hint
        best = min(leases, key=lambda lease: (lease.work.attempts, -lease.work.created_ns))
        for other in leases:
            if other is not best:
                try:
                    await self._store.release(other, other.work.due_ns)
                except Exception as error:  # noqa: BLE001  # then its lease runs out
                    self._store_failed("release", error)
        return [best], hint

    async def _lease(self, n: int, skip: Collection[str]) -> tuple[Sequence[Lease], int | None]:
        try:
            leased = await self._store.lease(n, self._lease_ns, skip)
        except Exception as error:  # noqa: BLE001  # a store that is down is no reason to stop working
            self._store_failed("lease", error)
            self._store_troubles += 1
            return (), STORE_PAUSES.pause_ns(self._store_troubles, chance.random())
        self._store_troubles = 0
        return leased

    def _patience(self, hint: int | None) -> int | None:
        now = clock.now_ns()
        with self._lock:
            waits = [hint] if hint is not None else []
            waits += [held.renew_ns - now for held in self._held.values() if held.renew_ns is not None]
            rests = [target.recovery.rest_ns(now) for target in self._targets.all()]
        waits += [rest for rest in rests if rest]
        return max(LEAST_WAIT_NS, min(waits)) if waits else None

    async def _renew(self) -> None:
        now = clock.now_ns()
        for held in list(self._held.values()):
            if held.renew_ns is not None and held.renew_ns <= now:
                held.renew_ns = now + self._lease_ns // 3
                try:
                    if not await self._store.renew(held.lease, self._lease_ns):
                        held.renew_ns = None
                except Exception as error:  # noqa: BLE001  # as above; the lease may last until the next try
                    self._store_failed("renew", error)

    # -- records in work -------------------------------------------------------------------------------------------

    def _hold(self, lease: Lease) -> Held:
        work = lease.work
        with self._lock:
            operation = self._box.operations.get(work.operation)
            target = None if operation is None else self._targets.of(operation)
            held = Held(lease, operation, target, clock.now_ns() + self._lease_ns // 3)
            if target is not None:
                held.began = target.recovery.begin()
            self._held[work.id, lease.token] = held
        return held

    async def _start(self, lease: Lease) -> None:
        held = self._hold(lease)
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
            self._store_failed("start", error)
            held.step = Step(what="release", pause_ns=SECOND // 10, text=error_text(error))
            await self._give_back(held, error)
            self._ended(held)

    async def _do(self, held: Held) -> None:
        """See to one record, from its lease to its end."""
        try:
            await self._attempt(held)
            await self._settle(held)
        except GeneratorExit:
            raise  # as above
        except Exception as error:  # noqa: BLE001  # a fault of ours or of a sink: the lease runs out
            self._store_failed("settle", error)
        except BaseException as error:
            await self._give_back(held, error)
            raise
        finally:
            self._ended(held)

    async def _attempt(self, held: Held) -> None:
        work, operation, target = held.lease.work, held.operation, held.target
        held.step = judge_before(work, operation, clock.wall_ns())
        if held.step is not None:
            return
        if operation is None or target is None:
            held.error = Unreadable(f"no operation {work.operation!r} is registered here")
        elif operation.is_async and not self._runtime.is_async:
            held.error = Unreadable(f"operation {operation.name!r} is async and needs an async worker")
        else:
            held.on_thread = self._runtime.is_async and not operation.is_async
            held.error = await self._attempts.make(operation, work, target, self._runtime)
            held.on_thread = False
        held.verdict = verdict_on(operation, held.error)
        held.step = judge(work, operation, held.error, clock.wall_ns(), chance.random())

    async def _settle(self, held: Held) -> None:
        step = held.step
        assert step is not None, "an attempt ends with a judgement"
        told = await self._tell(step.what, lambda: self._act(held, step))
        self._tally.ended(self._box.name, held.lease.work, step, held.error, told=told)

    def _act(self, held: Held, step: Step) -> Awaitable[bool]:
        lease, store, at_ns = held.lease, self._store, clock.wall_ns() + step.pause_ns
        if step.what == "ack":
            return store.ack(lease)
        if step.what == "bury":
            return store.bury(lease, step.why, step.text)
        return store.retry(lease, at_ns, step.text) if step.what == "retry" else store.release(lease, at_ns, step.text)

    async def _tell(self, step: str, act: Callable[[], Awaitable[bool]]) -> bool:
        """Tell the store, more than once if it must be: what is done should not be done again for a hiccup."""
        for pause in (*TELL_AGAIN_NS, None):
            try:
                return await act()
            except Exception as error:  # noqa: BLE001  # as above
                self._store_failed(step, error)
            if pause is not None:
                await self._runtime.sleep(pause)
        return False

    async def _give_back(self, held: Held, error: BaseException) -> None:
        """The worker is being stopped in the middle of a record, or the record ends the process."""
        if held.on_thread:
            return  # the thread goes on with it: nobody else should have it before the lease runs out
        step = held.step
        if step is None and not self._is_stop(error):
            step = Step(what="retry", text=error_text(error))  # counted: it might end every worker
            self._tally.note(held.lease.work, step.text)
        if step is None:
            step = Step(what="release", text=held.lease.work.last_error)
        try:
            await self._act(held, step)
        except Exception as trouble:  # noqa: BLE001  # then its lease runs out
            self._store_failed(step.what, trouble)

    def _is_stop(self, error: BaseException) -> bool:
        if not self._runtime.is_async:
            return isinstance(error, KeyboardInterrupt)
        import asyncio  # noqa: PLC0415  # as above

        return isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))

    def _ended(self, held: Held) -> None:
        wish = retry_after_of(held.error) or 0
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

    def _store_failed(self, step: str, error: Exception) -> None:
        self._tally.store_failed(error_text(error))
        if events.sinks:
            events.emit(events.OutboxFailed(policy=self._box.name, layer="worker", step=step, error=error))

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _finish(self, grace_ns: int) -> None:
        """Let what is in work end; after `grace_ns` tasks are cancelled and threads left to themselves."""
        end = clock.now_ns() + grace_ns
        while self._held and (left := end - clock.now_ns()) > 0:
            await self._renew()
            await self._bell.wait(min(left, self._patience(None) or left))
        await self._abandon()

    async def _abandon(self) -> None:
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            import asyncio  # noqa: PLC0415  # as above

            await asyncio.wait(tasks)

    async def drain(self, most: int) -> int:
        """Do what is due now, one after another, here; returns how many were done."""
        before = self._tally.done
        for _ in range(most):
            _, skip = self._room()
            leases, _ = await self._store.lease(1, self._lease_ns, skip)
            if not leases:
                break
            await self._do(self._hold(leases[0]))
        return self._tally.done - before


def _look_at(task: Any) -> None:
    """Its error was reported where it arose."""
    if not task.cancelled():
        task.exception()
