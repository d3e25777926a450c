"""Times subjects in interleaved rounds, so that the noise of a shared machine hits all of them alike.

Each round times every subject once, in a calibrated loop, with the garbage collector off. A ratio is taken inside each
round, between neighbours in time, and the median over the rounds is reported. The cost of the loop stays in every
figure, the bare call's included; that makes ratios to the bare call smaller, for all subjects alike.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Literal

from .settings import ANSWER

Role = Literal["bare", "ours", "peer"]
# A subject's call takes nothing and gives ANSWER, or an awaitable of it in the async tables.
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: more rounds narrow the median, longer batches average over the scheduler."""

    rounds: int
    batch_ns: int
    import_rounds: int
    window_rounds: int


FULL = Effort(rounds=21, batch_ns=40_000_000, import_rounds=15, window_rounds=400)
QUICK = Effort(rounds=9, batch_ns=8_000_000, import_rounds=5, window_rounds=150)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to time. `make` imports what it needs, so that a peer that is not installed fails in its own row."""

    name: str
    make: Callable[[], Call]
    role: Role = "peer"
    note: str = ""


@dataclass(slots=True)
class Timing:
    """What the rounds gave: nanoseconds per call, one sample a round; or why there are none."""

    subject: Subject
    samples: list[float] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    call: Call
    count: int


_WARM_UP = 64  # enough for the adaptive interpreter to specialise the code before anything is timed
_Plan = Generator[_Batch, int, list[Timing]]


def time_calls(call: Call, count: int) -> int:
    """Nanoseconds for `count` calls."""
    answer = None
    calls = range(count)
    start = perf_counter_ns()
    for _ in calls:
        answer = call()
    spent = perf_counter_ns() - start
    _check(answer)
    return spent


async def time_awaits(call: Call, count: int) -> int:
    """Nanoseconds for `count` awaited calls.

    One turn of the event loop is inside the clock: who leaves cancelled timers behind pays for their clearance.
    """
    answer = None
    calls = range(count)
    start = perf_counter_ns()
    for _ in calls:
        answer = await call()
    await asyncio.sleep(0)
    spent = perf_counter_ns() - start
    _check(answer)
    return spent


def sync_timings(subjects: Sequence[Subject], effort: Effort) -> list[Timing]:
    """Time subjects that are plain calls."""
    plan = _plan(subjects, effort)
    try:
        batch = next(plan)
        while True:
            try:
                spent = time_calls(batch.call, batch.count)
            except Exception as error:  # a subject that fails is a row of the report, never the end of it
                batch = plan.throw(error)
            else:
                batch = plan.send(spent)
    except StopIteration as end:
        return _timings(end)


def async_timings(subjects: Sequence[Subject], effort: Effort) -> list[Timing]:
    """Time subjects that are awaited, all on one event loop; their `make` runs inside that loop."""

    async def drive() -> list[Timing]:
        plan = _plan(subjects, effort)
        try:
            batch = next(plan)
            while True:
                try:
                    spent = await time_awaits(batch.call, batch.count)
                except Exception as error:  # as above
                    batch = plan.throw(error)
                else:
                    batch = plan.send(spent)
        except StopIteration as end:
            return _timings(end)

    return asyncio.run(drive())


def _plan(subjects: Sequence[Subject], effort: Effort) -> _Plan:
    """Yield the batches to time, in order, and be sent their nanoseconds: one text for sync and async."""
    timings = [Timing(subject) for subject in subjects]
    batches: list[tuple[Timing, _Batch]] = []
    for timing in timings:
        try:
            call = timing.subject.make()
            yield _Batch(call, 1)
            count = yield from _calibrate(call, effort.batch_ns)
        except Exception as error:
            timing.error = describe(error)
        else:
            batches.append((timing, _Batch(call, count)))

    for number in range(effort.rounds):
        # The start moves on each round, so that nobody always runs behind the same neighbour.
        shift = number % max(1, len(batches))
        gc.collect()
        gc.disable()
        try:
            for timing, batch in batches[shift:] + batches[:shift]:
                if timing.error is not None:
                    continue
                try:
                    timing.samples.append((yield batch) / batch.count)
                except Exception as error:
                    timing.error = describe(error)
        finally:
            gc.enable()
    return timings


def _calibrate(call: Call, batch_ns: int) -> Generator[_Batch, int, int]:
    count = _WARM_UP
    while True:
        spent = yield _Batch(call, count)
        if spent * 4 >= batch_ns:
            return max(1, round(count * batch_ns / spent))
        count *= 4


def _timings(end: StopIteration) -> list[Timing]:
    timings: list[Timing] = end.value
    return timings


def _check(answer: object) -> None:
    if answer != ANSWER:
        raise ValueError(f"answered {answer!r} instead of {ANSWER!r}")


def describe(error: BaseException) -> str:
    """One short line for a row that has no figure."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def middle_ratio(samples: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios taken round by round."""
    return statistics.median(one / other for one, other in zip(samples, base, strict=False))


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(samples) < 2:
        return samples[0], samples[0], samples[0]
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high
