"""Virtual time for synchronous code moves by sleeps and by hand, and only in its block."""

from __future__ import annotations

import threading

import pytest

from seawall.errors import ConfigError
from seawall.runtime import clock
from seawall.testing import VirtualClock


def test_sleeps_return_at_once_move_time_and_are_recorded() -> None:
    with VirtualClock(start="2s") as time:
        clock.sleep_ns(500_000_000)
        clock.sleep_ns(0)
        time.advance("1min")
        assert (clock.now_ns(), time.now_ns, time.now) == (62_500_000_000, 62_500_000_000, 62.5)
    assert time.sleeps == [0.5, 0.0]


def test_the_real_clock_is_put_back_even_after_an_error() -> None:
    before = clock.now_ns, clock.sleep_ns
    with pytest.raises(KeyError), VirtualClock():
        raise KeyError
    assert (clock.now_ns, clock.sleep_ns) == before


def test_it_never_goes_back() -> None:
    with VirtualClock() as time, pytest.raises(ConfigError, match="duration=-1"):
        time.advance(-1)


def test_it_cannot_be_entered_twice_at_once_but_again_later() -> None:
    time = VirtualClock()
    with time, pytest.raises(RuntimeError, match="already in place"):
        time.__enter__()
    with time:
        clock.sleep_ns(1)
    assert time.now_ns == 1


def test_clocks_nest() -> None:
    with VirtualClock() as outer:
        with VirtualClock(start=100) as inner:
            clock.sleep_ns(1)
        clock.sleep_ns(2)
    assert (outer.now_ns, inner.now_ns) == (2, 100_000_000_001)


def sleep_often() -> None:
    for _ in range(500):
        clock.sleep_ns(1)


def test_sleeps_of_many_threads_all_count() -> None:
    with VirtualClock() as time:
        threads = [threading.Thread(target=sleep_often) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.now_ns == len(time.sleeps) == 4_000
