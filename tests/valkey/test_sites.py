"""A URL or a ready client leads to servers, with what connections need, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio

from seawall import ConfigError, Valkey
from seawall.stores.valkey.routes import Routes, slot_of
from seawall.stores.valkey.site import site_of


@pytest.mark.parametrize(
    ("url", "mode", "addresses", "settings"),
    [
        ("valkey://host", "single", [("host", 6379)], {}),
        ("redis://host:7/3", "single", [("host", 7)], {"db": 3}),
        ("valkey://[::1]:7", "single", [("::1", 7)], {}),
        ("valkey://ann:p%40%2F%3A@host", "single", [("host", 6379)], {"username": "ann", "password": "p@/:"}),
        ("valkey://:pw@host", "single", [("host", 6379)], {"password": "pw"}),
        ("rediss://host?ssl_ca_certs=a.pem", "single", [("host", 6379)], {"ssl_ca_certs": "a.pem"}),
        ("unix:///run/v.sock?db=2", "single", [("/run/v.sock", -1)], {"db": 2}),
        ("valkey+cluster://a,b:7", "cluster", [("a", 6379), ("b", 7)], {}),
        ("valkeys+cluster://ann:pw@a", "cluster", [("a", 6379)], {"username": "ann", "password": "pw"}),
        ("redis+sentinel://a:1,b/main?db=2", "sentinel", [("a", 1), ("b", 26379)], {"db": 2}),
    ],
)
def test_urls_lead_to_servers(url: str, mode: str, addresses: list[Any], settings: dict[str, Any]) -> None:
    site = site_of(url, {})
    assert (site.mode, list(site.addresses), site.settings) == (mode, addresses, settings)
    assert site.tls is url.startswith(("rediss", "valkeys"))
    assert "pw" not in site.label and "p@" not in site.label


def test_sentinels_may_have_a_password_of_their_own() -> None:
    url = "valkey+sentinel://ann:data@a/main?sentinel_username=bob&sentinel_password=watch"
    site = site_of(url, {"client_name": "x"})
    assert site.service == "main"
    assert site.settings == {"username": "ann", "password": "data", "client_name": "x"}
    assert site.sentinel_settings == {"username": "bob", "password": "watch"}


def test_ready_clients_give_their_settings() -> None:
    plain = redis.Redis(host="h", port=7, db=2, username="ann", password="pw", socket_timeout=9, decode_responses=True)
    site = site_of(plain, {})
    assert site.addresses == (("h", 7),)
    assert {name: site.settings[name] for name in ("db", "username", "password")} == {
        "db": 2,
        "username": "ann",
        "password": "pw",
    }
    assert "socket_timeout" not in site.settings and "decode_responses" not in site.settings
    secure = redis.asyncio.Redis(host="h", ssl=True, ssl_ca_certs="a.pem")
    assert site_of(secure, {}).tls and site_of(secure, {}).settings["ssl_ca_certs"] == "a.pem"
    watch = redis.sentinel.Sentinel([("s", 5), ("t", 6)], sentinel_kwargs={"password": "watch"})
    site = site_of(watch.master_for("main", password="data"), {})
    assert (site.mode, site.service, site.addresses) == ("sentinel", "main", (("s", 5), ("t", 6)))
    assert (site.settings["password"], site.sentinel_settings["password"]) == ("data", "watch")
    assert site_of(redis.Redis(unix_socket_path="/s"), {}).addresses == (("/s", -1),)


def test_without_redis_py_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"seawall\[valkey\]"):
        Valkey("valkey://127.0.0.1")


def test_a_map_of_slots_is_learned_corrected_and_not_believed_blindly() -> None:
    routes = Routes(site_of("valkey+cluster://a,b", {}))
    assert routes.address_of(0) is None and routes.must_ask()
    table = [[0, 8191, [b"a", 1, b"id"], [b"r", 2, b"id"]], [8192, 16383, [b"", 3, b"id"]]]
    assert routes.learn(table, ("b", 9))
    assert (routes.address_of(0), routes.address_of(16_383)) == (("a", 1), ("b", 3))
    assert not routes.must_ask()
    routes.moved(5, ("c", 4))
    assert routes.address_of(5) == ("c", 4) and routes.address_of(6) == ("a", 1)
    for nonsense in (None, 3, [], [[0, 1]], [["x", "y", ["a", "b"]]], [[0, 99_999, [b"a", 1]]], b"OK"):
        assert not routes.learn(nonsense, ("b", 9))
    assert routes.address_of(5) == ("c", 4)
    sentinel = Routes(site_of("valkey+sentinel://a/main", {}))
    assert not sentinel.learn(None, ("a", 1))
    assert sentinel.learn([b"10.0.0.1", b"6379"], ("a", 1))
    assert sentinel.servers() == [("10.0.0.1", 6379)]


def test_slots_are_those_of_the_protocol() -> None:
    assert slot_of(b"foo") == 12_182
    assert slot_of(b"123456789") == 0x31C3


def test_a_url_is_refused_without_showing_it() -> None:
    for url in ("valkey+sentinel://a/main?sentinel_port=3", "valkey+what://a", "a b", "", "valkey://a?db=x"):
        with pytest.raises(ConfigError):
            site_of(url, {})
