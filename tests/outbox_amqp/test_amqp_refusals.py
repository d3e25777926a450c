"""What the store refuses, and says, without any broker."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox import Outbox
from seawall.outbox.amqp import AmqpStore, store, topology
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND, make_work
from tests.outbox_amqp.brokers import free_port


def nowhere(**options: Any) -> AmqpStore:
    """A store whose broker is not there."""
    return AmqpStore(f"amqp://ann:s3cret@127.0.0.1:{free_port()}/", **options)


@pytest.mark.parametrize(
    ("url", "settings", "match"),
    [
        ("amqp://", {}, "no URL of RabbitMQ"),
        ("http://ann:s3cret@host", {}, "no URL of RabbitMQ"),
        ("amqp://ann:s3cret@host:port", {}, "no such port"),
        ("amqp://ann:s3cret@[::", {}, "no such port or host"),
        (7, {}, "expected amqp://"),
        ("amqp://host", {"backlog": 0}, "backlog"),
        ("amqp://host", {"when_full": "drop"}, "when_full"),
        ("amqp://host", {"timeout": 0}, "timeout"),
        ("amqp://host", {"poll": "-1s"}, "poll"),
        ("amqp://host", {"name": "a b"}, "name"),
        ("amqp://host", {"name": "x" * 201}, "at most 200"),
    ],
)
def test_a_wrong_setting_is_refused_without_showing_a_password(url: Any, settings: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as refusal:
        AmqpStore(url, **settings)
    assert "s3cret" not in str(refusal.value)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"pip install 'seawall\[amqp\]'"):
        Outbox("amqp://localhost")


def test_an_operation_with_an_order_is_refused_when_it_is_registered() -> None:
    outbox = Outbox("amqp://localhost")
    with pytest.raises(ConfigError, match="keeps no order"):
        outbox.operation("mail.send", order=lambda address: address)

    @outbox.operation("mail.note")
    def note(address: str) -> None: ...

    with pytest.raises(ConfigError, match="keeps no order"):
        outbox.using(order="ann").put(note, "ann")
    with pytest.raises(ConfigError, match="keeps no order"):
        drive(nowhere().open(BLOCKING).put(make_work(order_key="ann")))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_without_a_broker_every_step_fails_at_once_with_a_typed_error(is_async: bool) -> None:
    here = nowhere(timeout="2s")
    opened = here.open(ASYNCIO if is_async else BLOCKING)

    async def steps() -> None:
        for step in (lambda: opened.put(make_work()), lambda: opened.lease(1, SECOND), opened.stats, opened.replay):
            begun = time.monotonic()
            with pytest.raises(BackendUnavailable, match="127.0.0.1") as failure:
                await step()
            assert time.monotonic() - begun < 1
            assert "s3cret" not in str(failure.value)

    asyncio.run(steps()) if is_async else drive(steps())
    assert not here.snapshot()["connected"]
    here.home.end()


def test_a_caller_hears_that_nothing_is_queued() -> None:
    here = nowhere()
    outbox = Outbox(here)

    @outbox.operation("mail.send")
    def send(address: str) -> None: ...

    with pytest.raises(NotQueued, match=r"mail\.send is not queued: BackendUnavailable") as refusal:
        outbox.put(send, "ann")
    assert isinstance(refusal.value.__cause__, BackendUnavailable)
    here.home.end()


def test_a_payload_beyond_what_a_broker_takes_is_refused_here() -> None:
    with pytest.raises(NotQueued, match="at most"):
        drive(nowhere().open(BLOCKING).put(make_work(payload=bytes(17 * 1024 * 1024))))


def test_what_shows_a_store_shows_no_password_and_needs_no_broker() -> None:
    here = nowhere(name="mails")
    assert "s3cret" not in repr(here) + json.dumps(here.snapshot())
    assert here.snapshot()["durable"] is True
    assert repr(here).endswith("name='mails')")


def test_a_delay_goes_through_steps_that_are_never_too_long() -> None:
    for left in (1, SECOND // 4, SECOND, 5 * SECOND, 900 * SECOND, 24 * HOUR, 10_000 * HOUR):
        hops, now = 0, left
        while now > 0:
            step = topology.step_ms(now) * 1_000_000
            assert step <= now or now < 250_000_000
            now, hops = now - step, hops + 1
        assert -now < 250_000_000, "late by less than the shortest step"
        assert hops <= 16 + left // (4_096 * SECOND)


def test_each_priority_has_its_band() -> None:
    assert [topology.band_of(priority) for priority in range(10)] == ["low"] * 4 + ["normal"] * 3 + ["high"] * 3
