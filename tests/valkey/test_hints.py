"""A refusal is remembered for as long as it stands, and refuses only who asks for no less."""

from __future__ import annotations

from seawall import Limiter, SlidingWindow, TokenBucket
from seawall.stores.valkey.hints import MOST, Hints
from seawall.testing import VirtualClock
from tests.valkey.conftest import Make
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server


def test_who_was_refused_is_refused_again_without_a_trip_but_less_is_asked_for(server: Server, store: Make) -> None:
    proxy = Proxy(server.port)
    try:
        limits = {"a": TokenBucket("10/h"), "b": SlidingWindow("100/h")}
        limiter = Limiter(limits, name="hints", store=store(proxy.url))
        assert limiter.hit("ann", {"a": 8, "b": 1})
        refused = limiter.hit("ann", {"a": 5, "b": 1})
        asked = proxy.requests
        again = limiter.hit("ann", {"a": 6, "b": 1})
        assert not again and again.name == "a" and 0 < again.retry_after <= refused.retry_after
        assert again.remaining == 2
        assert proxy.requests == asked
        assert limiter.hit("ann", {"a": 2, "b": 1}), "less is another question"
        assert proxy.requests > asked
        assert limiter.hit("ann", {"b": 1}), "so is another limit"
        asked = proxy.requests
        assert not limiter.peek("ann", {"a": 6})
        assert proxy.requests > asked, "a peek asks"
    finally:
        proxy.close()


def test_what_is_held_may_come_back_at_any_time_so_it_makes_no_hint(store: Make) -> None:
    here, there = (Limiter(TokenBucket("10/h"), name="held", store=store()) for _ in range(2))
    held = here.reserve("ann", 10)
    assert not there.hit("ann")
    held.cancel()
    assert there.hit("ann")


def test_hints_end_with_the_refusal_and_after_a_second_at_the_latest_and_are_bounded() -> None:
    with VirtualClock() as time:
        hints = Hints()
        now = time.now_ns
        hints.keep("short", "a", 1, now, (0, 5_000_000, 9_000_000))
        hints.keep("long", "a", 1, now, (0, 3_600_000_000_000, 3_600_000_000_000))
        time.advance("4999us")
        assert hints.find("short", {"a": 1}) is not None
        time.advance("1us")
        assert hints.find("short", {"a": 1}) is None
        time.advance("1s")
        assert hints.find("long", {"a": 1}) is None
        for number in range(MOST + 5):
            hints.keep(str(number), "a", 1, time.now_ns, (0, 10**9, 10**9))
        assert len(hints.by_key) <= MOST
        assert hints.find(str(MOST + 4), {"a": 1}) is not None
        hints.clear()
        assert hints.find(str(MOST + 4), {"a": 1}) is None
