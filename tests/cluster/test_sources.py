"""Where endpoints come from: what a source may give, and how it says what is wrong with it."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from seawall import Cluster, ConfigError, Dns, Endpoint, File, Lookup
from seawall.cluster.endpoint import MOST_ENDPOINTS
from seawall.cluster.sources import LARGEST_FILE, source_of
from seawall.policies.registry import Registry

EVERY: list[Any] = [0, -1, float("nan"), float("inf"), True, None, "soon", "", 10**30]


def shown(endpoints: tuple[Endpoint, ...]) -> list[tuple[str, int, str | None]]:
    return [(endpoint.address, endpoint.weight, endpoint.host) for endpoint in endpoints]


@pytest.mark.parametrize("every", EVERY, ids=repr)
@pytest.mark.parametrize("source", [Dns, File, Lookup])
def test_how_often_is_a_duration_of_more_than_nothing(source: Any, every: Any) -> None:
    what: Any = {Dns: "a:80", File: "here", Lookup: lambda: ["a:80"]}[source]
    with pytest.raises(ConfigError, match=rf"^{source.__name__}\(every="):
        source(what, every=every)


def test_sources_are_values() -> None:
    assert Dns("a:80") == Dns("a:80", every=10) != Dns("a:80", every=5)
    assert File("x") == File(Path("x")) != File("y")
    assert repr(File("x")) == "File(path='x', every=1)"


# -- a function -------------------------------------------------------------------------------------------------------


def test_a_bare_function_is_a_lookup() -> None:
    source: Any = source_of(lambda: ["a:80", Endpoint("b:80", 2)])
    assert isinstance(source, Lookup) and source.every == 10
    assert shown(source.read()) == [("a:80", 1, None), ("b:80", 2, None)]


async def asynchronous() -> list[str]:
    return ["a:80"]


class Asynchronous:
    async def __call__(self) -> list[str]:
        return ["a:80"]


@pytest.mark.parametrize(
    "function", [asynchronous, functools.partial(asynchronous), Asynchronous(), 5, None, "a:80"], ids=repr
)
def test_what_is_no_plain_function_is_refused_at_once(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Lookup\(function="):
        Lookup(function)


def test_a_function_whose_answer_must_be_awaited_says_so() -> None:
    """Nor is the coroutine left behind, which would warn."""
    hidden: Any = lambda: asynchronous()  # noqa: E731  # it is what people write
    with pytest.raises(ConfigError, match="has to be awaited"):
        Lookup(hidden).read()


@pytest.mark.parametrize("answer", [None, 5, True, "a:80", b"a:80", [5], [None], ["a:80", "a:80"], ["a b"]], ids=repr)
def test_garbage_of_a_function_is_named(answer: Any) -> None:
    with pytest.raises(ConfigError, match=r"what Lookup\(function\) gave|Endpoint\(address="):
        Lookup(lambda: answer).read()


def test_an_endless_answer_ends() -> None:
    def endless() -> Any:
        number = 0
        while True:
            yield f"e{number}:80"
            number += 1

    with pytest.raises(ConfigError, match="more than 10000 endpoints"):
        Lookup(endless).read()


# -- DNS --------------------------------------------------------------------------------------------------------------


def resolver(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[tuple[Any, ...]]:
    """Answers with these addresses, each of them twice; what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*arguments: Any, **settings: Any) -> list[Any]:
        asked.append((*arguments, settings))
        return [(2, 1, 6, "", (address, 80)) for address in addresses for _ in range(2)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("target", "address", "name", "port"),
    [
        ("http://inventory:8080", "http://10.0.0.1:8080", "inventory", 8080),
        ("http://inventory", "http://10.0.0.1:80", "inventory", 80),
        ("https://inventory.internal", "https://10.0.0.1:443", "inventory.internal", 443),
        ("https://inventory:8443/base/path", "https://10.0.0.1:8443/base/path", "inventory", 8443),
        ("http://inventory/", "http://10.0.0.1:80/", "inventory", 80),
        ("inventory:5432", "10.0.0.1:5432", "inventory", 5432),
        ("grpc://inventory:1", "grpc://10.0.0.1:1", "inventory", 1),
        ("inventory:65535", "10.0.0.1:65535", "inventory", 65535),
        ("inventory:00080", "10.0.0.1:80", "inventory", 80),
    ],
)
def test_the_address_takes_the_place_of_the_name_which_stays_the_host(
    monkeypatch: pytest.MonkeyPatch, target: str, address: str, name: str, port: int
) -> None:
    asked = resolver(monkeypatch, "10.0.0.1")
    assert shown(Dns(target).read()) == [(address, 1, name)]
    assert asked == [(name, port, {"type": socket.SOCK_STREAM})]


def test_each_address_is_one_endpoint_and_those_of_ipv6_are_bracketed(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, "10.0.0.2", "10.0.0.1", "2001:db8::1", "fe80::1%eth0")
    assert [str(endpoint) for endpoint in Dns("http://inventory:80/x").read()] == [
        "http://10.0.0.2:80/x",
        "http://10.0.0.1:80/x",
        "http://[2001:db8::1]:80/x",
        "http://[fe80::1%eth0]:80/x",
    ]


def test_no_address_is_no_endpoint_and_too_many_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch)
    assert Dns("a:80").read() == ()
    resolver(monkeypatch, *(f"10.0.{number >> 8}.{number & 255}" for number in range(MOST_ENDPOINTS + 5)))
    assert len(Dns("a:80").read()) == MOST_ENDPOINTS


BAD_TARGETS: list[Any] = [
    *(
        "",
        " ",
        "inventory",
        "ftp://inventory",
        "inventory:",
        "http://inventory:",
        ":80",
        "http://:80",
        "http://",
        "://a:80",
    ),
    *("http://inventory:0", "http://inventory:65536", "http://inventory:-1", "inventory:8o", "inventory:٨٠"),
    *(
        "inventory:000080",
        "inventory:" + "9" * 5_000,
        "inventory:80x",
        "inventory:1_0",
        "inventory:+80",
        "inventory: 80",
    ),
    *(
        "http://user@inventory:80",
        "http://user:secret@inventory:80",
        "http://[::1]:80",
        "[::1]:80",
        "::1",
        "fe80::1:80",
    ),
    *("http://inventory:80?x=1", "http://inventory:80#x", "http://inventory?x:80", "http://inven%74ory:80"),
    *(
        "http://a\nb:80",
        "a\0:80",
        "a b:80",
        "a\ud800:80",
        "http://a:80/x y",
        "a" * 254 + ":80",
        "a" * 1_000_000 + ":80",
    ),
    *(80, None, True, b"a:80", ["a:80"], Endpoint("a:80")),
]


@pytest.mark.parametrize("target", BAD_TARGETS, ids=lambda target: ascii(target)[:24])
def test_what_is_no_name_with_a_port_is_refused_at_once(target: Any) -> None:
    """Before anybody is asked; not at the first look-up, at night."""
    with pytest.raises(ConfigError, match=r"^Dns\(target=.*\): expected ") as caught:
        Dns(target)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_what_the_resolver_raises_is_raised(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def getaddrinfo(*_arguments: Any, **_settings: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(type(error)):
        Dns("a:80").read()


# -- a file -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stock.endpoints"


def test_a_line_is_an_address_with_settings_and_a_comment(path: Path) -> None:
    path.write_text(
        "# the stock service\n"
        "http://10.0.0.1:80\n"
        "\n"
        "   http://10.0.0.2:80\tweight=3   host=stock.internal # the big one\n"
        "10.0.0.3:80 host=x weight=1000#\r\n"
        "  # nothing\n"
        "b:80"
    )
    assert shown(File(path).read()) == [
        ("http://10.0.0.1:80", 1, None),
        ("http://10.0.0.2:80", 3, "stock.internal"),
        ("10.0.0.3:80", 1000, "x"),
        ("b:80", 1, None),
    ]


def test_a_mark_at_the_beginning_is_no_part_of_the_first_address(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfa:80\r\nb:80\r\n")
    assert [str(endpoint) for endpoint in File(path).read()] == ["a:80", "b:80"]


@pytest.mark.parametrize("text", ["", "\n\n", "# none\n"], ids=repr)
def test_a_file_without_addresses_is_an_empty_list(path: Path, text: str) -> None:
    path.write_text(text)
    assert File(path).read() == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("c:80 weight", "setting='weight': expected weight=N or host=NAME"),
        ("c:80 weight=", "setting='weight=': expected weight=N or host=NAME"),
        ("c:80 wieght=3", "setting='wieght=3': expected weight=N or host=NAME"),
        ("c:80 d:80", "setting='d:80': expected weight=N or host=NAME"),
        (
            "c:80 weight=1 weight=2",
            "setting='weight=2': expected weight=N or host=NAME after the address, each at most",
        ),
        ("c:80 weight=0", "Endpoint(weight=0): expected a whole number from 1 to 1000"),
        ("c:80 weight=1001", "Endpoint(weight=1001): expected a whole number from 1 to 1000"),
        ("c:80 weight=-1", "weight='-1': expected a whole number"),
        ("c:80 weight=1.5", "weight='1.5': expected a whole number"),
        ("c:80 weight=٣", "weight='٣': expected a whole number"),
        ("c:80 weight=" + "9" * 5_000, "expected a whole number"),
        ("c:80 host=", "setting='host=': expected"),
        ("c:80 host=a\0b", r"Endpoint(host='a\x00b'): expected text"),
        ("c\0:80", r"Endpoint(address='c\x00:80'): expected text"),
        ("c" * 2_049, "Endpoint(address='ccc"),
        ("a:80", "a:80 is given twice"),
        ("a:80 weight=5", "a:80 is given twice"),
        ("c:80\x1cd:80", "setting='d:80': expected"),
    ],
    ids=lambda part: part[:18],
)
def test_a_bad_line_is_named_with_file_and_number_and_nothing_of_the_file_is_taken(
    path: Path, line: str, problem: str
) -> None:
    path.write_text(f"a:80\n# a comment\n{line}\nz:80\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        File(path).read()
    assert str(caught.value).startswith(f"{path}:3: ") and problem in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_too_large_is_not_read_to_its_end(path: Path) -> None:
    path.write_text("#" * LARGEST_FILE)
    assert File(path).read() == ()
    path.write_text("#" * (LARGEST_FILE + 1))
    with pytest.raises(ConfigError, match=f"{path}: more than {LARGEST_FILE} characters"):
        File(path).read()
    with pytest.raises(ConfigError, match="more than"):
        File("/dev/zero").read()


def test_a_file_of_too_many_lines_is_refused_with_the_line(path: Path) -> None:
    path.write_text("".join(f"e{number}\n" for number in range(MOST_ENDPOINTS + 1)))
    with pytest.raises(ConfigError, match=f"{path}:{MOST_ENDPOINTS + 1}: more than {MOST_ENDPOINTS} endpoints"):
        File(path).read()


def test_what_is_not_text_is_refused_with_the_name_of_the_file(path: Path) -> None:
    path.write_bytes(b"a:80\n\xff\xfe\n")
    with pytest.raises(ConfigError, match=f"{path}: not UTF-8: invalid start byte at byte 5"):
        File(path).read()


def test_a_file_that_cannot_be_read_is_the_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        File(path).read()
    with pytest.raises(IsADirectoryError):
        File(path.parent).read()


def test_a_half_written_line_is_no_address_if_it_shows(path: Path) -> None:
    """What looks like an address is one: a file is renamed into its place, as the docs say."""
    path.write_text("http://10.0.0.1:80 weig")
    with pytest.raises(ConfigError, match=":1: setting='weig'"):
        File(path).read()


class Bytes(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"here"


@pytest.mark.parametrize("bad", ["", b"here", Bytes(), 5, None, True, "a\0b", ["x"]], ids=repr)
def test_what_is_no_path_is_refused_at_once(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"^File\(path=.*\): expected a path"):
        File(bad)


# -- sources of one's own ---------------------------------------------------------------------------------------------


class Own:
    every: Any = 3

    def read(self) -> Any:
        return ("a:80", Endpoint("b:80"))


def test_whatever_can_be_read_every_now_and_then_is_a_source() -> None:
    cluster = Cluster("stock", Own(), names=Registry())
    assert cluster.endpoints == ()
    assert [str(endpoint) for endpoint in cluster.refresh()] == ["a:80", "b:80"]


def test_a_source_of_ones_own_is_checked_as_well() -> None:
    source = Own()
    source.every = 0
    with pytest.raises(ConfigError, match="every=0"):
        Cluster("stock", source, names=Registry())
