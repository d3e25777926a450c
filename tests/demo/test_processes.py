"""The whole demo as a user runs it: complete, and no process left behind however it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from seawall import cli
from seawall.demo.report import HEADINGS
from seawall.demo.sides import Guarded, Shown
from seawall.demo.traffic import PHASES

if not Path("/proc/self/cmdline").exists():  # pragma: no cover
    pytest.skip("needs /proc to see which processes are left", allow_module_level=True)

pytestmark = pytest.mark.timeout(60)


def services(seed: str) -> list[int]:
    """The service processes that were started for this seed and live (a zombie has an empty command line)."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"seawall.demo.service" in line and f"\0{seed}:".encode() in line:
                found.append(int(entry.name))
    return found


def until(true: Callable[[], object], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return bool(true())


def start(seed: str, *arguments: str, stderr: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "seawall", "demo", "--seed", seed, *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )


def test_a_whole_run_is_complete_and_leaves_nothing(tmp_path: Path) -> None:
    seed, file = uuid4().hex, tmp_path / "demo.json"
    with start(seed, "--seconds", "1", "--json", str(file)) as demo:
        out, err = demo.communicate(timeout=50)
    assert demo.returncode == 0, err
    assert services(seed) == []

    rows = [
        re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if re.match(r".*\b(plain|seawall)\s+\d", line)
    ]
    assert list(HEADINGS) in [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert [row[0] for row in rows if row[1] == "plain"] == [phase.title for phase in PHASES]
    assert [row[0] for row in rows].count("seawall") == len(PHASES)
    assert "\x1b" not in out and "\x1b" not in err
    assert len([line for line in err.splitlines() if " users; plain " in line]) == len(PHASES)

    told = json.loads(file.read_text(encoding="utf-8"))
    assert told["complete"] is True and told["error"] == ""
    assert [phase["key"] for phase in told["phases"]] == [phase.key for phase in PHASES] == told["phases_planned"]
    assert len(told["service_pids"]) == 2 * len(PHASES) + 2
    assert not any(Path(f"/proc/{pid}/cmdline").exists() and pid in services(seed) for pid in told["service_pids"])
    for phase in told["phases"]:
        plain, guarded = phase["plain"], phase["seawall"]
        assert plain["users"] == guarded["users"] > 0
        for side in (plain, guarded):
            assert side["served"] + side["degraded"] + side["errors"] == side["users"]
            assert 0 < side["p50_ms"] <= side["p99_ms"]
        assert plain["attempts"] == plain["users"] and plain["degraded"] == 0
        assert guarded["errors"] == 0
    by_key = {phase["key"]: phase for phase in told["phases"]}
    assert (
        by_key["healthy"]["plain"]["served"] >= 0.9 * by_key["healthy"]["plain"]["users"]
    )  # a shared machine may stall
    for key in ("errors", "hanging", "killed"):
        assert by_key[key]["plain"]["errors"] > 0, key
    assert by_key["errors"]["seawall_did"]["retries"] > 0


def test_ctrl_c_ends_the_services_and_shows_what_is_complete() -> None:
    seed = uuid4().hex
    ours, theirs = pty.openpty()
    with start(seed, "--seconds", "1", stderr=theirs) as demo:
        os.close(theirs)
        seen = b""
        while b"30 % errors: 0." not in seen:
            seen += os.read(ours, 4096)
        assert len(services(seed)) == 2
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=15)
    os.close(ours)
    assert demo.returncode == 130
    assert services(seed) == []
    assert b"\x1b[3A" in seen
    assert "healthy" in out and "hanging" not in out


def test_ctrl_c_in_the_first_phase_has_no_table() -> None:
    seed = uuid4().hex
    with start(seed, "--seconds", "5") as demo:
        assert until(lambda: len(services(seed)) == 2)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=15)
    assert demo.returncode == 130
    assert services(seed) == []
    assert out == ""
    assert "Traceback" not in err and "interrupted" in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_services_die_with_the_demo(how: signal.Signals) -> None:
    seed = uuid4().hex
    with start(seed, "--seconds", "5") as demo:
        assert until(lambda: len(services(seed)) == 2)
        demo.send_signal(how)
        demo.communicate(timeout=15)
    assert demo.returncode == -how
    assert until(lambda: services(seed) == [], 5.0)


def test_a_reader_that_leaves_is_no_traceback() -> None:
    seed = uuid4().hex
    one_phase = (
        "import sys, seawall.cli, seawall.demo.run as it; it.run_demo.__defaults__ = (it.PHASES[:1],);"
        f"sys.exit(seawall.cli.main(['demo', '--seconds=1', '--seed={seed}']))"
    )
    command = [sys.executable, "-c", one_phase]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        demo.stdout.close()
        err = demo.stderr.read()
        demo.wait(timeout=30)
    assert demo.returncode == 1
    assert "Traceback" not in err and "BrokenPipe" not in err
    assert services(seed) == []


def test_a_failure_in_the_middle_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(self: Guarded, user: int) -> Shown:
        raise LookupError("nobody expected this")

    seed = uuid4().hex
    monkeypatch.setattr(Guarded, "visit", broken)
    assert cli.main(["demo", "--seconds", "1", "--seed", seed]) == 1
    assert "LookupError: nobody expected this" in capsys.readouterr().err
    assert services(seed) == []
