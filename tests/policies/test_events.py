"""Events: frozen values on a bus that isolates its listeners and costs nothing while nobody listens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from seawall import CircuitBreaker, Fallback, Policy, Retry, events
from seawall.events import BreakerChanged, CallRefused, Event, FellBack, RetryGaveUp, RetryScheduled, TimedOut
from tests.policies.worlds import World, fail, heard, in_both_worlds
from tests.support.threads import explore

REFUSED = CallRefused(policy="stock", layer="Bulkhead", reason="bulkhead_full")


def test_they_are_frozen_values_compared_by_their_fields() -> None:
    assert CallRefused(policy="stock", layer="Bulkhead", reason="bulkhead_full") == REFUSED
    assert CallRefused(policy="stock", layer="Bulkhead", reason="other") != REFUSED
    assert REFUSED != "stock"
    assert hash(REFUSED) == hash(CallRefused(policy="stock", layer="Bulkhead", reason="bulkhead_full"))
    assert repr(REFUSED) == "CallRefused(policy='stock', layer='Bulkhead', reason='bulkhead_full', shadow=False)"
    for change in (lambda: setattr(REFUSED, "reason", "x"), lambda: delattr(REFUSED, "reason")):
        with pytest.raises(AttributeError, match="CallRefused is frozen"):
            change()


@pytest.mark.parametrize("fields", [{}, {"policy": "a", "layer": "b", "reason": "c", "colour": "d"}])
def test_missing_and_unknown_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="CallRefused"):
        CallRefused(**fields)


@in_both_worlds
async def test_a_listener_hears_only_the_kinds_it_asked_for(world: World) -> None:
    policy = Policy(Fallback("cached"), Retry(on=OSError, delay=0), name="stock")
    with heard(FellBack) as some, heard() as every, heard(RetryGaveUp, TimedOut) as two:
        await world.call(policy, fail())
    assert [type(event) for event in some] == [FellBack]
    assert [type(event) for event in every] == [RetryScheduled, RetryScheduled, RetryGaveUp, FellBack]
    assert [type(event) for event in two] == [RetryGaveUp]
    with heard(Event) as after:
        pass
    assert after == []


@in_both_worlds
async def test_after_stop_nothing_comes_and_stopping_twice_is_fine(world: World) -> None:
    seen: list[object] = []
    stop = events.subscribe(seen.append)
    stop()
    stop()
    await world.call(Policy(Fallback("cached")), fail())
    assert seen == []
    assert events.sinks == ()


@in_both_worlds
async def test_a_listener_that_raises_is_reported_and_disturbs_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ValueError("in the listener")

    stop = events.subscribe(broken)
    try:
        with heard() as seen, caplog.at_level(logging.ERROR, "seawall.events"):
            assert await world.call(Policy(Fallback("cached")), fail()) == "cached"
    finally:
        stop()
    assert len(seen) == 1
    assert [record.name for record in caplog.records] == ["seawall.events"]
    assert "in the listener" in caplog.text


def test_an_exit_from_a_listener_is_not_isolated() -> None:
    """Ctrl-C while a listener runs must end the program."""

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    stop = events.subscribe(interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            Policy(Fallback("cached")).call(fail())
    finally:
        stop()


def test_the_same_listener_twice_hears_twice_and_stops_one_by_one() -> None:
    seen: list[object] = []
    stops = [events.subscribe(seen.append) for _ in range(2)]
    events.emit(REFUSED)
    stops[0]()
    events.emit(REFUSED)
    stops[1]()
    assert len(seen) == 3


def test_a_listener_may_stop_itself_while_it_hears() -> None:
    seen: list[object] = []

    def once(event: Event) -> None:
        seen.append(event)
        stop()

    stop = events.subscribe(once)
    events.emit(REFUSED)
    events.emit(REFUSED)
    assert len(seen) == 1


def test_threads_may_subscribe_and_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost update would leave a listener that nobody can stop, or drop one."""

    def build() -> tuple[list[Callable[[], object]], Callable[[], None]]:
        monkeypatch.setattr(events, "_changing", threading.Lock())  # one that the scheduler knows
        monkeypatch.setattr(events, "sinks", ())
        kept: list[object] = []

        def stay() -> None:
            events.subscribe(kept.append)

        def come_and_go() -> None:
            events.subscribe(print)()

        def check() -> None:
            assert len(events.sinks) == 2, "the two that stay, and nobody else"

        return [stay, come_and_go, stay], check

    assert explore(build, trace=[events], seeds=range(100)) == 100


def test_log_to_warns_of_opened_breakers_and_informs_of_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    stop = events.log_to(logging.getLogger("mine"))
    try:
        with caplog.at_level(logging.INFO, "mine"):
            policy = Policy(Fallback("cached"), CircuitBreaker(consecutive=1), name="stock")
            policy.call(fail())
    finally:
        stop()
    levels = [(record.levelname, type(record.seawall_event).__name__) for record in caplog.records]
    assert levels == [("WARNING", BreakerChanged.__name__), ("INFO", FellBack.__name__)]
