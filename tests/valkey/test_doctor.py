"""`seawall doctor` finds what is wrong with a server, says what to do, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from seawall.cli import main
from seawall.stores.valkey.doctor import RIGHTS
from tests.valkey.servers import Server, free_port


def examine(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "--json", "--timeout", "2s", "--connect-timeout", "2s", *args])
    return code, {finding["about"]: finding for finding in json.loads(capsys.readouterr().out)}


def problems(found: dict[str, dict[str, Any]]) -> list[str]:
    return [about for about, finding in found.items() if finding["state"] == "problem"]


def test_a_server_that_is_well_is_found_well_and_left_as_it_was(server: Server, capsys: Any) -> None:
    code, found = examine(capsys, server.url)
    assert code == 0
    assert set(found) == {"connection", "version", "role", "memory", "log", "clock", "script", "latency"}
    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert server.do("KEYS", "*") == [b"seawall:doctor:{nodes}"], "and that goes by itself"
    assert server.do("PTTL", "seawall:doctor:{nodes}") > 0
    assert main(["doctor", server.url, "--timeout", "2s"]) == 0
    assert "no problems, no warnings" in capsys.readouterr().out


def test_nobody_there_is_a_problem_with_a_remedy(capsys: Any) -> None:
    code, found = examine(capsys, f"valkey://127.0.0.1:{free_port()}")
    assert code == 1
    assert "running" in found["connection"]["advice"]


def test_an_eviction_policy_that_drops_counters_is_found(start: Callable[..., Server], capsys: Any) -> None:
    full = start("--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl")
    code, found = examine(capsys, full.url)
    assert (code, problems(found)) == (1, ["memory"])
    assert "volatile-ttl" in found["memory"]["said"] and "noeviction" in found["memory"]["advice"]


def test_missing_rights_are_found_and_the_rule_that_it_names_is_enough(server: Server, capsys: Any) -> None:
    server.do("ACL", "SETUSER", "poor", "on", ">pw", "~seawall:*", "+eval", "+evalsha", "+ping")
    url = f"valkey://poor:pw@127.0.0.1:{server.port}"
    code, found = examine(capsys, url)
    assert (code, problems(found)) == (1, ["script"])
    assert found["setup"]["state"] == "unknown"
    rule = found["script"]["advice"].partition("ACL SETUSER ")[2].split()
    assert rule[:2] == ["poor", "~seawall:*"]
    server.do("ACL", "SETUSER", *rule, "+info", "+ping")
    code, found = examine(capsys, url)
    assert (code, problems(found)) == (0, [])
    server.do("ACL", "SETUSER", "poor", "-zadd")
    code, found = examine(capsys, url)
    assert code == 0 and found["processes"]["state"] == "warning"
    assert all(f"+{name}" in RIGHTS for name in ("zadd", "pexpire", "append"))


def test_a_wrong_password_is_found_and_not_shown(server: Server, capsys: Any) -> None:
    server.do("ACL", "SETUSER", "ann", "on", ">right", "~*", "+@all")
    code, found = examine(capsys, f"valkey://ann:wrong@127.0.0.1:{server.port}")
    assert (code, problems(found)) == (1, ["connection"])
    assert "wrong@" not in json.dumps(found)


def test_a_replica_and_a_part_of_a_cluster_are_found(start: Callable[..., Server], capsys: Any) -> None:
    primary, replica, part = start(), start(), start("--cluster-enabled", "yes")
    replica.do("REPLICAOF", "127.0.0.1", primary.port)
    primary.wait_for(replica)
    code, found = examine(capsys, replica.url)
    assert code == 1 and found["role"]["state"] == "problem"
    code, found = examine(capsys, part.url)
    assert code == 1 and "valkey+cluster" in found["cluster"]["advice"]
    code, found = examine(capsys, part.url.replace("valkey:", "valkey+cluster:"))
    assert code == 1, "no slots are served"


def test_a_server_too_slow_for_the_timeouts_is_found(server: Server, capsys: Any) -> None:
    code = main(["doctor", server.url, "--json", "--timeout", "1us", "--connect-timeout", "1us"])
    found = {finding["about"]: finding["state"] for finding in json.loads(capsys.readouterr().out)}
    assert code == 1 and found["latency"] == found["connection"] == "problem"


def test_a_command_that_makes_no_sense_is_refused(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEAWALL_VALKEY_URL", raising=False)
    assert main(["doctor"]) == 2
    assert main(["doctor", "http://127.0.0.1"]) == 2
    assert main(["doctor", "valkey://127.0.0.1", "--prefix", "{}"]) == 2
    assert "expected" in capsys.readouterr().err
