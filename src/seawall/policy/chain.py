"""What happens to a call when it is not plainly healthy: one text for threads and for asyncio.

`attempt` passes the layers one by one, as the healthy frame does in one go. `unwind` is entered with an error in hand
and the tokens of the layers passed so far; it asks the layers, innermost first, what they make of it. Both are
coroutines that await only the runtime; a synchronous call drives them with a runtime that never suspends.

They hand results on as `(value, None)` or `(None, error)` and do not raise: an error keeps the traceback it was
born with, and a function may even raise `StopIteration`.

Before a guard waits, the guards directly around it (back to the nearest driver) are undone, so that nobody holds a
probe or a permit in a queue; after the wait admission starts again there, with the place in hand. Places are kept
only of guards further inside than the one waited for, so two callers never wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from seawall.policies.layer import Call, Ending, Lane, Live, MustWait
from seawall.runtime import clock

__all__ = ["Chain"]


class Chain:
    """The live layers of a policy with their lanes, for one runtime."""

    __slots__ = ("_segment", "lanes", "layers")

    def __init__(self, layers: Sequence[Live], *, is_async: bool) -> None:
        self.layers = tuple(layers)
        self.lanes: tuple[Lane, ...] = tuple(layer.lane(is_async=is_async) for layer in layers)
        self._segment: list[int] = []
        start = 0
        for index, layer in enumerate(self.layers):
            self._segment.append(start)
            if not layer.is_guard:
                start = index + 1

    async def attempt(self, call: Call, start: int, places: dict[int, Any] | None = None) -> Ending:
        """Run the layers from `start` inwards, and the function."""
        tokens: list[Any] = []
        depth = start
        held = {} if places is None else places
        try:
            while depth < len(self.layers):
                layer, lane = self.layers[depth], self.lanes[depth]
                if layer.wraps:
                    tokens.append(None)
                    depth += 1
                    value, error = await layer.around(call, partial(self.attempt, call, depth))
                    break
                tokens.append(held.pop(depth) if depth in held else _enter(lane, call))
                depth += 1
            else:
                value, error = await call.leaf(call)
        except BaseException as raised:  # noqa: BLE001  # travels on as a value
            value, error = None, raised
        try:
            return await self.unwind(call, start, depth, tokens, value, error, held)
        finally:
            # An error knows the frames it came through; a frame that knows the error makes a circle for the collector.
            del error

    async def unwind(
        self,
        call: Call,
        start: int,
        depth: int,
        tokens: Sequence[Any],
        value: Any,
        error: BaseException | None,
        held: dict[int, Any],
    ) -> Ending:
        """Leave the layers from `depth` back to `start`; `tokens[i]` is that of layer `start + i`."""
        if isinstance(error, MustWait):
            value, error, depth = await self._wait(call, start, depth, tokens, held)
        for index, place in held.items():
            self.layers[index].undo(place)
        for index in range(depth - 1, start - 1, -1):
            token = tokens[index - start]
            try:
                if error is None:
                    _leave(self.lanes[index], token, value)
                    continue
            except BaseException as raised:  # noqa: BLE001  # the layer does not accept it; it travels on as a value
                error = raised
            layer = self.layers[index]
            try:
                if layer.is_guard:
                    layer.note(call, token, error)
                else:
                    value, error = await layer.failed(call, token, error, partial(self.attempt, call, index + 1))
            except BaseException as raised:  # noqa: BLE001  # travels on as a value
                value, error = None, raised
        try:
            return value, error
        finally:
            del error  # as in `attempt`

    async def _wait(
        self, call: Call, start: int, depth: int, tokens: Sequence[Any], held: dict[int, Any]
    ) -> tuple[Any, BaseException | None, int]:
        """The guard at `depth` wants to wait; returns how the call went on, and how far the layers are left."""
        first = max(start, self._segment[depth])
        passed = [(self.layers[index], tokens[index - start]) for index in range(first, depth)]
        staying = [(layer, token) for layer, token in passed if not layer.undoable]
        for layer, token in reversed(passed):
            if layer.undoable:
                layer.undo(token)
        try:
            place = await self.layers[depth].wait(call)
        except BaseException as raised:  # noqa: BLE001  # travels on as a value
            for layer, token in reversed(staying):
                layer.note(call, token, raised)
            return None, raised, first
        places = {**held, depth: place}
        held.clear()
        value, error = await self.attempt(call, first, places)
        return value, error, first


def _enter(lane: Lane, call: Call) -> Any:
    if lane.enter is None:
        return None
    return lane.enter(call.args, call.kwargs) if lane.takes_call else lane.enter()


def _leave(lane: Lane, token: Any, value: Any) -> None:
    if lane.leave is not None:
        lane.leave(token, clock.now_ns(), value)
