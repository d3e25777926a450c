"""The hit of a limiter in memory with one limit, in one frame.

For `TokenBucket`, the usual one, the rule of machines/token_bucket.py is written out once more, and takes no lock:
from the look at `table.careful` to the new state in the dictionary there is no call and no jump backwards, so that the
interpreter neither changes threads nor begins a finalizer in between. Whoever does anything else to the table sets
`careful` first. Where the interpreter has no lock of its own, and for all other limits, the lock of the table is taken.

Whatever is unusual (costs that cannot be, holds, a line of waiting callers, a key that is new, long, or was not used
for a while) goes the careful way; a property test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seawall.machines.token_bucket import TokenBucket
from seawall.runtime import clock, off
from seawall.runtime.section import LOCKED
from seawall.stores.decision import Decision

if TYPE_CHECKING:
    from seawall.stores.drawer import Drawer
    from seawall.stores.memory import MemoryTable

__all__ = ["fast_hit", "is_long"]

Hit = Callable[..., Decision]
LONGEST_KEY = 64


def is_long(key: str) -> bool:
    """Whether a key is kept as a keyed hash: if it has more than 64 bytes."""
    if len(key) <= LONGEST_KEY // 4:
        return False
    return len(key) > LONGEST_KEY or not (key.isascii() or len(key.encode("utf-8", "surrogatepass")) <= LONGEST_KEY)


def fast_hit(
    table: MemoryTable, lines: Mapping[str, object], careful: Hit, refused: Callable[[Decision], object]
) -> Hit | None:
    """The closure, or None if the limiter has several limits.

    `lines` are those who wait; `careful` is the whole way; `refused` is told of each refusal.
    """
    if len(table.drawers) != 1:
        return None
    drawer: Drawer = next(iter(table.drawers.values()))
    if isinstance(drawer.limit, TokenBucket) and not LOCKED:
        return _bucket_hit(table, drawer, drawer.limit, lines, careful, refused)
    return _any_hit(table, drawer, lines, careful, refused)


def _bucket_hit(
    table: MemoryTable,
    drawer: Drawer,
    limit: TokenBucket,
    lines: Mapping[str, object],
    careful: Hit,
    refused: Callable[[Decision], object],
) -> Hit:
    per_ns, per_token, full, burst = limit.per_ns, limit.per_token, limit.full, limit.burst
    origin, one = drawer.origin, 1
    nothing: dict[str, int] = {}
    make: type[Decision] = Decision

    def first(key: str, need: int, now: int) -> tuple[int | None, bool] | None:
        """The hit of a key that is not among the younger ones; None if it has to go the careful way."""
        if is_long(key):
            return None
        with table.changing:
            if table.holds.by_key or lines or drawer.origin is not origin:
                return None
            state = drawer.find(key, now)
            if state is None and (drawer.spill is not None or not drawer.has_room()):
                return None
            v = now * per_ns
            after = (v if state is None else max(v, state)) + need
            if after - v > full:
                return state, False
            return (after, True) if drawer.put(key, state, after) else None

    def hit(key: Any = "", cost: Any = 1) -> Decision:
        need = per_token
        if cost is not one:
            if cost.__class__ is not int or not 0 < cost <= burst:
                return careful(key, cost)
            need = cost * per_token
        if off.everything or key.__class__ is not str:
            return careful(key, cost)
        now = clock.now_ns()
        v = now * per_ns
        # From here on no call and no jump backwards, until the state is written.
        if table.careful or lines or drawer.origin is not origin:
            return careful(key, cost)
        try:
            young = drawer.young if now < drawer.turn_ns else nothing
            state = young[key]
            after = (v if state < v else state) + need  # noqa: FURB136  # max() would be a call
            allowed = after - v <= full
            if allowed:
                young[key] = state = after
        except KeyError:
            found = first(key, need, now)
            if found is None:
                return careful(key, cost)
            state, allowed = found
        decision = make()
        decision.allowed = allowed
        decision.cost = cost
        decision.origin = origin
        decision.state = state
        decision.now_ns = now
        if not allowed:
            refused(decision)
        return decision

    return hit


def _any_hit(
    table: MemoryTable,
    drawer: Drawer,
    lines: Mapping[str, object],
    careful: Hit,
    refused: Callable[[Decision], object],
) -> Hit:
    limit = drawer.limit
    take, capacity, is_civil = limit.take, limit.capacity, limit.civil
    origin = drawer.origin
    make: type[Decision] = Decision

    def hit(key: Any = "", cost: Any = 1) -> Decision:
        if type(key) is not str or len(key) > LONGEST_KEY or type(cost) is not int or not 0 < cost <= capacity:
            return careful(key, cost)
        if lines or off.everything:
            return careful(key, cost)
        after = state = None
        with table.lock:
            # The civil clock may pass into the next window while one waits for the lock, so it is read inside.
            now = clock.wall_ns() if is_civil else clock.now_ns()
            if not table.careful and drawer.origin is origin and now < drawer.turn_ns:
                state = drawer.young.get(key)
                if state is not None:
                    after = take(state, now, cost)
                    young = drawer.young
                    # A finalizer that ran in between may have counted something: no call from here to the writing.
                    if after is not None and key in young and young[key] is state:
                        young[key] = after
                    elif after is not None:
                        state = None
        if state is None:
            return careful(key, cost)
        decision = make()
        decision.allowed = allowed = after is not None
        decision.cost = cost
        decision.origin = origin
        decision.state = after if allowed else state
        decision.now_ns = now
        if not allowed:
            refused(decision)
        return decision

    return hit
