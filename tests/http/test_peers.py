"""Only the peers that were named are trusted, by the address at the other end of the connection."""

from __future__ import annotations

import logging
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import ConfigError
from seawall.http.peers import Peers


def trusts(trusted: Any, address: str | None) -> bool:
    return Peers(trusted, "Here(trusted)").trusts(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", None, ""])
def test_nobody_is_trusted_unless_named(address: str | None) -> None:
    assert not trusts((), address)


@pytest.mark.parametrize(
    ("trusted", "address"),
    [
        (["10.0.0.0/8"], "10.255.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["2001:db8::/32"], "2001:db8::5"),
        (["::1"], "0:0:0:0:0:0:0:1"),
        (["10.0.0.0/8"], "::ffff:10.1.2.3"),
        (["fe80::/10"], "fe80::1%eth0"),
        (["unix"], None),
        (["10.0.0.0/8", "unix"], None),
        (["10.0.0.0/8", "192.0.2.7"], "192.0.2.7"),
        ([ip_address("192.0.2.7"), ip_network("10.0.0.0/8")], "10.0.0.1"),
        (iter(["0.0.0.0/0"]), "203.0.113.9"),
    ],
)
def test_those_named_are(trusted: Any, address: str | None) -> None:
    assert trusts(trusted, address)


@pytest.mark.parametrize(
    ("trusted", "address"),
    [
        (["10.0.0.0/8"], "11.0.0.1"),
        (["10.0.0.0/8"], "::ffff:11.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1, 203.0.113.9"),
        (["10.0.0.0/8"], "10.0.0.1:80"),
        (["10.0.0.0/8"], "010.0.0.1"),
        (["10.0.0.0/8"], "10.1"),
        (["10.0.0.0/8"], "10.0.0.1%eth0"),
        (["10.0.0.0/8"], "١٠.0.0.1"),
        (["10.0.0.0/8"], " 10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1\n"),
        (["10.0.0.0/8"], "unix"),
        (["10.0.0.0/8"], "testclient"),
        (["0.0.0.0/0"], "::1"),
        (["0.0.0.0/0", "::/0"], None),
        (["0.0.0.0/0", "::/0"], ""),
        (["unix"], "unix"),
        (["unix"], ""),
        (["unix"], "127.0.0.1"),
    ],
)
def test_others_are_not(trusted: Any, address: str | None) -> None:
    assert not trusts(trusted, address)


def test_a_predicate_decides_alone() -> None:
    asked: list[str | None] = []
    peers = Peers(lambda address: asked.append(address) or address is None, "Here(trusted)")
    assert [peers.trusts(None), peers.trusts("10.0.0.1")] == [True, False]
    assert asked == [None, "10.0.0.1"]


def test_a_predicate_that_raises_trusts_nobody_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "seawall.http"):
        assert not trusts(lambda address: address.startswith("10."), None)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "predicate" in caplog.text


async def asynchronous(address: str | None) -> bool:
    return True


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "10.0.0.0/8",
        b"10.0.0.0/8",
        None,
        7,
        True,
        ["localhost"],
        ["*"],
        [""],
        ["10.0.0.0/33"],
        ["10.0.0.1/8"],
        ["UNIX"],
        [None],
        [167772160],
        [b"\n\0\0\1"],
        asynchronous,
    ],
)
def test_what_names_no_peers_is_refused_by_name(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Here\(trusted=.*expected"):
        Peers(bad, "Here(trusted)")


def test_the_error_for_host_bits_says_so() -> None:
    with pytest.raises(ConfigError, match="host bits"):
        Peers(["10.0.0.1/8"], "Here(trusted)")


@given(st.text())
def test_an_address_that_cannot_be_read_is_nobodys(text: str) -> None:
    assert trusts(["0.0.0.0/0", "::/0"], text) in (True, False)


@given(st.ip_addresses())
def test_every_address_is_in_one_of_the_two_worlds(address: Any) -> None:
    assert trusts(["0.0.0.0/0", "::/0"], str(address))
