"""`Worker`: does what waits in an outbox, beside the program, in tasks or in threads."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.outbox.beside import Beside
from seawall.outbox.worker.alarms import Watch
from seawall.outbox.worker.attempt import Attempts
from seawall.outbox.worker.pace import Pace
from seawall.outbox.worker.shift import Shift
from seawall.outbox.worker.tally import Tally
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime
from seawall.units import Duration, count_of, duration_ns

if TYPE_CHECKING:
    from seawall.limiter.limiter import Limiter
    from seawall.limiter.specs import LimitSpec
    from seawall.outbox.box import Outbox

__all__ = ["Worker"]


class Worker(Beside):
    """Does the work of an outbox until it is stopped. Made by `outbox.worker(...)`.

    In async code `async with outbox.worker(): ...` works beside the block, in tasks; `await worker.arun()` until
    `stop()` or cancellation. In sync code `with outbox.worker(): ...` and `worker.run()` do the same in threads, and
    `worker.drain()` does what is due now, here, one after another, and returns. Several workers may share an outbox.

    Each record is leased, attempted through a twin of its operation's cluster or policy, and then done, due again, or a
    dead letter; see `Outbox.operation` for the schedule. A target that was down gets one record at a time, then twice
    as many with each round of successes; while it is down, single probes with rests of up to 30 s between them.

    A stop lets what is in work end, for `grace`; then tasks are cancelled and their records given back, uncounted.
    Threads cannot be stopped: the leases of what they work at run out.

    Args:
        concurrency: how many records at once. Default 8.
        lease: for how long a record is taken; renewed while the work goes on. Default 60 s. If the process dies, the
            record is due again after this time.
        timeout: the longest an attempt may take; in sync it is a deadline that waits and transports obey. Default
            5 min. None sets no limit: one operation that hangs then takes its place for ever.
        grace: how long a stop waits for what is in work. Default 30 s.
        limiter: how fast records may begin: a `Limiter`, or a limit (`TokenBucket("50/s", burst=5)`) for this worker
            alone. It counts each target (an operation's cluster or policy, or the operation) apart, by its name; one
            on a shared store bounds all workers together. Default: no limit but that of the slow start.
        alarm_depth: from how many records on (waiting, leased and dead) `events.BacklogAlarm` is told: a whole number,
            or a share of the backlog below or equal to 1.0. Default 0.8; None for never.
        alarm_age: the same for the age of the oldest record that is not dead. Default 1 h; None for never.

    Raises:
        ConfigError: a setting is outside its range.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        concurrency: int = 8,
        lease: Duration = 60,
        timeout: Duration | None = "5min",
        grace: Duration = 30,
        limiter: Limiter | LimitSpec | None = None,
        alarm_depth: float | None = 0.8,
        alarm_age: Duration | None = "1h",
    ) -> None:
        super().__init__(f"seawall {outbox.name} worker")
        self.outbox = outbox
        self.concurrency = count_of(concurrency, "worker(concurrency)", most=10_000)
        self._lease_ns = duration_ns(lease, "worker(lease)", zero=False)
        self._timeout_ns = None if timeout is None else duration_ns(timeout, "worker(timeout)", zero=False)
        self._grace_ns = duration_ns(grace, "worker(grace)")
        self._attempts = Attempts(f"{outbox.name} worker", timeout)
        self._tally = Tally()
        self._pace = Pace(limiter, f"{outbox.name} worker")
        self._watch = Watch(outbox, alarm_depth, alarm_age)
        self._lock = threading.RLock()
        self._shift: Shift | None = None

    # -- working until it is stopped -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take up nothing more and end; from any thread, and from signal handlers. Does not wait for the end."""
        shift = self._shift
        if shift is not None:
            shift.stop()

    def _start(self, runtime: Runtime) -> Coroutine[Any, Any, None]:
        return self._work(self._begin(runtime))

    def _refuse_async(self, runtime: Runtime) -> None:
        asynchronous = [operation.name for operation in self.outbox.operations.all() if operation.is_async]
        if asynchronous and not runtime.is_async:
            hint = "use `async with outbox.worker()`, or arun()"
            raise ConfigError(
                f"{self.outbox.name}: operation {asynchronous[0]!r} is async, and this worker is not; {hint}"
            )

    def _begin(self, runtime: Runtime) -> Shift:
        self._refuse_async(runtime)
        with self._lock:
            if self._shift is not None:
                raise RuntimeError(f"this worker of {self.outbox.name} works already; make another one")
            self._shift = self._new_shift(runtime, self._lease_ns)
            return self._shift

    def _new_shift(self, runtime: Runtime, lease_ns: int) -> Shift:
        return Shift(
            self.outbox,
            runtime,
            self._tally,
            self._attempts,
            self._pace,
            self._watch,
            concurrency=self.concurrency,
            lease_ns=lease_ns,
        )

    async def _work(self, shift: Shift) -> None:
        try:
            await shift.work(self._grace_ns)
        finally:
            self._shift = None

    # -- once ------------------------------------------------------------------------------------------------------

    def drain(self) -> int:
        """Do what is due now, one after another, and return how many were done. For scripts, cron and tests.

        Stops early where a target is in trouble. Raises what the store raises.
        """
        return drive(self._drain(BLOCKING))

    async def adrain(self) -> int:
        """As `drain`, for async code."""
        return await self._drain(asyncio_runtime())

    async def _drain(self, runtime: Runtime) -> int:
        self._refuse_async(runtime)
        stats = await self.outbox.store.open(runtime).stats()
        # Nobody renews here: the lease must outlast the longest attempt.
        shift = self._new_shift(runtime, self._lease_ns + (self._timeout_ns or self._lease_ns))
        return await shift.drain(stats.waiting + stats.leased)

    # -- looking ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values. No I/O: `backlog` is what was seen last, at most some ten seconds ago."""
        shift = self._shift
        state = "idle" if shift is None else "stopping" if shift.stopping else "working"
        return {
            "outbox": self.outbox.name,
            "state": state,
            "concurrency": self.concurrency,
            "in_work": 0 if shift is None else shift.in_work,
            **self._tally.snapshot(),
            **self._watch.snapshot(),
            "store_answers": shift is not None and shift.store_answers,
            "turned_before": None if shift is None else max(0, clock.now_ns() - shift.turned_ns) / 1e9,
            "targets": [] if shift is None else shift.targets(),
        }

    def __repr__(self) -> str:
        return f"Worker(outbox={self.outbox.name!r}, concurrency={self.concurrency})"
