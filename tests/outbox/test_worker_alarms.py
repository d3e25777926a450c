"""A backlog that is too long, too old or thrown away is told once when it begins and once when it is over."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from seawall import events
from seawall.errors import ConfigError
from seawall.outbox import MemoryOutbox, metrics_text
from seawall.testing import run
from tests.outbox.yards import Yard


class Ears:
    """What was told of alarms."""

    def __enter__(self) -> list[tuple[str, bool]]:
        heard: list[tuple[str, bool]] = []
        self.events: list[Any] = []

        def sink(event: events.BacklogAlarm) -> None:
            self.events.append(event)
            heard.append((event.layer, event.on))

        self._stop = events.subscribe(sink, events.BacklogAlarm)
        return heard

    def __exit__(self, *_: object) -> None:
        self._stop()


def down(name: str, attempt: int) -> None:
    raise ConnectionError("down")


def test_the_depth_is_told_at_its_crossing_and_when_it_is_over_by_a_tenth() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 1)
        yard.put(*map(str, range(79)))
        ears = Ears()
        with ears as heard:
            async with yard.outbox.worker(concurrency=1, alarm_depth=80):
                await asyncio.sleep(5)
                assert heard == []
                yard.put(*map(str, range(100, 120)))
                await asyncio.sleep(10)
                assert heard == [("depth", True)]
                await asyncio.sleep(8)
                assert len(yard.names("waiting")) < 80 and heard == [("depth", True)], "just below is not over"
                await asyncio.sleep(30)
                assert heard == [("depth", True), ("depth", False)]
        first, last = ears.events
        assert (first.policy, first.threshold, first.value) == ("outbox", 80, 90)
        assert last.value < 72

    run(main)


def test_by_default_four_fifths_of_the_backlog_and_an_hour_are_too_much() -> None:
    async def main() -> None:
        yard = Yard(down, backlog=10)
        yard.put("a", "b", "c", "d", "e", "f", "g")
        with Ears() as heard:
            async with yard.outbox.worker():
                await asyncio.sleep(30)
                assert heard == []
                yard.put("h")
                await asyncio.sleep(30)
                assert heard == [("depth", True)]
                await asyncio.sleep(3_600)
                assert heard == [("depth", True), ("age", True)]

    run(main)


def test_the_dead_count_against_the_backlog_but_do_not_age() -> None:
    async def main() -> None:
        yard = Yard(down, backlog=10, attempts=1)
        yard.put(*"abcdefgh")
        with Ears() as heard:
            async with yard.outbox.worker():
                await asyncio.sleep(7_200)
                assert len(yard.names("dead")) == 8 and heard == [("depth", True)]
                yard.outbox.purge("dead", "all")
                await asyncio.sleep(20)
        assert heard == [("depth", True), ("depth", False)]

    run(main)


def test_drops_are_told_once_and_are_over_after_five_minutes_without_one() -> None:
    async def main() -> None:
        yard = Yard(down, backlog=5, when_full="drop-oldest")
        with Ears() as heard:
            async with yard.outbox.worker(alarm_depth=None, alarm_age=None):
                await asyncio.sleep(1)
                for number in range(60):
                    yard.put(f"{number}")
                    await asyncio.sleep(1)
                assert heard == [("drops", True)]
                await asyncio.sleep(240)
                assert heard == [("drops", True)]
                await asyncio.sleep(120)
        assert heard == [("drops", True), ("drops", False)]

    run(main)


def test_alarms_outlive_a_run_of_the_worker_and_are_not_told_again() -> None:
    async def main() -> None:
        yard = Yard(down)
        yard.put(*"abc")
        worker = yard.outbox.worker(alarm_depth=3)
        with Ears() as heard:
            for _ in range(3):
                async with worker:
                    await asyncio.sleep(20)
        assert heard == [("depth", True)]
        assert worker.snapshot()["alarms"] == ["depth"]

    run(main)


def test_what_was_seen_last_stands_in_the_snapshot_without_asking_the_store() -> None:
    async def main() -> None:
        yard = Yard(down, backlog=50)
        yard.put(*"abc")
        worker = yard.outbox.worker()
        assert worker.snapshot()["backlog"] is None and not worker.snapshot()["store_answers"]
        async with worker:
            await asyncio.sleep(15)
            seen = worker.snapshot()
        assert seen["backlog"] == {
            "waiting": 3,
            "leased": 0,
            "dead": 0,
            "dropped": 0,
            "oldest_age": pytest.approx(15, abs=0.1),
            "most": 50,
            "seen_before": pytest.approx(5, abs=0.1),
        }
        assert seen["store_answers"] and seen["turned_before"] <= 10 and seen["alarms"] == []

    run(main)


def test_an_age_that_the_store_does_not_know_is_none_and_no_metric_says_that_it_is_zero() -> None:
    """As of RabbitMQ, which cannot look at what waits."""

    async def main() -> None:
        yard = Yard(down, backlog=50)
        yard.put(*"abc")
        opened: Any = yard.outbox.store
        stats = opened.stats

        async def blind() -> Any:
            return (await stats()).replace(oldest_ns=None)

        opened.stats = blind
        worker = yard.outbox.worker()
        async with worker:
            await asyncio.sleep(15)
            seen = worker.snapshot()
        assert seen["backlog"]["waiting"] == 3 and seen["backlog"]["oldest_age"] is None
        text = metrics_text(seen)
        assert "seawall_outbox_pending" in text and "oldest_age" not in text

    run(main)


def test_a_store_that_does_not_answer_is_seen_within_ten_seconds_even_if_nothing_is_due() -> None:
    async def main() -> None:
        yard = Yard()
        worker = yard.outbox.worker()

        async def broken() -> Any:
            raise OSError("gone")

        async with worker:
            await asyncio.sleep(1)
            assert worker.snapshot()["store_answers"]
            yard.outbox.store._stats, kept = None, yard.outbox.store  # type: ignore[attr-defined]
            kept.stats = broken  # type: ignore[attr-defined]
            await asyncio.sleep(10)
            assert not worker.snapshot()["store_answers"]
            assert worker.snapshot()["last_store_error"] == "OSError: gone"
            del kept.stats, kept._stats  # type: ignore[attr-defined]
            await asyncio.sleep(10)
            assert worker.snapshot()["store_answers"]

    run(main)


def test_a_worker_in_its_grace_still_looks() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 100)
        yard.put("a")
        worker = yard.outbox.worker(grace=200)
        async with worker:
            await asyncio.sleep(1)
            worker.stop()
            await asyncio.sleep(55)
            assert worker.snapshot()["state"] == "stopping"
            assert worker.snapshot()["turned_before"] <= 20
        assert yard.done == ["a"]

    run(main)


@pytest.mark.parametrize("depth", [0, -1, 0.0, 1.5, True, float("nan"), "80%"])
def test_a_depth_that_is_none_is_refused(depth: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape("worker(alarm_depth=")):
        MemoryOutbox().worker(alarm_depth=depth)


def test_an_age_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("worker(alarm_age=0)")):
        MemoryOutbox().worker(alarm_age=0)


def test_an_alarm_is_logged_as_a_warning_and_its_end_as_news(caplog: pytest.LogCaptureFixture) -> None:
    stop = events.log_to(logging.getLogger("shop"))
    try:
        with caplog.at_level(logging.INFO, "shop"):
            for on in (True, False):
                events.emit(events.BacklogAlarm(policy="outbox", layer="depth", on=on, value=9, threshold=8))
    finally:
        stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
