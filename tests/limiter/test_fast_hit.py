"""The short way of `hit` decides exactly as the careful one, and nothing can come in between its look and its writing."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import (
    Decision,
    FixedWindow,
    LeakyBucket,
    Limiter,
    Memory,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.runtime import clock
from seawall.stores import drawer, holds, looking, memory
from seawall.stores import fast_hit as module
from seawall.testing import VirtualClock
from tests.machines.effort import LONG
from tests.support.bytecodes import codes_of

SECOND = 1_000_000_000
SPECS = [
    TokenBucket("5/s"), TokenBucket("7/60s", burst=3), TokenBucket("1000000000/1ns"), FixedWindow("5/s"),
    SlidingWindow("5/2s"), SlidingLog("4/s"), LeakyBucket("3/s", queue=2), TokenBucket("9/s", burst=2, warm_up="10s"),
]  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("hit"), st.sampled_from(["a", "b", "c", "é" * 40, "x" * 65, b"a"]), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.just(""), st.sampled_from([0, 1, 10**8, SECOND, 9 * SECOND, 11 * SECOND, 25 * SECOND])),
    st.tuples(st.just("reset"), st.sampled_from("ab"), st.just(0)),
    st.tuples(st.sampled_from(["hold", "settle", "undo", "try"]), st.sampled_from("ab"), st.integers(1, 3)),
)  # fmt: skip


def shown(decision: Decision) -> tuple[Any, ...]:
    return (
        decision.allowed,
        decision.remaining,
        decision.retry_after_ns,
        decision.reset_after,
        decision.capacity,
        decision.cost,
        decision.limiter,
        decision.name,
    )


@LONG
@given(st.sampled_from(SPECS), st.sampled_from([1_000_000, 2]), st.lists(STEP, max_size=40))
def test_it_is_equal_to_the_careful_way(spec: Any, most: int, trace: list[tuple[str, Any, int]]) -> None:
    """The same hits at the same times get the same answers, whatever happens to the table in between."""
    with VirtualClock("1h") as time:
        ways = [Limiter(spec, name="api", store=Memory(max_keys=most)) for _ in range(2)]
        assert "hit" in vars(ways[0])
        del vars(ways[1])["hit"], vars(ways[1])["try_now"]
        held: list[list[Any]] = [[], []]
        last: list[Decision | None] = [None, None]
        for step, key, number in trace:
            told: list[Any] = []
            if step == "pass":
                time.advance(f"{number}ns")
            for which, limiter in enumerate(ways):
                cost = min(number, limiter.peek(key).capacity) if step != "pass" else 0
                if step in ("hit", "try"):
                    decision = limiter.hit(key, cost) if step == "hit" else limiter.try_now(key, cost)
                    last[which] = decision
                    told.append(shown(decision))
                elif step == "reset":
                    limiter.reset(key)
                elif step == "hold" and not isinstance(spec, LeakyBucket):
                    try:
                        held[which].append(limiter.reserve(key, cost, lasts=5))
                        told.append("held")
                    except Exception as error:
                        told.append(str(error))
                elif step == "settle" and held[which]:
                    told.append(held[which].pop().settle(cost))
                elif step == "undo" and last[which] is not None:
                    limiter.give_back(key, cost, last[which])  # type: ignore[arg-type]
                told.append(limiter.refused)
            assert told[: len(told) // 2] == told[len(told) // 2 :]
        assert ways[0].snapshot() == ways[1].snapshot()


def test_it_tells_of_each_refusal_and_takes_whatever_form_of_call() -> None:
    with VirtualClock():
        limiter = Limiter(TokenBucket("3/h"), name="api")
        assert [limiter.hit().allowed, limiter.hit(cost=1).allowed, limiter.hit(key="").allowed] == [True] * 3
        assert not limiter.hit("", 1).allowed
        assert not limiter.hit(key="", cost=1).allowed
        assert not limiter.try_now().allowed
        assert limiter.refused == 2, "who only tries was not refused"


def test_a_limiter_with_several_limits_or_in_shadow_has_no_short_way() -> None:
    assert "hit" not in vars(Limiter({"a": TokenBucket("3/h"), "b": TokenBucket("3/h")}))
    assert "hit" not in vars(Limiter(TokenBucket("3/h"), shadow=True))


# -- nothing in between ------------------------------------------------------------------------------------------------

CALLS = {
    name for name in dis.opname if name.startswith(("CALL", "JUMP_BACKWARD", "RESUME", "SEND", "YIELD", "FOR_ITER"))
}
"""Where the interpreter may change threads, run a signal handler, or (from 3.12 on) the garbage collector."""


def between(
    code: CodeType, first: Callable[[dis.Instruction], bool], last: Callable[[dis.Instruction], bool]
) -> list[str]:
    """The instructions from one to the other, without those of exception handlers."""
    names: list[str] = []
    inside = False
    for each in dis.get_instructions(code):
        inside = inside or first(each)
        if inside:
            names.append(each.opname)
            if last(each):
                return names
    raise AssertionError("the section was not found")


def test_no_call_and_no_jump_back_from_the_look_to_the_writing() -> None:
    """In the bytecode of whatever interpreter this is: so the lockless way is one step to everybody else."""
    hit = Limiter(TokenBucket("3/h")).hit.__code__
    section = between(
        hit, lambda each: each.argval == "careful" and "ATTR" in each.opname, lambda each: each.opname == "STORE_SUBSCR"
    )
    # The two ways out to the careful way are calls, behind a return: they are not on the way.
    straight = _without_returns(hit, section)
    assert not CALLS & set(straight), straight
    assert "STORE_SUBSCR" in straight
    commit = between(
        drawer.Drawer.put.__code__,
        lambda each: each.opname == "CONTAINS_OP",
        lambda each: each.opname == "STORE_SUBSCR",
    )
    assert not CALLS & set(_without_returns(drawer.Drawer.put.__code__, commit)), commit
    other = Limiter(SlidingLog("3/h")).hit.__code__
    section = between(other, lambda each: each.opname == "CONTAINS_OP", lambda each: each.opname == "STORE_SUBSCR")
    assert not CALLS & set(section), section


def _without_returns(code: CodeType, section: list[str]) -> list[str]:
    """Drop the stretches that end in a return: what runs there does not come back."""
    kept: list[str] = []
    stretch: list[str] = []
    for name in section:
        stretch.append(name)
        if name.startswith("RETURN"):
            stretch = []
        elif name.startswith("POP_JUMP") or name == "STORE_SUBSCR":
            kept += stretch
            stretch = []
    return kept


@contextmanager
def intruding(files: set[str], at: int, intrude: Callable[[], object]) -> Iterator[list[int]]:
    """Run `intrude` once, at the `at`-th place where a finalizer or signal handler could run in code of `files`.

    That is behind a call and behind a jump backwards, and at the beginning of a function.
    """
    places = [0]
    before: dict[FrameType, str] = {}
    busy = False
    names: dict[CodeType, dict[int, str]] = {}

    def step(frame: FrameType, offset: int) -> None:
        nonlocal busy
        if busy:
            return
        if frame.f_code not in names:
            names[frame.f_code] = {each.offset: each.opname for each in dis.get_instructions(frame.f_code)}
        came_from = before.get(frame, "RESUME")
        before[frame] = names[frame.f_code][offset]
        if came_from in CALLS:
            places[0] += 1
            if places[0] == at:
                busy = True
                intrude()
                busy = False

    with stepping(files, step):
        yield places


if sys.version_info >= (3, 12):

    @cache
    def _codes_of(files: frozenset[str]) -> list[CodeType]:
        return codes_of(files)

    @contextmanager
    def stepping(files: set[str], step: Callable[[FrameType, int], None]) -> Iterator[None]:
        """Call `step(frame, offset)` before each bytecode in code of `files`."""
        monitoring, tool, event = sys.monitoring, 5, sys.monitoring.events.INSTRUCTION
        codes = _codes_of(frozenset(files))
        monitoring.use_tool_id(tool, "intruding")
        monitoring.register_callback(tool, event, lambda _code, offset: step(sys._getframe(1), offset))
        for code in codes:
            monitoring.set_local_events(tool, code, event)
        try:
            yield
        finally:
            for code in codes:
                monitoring.set_local_events(tool, code, 0)
            monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)

else:

    @contextmanager
    def stepping(files: set[str], step: Callable[[FrameType, int], None]) -> Iterator[None]:
        """As above, where there is no `sys.monitoring`."""

        def opcode(frame: FrameType, event: str, _: Any) -> Any:
            if event == "opcode":
                step(frame, frame.f_lasti)
            return opcode

        def call(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return opcode

        sys.settrace(call)
        try:
            yield
        finally:
            sys.settrace(None)


INSIDE = {each.__file__ for each in (module, memory, looking, drawer, holds)}
SINGLE = [TokenBucket("5/h"), SlidingWindow("5/h"), FixedWindow("5/h"), SlidingLog("5/h")]


INTRUSIONS = [(spec, "hit", fresh) for spec in SINGLE for fresh in (False, True)]
INTRUSIONS += [(spec, what, True) for spec in SINGLE[:2] for what in ("settle", "cancel", "reset other", "give back")]


@pytest.mark.parametrize(("spec", "what", "fresh"), INTRUSIONS, ids=lambda value: getattr(value, "name", value))
def test_a_finalizer_in_the_midst_of_a_hit_is_not_lost_and_loses_nothing(spec: Any, what: str, fresh: bool) -> None:
    """At every place where one could run, in the very thread that is in the middle of a step."""
    at = 0
    while True:
        at += 1
        with VirtualClock("1h"):
            limiter = Limiter(spec)
            if not fresh:
                limiter.hit("a", 1)
            held = limiter.reserve("a", 2) if what in ("settle", "cancel") else None
            taken = limiter.hit("a", 1) if what == "give back" else None
            level = 5 - limiter.peek("a").remaining - (2 if held else 0)
            inner: list[bool] = []

            def intrude() -> None:
                if what == "hit":
                    inner.append(limiter.hit("a", 2).allowed)
                elif what == "reset other":
                    limiter.reset("b")
                    limiter.hit("c")
                elif what == "give back":
                    assert taken is not None
                    limiter.give_back("a", 1, taken)
                elif held is not None:
                    assert held.settle(1) if what == "settle" else held.cancel()

            with intruding(INSIDE, at, intrude) as places:
                outer = limiter.hit("a", 3).allowed
            if places[0] < at:
                break
            level += 3 * outer + 2 * sum(inner) + (what == "settle") - (what == "give back")
            assert level <= 5, "more was admitted than there is"
            assert 5 - limiter.peek("a").remaining == level, f"something was lost at place {at}"
            assert limiter.snapshot()["holds"] == 0
            assert limiter._table.careful is False
            assert limiter._table.changing.depth == 0
    assert at > 2


@pytest.mark.parametrize("what", ["hit", "reserve", "settle"])
@pytest.mark.parametrize("outer", ["reserve", "settle", "expiry", "slot"])
def test_a_finalizer_in_the_midst_of_another_step_loses_nothing(outer: str, what: str) -> None:
    """Neither a hold that is set aside, nor one that is settled, nor a slot that is handed out."""
    at = 0
    while True:
        at += 1
        with VirtualClock("1h"):
            slots = outer == "slot"
            limiter = Limiter(LeakyBucket("1/h", queue=4) if slots else TokenBucket("5/h"))
            if not slots:
                limiter.hit("a", 0)
            mine = limiter.reserve("a", 3, lasts=1) if outer in ("settle", "expiry") else None
            if outer == "expiry":
                clock.sleep_ns(SECOND)
            another = limiter.reserve("a", 1) if what == "settle" and not slots else None
            inner: list[Any] = []

            def intrude() -> None:
                if another is not None:
                    assert another.settle(0)
                elif slots:
                    inner.append(limiter._memory.queue_up("a", 2, None)[1])
                elif what == "hit":
                    inner.append(2 if limiter.hit("a", 2).allowed else 0)
                else:
                    try:
                        inner.append(sum(limiter.reserve("a", 2).costs.values()))
                    except RateLimited:
                        inner.append(0)

            used = 0
            with intruding(INSIDE, at, intrude) as places:
                if outer == "reserve":
                    try:
                        used = sum(limiter.reserve("a", 4).costs.values())
                    except RateLimited:
                        pass
                elif mine is not None:
                    used = 3
                    assert limiter.peek("a").allowed or inner if outer == "expiry" else mine.settle(3)
                else:
                    used = limiter._memory.queue_up("a", 1, None)[1]
            if places[0] < at:
                break
            if slots:
                hour = 3_600 * SECOND
                assert (used, inner[0]) in ((0, hour), (2 * hour, 0)), "one slot was handed out twice"
                assert limiter.peek("a").retry_after_ns == 3 * hour
            else:
                assert used + sum(inner) <= 5
                assert limiter.peek("a", 0).remaining == 5 - used - sum(inner), at
                assert limiter.snapshot()["holds"] == (outer == "reserve" and used > 0) + (
                    what == "reserve" and sum(inner) > 0
                )
    assert at > 20


def test_a_finalizer_in_the_midst_of_several_limits_loses_nothing() -> None:
    at = 0
    while True:
        at += 1
        with VirtualClock("1h"):
            limiter = Limiter({"x": TokenBucket("9/h"), "y": SlidingLog("9/h"), "z": FixedWindow("9/h")})
            inner: list[bool] = []
            with intruding(
                INSIDE, at, lambda: inner.append(limiter.hit("a", {"x": 1, "y": 2, "z": 3}).allowed)
            ) as places:
                assert limiter.hit("a", 2).allowed
            if places[0] < at:
                break
            assert inner == [True]
            parts = limiter.peek("a", 0).parts
            assert {name: 9 - part.remaining for name, part in parts.items()} == {"x": 3, "y": 4, "z": 5}, at
    assert at > 50


class Abandoned:
    """A circle that hits the limiter when the collector finds it."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.me = self

    def __del__(self) -> None:
        with self.limiter.guard("finalized"):
            pass
        self.limiter.reserve("finalized", 2).settle(1)


@pytest.mark.parametrize(
    "spec",
    [
        TokenBucket("1/d", burst=3_000),
        SlidingWindow("1000000/d"),
        {"x": TokenBucket("1/d", burst=3_000), "y": FixedWindow("1000000/d")},
    ],
)
def test_the_collector_may_run_whenever_it_likes(spec: Any) -> None:
    """Finalizers that use the limiter while it is used: no deadlock, and every one is counted."""
    limiter = Limiter(spec)
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(7, 2, 2)
    try:
        for number in range(600):
            Abandoned(limiter)
            assert limiter.hit("a").allowed
            assert limiter.hit(f"key {number}").allowed
            limiter.reserve("b").settle(1)
        gc.collect()
    finally:
        gc.set_threshold(*thresholds)
    used = {key: limiter.peek(key).capacity - limiter.peek(key).remaining for key in ("a", "b", "finalized")}
    assert used == {"a": 600, "b": 600, "finalized": 1_200}


def test_the_civil_clock_is_read_when_the_lock_is_held() -> None:
    """Whoever waited for the lock while the minute passed must not wipe out the count of the new one."""
    now = [clock.EPOCH_NS]
    restore = clock.install(lambda: now[0], lambda _: None, lambda: now[0])
    try:
        limiter = Limiter(FixedWindow("3/s"))
        limiter.hit("a")
        lock = limiter._table.lock

        class Slow:
            def __enter__(self) -> None:
                lock.acquire()
                # While this one waited, another thread hit in the next window.
                limiter._table.lock = lock
                now[0] = clock.EPOCH_NS + SECOND
                assert limiter.hit("a", 3).allowed
                limiter._table.lock = self  # type: ignore[assignment]

            def __exit__(self, *_: object) -> None:
                lock.release()

            acquire, release = lock.acquire, lock.release

        limiter._table.lock = Slow()  # type: ignore[assignment]
        assert not limiter.hit("a").allowed
        limiter._table.lock = lock
        assert limiter.peek("a").remaining == 0
    finally:
        restore()
