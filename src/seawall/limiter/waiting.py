"""How callers wait for a limiter: in line for their key, or for the slot of a leaky bucket."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from seawall.context import CURRENT
from seawall.limiter.answers import Answers
from seawall.limiter.line import Lines
from seawall.runtime import clock, off
from seawall.runtime.protocol import Runtime
from seawall.stores.decision import Decision
from seawall.stores.memory import MemoryTable
from seawall.stores.protocol import Ask, Slots

__all__ = ["Try", "left_of", "wait_for_slot", "wait_in_line"]

Try = Callable[[Ask], Coroutine[Any, Any, tuple[Decision, Any]]]
"""Asks once: the decision, and what comes with an admission."""


async def wait_in_line(
    runtime: Runtime, ask: Ask, patience: int | None, attempt: Try, *, lines: Lines, answers: Answers
) -> tuple[Decision, Any]:
    """Stand in line for the key until `attempt` is admitted; for `patience` nanoseconds, None: as long as it takes."""
    if off.everything:
        return answers.free(ask), None
    began = clock.now_ns()
    if ask.key not in lines or not any(ask.costs.values()):
        decision, extra = await attempt(ask)
        if decision.allowed or answers.shadow:
            return answers.judged(decision), extra
        if patience == 0:
            raise answers.refusal(decision)
    elif patience == 0:
        raise answers.refusal(answers.behind(ask))
    place = lines.join(ask.key, runtime)
    if place is None:
        raise answers.too_many(ask, len(lines), lines.most)
    try:
        while True:
            wait = left_of(began, patience)
            if lines.is_head(ask.key, place):
                decision, extra = await attempt(ask)
                if decision.allowed:
                    return answers.judged(decision), extra
                wait, left = decision.retry_after_ns, left_of(began, patience)
                if left is not None and wait > left:
                    raise answers.refusal(decision)
            elif wait is not None and wait <= 0:
                raise answers.out_of_time(ask, began)
            await lines.wait(place, wait)
    finally:
        lines.leave(ask.key, place)


async def wait_for_slot(
    runtime: Runtime,
    ask: Ask,
    patience: int | None,
    longest: int | None,
    *,
    table: MemoryTable | Slots,
    answers: Answers,
) -> Decision:
    """A leaky bucket hands out the next slot at once; the caller waits for its time, and in shadow not even that."""
    if off.everything:
        return answers.free(ask)
    limits = [limit for limit in (left_of(clock.now_ns(), patience), longest) if limit is not None]
    most = min(limits, default=None)
    if isinstance(table, MemoryTable):
        decision, wait, slot = table.queue_up(ask.key, next(iter(ask.costs.values())), most)
    else:
        decision, wait, slot = await table.next_slot(runtime, ask, most)
    if not decision.allowed and not answers.shadow:
        raise answers.refusal(decision)
    try:
        if wait and not answers.shadow:
            await runtime.sleep(wait)
    except BaseException:
        if isinstance(table, MemoryTable):
            table.leave_slot(slot)
        else:
            await table.free_slot(runtime, slot)
        raise
    return answers.judged(decision)


def left_of(began: int, patience: int | None) -> int | None:
    """How long the caller may still wait; None for ever."""
    now, due = clock.now_ns(), CURRENT.get().deadline_ns
    ends = [end for end in (due, None if patience is None else began + patience) if end is not None]
    return min(ends) - now if ends else None
