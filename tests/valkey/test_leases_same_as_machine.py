"""The leases of the script and those of the machine: on any trace they answer equally, clocks that go back included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from seawall.machines.leases import Leases
from seawall.stores.valkey.parcels import Op, Parcel, bulk, unit
from seawall.stores.valkey.routes import slot_of
from tests.valkey.bench import Bench
from tests.valkey.servers import Server

WANTS = Struct(">8sdd")
TOLD = Struct(">Bddd")
TOKENS = [bytes([number]) * 8 for number in (0, 1, 13, 255)] + [b"abcdefgh", b"\r\n\0\0\0\0\0\0"]
MORE = int(os.environ.get("SEAWALL_MORE", "1"))


@pytest.fixture(scope="module")
def bench(shared: Server) -> Iterator[Bench]:
    client = shared.client()
    yield Bench(client)
    client.close()


class Script:
    """The leases of one key on the server."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.key = bench.prefix + b":" + os.urandom(6).hex().encode()

    def do(self, op: Op, token: bytes, now: int, most: int, length: int) -> tuple[Any, ...]:
        size = {Op.ENTER: TOLD.size, Op.LOOK: TOLD.size, Op.VACATE: 0}.get(op, 1)
        body = unit(op, (), holds=True, extra=WANTS.pack(token, length, most))
        parcel = Parcel(body, bulk(self.key), 1, slot_of(self.key), size)
        self.bench.now = now
        self.bench.send([parcel])
        if parcel.error is not None:
            raise parcel.error
        if size == TOLD.size:
            return tuple(map(int, TOLD.unpack_from(parcel.reply, parcel.at)))
        return (parcel.reply[parcel.at],) if size else ()


@settings(
    max_examples=150 * MORE,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=some.data())
def test_script_and_machine_answer_equally_on_any_trace(bench: Bench, data: Any) -> None:
    draw = data.draw
    script, leases = Script(bench), Leases()
    now = draw(some.sampled_from([1_000_000, 1_767_225_600_000_000, (1 << 52) + 1]))
    most, length, wait = draw(some.integers(1, 4)), draw(some.sampled_from([10_000, 30_000_000, 86_400_000_000])), 0
    for _ in range(25):
        edges = [0, 0, 1, wait, max(0, wait - 1), wait + 1, length // 3, length, 2 * length, -1, -length, -3 * length]
        now = max(1, now + draw(some.one_of(some.sampled_from(edges), some.integers(-length, length))))
        token = draw(some.sampled_from(TOKENS))
        step = draw(some.sampled_from([Op.ENTER] * 4 + [Op.RENEW] * 3 + [Op.RELEASE] * 2 + [Op.LOOK, Op.LOOK, None]))
        if step is None:
            most, length = draw(some.integers(1, 4)), draw(some.sampled_from([10_000, 30_000_000, 60_000_000]))
            continue
        if step is Op.ENTER and leases.live(now) and token in leases._ends:
            step = Op.RENEW  # nobody enters twice by one token
        told = script.do(step, token, now, most, length)
        if step is Op.ENTER:
            entered = leases.enter(token, now, most, length)
            wait = 0 if entered else leases.wait(now, most)
            assert told == (entered, leases.live(now), wait, leases.rest(now))
        elif step is Op.LOOK:
            wait = leases.wait(now, most)
            assert told == (wait == 0, leases.live(now), wait, leases.rest(now))
        elif step is Op.RENEW:
            assert told == (leases.renew(token, now, most, length),)
        else:
            assert told == (leases.leave(token, now),)
    told = script.do(Op.LOOK, TOKENS[0], now, 1, 1)
    assert told[1] == leases.live(now)
    assert bench.plain.exists(script.key) == (leases.live(now) > 0), "nothing is left where nobody is inside"


def test_a_key_lives_as_long_as_its_last_lease_and_goes_with_the_last_holder(bench: Bench) -> None:
    script = Script(bench)
    script.do(Op.ENTER, TOKENS[0], 1_000_000, 3, 60_000_000)
    script.do(Op.ENTER, TOKENS[1], 1_000_000, 3, 10_000)
    beyond = 1_000_000  # of the bench
    assert 59_000 <= bench.plain.pttl(script.key) - beyond <= 61_000
    script.do(Op.RELEASE, TOKENS[1], 1_000_001, 3, 10_000)
    assert bench.plain.pttl(script.key) - beyond >= 59_000
    script.do(Op.RELEASE, TOKENS[0], 1_000_002, 3, 10_000)
    assert not bench.plain.exists(script.key)


def test_units_of_leases_and_of_limits_go_in_one_call(bench: Bench) -> None:
    first, second = Script(bench), Script(bench)
    parcels = [
        Parcel(unit(Op.ENTER, (), holds=True, extra=WANTS.pack(token, 10_000, 1)), bulk(script.key), 1, 0, TOLD.size)
        for script, token in ((first, TOKENS[0]), (first, TOKENS[1]), (second, TOKENS[0]))
    ]
    nodes = Parcel(unit(Op.NODES, (), holds=True, extra=TOKENS[0]), bulk(bench.prefix + b":n"), 1, 0, 8)
    bench.now = 5_000_000
    bench.send([parcels[0], nodes, *parcels[1:]])
    assert [parcel.reply[parcel.at] for parcel in parcels] == [1, 0, 1]
