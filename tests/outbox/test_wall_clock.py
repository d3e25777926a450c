"""The civil clock follows virtual time, and may be made to jump without moving the monotonic one."""

from __future__ import annotations

import asyncio

from seawall.runtime import clock
from seawall.testing import VirtualClock, run


def test_the_civil_clock_goes_with_virtual_time() -> None:
    with VirtualClock(start="5s") as time:
        assert clock.wall_ns() == clock.EPOCH_NS + 5_000_000_000
        time.advance("1h")
        assert clock.wall_ns() == clock.EPOCH_NS + 3_605_000_000_000


def test_it_goes_with_a_virtual_loop_and_the_real_one_comes_back() -> None:
    real = clock.wall_ns

    async def main() -> int:
        await asyncio.sleep(60)
        return clock.wall_ns()

    assert run(main) == clock.EPOCH_NS + 60_000_000_000
    assert clock.wall_ns is real


def test_a_civil_clock_of_its_own_may_jump() -> None:
    shift = 0
    with VirtualClock() as time:
        restore = clock.install(clock.now_ns, clock.sleep_ns, lambda: clock.EPOCH_NS + time.now_ns + shift)
        try:
            before = clock.now_ns()
            shift = -3_600_000_000_000
            assert clock.wall_ns() == clock.EPOCH_NS - 3_600_000_000_000
            assert clock.now_ns() == before
        finally:
            restore()
        assert clock.wall_ns() == clock.EPOCH_NS
