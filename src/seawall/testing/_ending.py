"""Runs a virtual loop's main task, and sees to it that nothing is left behind without being reported."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from seawall.testing._where import describe
from seawall.testing.failures import RunFailure, TasksLeft, Unhandled

if TYPE_CHECKING:
    from seawall.testing.loop import VirtualLoop

__all__ = ["run_to_end"]

T = TypeVar("T")
_TO_SETTLE = 10_000
_TO_END = 100_000


def run_to_end(loop: VirtualLoop, main: Coroutine[Any, Any, T], *, allow_pending: bool) -> T:
    """Run `main`, cancel what it left, and raise what went wrong unnoticed; a failure of `main` itself goes first."""
    try:
        result: T = loop.run_until_complete(loop.create_task(main, name="main"))
        if not loop.idle:
            loop.run_until_complete(loop.create_task(_settle(loop), name="settle"))
    except BaseException as error:
        _end_after(error, loop)
        raise
    left = [describe(task) for task in loop.living_tasks()]
    _end(loop)
    loop.report_unseen()
    _raise_faults(loop.reports, [] if allow_pending else left)
    return result


async def _settle(loop: VirtualLoop) -> None:
    """Let what is due at this instant happen, such as the end of tasks that were cancelled just now."""
    for _ in range(_TO_SETTLE):
        if loop.idle:
            return
        await asyncio.sleep(0)


def _end(loop: VirtualLoop) -> None:
    left = loop.living_tasks()
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(loop.create_task(asyncio.wait(left), name="end"))
    if getattr(loop, "_asyncgens", True):
        loop.run_until_complete(loop.create_task(loop.shutdown_asyncgens(), name="end"))


def _end_after(error: BaseException, loop: VirtualLoop) -> None:
    """Clear up behind a run that failed. Its error is the news: what goes wrong from now on is only added to it."""
    loop.drop_hooks()
    loop.allow_more_steps(_TO_END)
    try:
        _end(loop)
    except RunFailure as further:
        error.add_note(f"and its tasks cannot be cancelled: {further}")
    loop.report_unseen()
    for context in loop.reports:
        error.add_note(f"also reported to the loop: {_one_line(context)}")


def _raise_faults(contexts: list[dict[str, Any]], left: list[str]) -> None:
    lost = "\n".join([f"{len(left)} task(s) still waited when main returned:", *left])
    if contexts:
        lines = "\n".join(f"  {_one_line(context)}" for context in contexts)
        error = Unhandled(f"errors that nobody handled:\n{lines}", contexts)
        if left:
            error.add_note(lost)
        raise error from next((each["exception"] for each in contexts if "exception" in each), None)
    if left:
        raise TasksLeft(lost, left)


def _one_line(context: dict[str, Any]) -> str:
    who = context.get("task") or context.get("future")
    name = f" ({who.get_name()})" if isinstance(who, asyncio.Task) else ""
    return f"{context.get('message', 'error')}{name}: {context.get('exception')!r}"
