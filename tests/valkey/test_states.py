"""What lies on the server: how long it stays, what a clock that steps does to it, what changes of the numbers keep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import (
    ConfigError,
    FixedWindow,
    LeakyBucket,
    Limiter,
    Memory,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.limiter.specs import LimitSpec
from seawall.machines.limit import Limit
from seawall.machines.live_change import carried
from seawall.machines.token_bucket import TokenBucket as Bucket
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.stores.protocol import Ask
from seawall.stores.valkey.codes import code_of
from seawall.stores.valkey.parcels import Op, Parcel, unit
from seawall.stores.valkey.table import ValkeyTable
from tests.valkey.bench import Bench
from tests.valkey.conftest import Make
from tests.valkey.servers import Server

NOW = 1_767_225_600_000_000
HOUR = 3_600_000_000
RATES = ["1000000000/s", "1/1ns", "999999937/d", "7/1001us", "1/s", "3/10min", "1/d", "5/365d", "1/3650d"]


@pytest.fixture
def bench(shared: Server) -> Iterator[Bench]:
    client = shared.client()
    yield Bench(client)
    client.close()


def specs_of(rate: str) -> Iterator[LimitSpec]:
    for make in (
        TokenBucket,
        lambda rate: TokenBucket(rate, burst=1),
        LeakyBucket,
        lambda rate: LeakyBucket(rate, queue=3),
        FixedWindow,
        SlidingWindow,
        lambda rate: SlidingWindow(rate, buckets=1),
        SlidingLog,
    ):
        try:
            yield make(rate)
        except ConfigError:
            continue


@pytest.mark.parametrize("rate", RATES)
def test_every_key_has_a_lifetime_after_its_first_hit_no_shorter_than_its_state_matters(
    shared: Server, store: Make, rate: str
) -> None:
    tried = 0
    for number, spec in enumerate(specs_of(rate)):
        try:
            prefix = f"ttl{os.urandom(4).hex()}"
            limiter = Limiter(spec, name=f"ttl {number}", store=store(prefix=prefix))
        except ConfigError:
            continue
        tried += 1
        assert limiter.hit("ann")
        limiter.hit("ann")
        if not isinstance(spec, LeakyBucket):
            limiter.reserve("ben", lasts="1h")
        keys = shared.do("KEYS", f"{prefix}:*")
        assert len(keys) >= 2
        for key in keys:
            left = shared.do("PTTL", key)
            assert left > 0, f"{spec}: {key}"
            assert left < 21 * 365 * 86_400_000
        (mine,) = [key for key in keys if b"{nodes}" not in key and b":holds:" not in key][:1]
        if shared.do("TYPE", mine) == b"string" and isinstance(spec, TokenBucket):
            rest = limiter.peek("ann", 0).reset_after
            assert shared.do("PTTL", mine) / 1000 > rest
    assert tried


def test_a_limit_that_a_server_cannot_keep_is_refused_at_once(store: Make) -> None:
    class Odd(Bucket):
        kind = "odd"

    class Unknown:
        kind, civil, capacity, forget_ns = "unknown", False, 1, 1

    mine = store()
    with pytest.raises(ConfigError, match="whole microseconds"):
        Limiter(FixedWindow("1/1001ns"), name="x", store=mine)
    with pytest.raises(ConfigError, match="ten years"):
        mine.open("x", {"x": Bucket(1, 86_400 * 10**9, 10**6)})
    with pytest.raises(ConfigError, match="Unknown"):
        mine.open("x", {"x": Unknown()})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="ten years"):
        Limiter(SlidingWindow("5/7300d"), name="x", store=mine)
    with pytest.raises(ConfigError):
        Limiter(TokenBucket("10/s", warm_up="10s"), name="x", store=mine)


LIMITS = {
    "token bucket": TokenBucket("10/h"),
    "leaky bucket": LeakyBucket("10/h", queue=2),
    "fixed window": FixedWindow("10/h"),
    "sliding window": SlidingWindow("10/h"),
    "sliding log": SlidingLog("10/h"),
}


def table_of(bench: Bench, spec: LimitSpec, name: str = "") -> Any:
    return ValkeyTable(bench, name or os.urandom(6).hex(), {"only": spec.machine()})  # type: ignore[arg-type]


def ask(table: Any, cost: int, *, peek: bool = False) -> Any:
    table._hints.clear()
    return drive(table.take(BLOCKING, [Ask("ann", {"only": cost}, peek)]))[0]


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("step", [1, HOUR // 3, HOUR, 1000 * HOUR])
def test_a_clock_that_goes_back_neither_blocks_for_longer_nor_forgets(bench: Bench, kind: str, step: int) -> None:
    table = table_of(bench, LIMITS[kind])
    bench.now = NOW + HOUR // 2
    taken = sum(bool(ask(table, 1)) for _ in range(12))
    assert taken == (1 if kind == "leaky bucket" else 10)
    bench.now -= step
    refused = ask(table, 1, peek=True)
    if kind == "fixed window" and step >= HOUR:
        assert refused, "another window: a step of the clock starts at most one new one"
        return
    assert not refused
    assert refused.retry_after_ns <= 1.2 * HOUR * 1_000
    # From here on time counts as ever, although nothing was admitted since the step.
    bench.now += refused.retry_after_ns // 1_000 - 1
    assert not ask(table, 1)
    bench.now += 1
    assert ask(table, 1)


def changed(bench: Bench, was: Limit[Any], now: Limit[Any], takes: list[tuple[int, int]]) -> tuple[Any, Any]:
    """What is left after a change of the numbers, by the script and by the rule of live changes in Python."""
    name = os.urandom(6).hex()
    old = ValkeyTable(bench, name, {"only": was})  # type: ignore[arg-type]
    new = ValkeyTable(bench, name, {"only": now})  # type: ignore[arg-type]
    code, machine = code_of("", "", was), code_of("", "", now).machine
    state: Any = None
    for at, cost in takes:
        bench.now = at
        state = code.machine.take(state, at, cost)
        assert state is not None and ask(old, cost)
    bench.now += 1_000_000
    state = carried(code.machine, machine, state, bench.now)
    told = ask(new, 0, peek=True)
    return (told.remaining, round(told.reset_after * 1e6)), (
        max(0, machine.left(state, bench.now)),
        machine.rest(state, bench.now),
    )


@pytest.mark.parametrize("kind", ["token bucket", "leaky bucket", "sliding window"])
@pytest.mark.parametrize("rate", ["10/h", "20/h", "5/h", "10/min", "7/3h"])
def test_another_client_with_other_numbers_sees_what_a_live_change_would_keep(
    bench: Bench, kind: str, rate: str
) -> None:
    make = {"token bucket": TokenBucket, "leaky bucket": LeakyBucket, "sliding window": SlidingWindow}[kind]
    was, now = make("10/h").machine(), make(rate).machine()
    takes = [(NOW, 1)] if kind == "leaky bucket" else [(NOW, 3), (NOW + HOUR // 4, 2)]
    got, wanted = changed(bench, was, now, takes)
    assert got[0] == wanted[0]
    assert abs(got[1] - wanted[1]) <= 2, "spans are rounded up once"


def test_units_of_one_call_fail_each_by_itself(bench: Bench) -> None:
    table = table_of(bench, TokenBucket("10/h"))
    bench.now = NOW
    assert ask(table, 1)
    bench.plain.set("other", "not a state")
    good = table._parcel(Op.TAKE, "ann", {"only": 1}, table._answers.size)
    bad = Parcel(unit(Op.NODES, (), holds=True, extra=b"12345678"), b"$5\r\nother\r\n", 1, 0, 8)
    other = table._parcel(Op.TAKE, "ben", {"only": 1}, table._answers.size)
    parcels = [good, bad, other]
    bench.send(parcels)
    assert [parcel.error is None for parcel in parcels] == [True, False, True]
    assert "WRONGTYPE" in str(bad.error)


def test_thousands_of_holds_are_kept_and_then_refused(bench: Bench) -> None:
    table = table_of(bench, TokenBucket("1000000/h"))
    bench.now = NOW
    hold = Ask("ann", {"only": 1})
    pipe: list[Parcel] = []
    from seawall.stores.valkey.table import HOLD

    for number in range(4_096):
        extra = HOLD.pack(number.to_bytes(8, "big"), 60_000_000 + number)
        pipe.append(table._parcel(Op.HOLD, "ann", hold.costs, table._answers.size + 9, extra))
    for first in range(0, len(pipe), 256):
        bench.send(pipe[first : first + 256])
    assert ask(table, 0, peek=True).remaining == 1_000_000 - 4_096
    decision, held = drive(table.hold(BLOCKING, hold, 60_000_000_000))
    assert not decision and held is None and decision.retry_after_ns == 60_000_000_000
    bench.now += 60_000_000 + 4_096
    assert ask(table, 0, peek=True).remaining >= 1_000_000 - 4_096
    decision, held = drive(table.hold(BLOCKING, hold, 60_000_000_000))
    assert decision and held is not None


def test_a_log_is_cut_off_as_it_grows(bench: Bench) -> None:
    table = table_of(bench, SlidingLog("20/s"))
    bench.now = NOW
    longest = 0
    for _ in range(400):
        bench.now += 50_000
        assert ask(table, 1)
        (key,) = bench.plain.keys(bench.prefix + b":*:sliding_log:*")
        longest = max(longest, bench.plain.strlen(key))
    assert longest <= 24 + 16 * 42


def test_the_same_traffic_is_admitted_in_memory_and_on_a_server(store: Make) -> None:
    for spec in (TokenBucket("50/h"), SlidingWindow("50/h"), SlidingLog("50/h")):
        here = Limiter(spec, name="same", store=Memory())
        there = Limiter(spec, name=f"same {spec.name}", store=store())
        costs = [1, 7, 3, 20, 15, 9, 4, 1, 1]
        assert [bool(here.hit("a", c)) for c in costs] == [bool(there.hit("a", c)) for c in costs]


@pytest.mark.parametrize("kind", LIMITS)
def test_clients_whose_clocks_differ_agree(store: Make, kind: str) -> None:
    limiters = [Limiter(LIMITS[kind], name=kind, store=store()) for _ in range(3)]
    admitted = 0
    for number in range(15):
        skew = (-3_600, 0, 86_400)[number % 3] * 1_000_000_000
        real_now, real_wall = clock.now_ns, clock.wall_ns
        restore = clock.install(lambda: real_now() + skew, clock.sleep_ns, lambda: real_wall() + 7 * skew)
        try:
            admitted += limiters[number % 3].hit("ann").allowed
        finally:
            restore()
    assert admitted == (1 if kind == "leaky bucket" else 10)
