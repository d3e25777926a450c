"""`Memory()`: idle keys cost nothing, any number of keys costs no more than `max_keys`, and nobody is rid of his debt."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import FixedWindow, LeakyBucket, Limiter, Memory, RateLimited, SlidingLog, SlidingWindow, TokenBucket
from seawall.runtime import clock
from seawall.testing import VirtualClock
from tests.machines.effort import LONG
from tests.machines.limit_models import most_in

SECOND = 1_000_000_000
LIMITS = [TokenBucket("4/s"), FixedWindow("4/s"), SlidingWindow("4/s"), SlidingLog("4/s"), LeakyBucket("4/s")]
each_limit = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


def drawer_of(limiter: Limiter) -> Any:
    (drawer,) = limiter._table.drawers.values()
    return drawer


# -- idle keys ---------------------------------------------------------------------------------------------------------


@each_limit
def test_an_idle_key_costs_nothing(limit: Any) -> None:
    """Two turns later it is gone, without a timer; keys in use stay."""
    with VirtualClock() as time:
        limiter = Limiter(limit)
        for number in range(1_000):
            limiter.hit(f"{number}")
        for _ in range(25):
            limiter.hit("in use")
            time.advance(1)
        assert limiter.snapshot()["keys"][limit.name] == 1
        time.advance("8h")
        limiter.hit("another")
        assert limiter.snapshot()["keys"][limit.name] == 1


def test_a_key_is_kept_for_as_long_as_something_of_it_is_used() -> None:
    """Wherever in a turn it was used last."""
    for period in (1, 7, 30, 3600):
        for offset in range(0, 30, 3):
            for limit in (TokenBucket, SlidingWindow, SlidingLog, FixedWindow):
                with VirtualClock() as time:
                    limiter = Limiter(limit(f"2/{period}s"))
                    for _ in range(3):
                        limiter.hit("other")
                        time.advance(offset / 10 + 3)
                    limiter.hit("a", 2)
                    until = time.now_ns + round(limiter.peek("a").retry_after_ns)
                    refused = limiter.hit("a")
                    for step in range(7):
                        limiter.hit(f"other {step}")
                        time.advance(f"{max(0, until - 1 - time.now_ns) // 2}ns")
                        assert limiter.hit("a", 2).allowed is False, (limit, period, offset)
                    time.advance(f"{max(0, until - time.now_ns)}ns")
                    assert refused.retry_after_ns <= period * 1.2 * SECOND
                    limiter.hit(f"last {offset}")
                    time.advance(period * 1.2)
                    assert limiter.hit("a", 2).allowed


def test_a_civil_clock_that_is_set_back_does_not_keep_idle_keys() -> None:
    """Nor refuse anybody: `FixedWindow` follows it, its turns do not wait until it has caught up."""
    now = [clock.EPOCH_NS + 10**15]
    restore = clock.install(lambda: now[0] - clock.EPOCH_NS, lambda _: None, lambda: now[0])
    try:
        limiter = Limiter(FixedWindow("2/s"), store=Memory(max_keys=50))
        for number in range(40):
            limiter.hit(f"{number}")
        now[0] -= 3_600 * SECOND
        for second in range(60):
            now[0] += SECOND
            assert limiter.hit(f"new {second}").allowed
            assert limiter.hit("a").allowed
            assert limiter.hit("a").allowed
            assert not limiter.hit("a").allowed
        assert limiter.snapshot()["keys"]["FixedWindow"] <= 25
        assert limiter.snapshot()["spilled"] == {}
    finally:
        restore()


def test_keys_in_the_sketch_do_not_wait_for_a_civil_clock_that_was_set_back() -> None:
    """An hour back must not refuse them for an hour."""
    mono, wall = [10**15], [clock.EPOCH_NS]
    restore = clock.install(lambda: mono[0], lambda _: None, lambda: wall[0])
    try:
        limiter = Limiter(FixedWindow("2/s"), store=Memory(max_keys=1))
        limiter.hit("first")
        assert limiter.hit("second").allowed
        wall[0] -= 3_600 * SECOND
        mono[0] += SECOND
        limiter.hit("first")
        assert limiter.hit("second").allowed
        assert limiter.hit("third").allowed
    finally:
        restore()


@each_limit
def test_after_eight_hours_asleep_everything_is_fresh(limit: Any) -> None:
    with VirtualClock("1h") as time:
        for most in (1_000_000, 2):
            limiter = Limiter(limit, store=Memory(max_keys=most))
            for number in range(5):
                limiter.hit(f"{number}", 2 if limit.name != "LeakyBucket" else 1)
            time.advance("8h")
            for number in range(5):
                assert limiter.hit(f"{number}").allowed
            assert limiter.snapshot()["keys"][limit.name] <= min(5, most)


# -- many keys ---------------------------------------------------------------------------------------------------------


@each_limit
def test_no_more_keys_are_kept_than_may_be_by_whatever_way_they_come(limit: Any) -> None:
    """Hits, takes, reservations that are settled or expire."""
    with VirtualClock() as time:
        limiter = Limiter(limit, store=Memory(max_keys=10))
        for number in range(300):
            limiter.hit(f"hit {number}")
            try:
                limiter.take(f"take {number}", max_wait=0)
            except RateLimited:
                pass
            if not isinstance(limit, LeakyBucket):
                limiter.reserve(f"settled {number}").settle(2)
                if number % 40 == 0:
                    limiter.reserve(f"expired {number}", lasts=1)
            time.advance("10ms")
            assert limiter.snapshot()["keys"][limit.name] <= 10
        assert limiter.snapshot()["spilled"][limit.name] > 200


STEP = st.tuples(
    st.sampled_from(["hit", "hit", "hit", "take", "settle", "other"]),
    st.sampled_from("abc"),
    st.one_of(st.sampled_from([0, 0, SECOND // 4, 11 * SECOND, 25 * SECOND]), st.integers(0, 2 * SECOND)),
    st.integers(1, 4),
)


@LONG
@given(
    st.sampled_from(LIMITS[:-1]),
    st.sampled_from([1, 2, 5]),
    st.lists(STEP, max_size=40),
)
def test_no_key_is_ever_admitted_beyond_its_own_limit(
    limit: Any, most: int, trace: list[tuple[str, str, int, int]]
) -> None:
    """With and without room, in and out of the sketch, through turns, with costs settled afterwards (within what was
    held, which is set aside until then)."""
    with VirtualClock("1h") as time:
        limiter = Limiter(limit, store=Memory(max_keys=most))
        admitted: dict[str, list[tuple[int, int]]] = {key: [] for key in "abc"}
        for number, (step, key, pause, cost) in enumerate(trace):
            time.advance(f"{pause}ns")
            if step == "other":
                limiter.hit(f"other {number}")
            elif step == "settle":
                try:
                    held = limiter.reserve(key, cost)
                except RateLimited:
                    continue
                held.settle(cost)
                admitted[key].append((time.now_ns, cost))
            elif step == "take":
                try:
                    limiter.take(key, cost, max_wait=3)
                except RateLimited:
                    continue
                admitted[key].append((time.now_ns, cost))
            elif limiter.hit(key, cost).allowed:
                admitted[key].append((time.now_ns, cost))
        for events in admitted.values():
            if limit.name == "TokenBucket":
                most_in(events, lambda span: 4 + 4 * span / SECOND)  # type: ignore[arg-type,return-value]
            elif limit.name != "FixedWindow":
                most_in(events, lambda span: 4 * (1 + span // SECOND))  # type: ignore[arg-type,return-value]
            else:
                windows = [
                    sum(cost for at, cost in events if at // SECOND == window)
                    for window, _ in {(at // SECOND, 0) for at, _ in events}
                ]
                assert all(window <= 4 for window in windows)


@pytest.mark.parametrize("way", ["hit", "careful", "reserve"])
def test_room_again_is_no_fresh_start_for_whoever_used_up_his_limit(way: str) -> None:
    """A key in the sketch stays there until it owes nothing, though there is room for a state of its own."""
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket("60/min"), store=Memory(max_keys=2))
        limiter.hit("first")
        limiter.hit("second")
        time.advance(61)
        assert limiter.hit("attacker").allowed
        time.advance(58)
        assert limiter.hit("attacker", 60).allowed
        time.advance(2)
        assert limiter.hit("third").allowed
        assert limiter.snapshot()["keys"]["TokenBucket"] == 1, "there is room again"
        for second in range(2, 50):
            assert limiter.peek("attacker").remaining == second
            if way == "reserve":
                with pytest.raises(RateLimited):
                    limiter.reserve("attacker", second + 1)
            else:
                hit = limiter.hit if way == "hit" else limiter._hit
                assert not hit("attacker", second + 1).allowed
            time.advance(1)
        time.advance(120)
        limiter.hit("first")
        assert limiter.hit("attacker").allowed
        assert limiter.snapshot()["spilled"] == {}, "once nobody owes anything the sketch is given up"


def test_a_sketch_that_is_not_needed_any_more_is_given_up() -> None:
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket("4/s"), store=Memory(max_keys=3))
        for number in range(9):
            limiter.hit(f"{number}")
        assert drawer_of(limiter).spill is not None
        for _ in range(3):
            time.advance(11)
            limiter.hit("a")
        assert drawer_of(limiter).spill is None


def test_a_hundred_thousand_keys_more_cost_no_byte_more() -> None:
    """Flat under a flood, within and across turns; good keys in use all the time are never refused."""
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket("10/s"), store=Memory(max_keys=5_000))
        good = [f"good {number}" for number in range(50)]

        def flood(begin: int, count: int) -> int:
            refused = 0
            for number in range(begin, begin + count):
                limiter.hit(f"attack {number}")
                if number % 20 == 0:
                    refused += not limiter.hit(good[number // 20 % 50]).allowed
                    time.advance("2ms")
            return refused

        flood(0, 20_000)
        gc.collect()
        before = sys.getallocatedblocks()
        assert flood(20_000, 80_000) == 0
        gc.collect()
        # A key and its state are two blocks.
        assert sys.getallocatedblocks() - before < 2 * 5_000
        assert limiter.snapshot()["keys"]["TokenBucket"] <= 5_000
        assert drawer_of(limiter).spill._sketch._width == 1 << 17


def test_a_key_costs_at_most_150_bytes() -> None:
    """Of a hundred thousand with ten characters, as user numbers are; their text, rounded up as it is allocated."""
    limiter = Limiter(TokenBucket("100/s"))
    for number in range(100_000):
        limiter.hit(f"user:{number:05}")
    drawer = drawer_of(limiter)
    kept = [size for item in drawer.young.items() for each in item for size in (sys.getsizeof(each) + 15 & ~15,)]
    assert (sum(kept) + sys.getsizeof(drawer.young)) / 100_000 <= 150
    assert drawer.old == {}


def test_a_key_of_a_megabyte_is_not_kept() -> None:
    for limit in (TokenBucket("100/s"), SlidingWindow("100/s")):
        limiter = Limiter(limit)
        tracemalloc.start()
        try:
            for number in range(20):
                limiter.hit("x" * 10**6 + f"{number}")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 100_000


# -- in a forked child -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@each_limit
def test_a_child_does_not_inherit_a_lock_that_somebody_held(limit: Any) -> None:
    """Another thread was in the middle of a step, and one waited in line: both do not exist in the child."""
    # Slow, so that nothing comes back (no window ends) between what the parent does and what the child sees.
    limiter = Limiter(limit.replace(rate="4/h"), name="api")
    limiter.hit("a", limiter.peek("a").capacity)
    held = limiter.reserve("b", 3) if not isinstance(limit, LeakyBucket) else None
    ready, done = threading.Event(), threading.Event()

    def stay_inside() -> None:
        with limiter._table.changing, limiter._lines._lock:
            ready.set()
            done.wait(20)

    thread = threading.Thread(target=stay_inside)
    thread.start()
    assert ready.wait(20)
    try:
        code = _in_child(lambda: _works(limiter))
    finally:
        done.set()
        thread.join()
    assert code == 0
    if held is not None:
        assert held.settle(3), "what the child did is no business of the parent"


def _works(limiter: Limiter) -> bool:
    name, spec = next(iter(limiter.specs.items()))
    known = [limiter.hit("c").allowed, not limiter.hit("a").allowed, limiter.peek("b", 0).allowed]
    limiter.reset("a")
    known.append(limiter.hit("a").allowed)
    limiter.reconfigure(spec.replace(rate="9/h"))
    return all(known) and limiter.snapshot()["limits"][name].startswith(f"{spec.name}(rate='9/h'")


def _in_child(works: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            threading.Timer(15, lambda: os._exit(9)).start()
            code = 0 if works() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
