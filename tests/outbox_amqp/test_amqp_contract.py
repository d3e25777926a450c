"""The contract of stores, as far as a broker can keep it, in threads' way and in asyncio's.

Time is real here, since the broker's is: four seconds of the test pass in one, and what waits in the broker waits a
quarter as long. Where only leases run out, the clock is set instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from seawall.outbox.amqp import AmqpStore, topology
from seawall.outbox.store import Lease
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from tests.outbox.benches import SECOND, Bench
from tests.outbox.store_contract import CONTRACT
from tests.outbox_amqp.brokers import Broker
from tests.outbox_amqp.conftest import end

pytestmark = pytest.mark.once
SPEED = 4
ORDER = "no order keys: refused, see test_amqp_refusals.py"
NOT_KEPT = {
    "a_record_comes_back_as_it_was_put": "it has an order key; all else is tested in test_amqp_store.py",
    "higher_priority_goes_first_then_earlier_due": "bands of priority, by arrival; see test_amqp_store.py",
    "lease_says_when_to_ask_again": "other processes may put at any time: it always says to ask again",
    "putting_an_id_again_changes_nothing": "a broker does not know ids: it is there twice, with one key",
    "work_with_one_order_key_is_done_one_after_another": ORDER,
    "an_order_key_holds_up_nothing_but_its_own": ORDER,
    "neither_priority_nor_due_time_breaks_the_order_of_a_key": ORDER,
    "a_dead_letter_lets_the_next_of_its_key_go": ORDER,
    "an_expired_lease_keeps_the_order_of_its_key": ORDER,
    "what_is_purged_lets_the_next_of_its_key_go": ORDER,
    "stats_tell_how_many_are_where": "what waits cannot be looked at: no age of the oldest; see test_amqp_store.py",
    "pages_follow_each_other": "what waits cannot be listed; of dead letters see test_amqp_letters.py",
    "only_those_chosen_are_replayed_or_purged": "it lists what waits; see test_amqp_letters.py",
    "listeners_hear_of_what_may_be_leased": "it has order keys; see test_amqp_store.py",
    "the_civil_clock_may_jump_and_nothing_is_lost_or_late_by_more_than_the_jump": (
        "the broker's clock cannot be set; see test_amqp_store.py"
    ),
}
BROKER_WAITS = {
    "nothing_is_leased_before_it_is_due_whatever_its_priority",
    "a_retry_is_due_at_its_time_with_its_error_and_the_attempt_counted",
    "a_release_is_not_an_attempt",
}
"""Here records wait in the broker."""


class AmqpBench(Bench):
    """A store on a real broker."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self._stores: list[AmqpStore] = []
        self._really = True
        self._ahead_ns = 0

        def begin(**settings: Any) -> AmqpStore:
            self._stores.append(AmqpStore(url, name="contract", poll="100ms", **settings))
            return self._stores[-1]

        super().__init__(begin, is_async=is_async)

    def _now(self) -> int:
        return time.monotonic_ns() * SPEED + self._ahead_ns

    def _civil(self) -> int:
        return clock.EPOCH_NS + self._now() + self._jump_ns

    async def passes(self, seconds: float) -> None:
        if not self._really:
            self._ahead_ns += round(seconds * SECOND)
        elif self._is_async:
            await asyncio.sleep(seconds / SPEED)
        else:
            time.sleep(seconds / SPEED)  # noqa: ASYNC251  # in threads' way a coroutine blocks

    async def take(self, **options: Any) -> Lease:
        """There must be one, soon."""
        end = time.monotonic() + 2
        while (lease := await self.lease(**options)) is None:
            assert time.monotonic() < end, "nothing is due"
            await (asyncio.sleep(0.01) if self._is_async else _briefly())
        return lease

    async def taken(self) -> list[str]:
        lease = await self.take()
        assert await self.open.ack(lease)
        return [lease.work.id, *await super().taken()]

    def _end(self) -> None:
        for store in self._stores:
            end(store)

    def run(self, scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        self._really = scenario.__name__ in BROKER_WAITS

        async def main() -> None:
            self.fresh()
            try:
                # Connecting takes a while, in which the scenario's time should not pass.
                await self.put()
                assert await self.open.ack(await self.take())
                await scenario(self)
            finally:
                await (asyncio.to_thread(self._end) if self._is_async else _at_once(self._end))

        restore = clock.install(self._now, lambda ns: time.sleep(ns / 1e9 / SPEED), self._civil)
        try:
            if self._is_async:
                asyncio.run(main())
            else:
                drive(main())
        finally:
            restore()


async def _at_once(function: Callable[[], object]) -> None:
    function()


async def _briefly() -> None:
    time.sleep(0.01)  # noqa: ASYNC251  # in threads' way a coroutine blocks


@pytest.fixture(scope="module")
def quick() -> Any:
    """What waits in the broker waits a quarter as long."""
    patch = pytest.MonkeyPatch()
    patch.setattr(topology, "ttl_ms", lambda step: step // SPEED)
    yield
    patch.undo()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("scenario", CONTRACT, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_contract(shared: Broker, scenario: Any, is_async: bool) -> None:
    if scenario.__name__ in NOT_KEPT:
        pytest.skip(NOT_KEPT[scenario.__name__])
    AmqpBench(shared.url, is_async=is_async).run(scenario)


def test_what_is_not_kept_is_of_the_contract() -> None:
    """A scenario that was renamed must not stay skipped by its old name."""
    names = {scenario.__name__ for scenario in CONTRACT}
    assert names >= {*NOT_KEPT, *BROKER_WAITS}
