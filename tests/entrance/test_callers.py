"""Key functions: nobody takes another's place, and nobody gets more places than one."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seawall import ConfigError
from seawall.http import ClientAddress, api_key, first_of, user_key
from seawall.http.peers import Peers
from seawall.testing import run
from tests.entrance.sites import request

PROXIES = ("10.0.0.0/8", "fd00::/8", "unix")
behind = ClientAddress(trusted=PROXIES)


def seen(*forwarded: str, peer: str | None = "10.0.0.1", client: ClientAddress = behind) -> str:
    return client(request({"x-forwarded-for": forwarded}, peer)).removeprefix("address:")


# -- from the right --------------------------------------------------------------------------------------------------


def test_without_proxies_it_is_whoever_connects() -> None:
    client = ClientAddress()
    assert seen("1.1.1.1", peer="203.0.113.7", client=client) == "203.0.113.7"
    assert seen("1.1.1.1", peer="10.0.0.1", client=client) == "10.0.0.1"


def test_whoever_is_no_proxy_is_not_believed() -> None:
    assert seen("1.1.1.1", peer="203.0.113.7") == "203.0.113.7"


def test_the_client_is_the_first_from_the_right_that_is_no_proxy() -> None:
    assert seen("203.0.113.7") == "203.0.113.7"
    assert seen("203.0.113.7, 10.9.9.9, fd00::7") == "203.0.113.7"
    assert seen("203.0.113.7", peer=None) == "203.0.113.7"


def test_what_the_client_wrote_himself_is_never_reached() -> None:
    for forged in ("1.1.1.1", "10.0.0.1", "1.1.1.1, 10.0.0.1", "garbage", ",,,", "unix", "::1", "1.1.1.1\t"):
        assert seen(f"{forged}, 203.0.113.7") == "203.0.113.7"
        assert seen(forged, "203.0.113.7") == "203.0.113.7", "in a header of its own, too"
        assert seen(forged, "203.0.113.7, 10.0.0.2") == "203.0.113.7"


def test_a_client_inside_is_the_outermost_that_is_known() -> None:
    assert seen("10.1.1.1, 10.2.2.2") == "10.1.1.1"
    assert seen() == "10.0.0.1"
    assert seen("", " , ") == "10.0.0.1"


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:٣", "1.2.3.4:999999",
        "[::1", "[::1]80", "[::1]:x", "::1]", "1.2.3.4%eth0", "1.2.3.4/24", "٣.2.3.4", "9" * 100_000, "::" * 50_000, "\x00", "for=1.2.3.4",
    ],
)  # fmt: skip
def test_what_a_proxy_did_not_write_as_an_address_says_nothing(garbage: str) -> None:
    assert seen(garbage) == "10.0.0.1"
    assert seen(f"1.1.1.1, {garbage}, 10.7.7.7") == "10.7.7.7"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::7]:4711", "2001:db8::/64"),
        ("[2001:db8::7]", "2001:db8::/64"),
        ("2001:DB8:0:0:0::7", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("[fe80::1%25eth0]:80", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
        ("::ffff:cb00:7107", "203.0.113.7"),
        ("64:ff9b::203.0.113.7", "203.0.113.7"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("  203.0.113.7  ", "203.0.113.7"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(written: str, address: str) -> None:
    assert seen(written) == address
    assert seen(written) == address, "remembered"
    if "/64" not in address:
        assert ClientAddress()(request(peer=written.strip())) == f"address:{address}"


def test_a_proxy_is_known_however_it_is_written() -> None:
    for proxy in ("::ffff:10.0.0.9", "10.0.0.9:80", "[fd00::1]:443", "fd00::1%eth0"):
        assert seen(f"203.0.113.7, {proxy}") == "203.0.113.7"
    assert seen("203.0.113.7", peer="::ffff:10.0.0.1") == "203.0.113.7"


def test_ipv6_clients_are_counted_by_network() -> None:
    assert seen("2001:db8::1") == seen("2001:db8::ffff:1") != seen("2001:db8:0:1::1")
    alone, wide = ClientAddress(trusted=PROXIES, ipv6_prefix=128), ClientAddress(trusted=PROXIES, ipv6_prefix=48)
    assert seen("2001:db8::1", client=alone) == "2001:db8::1"
    assert seen("2001:db8:0:1::1", client=wide) == seen("2001:db8:0:2::1", client=wide) == "2001:db8::/48"
    assert seen("203.0.113.7", client=wide) == "203.0.113.7"
    assert seen("fe80::1%eth0", client=alone) == seen("[fe80::1%eth1]:80", client=alone) == "fe80::1", (
        "whatever the zone"
    )


@pytest.mark.parametrize(("peer", "shown"), [(None, "unix"), ("", "unknown"), ("testclient", "unknown")])
def test_who_has_no_address_has_a_place_all_the_same(peer: str | None, shown: str) -> None:
    assert ClientAddress()(request(peer=peer)) == f"address:{shown}"


def test_another_header_may_say_it() -> None:
    client = ClientAddress(trusted=PROXIES, header="CF-Connecting-IP")
    assert client(request({"cf-connecting-ip": ["203.0.113.7"], "x-forwarded-for": ["1.1.1.1"]}, "10.0.0.1")) == (
        "address:203.0.113.7"
    )


def test_a_predicate_may_change_its_mind() -> None:
    trusted = {"10.0.0.1"}
    client = ClientAddress(trusted=lambda address: address in trusted)
    assert seen("203.0.113.7, 10.0.0.2", client=client) == "10.0.0.2"
    trusted.add("10.0.0.2")
    assert seen("203.0.113.7, 10.0.0.2", client=client) == "203.0.113.7"


def test_a_predicate_that_fails_trusts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    client = ClientAddress(trusted=lambda address: bool(1 / 0))
    assert seen("203.0.113.7", client=client) == "10.0.0.1"
    assert "ZeroDivisionError" in caplog.text


# -- large -----------------------------------------------------------------------------------------------------------


def test_a_long_header_is_read_as_far_as_there_are_proxies() -> None:
    clients = ", ".join(f"1.1.{number // 250}.{number % 250}" for number in range(10_000))
    assert len(clients) > 100_000
    assert seen(f"{clients}, 203.0.113.7, 10.0.0.2") == "203.0.113.7"
    assert seen(*["1.1.1.1"] * 20_000, "203.0.113.7") == "203.0.113.7"
    assert seen(" " * 100_000 + "203.0.113.7") == "203.0.113.7"


def test_a_chain_that_is_all_proxies_ends_somewhere() -> None:
    assert seen(", ".join(f"10.1.{number // 250}.{number % 250}" for number in range(10_000))).startswith("10.1.39.2")


def test_it_does_not_remember_more_than_so_many() -> None:
    client = ClientAddress(trusted=PROXIES)
    for number in range(5_000):
        seen(f"1.{number // 65536}.{number // 256 % 256}.{number % 256}", client=client)
        client(request(peer=f"2.{number // 65536}.{number // 256 % 256}.{number % 256}"))
        client(request(peer="x" * 10_000 + str(number)))
    assert len(client._known) <= 4_096
    assert max(len(str(text)) for text in client._known) <= 64
    assert seen("203.0.113.7", client=client) == "203.0.113.7"


# -- any header at all -----------------------------------------------------------------------------------------------

v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str)
anything = st.one_of(st.text(max_size=40), v4, v6, v4.map(lambda a: f"{a}:80"), v6.map(lambda a: f"[{a}]:80"))
inside = st.ip_addresses(network=IPv4Network("10.0.0.0/8")).map(str)


@given(st.lists(anything, max_size=8), st.lists(inside, max_size=4), st.ip_addresses())
def test_no_header_moves_a_client_out_of_his_place(forged: list[str], proxies: list[str], client: Any) -> None:
    place = ClientAddress()(request(peer=str(client)))
    assume(not Peers(PROXIES, "trusted").trusts(str(client)))
    chain = [*forged, str(client), *proxies]
    for values in ([", ".join(chain)], chain):
        assert behind(request({"x-forwarded-for": values}, "10.0.0.1")) == place


@given(st.lists(st.text(max_size=60), max_size=5), st.one_of(st.none(), st.text(max_size=60)))
def test_no_header_makes_it_fail(values: list[str], peer: str | None) -> None:
    key = behind(request({"x-forwarded-for": values}, peer))
    assert key.startswith("address:") and len(key) < 64


# -- API keys, users -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "key"),
    [(["k-1"], "key:k-1"), ([], None), ([""], None), (["k-1", "k-1"], None), (["k-1", "k-2"], None), (["x" * 100_000], "key:" + "x" * 100_000)],
)  # fmt: skip
def test_an_api_key_is_a_header_that_was_sent_once(values: list[str], key: str | None) -> None:
    assert api_key()(request({"x-api-key": values})) == key
    assert api_key("X-Token")(request({"x-token": values})) == key


@pytest.mark.parametrize(
    ("user", "key"),
    [("ann", "user:ann"), (42, "user:42"), (0, "user:0"), (None, None), ("", None), (UUID(int=7), f"user:{UUID(int=7)}")],
)  # fmt: skip
def test_a_user_is_whoever_the_function_finds(user: Any, key: str | None) -> None:
    assert user_key(lambda request: user)(request()) == key


def test_a_user_cannot_be_named_like_an_address() -> None:
    who = first_of(user_key(lambda request: "address:203.0.113.9"), ClientAddress())
    assert who(request()) != ClientAddress()(request())


def test_the_first_that_can_tell_tells() -> None:
    who = first_of(api_key(), ClientAddress())
    assert who(request({"x-api-key": ["k"]})) == "key:k"
    assert who(request()) == "address:203.0.113.9"
    assert first_of(api_key())(request()) is None


def test_the_first_that_can_tell_may_have_to_be_awaited() -> None:
    async def slow(request: Any) -> str | None:
        return request.header("x-user")

    who: Any = first_of(api_key(), slow, ClientAddress())
    assert who.awaits and not first_of(api_key()).awaits  # type: ignore[union-attr]
    assert run(who.acall(request({"x-user": ["ann"]}))) == "ann"
    assert run(who.acall(request())) == "address:203.0.113.9"
    assert run(who.acall(request({"x-api-key": ["k"], "x-user": ["ann"]}))) == "key:k"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ClientAddress(trusted="10.0.0.0/8"), lambda: ClientAddress(trusted=["10.0.0.1/8"]), lambda: ClientAddress(trusted=[7]),
        lambda: ClientAddress(ipv6_prefix=0), lambda: ClientAddress(ipv6_prefix=129), lambda: ClientAddress(header=""), lambda: ClientAddress(header="ü"),
        lambda: api_key(""), lambda: api_key("ü"), lambda: api_key(None), lambda: first_of(), lambda: first_of("x"), lambda: user_key(None), lambda: user_key("x"),
    ],
)  # fmt: skip
def test_settings_are_checked_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        wrong()


def test_a_request_says_what_it_is() -> None:
    asked = request({"x-one": ["1"], "x-two": ["1", "2"]})
    assert (asked.header("X-One"), asked.header("X-Two"), asked.header("X-None")) == ("1", None, None)
    assert (list(asked.headers("X-TWO")), asked.operation) == (["1", "2"], None)
    assert repr(asked) == "Request(GET / from 203.0.113.9)"
