"""An asyncio loop without wall time or chance: hours pass in milliseconds, and a seed decides who runs next.

The same seed gives the same steps at the same instants, in every process, whatever PYTHONHASHSEED: tasks and futures
hash by number, tasks are named by number per loop, and time is a whole number of nanoseconds. What your own code draws
from `random`, or from the order of a set of strings, stays your own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from threading import get_ident
from typing import Any, TypeVar, TypeVarTuple

from seawall.runtime import chance, clock
from seawall.testing._ending import run_to_end
from seawall.testing._numbered import NumberedFuture, NumberedTask, Unseen
from seawall.testing._ready import ReadyQueue
from seawall.testing._refusals import refuse_real_world
from seawall.testing._timers import TimerQueue, when_ns
from seawall.testing._where import describe
from seawall.testing.failures import Deadlock, TooManySteps

__all__ = ["Main", "VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Main = Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T]


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time. It does no input or output and starts no thread: what would, raises.

    `seed` chooses the order of task steps that are ready together; `None` keeps asyncio's own order. `max_steps` (at
    least 1) ends a run that would never end. `after_step`, called after each task step, may check invariants: what it
    raises ends the run. With `allow_pending=True` tasks that still wait when `main` returns are cancelled without
    complaint. One loop serves one `run`.

    >>> async def main():
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> loop = VirtualLoop(seed=7)
    >>> loop.run(main), loop.steps
    (3600.0, 2)
    """

    _stopping: bool  # of the base class

    def __init__(
        self,
        *,
        seed: int | None = 0,
        max_steps: int = 5_000_000,
        allow_pending: bool = False,
        after_step: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps!r}: expected at least 1")
        self.seed = seed
        self.random = Random(f"scenario {seed}")
        """A generator for the scenario's own choices; reach it by `VirtualLoop.current().random`."""
        self.after_turn: Callable[[], object] | None = None
        """Called after every callback, task step or not. For drivers such as `cancel_everywhere`."""
        self.steps = 0
        """How many task steps have run."""
        self._max_turns = max_steps
        self._turns = 0
        self._allow_pending = allow_pending
        self._after_step = after_step
        self._now_ns = 0
        self._numbers = 0
        self._tasks_made = 0
        self._queue = ReadyQueue(None if seed is None else Random(f"order {seed}"))
        self._timers = TimerQueue()
        self._digest = hashlib.blake2b(digest_size=16)
        self._unseen = Unseen()
        self.reports: list[dict[str, Any]] = []
        """What reached the default exception handler."""
        self._home = get_ident()

    @classmethod
    def current(cls) -> VirtualLoop:
        """The virtual loop that runs now. Raises `RuntimeError` if there is none."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("this code does not run under seawall.testing.run()")
        return loop

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds since the loop was made."""
        return self._now_ns

    @property
    def trace(self) -> str:
        """A digest of every task step so far: its instant and its task's name. Equal traces are equal runs."""
        return self._digest.hexdigest()

    @property
    def idle(self) -> bool:
        """Whether nothing is ready to run at this instant."""
        return not self._queue

    def time(self) -> float:
        return self._now_ns / 1e9

    def block_ns(self, duration_ns: int) -> None:
        """What `time.sleep` does to a loop: time passes, nothing else runs, timers are late."""
        self._now_ns += max(0, duration_ns)

    # -- scheduling ----------------------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._refuse_if_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.add(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if get_ident() != self._home:
            raise RuntimeError("a virtual loop cannot be called from another thread: its order would depend on luck")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        span_ns = when_ns(delay, 0)
        instant_ns = None if span_ns is None else self._now_ns + max(0, span_ns)
        return self._set_timer(instant_ns, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._set_timer(when_ns(when, self._now_ns), callback, args, context, when)

    def _set_timer(
        self,
        instant_ns: int | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float | None = None,
    ) -> asyncio.TimerHandle:
        self._refuse_if_closed()
        shown = when if when is not None else float("inf") if instant_ns is None else instant_ns / 1e9
        timer = asyncio.TimerHandle(shown, callback, args, self, context)
        if instant_ns is not None:
            self._timers.add(instant_ns, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._timers.note_cancelled(handle)

    def _refuse_if_closed(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")

    def _run_once(self) -> None:
        """One callback; the base class repeats this until `stop()`."""
        if not self._queue and not self._stopping:
            self._jump()
        for timer in self._timers.take_due(self._now_ns):
            self._queue.add(timer)
        if not self._queue:
            return
        self._count_turn()
        handle, task = self._queue.take()
        if handle.cancelled():
            return
        if task is not None:
            self.steps += 1
            self._digest.update(f"{self._now_ns}:{task.get_name()};".encode("utf-8", "surrogatepass"))
        handle._run()
        if task is not None:
            if task.done():
                self._unseen.watch(task)
            if self._after_step is not None:
                self._after_step()
        if self.after_turn is not None:
            self.after_turn()
        # As asyncio's own loop does: an error knows this frame, and the task knows the error.
        del handle, task

    def _jump(self) -> None:
        instant_ns = self._timers.next_ns()
        if instant_ns is None:
            raise Deadlock(f"nothing can ever run again at t={self.time():g} s; {self._waiting()}")
        self._now_ns = max(self._now_ns, instant_ns)

    def _count_turn(self) -> None:
        self._turns += 1
        if self._turns > self._max_turns:
            raise TooManySteps(
                f"more than {self._max_turns} callbacks ran, the last at t={self.time():g} s; {self._waiting()}"
            )

    def _waiting(self) -> str:
        tasks = self.living_tasks()
        return "\n".join([f"{len(tasks)} task(s) not done:", *(describe(task) for task in tasks)])

    def living_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, oldest first."""
        return sorted(asyncio.all_tasks(self), key=hash)

    # -- tasks, futures and their errors ---------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        self._numbers += 1
        return NumberedFuture(self, self._numbers, self._unseen.watch)

    def create_task(self, coro: Any, *, name: object = None, context: Any = None, **options: Any) -> asyncio.Task[Any]:
        self._refuse_if_closed()
        self._numbers += 1
        self._tasks_made += 1
        title = f"Task-{self._tasks_made}" if name is None else str(name)
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=title, context=context, **options)
        return NumberedTask(coro, number=self._numbers, loop=self, name=title, context=context, **options)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.reports.append(context)

    def report_unseen(self) -> None:
        """Hand the errors that nobody has looked at to the exception handler, as asyncio does at garbage collection."""
        for context in self._unseen.take():
            self.call_exception_handler(context)

    def allow_more_steps(self, count: int) -> None:
        """Let `count` callbacks run from now on, whatever the limit was, to clear up after a failure."""
        self._max_turns = self._turns + count

    def drop_hooks(self) -> None:
        """Call `after_step` and `after_turn` no more."""
        self._after_step = self.after_turn = None

    # -- a whole run -----------------------------------------------------------------------------------------------

    def run(self, main: Main[T]) -> T:
        """Run `main`, an async function without arguments or a coroutine; return its result; close the loop.

        Until then the library's clock is this loop's and its jitter is seeded. Raises what `main` raises; `Deadlock`,
        `TooManySteps`, `TasksLeft` or `Unhandled` for faults found; `RuntimeError` inside another running loop.
        """
        coroutine = main() if callable(main) else main
        if asyncio._get_running_loop() is not None:
            coroutine.close()
            self.close()
            raise RuntimeError("a virtual loop cannot run inside another running event loop")
        undo_clock = clock.install(lambda: self._now_ns, self.block_ns)
        undo_chance = chance.install(Random(f"jitter {self.seed}").random)
        try:
            return run_to_end(self, coroutine, allow_pending=self._allow_pending)
        finally:
            undo_chance()
            undo_clock()
            self.close()


refuse_real_world(VirtualLoop)
