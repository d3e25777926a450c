"""The whole demo as a user runs it: complete, and no process left behind however it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from seawall import cli
from seawall.demo import processes
from seawall.demo.layout import PROCESSES
from seawall.demo.phases import PHASES
from seawall.demo.report import HEADINGS
from seawall.demo.traffic import Arrival, Users

if not Path("/proc/self/cmdline").exists():  # pragma: no cover
    pytest.skip("needs /proc to see which processes are left", allow_module_level=True)

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]  # a run starts and restarts dozens of interpreters

CUT = (
    "import sys, seawall.cli, seawall.demo.run as it; it.run_phases.__defaults__ = (it.PHASES[:{phases}],);"
    "sys.exit(seawall.cli.main(sys.argv[1:]))"
)

QUICK = """
import contextlib, sys, seawall.cli, seawall.demo.run as it
from seawall.demo.measure import PhaseResult
async def at_once(shops, run, progress):
    run.results.append(PhaseResult(it.PHASES[0], 1.0, 1.0))
    run.complete = True
it.run_phases, it.open_shops = at_once, lambda run, progress: contextlib.nullcontext({})
sys.exit(seawall.cli.main(["demo"]))
"""


def shops(seed: str) -> list[int]:
    """The processes that were started for this seed and live (a zombie has an empty command line)."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"seawall.demo." in line and f"\0{seed}:".encode() in line:
                found.append(int(entry.name))
    return found


def until(true: Callable[[], object], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return bool(true())


def start(
    seed: str, *arguments: str, phases: int = len(PHASES), stderr: int = subprocess.PIPE
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CUT.format(phases=phases), "demo", "--seconds=1", f"--seed={seed}", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )


def get(url: str, method: str = "GET") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as reply:
        return reply.read().decode()


def test_a_whole_run_is_complete_stays_open_and_leaves_nothing(tmp_path: Path) -> None:
    seed, file = uuid4().hex, tmp_path / "demo.json"
    with start(seed, "--json", str(file), "--stay") as demo:
        assert demo.stdout is not None
        out = ""
        while "/explain" not in out.rpartition("Both shops stay open")[2]:
            line = demo.stdout.readline()
            assert line, "it ended"
            out += line
        look_around(seed, out)
        demo.send_signal(signal.SIGINT)
        rest, err = demo.communicate(timeout=15)
    assert demo.returncode == 0, err
    assert shops(seed) == []
    assert rest == ""
    assert "Traceback" not in err

    rows = [
        re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if re.match(r".*\b(plain|seawall)\s+\d", line)
    ]
    assert list(HEADINGS) in [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert [row[0] for row in rows if row[1] == "plain"] == [phase.name for phase in PHASES]
    assert [row[0] for row in rows].count("seawall") == len(PHASES)
    assert "\x1b" not in out and "\x1b" not in err
    assert [line.partition("  ")[0] for line in err.splitlines() if "; seawall " in line] == [p.name for p in PHASES]
    check_figures(json.loads(file.read_text(encoding="utf-8")))


def look_around(seed: str, out: str) -> None:
    """A shop that stays serves what its lines promise, also with a replica that hangs and one that was killed."""
    assert len(shops(seed)) == PROCESSES
    urls = re.findall(r"  curl (?:-X (\w+) )?(http://127\.0\.0\.1:\d+/\S+)", out)
    methods, paths = [method for method, _ in urls], [url.split("/", 3)[3] for _, url in urls]
    assert paths == ["items/7", "orders/7", "items/7", "mode/hang", "explain"]
    assert methods == ["", "POST", "", "PUT", ""]
    for method, url in urls:
        assert get(url, method or "GET")
    victim = re.search(r"inventory 2 +\S+ +pid (\d+)", out.rpartition("  seawall\n")[2])
    assert victim is not None
    os.kill(int(victim[1]), signal.SIGKILL)
    pages = [json.loads(get(urls[0][1])) for _ in range(4)]
    assert [page["degraded"] for page in pages] == [False] * 4


def check_figures(told: dict[str, object]) -> None:
    assert told["complete"] is True and told["error"] == ""
    by_key = {phase["key"]: phase for phase in told["phases"]}
    assert list(by_key) == [phase.key for phase in PHASES] == told["phases_planned"]
    # Between two phases both fronts and what was touched are started anew; in two phases a replica is started again.
    restarts = sum(2 + 2 * len(phase.touched) for phase in PHASES[:-1]) + 4
    assert len(told["pids"]) == len(set(told["pids"])) == PROCESSES + restarts
    for phase in by_key.values():
        plain, seawall = phase["plain"], phase["seawall"]
        assert plain["users"] == seawall["users"] > 0
        for side in (plain, seawall):
            assert side["served"] + side["degraded"] + side["errors"] == side["users"]
            assert sum(side["errors_by_reason"].values()) == side["errors"]
            assert sum(side["attempts_by_service"].values()) == side["attempts"] > 0
            assert 0 < side["p50_ms"] <= side["p99_ms"]
        assert plain["degraded"] == 0
        assert seawall["errors"] <= plain["errors"]
        assert seawall["orders_charged_but_not_audited"] == 0
        assert phase["seawall_backlog"] == 0
    for key in ("killed", "hanging", "audit", "slow", "overload"):
        assert by_key[key]["plain"]["errors"] > 0, key
        assert by_key[key]["seawall_did"], key
    assert (
        by_key["healthy"]["plain"]["served"] >= 0.8 * by_key["healthy"]["plain"]["users"]
    )  # a shared machine may stall
    audit = by_key["audit"]["seawall_did"]["audit-outbox"]
    assert audit["queued"] == audit["delivered"] > 0


def test_ctrl_c_ends_everything_and_shows_what_is_complete() -> None:
    seed = uuid4().hex
    ours, theirs = pty.openpty()
    with start(seed, phases=2, stderr=theirs) as demo:
        os.close(theirs)
        seen = b""
        while b"killed -9: 0." not in seen:
            seen += os.read(ours, 4096)
        assert len(shops(seed)) == PROCESSES
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=15)
    os.close(ours)
    assert demo.returncode == 130
    assert shops(seed) == []
    assert b"\x1b[3A" in seen
    assert "healthy" in out and "killed" not in out


def test_ctrl_c_while_it_starts_has_no_table() -> None:
    seed = uuid4().hex
    with start(seed) as demo:
        assert until(lambda: len(shops(seed)) > 3)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=15)
    assert demo.returncode == 130
    assert until(lambda: shops(seed) == [], 5.0)
    assert out == ""
    assert "Traceback" not in err and "interrupted" in err


@pytest.mark.parametrize(("how", "running"), [(signal.SIGKILL, PROCESSES), (signal.SIGTERM, 4)])
def test_everything_dies_with_the_demo(how: signal.Signals, running: int) -> None:
    seed = uuid4().hex
    with start(seed) as demo:
        assert until(lambda: len(shops(seed)) >= running)
        demo.send_signal(how)
        demo.communicate(timeout=15)
    assert demo.returncode == -how
    assert until(lambda: shops(seed) == [], 5.0)


def test_a_reader_that_leaves_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", QUICK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        demo.stdout.close()
        err = demo.stderr.read()
        demo.wait(timeout=30)
    assert demo.returncode == 1
    assert err == ""


def test_one_service_that_does_not_start_ends_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, good = uuid4().hex, processes.command

    def broken(module: str, arguments: Sequence[str]) -> list[str]:
        if f"{seed}:payments:1" in arguments:
            return [sys.executable, "-c", "import time; time.sleep(0.3); raise SystemExit('no money today')"]
        return good(module, arguments)

    monkeypatch.setattr(processes, "command", broken)
    assert cli.main(["demo", "--seconds", "1", "--seed", seed]) == 1
    told = capsys.readouterr().err
    assert re.search(r"(plain|seawall) payments 2 did not start \(exit code 1\): no money today", told)
    assert shops(seed) == []


def test_a_failure_in_the_middle_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(self: Users, arrival: Arrival, order: str) -> None:
        raise LookupError("nobody expected this")

    seed = uuid4().hex
    monkeypatch.setattr(Users, "visit", broken)
    assert cli.main(["demo", "--seconds", "1", "--seed", seed]) == 1
    assert "LookupError: nobody expected this" in capsys.readouterr().err
    assert shops(seed) == []
