"""The thread scheduler finds planted races in a few seeds, passes sound code, and replays a seed exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from seawall.runtime import clock
from tests.support.threads import Interleave, Stuck, explore
from tests.testing import planted

World = tuple[Sequence[Callable[[], object]], Callable[[], object]]


def expect(condition: bool, message: str = "") -> None:
    assert condition, message


def counting(make: Callable[[], planted.Counter]) -> Callable[[], World]:
    def build() -> World:
        counter = make()
        return [counter.add] * 3, lambda: expect(counter.value == 3, f"counted {counter.value}")

    return build


def paying(make: Callable[[int], planted.Till]) -> Callable[[], World]:
    def build() -> World:
        till = make(2)
        return [till.take] * 3, lambda: expect(till.coins == 0, f"{till.coins} coins")

    return build


@pytest.mark.parametrize("broken", [counting(planted.Counter), paying(planted.Till)], ids=["lost update", "check-act"])
def test_a_planted_race_is_found_within_50_seeds(broken: Callable[[], World]) -> None:
    with pytest.raises(AssertionError) as caught:
        explore(broken, trace=[planted], seeds=range(50))
    assert "replay: explore(..., seeds=[" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("sound", [counting(planted.LockedCounter), paying(planted.LockedTill)])
def test_the_locked_twin_passes_every_seed(sound: Callable[[], World]) -> None:
    assert explore(sound, trace=[planted], seeds=range(200)) == 200


def outcome(seed: int) -> tuple[int, str, int]:
    interleave = Interleave(seed, [planted])
    with interleave.patched():
        counter = planted.Counter()
        interleave.run([counter.add] * 3)
    return counter.value, interleave.schedule, interleave.points


def test_the_same_seed_replays_the_same_switches() -> None:
    for seed in range(6):
        assert outcome(seed) == outcome(seed)


def test_seeds_differ() -> None:
    assert len({outcome(seed)[1] for seed in range(8)}) > 4


def test_every_bytecode_is_a_place_to_switch() -> None:
    assert outcome(0)[2] >= 3 * 5, "three threads, at least five bytecodes each"


def test_a_lock_order_deadlock_is_found_with_the_stacks() -> None:
    def build() -> World:
        left, right = threading.Lock(), threading.Lock()
        return [lambda: planted.both_ways(left, right), lambda: planted.both_ways(right, left)], lambda: None

    with pytest.raises(Stuck, match="deadlock") as caught:
        explore(build, trace=[planted], seeds=range(50))
    assert str(caught.value).count("in both_ways") == 2


def test_a_wait_that_nobody_ends_is_a_deadlock_even_when_the_others_are_done() -> None:
    def build() -> World:
        event = threading.Event()
        return [event.wait, lambda: None], lambda: None

    with pytest.raises(Stuck, match="deadlock"):
        explore(build, trace=[planted], seeds=[0])


def test_conditions_hand_over_and_keep_every_letter() -> None:
    def build() -> World:
        box = planted.Mailbox()
        got: list[str | None] = []
        readers = [lambda: got.append(box.get())] * 2
        writers = [lambda: box.put("a"), lambda: box.put("b")]
        return [*readers, *writers], lambda: expect(sorted(map(str, got)) == ["a", "b"], str(got))

    assert explore(build, trace=[planted], seeds=range(40)) == 40


def test_time_passes_only_when_nobody_can_run() -> None:
    interleave = Interleave(1, [planted])
    with interleave.patched():
        box = planted.Mailbox()
        begun = clock.now_ns()
        late = interleave.run([lambda: box.get(timeout=2.0), lambda: clock.sleep_ns(1_500_000_000)])
        assert late == [None, None]
        assert clock.now_ns() - begun == 2_000_000_000


def test_the_librarys_wait_ends_as_soon_as_it_may() -> None:
    interleave = Interleave(2, [planted])
    with interleave.patched():
        gate = threading.Lock()
        gate.acquire()

        def open_later() -> None:
            clock.sleep_ns(100)
            gate.release()

        def wait() -> tuple[bool, int]:
            return clock.wait_for(gate, 5_000), clock.now_ns()

        assert interleave.run([wait, open_later]) == [(True, 100), None]


def test_hasty_waits_may_time_out_although_others_could_go_on() -> None:
    def timed_out(seed: int) -> bool:
        interleave = Interleave(seed, [planted], hasty=True)
        with interleave.patched():
            box = planted.Mailbox()
            return interleave.run([lambda: box.get(timeout=5.0), lambda: box.put("a")])[0] is None

    # As many seeds as it takes; generators are lazy.
    assert any(timed_out(seed) for seed in range(60))
    assert not all(timed_out(seed) for seed in range(60))


def test_an_error_in_a_thread_is_raised_with_the_seed() -> None:
    def build() -> World:
        def fail() -> None:
            raise KeyError("lost")

        return [fail, lambda: None], lambda: None

    with pytest.raises(KeyError) as caught:
        explore(build, trace=[planted], seeds=[7])
    assert "seed 7" in "".join(caught.value.__notes__)


def test_a_thread_that_never_ends_is_stopped() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def spin():\n    while True: pass\n", "<spin>", "exec"), namespace)
    with pytest.raises(Stuck, match="no end after"):
        explore(lambda: ([namespace["spin"]], lambda: None), trace=["<spin>"], seeds=[0], max_points=5_000)


def test_everything_is_put_back() -> None:
    before = threading.Lock, threading.RLock, clock.now_ns, clock.wait_for
    explore(counting(planted.LockedCounter), trace=[planted], seeds=[0])
    assert (threading.Lock, threading.RLock, clock.now_ns, clock.wait_for) == before
