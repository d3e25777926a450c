"""What a worker tells its store of each record in work, and what is counted and told when the store fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from seawall import events
from seawall.outbox.operations import SCHEDULE
from seawall.outbox.record import error_text
from seawall.outbox.store import Lease, OpenStore
from seawall.outbox.worker.held import Held
from seawall.outbox.worker.judgement import Step
from seawall.outbox.worker.tally import Tally
from seawall.runtime import chance, clock
from seawall.runtime.protocol import Runtime

__all__ = ["Reports"]

SECOND = 1_000_000_000
TELL_AGAIN_NS = (SECOND // 10, SECOND)


class Reports:
    """Speaks to the store for one run of a worker."""

    def __init__(self, outbox: str, store: OpenStore, runtime: Runtime, tally: Tally) -> None:
        self._outbox = outbox
        self._store = store
        self._runtime = runtime
        self._tally = tally

    def failed(self, step: str, error: Exception) -> None:
        """The store failed at a step."""
        self._tally.store_failed(error_text(error))
        if events.sinks:
            events.emit(events.OutboxFailed(policy=self._outbox, layer="worker", step=step, error=error))

    async def settle(self, held: Held) -> None:
        """A record has come to the end of its attempt."""
        step = held.step
        assert step is not None, "an attempt ends with a judgement"
        told = await self._tell(step.what, lambda: self._act(held, step))
        self._tally.ended(self._outbox, held.lease.work, step, held.error, told=told)

    def _act(self, held: Held, step: Step) -> Awaitable[bool]:
        lease, store = held.lease, self._store
        at_ns = lease.work.due_ns if step.keeps_place else clock.wall_ns() + step.pause_ns
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
            except Exception as error:  # noqa: BLE001  # a store that is down is no reason to stop working
                self.failed(step, error)
            if pause is not None:
                await self._runtime.sleep(pause)
        return False

    async def give_back(self, held: Held, error: BaseException, *, ending: bool) -> None:
        """The worker is being stopped in the middle of a record, or the record ends its task or the process. `ending`
        tells whether anybody but the record can have done it."""
        if held.on_thread:
            return  # the thread goes on with it: nobody else should have it before the lease runs out
        step = held.step
        if step is None and not self._is_stop(error, ending=ending):
            # Counted, and after a pause: it might end every worker.
            schedule = SCHEDULE if held.operation is None else held.operation.schedule
            pause = schedule.pause_ns(held.lease.work.attempts, chance.random())
            step = Step(what="retry", pause_ns=pause, text=error_text(error))
            self._tally.note(held.lease.work, step.text)
        if step is None:
            step = Step(what="release", text=held.lease.work.last_error)
        try:
            await self._act(held, step)
        except Exception as trouble:  # noqa: BLE001  # then its lease runs out
            self.failed(step.what, trouble)

    def _is_stop(self, error: BaseException, *, ending: bool) -> bool:
        if not self._runtime.is_async:
            return ending and isinstance(error, KeyboardInterrupt)
        import asyncio  # noqa: PLC0415  # loaded already, since this is an async worker

        return isinstance(error, KeyboardInterrupt) or (ending and isinstance(error, asyncio.CancelledError))

    async def put_back(self, lease: Lease) -> None:
        """It was not even begun, and keeps its place."""
        try:
            await self._store.release(lease, lease.work.due_ns)
        except Exception as error:  # noqa: BLE001  # then its lease runs out
            self.failed("release", error)
