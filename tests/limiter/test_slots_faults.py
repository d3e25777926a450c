"""Many holders, a store that fails and is emptied, holders that are frozen: never more than so many who may count on it."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from seawall import ConcurrencyLimit, RateLimited
from seawall.limiter.slots import Slot
from seawall.machines.leases import LeaseRules
from seawall.runtime import clock
from seawall.testing import VirtualLoop, run
from tests.limiter.test_slots_renewed import Far

SEEDS = range(10 * int(os.environ.get("SEAWALL_MORE", "1")))
MOST = 3


class Watched(Far):
    """Looks after each step of any task whether there are too many."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[Slot] = []
        self.most = 0
        self.emptied = False

    def open_leases(self, limiter: str, rules: LeaseRules) -> Far:
        return self if hasattr(self, "rules") else super().open_leases(limiter, rules)

    def check(self) -> None:
        live = len(self.leases)
        assert self.leases.live(clock.now_ns()) <= MOST, f"{live} leases"
        sure = [slot for slot in self.slots if not slot.lost]
        # An emptied store has told nobody yet; all else is known by the clock.
        assert self.emptied or len(sure) <= MOST, f"{len(sure)} believe to be inside"
        self.most = max(self.most, len(sure))


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_never_more_than_so_many_may_count_on_their_slots_whatever_fails(seed: int, emptied: bool) -> None:
    far = Watched()
    far.emptied = emptied

    async def main() -> None:
        loop = VirtualLoop.current()
        random = loop.random
        limits = [ConcurrencyLimit(MOST, lease="1s", name="same", store=far) for _ in range(4)]

        async def hold(limit: ConcurrencyLimit) -> None:
            async with limit.slot("ann", max_wait=random.choice([0, 1, 5])) as slot:
                far.slots.append(slot)
                try:
                    await asyncio.sleep(random.choice([0, 0.01, 0.3, 1, 3]))
                finally:
                    far.slots.remove(slot)

        async def work(limit: ConcurrencyLimit) -> None:
            for _ in range(8):
                with contextlib.suppress(RateLimited, TimeoutError):
                    async with asyncio.timeout(random.choice([0.005, 0.015, 0.34, 2, 10])):
                        await hold(limit)
                await asyncio.sleep(random.choice([0, 0.05, 0.5]))

        async def trouble() -> None:
            for _ in range(12):
                await asyncio.sleep(random.random() * 2)
                kind = random.choice(["out", "frozen", "emptied" if emptied else "out"])
                if kind == "out":
                    far.out = True
                    await asyncio.sleep(random.choice([0.2, 0.9, 2]))
                    far.out = False
                elif kind == "frozen":
                    loop.block_ns(random.choice([300_000_000, 1_500_000_000]))
                else:
                    await limits[0].areset("ann")

        await asyncio.gather(trouble(), *(work(limit) for limit in limits for _ in range(2)))
        await asyncio.sleep(2)
        assert not far.inside, "all have left"
        assert not any(limit.snapshot()["waiting"] for limit in limits)

    run(main, seed=seed, after_step=far.check)
    assert far.most >= MOST, "it was tried"
