"""The embedded store keeps the contract, in threads' way and in asyncio's, and agrees with the model."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from seawall.outbox.sqlite import SqliteStore
from seawall.runtime import clock
from tests.outbox.benches import SECOND, Bench
from tests.outbox.store_contract import CONTRACT

NUMBERS = itertools.count()


class Fresh:
    """Stores with a file of their own each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, **settings: Any) -> SqliteStore:
        # What a step does is the same; that it lasts is shown elsewhere.
        return SqliteStore(str(self._directory / f"outbox-{next(NUMBERS)}.db"), synchronous="normal", **settings)


class RealLoopBench(Bench):
    """On asyncio's own loop, with the threads that work for it; hours pass by setting the clock on."""

    def __init__(self, make: Any) -> None:
        super().__init__(make, is_async=True)
        self._passed_ns = 0

    async def passes(self, seconds: float) -> None:
        self._passed_ns += round(seconds * SECOND)

    def run(self, scenario: Any) -> None:
        real = clock.now_ns

        async def main() -> None:
            self.fresh()
            await scenario(self)
            await self.open.close()

        def now() -> int:
            return real() + self._passed_ns

        restore = clock.install(now, clock.sleep_ns, lambda: clock.EPOCH_NS + now() + self._jump_ns)
        try:
            asyncio.run(main())
        finally:
            restore()


@pytest.mark.parametrize("scenario", CONTRACT, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("kind", ["sync", "virtual", "async"])
def test_the_contract(scenario: Any, kind: str, tmp_path: Path) -> None:
    make = Fresh(tmp_path)
    bench = RealLoopBench(make) if kind == "async" else Bench(make, is_async=kind == "virtual")
    bench.run(scenario)
