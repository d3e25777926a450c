"""Says in one line where a suspended task stands, in the user's code and not in asyncio's."""

from __future__ import annotations

import asyncio
import linecache
import os
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["describe", "where"]

_ASYNCIO = str(Path(asyncio.__file__).parent) + os.sep
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: object, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(thing, name, None)) is not None), None)


def _frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of the task's coroutines, outermost first. `Task.get_stack` gives only the outermost."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _first(awaited, _FRAMES)
        if frame is not None:
            frames.append(frame)
        awaited = _first(awaited, _AWAITED)
    return frames


def where(task: asyncio.Task[Any]) -> str:
    """`file.py:12 in fetch: await reply`, or that the task has not started or is done."""
    frames = _frames(task)
    if task.done() or not frames:
        return "already done"
    mine = [frame for frame in frames if not frame.f_code.co_filename.startswith(_ASYNCIO)]
    frame = (mine or frames)[-1]
    path = frame.f_code.co_filename
    place = f"{path}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    source = linecache.getline(path, frame.f_lineno).strip()
    if frame.f_lasti < 0 or getattr(task.get_coro(), "cr_suspended", True) is False:
        return f"{place}, before its first step"
    return f"{place}: {source}" if source else place


def describe(task: asyncio.Task[Any]) -> str:
    """One indented line for a list of waiting tasks: its name, where it stands and which task it waits for."""
    waits_on = getattr(task, "_fut_waiter", None)
    other = f" (waits for task {waits_on.get_name()!r})" if isinstance(waits_on, asyncio.Task) else ""
    return f"  {task.get_name()}: {where(task)}{other}"
