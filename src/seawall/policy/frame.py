"""The healthy call in one frame: the lanes of all layers as straight code, one function for each shape of policy.

A loop over layers, or a closure in a closure, costs two to three times as much as straight code; and straight code
for every combination cannot be written by hand. So, as `dataclasses` does for `__init__`, the function is put
together here and compiled once for each shape: every layer gives the lines of its way in and its way out (`Fast` in
layer.py). For CircuitBreaker and Bulkhead around an async function it reads

    async def call(*args, **kwargs):
        if off.everything:
            return await function(*args, **kwargs)
        depth = 1                                   # the meter has nothing to do on the way in
        t1 = t2 = None
        try:
            t1 = machine1.free_pass                 # breaker: the shared permit, while it is closed
            if t1 is None:
                t1 = admit1()
            depth = 2
            try:                                    # bulkhead: a permit from the deque
                t2 = wait2() if waiting2 else take2()
            except IndexError:
                t2 = wait2()
            depth = 3
            result = await (function(*args, **kwargs) if kwargs else function(*args))
            now = clock.now_ns()
            ...                                     # the ways out, innermost first, each followed by depth = ...
            return result
        except BaseException as error:
            tokens = (None, t1, t2)
            value, failure = await unwind(depth, tokens, error, function, args, kwargs)
            ...

`depth` tells `unwind` (chain.py) how many layers were entered and not yet left. The clock is read once. Nothing here
waits, decides or takes a lock; whatever would have to calls back into its layer or raises. Where the interpreter has
no lock of its own (`locked`), the lines of the layers are not used, but their callables, each of which takes its
machine's lock.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

from seawall.policies.layer import Fast, Lane
from seawall.runtime import clock, off

__all__ = ["build"]

_compiled: dict[tuple[object, ...], Callable[..., Any]] = {}

LAZY_HINT = (
    "{what} was given to a synchronous call: the body would run later, without any protection. "
    "Decorate the async function itself, or use acall(); for a generator protect what it calls"
)


def refuse_lazy(result: Any) -> None:
    """Raise for a coroutine or generator that a synchronous call got back: its body has not run yet."""
    what = type(result).__name__
    if hasattr(result, "close"):
        result.close()
    raise TypeError(LAZY_HINT.format(what=f"a {what}"))


LAZY: frozenset[type] = frozenset((types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType))
"""What a synchronous call gets back from a function whose body has not run yet."""


def build(
    lanes: Sequence[Lane], unwind: Callable[..., Any], lost: Callable[..., Any], *, is_async: bool, locked: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions: one that binds a function and returns it protected, and `call(function, *args, **kwargs)`."""
    steps = [_steps(lane, index, locked=locked) for index, lane in enumerate(lanes)]
    shape = (is_async, *((enter, leave) for enter, leave, _ in steps))
    names = {name: value for _, _, given in steps for name, value in given.items()}
    make = _compiled.get(shape)
    if make is None:
        source = _source([(enter, leave) for enter, leave, _ in steps], list(names), is_async)
        make = _compiled[shape] = _compile(source, f"<seawall frame {len(_compiled)}>")
    functions: tuple[Callable[..., Any], Callable[..., Any]] = make(unwind=unwind, lost=lost, **names)
    return functions


def _steps(lane: Lane, index: int, *, locked: bool) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """The lines of one layer with its names numbered, and what the names stand for."""
    fast = lane.fast
    if fast is None or locked:
        given = "args, kwargs" if lane.takes_call else ""
        fast = Fast(
            enter=(f"$t = $enter({given})",) if lane.enter is not None else (),
            leave=("$leave($t, now, result)",) if lane.leave is not None else (),
            names={"enter": lane.enter, "leave": lane.leave},
        )

    def numbered(line: str) -> str:
        # Longer names first, so that none is taken for the beginning of another.
        for name in sorted(["t", *fast.names], key=len, reverse=True):
            line = line.replace(f"${name}", f"{name}{index}")
        return line

    used = " ".join((*fast.enter, *fast.leave))
    names = {f"{name}{index}": value for name, value in fast.names.items() if f"${name}" in used}
    return tuple(map(numbered, fast.enter)), tuple(map(numbered, fast.leave)), names


def _compile(source: str, filename: str) -> Callable[..., Any]:
    import linecache  # noqa: PLC0415  # it compiles the regular expressions of `tokenize`: 5 ms of start-up

    # Tracebacks and debuggers show the text of the frame from here.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"clock": clock, "off": off, "LAZY": LAZY, "refuse_lazy": refuse_lazy}
    exec(compile(source, filename, "exec"), namespace)  # put together above, from nothing a user gives
    make: Callable[..., Any] = namespace["make"]
    return make


def _source(steps: list[tuple[tuple[str, ...], tuple[str, ...]]], names: list[str], is_async: bool) -> str:
    start, frame = "async def" if is_async else "def", _frame(steps, is_async)
    lines = [
        f"def make(unwind, lost, {', '.join(names)}):",
        "    def bind(function):",
        f"        {start} call(*args, **kwargs):",
        *(f"            {line}" for line in frame),
        "        return call",
        f"    {start} call(function, /, *args, **kwargs):",
        *(f"        {line}" for line in frame),
        "    return bind, call",
    ]
    return "\n".join(lines) + "\n"


def _frame(steps: list[tuple[tuple[str, ...], tuple[str, ...]]], is_async: bool) -> list[str]:
    wait = "await " if is_async else ""
    has_way_in = [bool(enter) for enter, _ in steps]

    def entered_from(index: int) -> int:
        """Layers without a way in count as entered together with the one before them."""
        while index < len(steps) and not has_way_in[index]:
            index += 1
        return index

    tokens = [f"t{index}" for index in range(len(steps))]
    lines = ["if off.everything:", f"    return {wait}function(*args, **kwargs)"]
    lines += [f"depth = {entered_from(0)}", f"{' = '.join(tokens)} = None", "try:"]
    for index, (enter, _) in enumerate(steps):
        if enter:
            lines += [f"    {line}" for line in (*enter, f"depth = {entered_from(index + 1)}")]
    # Handing an empty dict of keywords on costs more than asking whether there are any.
    lines.append(f"    result = {wait}(function(*args, **kwargs) if kwargs else function(*args))")
    if not is_async:
        lines += ["    if type(result) in LAZY:", "        refuse_lazy(result)"]
    if any("now" in line for _, leave in steps for line in leave):
        lines.append("    now = clock.now_ns()")
    for index in range(len(steps) - 1, -1, -1):
        leave = steps[index][1]
        if leave:
            lines += [f"    {line}" for line in (*leave, f"depth = {index}")]
    lines += [
        "    return result",
        "except BaseException as error:",
        f"    tokens = ({', '.join(tokens)},)",
        "    try:",
        f"        value, failure = {wait}unwind(depth, tokens, error, function, args, kwargs)",
        "    except (RecursionError, MemoryError):",
        # Nothing more can be called here; the next call that is in trouble gives back what this one held.
        "        lost((depth, tokens))",
        "        raise",
        "    if failure is None:",
        "        return value",
        "    try:",
        "        if failure is error:",
        "            raise",
        "        raise failure from failure.__cause__",
        "    finally:",
        # The error knows this frame; if the frame knew the error, only the collector could free them.
        "        del failure",
    ]
    return lines
