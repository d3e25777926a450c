"""`on_outage="local"`: each process keeps to its share, begins without a burst, and a store that flaps gives nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from seawall import FixedWindow, LeakyBucket, Limiter, SlidingLog, SlidingWindow, TokenBucket
from seawall.limiter.specs import LimitSpec
from seawall.machines.leaky_bucket import LeakyBucket as Slots
from seawall.machines.limit import Limit
from seawall.machines.local_share import LocalShare, share_of
from seawall.stores.decision import Origin
from seawall.stores.protocol import Ask
from seawall.stores.valkey.faults import Outage
from seawall.stores.valkey.outage import Without
from seawall.stores.valkey.standing import Standing
from seawall.testing import VirtualClock
from tests.valkey.conftest import Make
from tests.valkey.servers import Server, until

SECOND = 1_000_000_000
SPECS = [TokenBucket("100/10s"), FixedWindow("100/10s"), SlidingWindow("100/10s"), SlidingLog("100/10s")]
OUT = Outage("it is out")


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        clock.advance("1h")
        yield clock


def without(spec: LimitSpec, *, nodes: int = 1, mode: str = "local", seen: bool = True) -> tuple[Without, Standing]:
    standing = Standing("p", nodes)
    standing.seen = seen
    return Without("store", mode, standing, {"only": Origin("limiter", "only", spec.machine())}), standing


def admitted(local: Without, times: int = 1_000, key: str = "ann") -> int:
    return sum(local.decide(Ask(key, {"only": 1}), OUT, 0).allowed for _ in range(times))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_share_begins_empty_and_fills_at_its_rate(time: VirtualClock, spec: LimitSpec) -> None:
    local, _ = without(spec, nodes=4)
    assert admitted(local) == 0
    time.advance("2s")
    assert admitted(local) == 5, "a quarter of 100 in 10 s, for 2 s"
    assert admitted(local, key="ben") == 5, "whoever was not seen before begins empty too"
    time.advance("1h")
    assert admitted(local) == 25


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_store_that_flaps_gives_nothing_twice(time: VirtualClock, spec: LimitSpec) -> None:
    local, standing = without(spec, nodes=2)
    total = admitted(local)
    for _ in range(20):
        time.advance("500ms")
        standing.heard()
        total += admitted(local)
    assert total <= 50, "half of 100 in 10 s"
    assert total >= 45, "and a single failure does not begin all anew"
    time.advance("11s")
    standing.heard()
    assert standing.since_ns is None
    assert admitted(local) == 0, "a new outage begins empty, whatever was saved up"


def test_the_more_processes_were_seen_the_less_is_left_for_each(time: VirtualClock) -> None:
    local, standing = without(TokenBucket("100/10s"), nodes=2)
    standing.nodes_seen = 10
    admitted(local)
    time.advance("1h")
    assert admitted(local) == 10
    nothing, standing = without(TokenBucket("100/10s"), nodes=101)
    time.advance("1h")
    assert admitted(nothing) == 0, "rounded down: all together never more than the limit"


def test_a_process_that_has_never_seen_the_store_is_closed(time: VirtualClock) -> None:
    local, standing = without(TokenBucket("100/10s"), seen=False)
    admitted(local, 1)
    time.advance("1h")
    refused = local.decide(Ask("ann", {"only": 1}), OUT, 2 * SECOND)
    assert not refused and refused.retry_after == 2.0
    assert standing.decided == {"refused": 2}


def test_a_decision_bears_the_name_and_the_limit_that_was_asked_for(time: VirtualClock) -> None:
    local, _ = without(TokenBucket("100/10s"), nodes=4)
    decision = local.decide(Ask("ann", {"only": 1}), OUT, 0)
    assert (decision.limiter, decision.name, decision.capacity) == ("limiter", "only", 100)
    assert decision.retry_after == pytest.approx(0.4)
    assert not local.decide(Ask("ann", {"only": 26}), OUT, 0), "more than the share can ever admit"


def test_holds_and_slots_are_kept_here_too(time: VirtualClock) -> None:
    local, standing = without(TokenBucket("100/10s"), nodes=2)
    assert local.hold(Ask("ann", {"only": 10}), 60 * SECOND, OUT, 0)[1] is None
    time.advance("1h")
    decision, (table, held) = local.hold(Ask("ann", {"only": 40}), 60 * SECOND, OUT, 0)
    assert decision and admitted(local) == 10
    assert table.settle_now(held, {"only": 0})
    assert admitted(local) == 40
    slots, _ = without(LeakyBucket("10/s", queue=8), nodes=4)
    waits = [slots.queue_up(Ask("host", {"only": 1}), None, OUT, 0)[1] / SECOND for _ in range(3)]
    assert waits == [0, 0.4, 0.8]
    assert not slots.queue_up(Ask("host", {"only": 1}), None, OUT, 0)[0], "a quarter of the queue"
    assert standing.decided


LIMITS: Any = some.one_of(
    some.builds(
        lambda amount, burst: TokenBucket(f"{amount}/10s", burst=burst), some.integers(1, 500), some.integers(1, 500)
    ),
    some.builds(
        lambda kind, amount: kind(f"{amount}/10s"),
        some.sampled_from([SlidingWindow, SlidingLog]),
        some.integers(1, 500),
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    spec=LIMITS,
    nodes=some.integers(1, 12),
    steps=some.lists(some.tuples(some.integers(0, 3 * SECOND), some.integers(1, 60)), max_size=60),
)
def test_shares_of_all_processes_together_keep_the_limit(
    spec: LimitSpec, nodes: int, steps: list[tuple[int, int]]
) -> None:
    """The same traffic at each of them: what they admit together in any span is within the whole limit."""
    whole: Limit[Any] = spec.machine()
    share = share_of(whole, nodes, 1_000)
    if share is None:
        assert whole.capacity < nodes
        return
    now, state, took = 1_000, None, []
    for wait, cost in steps:
        now += wait
        if cost <= share.capacity and (after := share.take(state, now, cost)) is not None:
            took.append((now, cost * nodes))
            state = after
    for place, (begin, _) in enumerate(took):
        total = 0
        for at, cost in took[place:]:
            total += cost
            span = at - begin
            if isinstance(spec, TokenBucket):
                amount = int(spec.rate.partition("/")[0])
                assert total <= whole.capacity + amount * span / (10 * SECOND)
            elif span < 10 * SECOND:
                assert total <= whole.capacity
    begun = sum(cost for at, cost in took if at == 1_000)
    assert begun == 0, "no burst to begin with"


@settings(max_examples=100, deadline=None)
@given(spec=LIMITS, nodes=some.integers(1, 5), waits=some.lists(some.integers(0, 9 * SECOND), max_size=30))
def test_the_wait_of_a_share_is_tight(spec: LimitSpec, nodes: int, waits: list[int]) -> None:
    share = share_of(spec.machine(), nodes, 0)
    if share is None:
        return
    now, state = 0, None
    for wait in waits:
        now += wait
        after = share.take(state, now, 1)
        if after is not None:
            assert share.left(state, now) >= 1 and share.wait(state, now, 1) == 0
            state = after
            continue
        tight = share.wait(state, now, 1)
        assert tight > 0
        assert share.take(state, now + tight - 1, 1) is None
        assert share.take(state, now + tight, 1) is not None
        assert share.rest(state, now) >= tight


def test_a_leaky_bucket_has_a_share_of_its_rate_and_queue() -> None:
    share = share_of(Slots(10, SECOND, 9), 4, 0)
    assert isinstance(share, Slots) and (share.per_ns / share.per_unit, share.queue) == (2.5 / SECOND, 2)
    assert isinstance(share_of(TokenBucket("1/s").machine(), 1, 0), LocalShare)
    with pytest.raises(TypeError):
        share_of(Odd(), 1, 0)  # type: ignore[arg-type]


class Odd:
    capacity = 5


def test_a_killed_server_leaves_its_share_to_each_process_and_is_asked_again(server: Server, store: Make) -> None:
    mine = store(server.url, nodes=4, connect_timeout="50ms", timeout="100ms")
    limiter = Limiter(TokenBucket("400/s"), name="share", store=mine)
    assert limiter.hit("ann")
    server.kill()
    import time

    began, count = time.monotonic(), 0
    while time.monotonic() - began < 1.0:
        count += limiter.hit("ann").allowed
    took = time.monotonic() - began
    assert 50 <= count <= 100 * took + 2
    server.start()
    until(lambda: limiter.hit("ben").remaining == 399, "the server is asked again")
