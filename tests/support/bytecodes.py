"""Calls a function before every bytecode of chosen files, in the threads that ask for it, on 3.11 and later.

From 3.12 on this is `sys.monitoring`: there `sys.settrace` instruments code anew for each thread, and 3.12.1 crashes
when threads stand still in the middle of it. 3.11 has only `sys.settrace`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any

__all__ = ["before_each_bytecode", "codes_of", "trace_this_thread"]


def codes_of(files: Iterable[str]) -> list[CodeType]:
    """The code objects of those files: of every function that exists, and of what is nested in them."""
    wanted = frozenset(files)
    found: dict[int, CodeType] = {}
    # Functions are what the garbage collector knows; code objects it does not.
    pending = [item.__code__ for item in gc.get_objects() if type(item) is FunctionType]
    while pending:
        code = pending.pop()
        if code.co_filename in wanted and id(code) not in found:
            found[id(code)] = code
            pending.extend(part for part in code.co_consts if isinstance(part, CodeType))
    return list(found.values())


if sys.version_info >= (3, 12):
    _TOOL = 4

    @contextmanager
    def before_each_bytecode(codes: list[CodeType], call: Callable[[], None]) -> Generator[None]:
        """Within the block, `call()` before each bytecode of `codes`, whatever thread runs it."""
        monitoring = sys.monitoring
        event = monitoring.events.INSTRUCTION
        monitoring.use_tool_id(_TOOL, "interleave")
        monitoring.register_callback(_TOOL, event, lambda _code, _offset: call())
        for code in codes:
            monitoring.set_local_events(_TOOL, code, event)
        try:
            yield
        finally:
            for code in codes:
                monitoring.set_local_events(_TOOL, code, 0)
            monitoring.register_callback(_TOOL, event, None)
            monitoring.free_tool_id(_TOOL)

    @contextmanager
    def trace_this_thread(codes: list[CodeType], call: Callable[[], None]) -> Generator[None]:
        """Nothing: `before_each_bytecode` sees every thread."""
        yield

else:

    @contextmanager
    def before_each_bytecode(codes: list[CodeType], call: Callable[[], None]) -> Generator[None]:
        """Nothing: each thread has to ask for itself, by `trace_this_thread`."""
        yield

    @contextmanager
    def trace_this_thread(codes: list[CodeType], call: Callable[[], None]) -> Generator[None]:
        """Within the block, `call()` before each bytecode of `codes` that this thread runs."""
        wanted = {id(code) for code in codes}

        def on_event(_frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "opcode":
                call()
            return on_event

        def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
            if id(frame.f_code) not in wanted:
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return on_event

        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(None)
