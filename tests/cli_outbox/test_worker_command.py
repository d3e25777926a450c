"""`seawall worker`: says what it works at, does it, and ends as it is told; what cannot be worked at is refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from seawall import cli
from tests.cli_outbox.apps import Command, write_app

BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])


@BOTH
def test_it_says_what_it_works_at_does_it_and_ends_with_0_when_it_is_told_to(tmp_path: Path, is_async: bool) -> None:
    write_app(tmp_path, [0, 0], is_async=is_async)
    with Command(tmp_path, "worker", "app:outbox", "--concurrency", "3") as worker:
        worker.wait_for("mail.send 0")
        time.sleep(0.2)
        worker.send()
        assert worker.end(5) == 0
        lines = worker.printed.splitlines()
    where = "tasks" if is_async else "threads"
    assert lines[0] == (
        "seawall worker: outbox 'mails' in Kept('valkey://bob:***@host:6379?password=***'); operations: mail.send; "
        f"concurrency 3 in {where}"
    )
    assert sum("INFO mail.send" in line and ": done at attempt 1, " in line for line in lines) == 2
    assert lines[-1] == "seawall worker: ended by SIGTERM; 2 done, 0 retried, 0 died, 0 lost"


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_work_may_end_and_nothing_more_is_taken_up(
    tmp_path: Path, is_async: bool, number: signal.Signals
) -> None:
    write_app(tmp_path, [1, 0, 0], is_async=is_async)
    with Command(tmp_path, "worker", "app:outbox", "--concurrency", "1", "--grace", "10") as worker:
        worker.wait_for("begun")
        worker.send(number)
        assert worker.end() == 0
        assert worker.printed.count("begun") == 1 == worker.printed.count("sent\n")
        assert f"ended by {number.name}; 1 done" in worker.printed


@BOTH
def test_after_its_grace_it_ends_all_the_same(tmp_path: Path, is_async: bool) -> None:
    write_app(tmp_path, [60], is_async=is_async)
    with Command(tmp_path, "worker", "app:outbox", "--grace", "300ms") as worker:
        worker.wait_for("begun")
        began = time.monotonic()
        worker.send()
        assert worker.end() == 0
        assert time.monotonic() - began < 5
        assert "0 done" in worker.printed


@pytest.mark.parametrize(
    "deed",
    [
        "await asyncio.to_thread(time.sleep, 300)",
        "while True:\n        try: await asyncio.sleep(300)\n        except asyncio.CancelledError: pass",
    ],
    ids=["thread", "deaf"],
)
def test_what_cannot_be_cancelled_does_not_hold_it_up_for_ever(tmp_path: Path, deed: str) -> None:
    write_app(tmp_path, [300], is_async=True)
    app = tmp_path / "app.py"
    app.write_text(app.read_text().replace("await asyncio.sleep(seconds)", deed, 1))
    with Command(tmp_path, "worker", "app:outbox", "--grace", "50ms") as worker:
        worker.wait_for("begun")
        worker.send()
        assert worker.end(15) == 0
        assert "ended by SIGTERM; 0 done" in worker.printed and "not waiting any longer" in worker.printed


@BOTH
def test_a_second_signal_ends_it_at_once(tmp_path: Path, is_async: bool) -> None:
    write_app(tmp_path, [60], is_async=is_async)
    with Command(tmp_path, "worker", "app:outbox", "--grace", "1h") as worker:
        worker.wait_for("begun")
        worker.send()
        worker.send()
        time.sleep(0.5)
        assert worker.process.poll() is None, "two at the same time are one"
        worker.send(signal.SIGINT)
        assert worker.end(5) == 130
        assert "ended at once" in worker.printed


EARLY = """

def open_and_be_told(runtime, open=outbox.store.open):
    import signal
    os.kill(os.getpid(), signal.SIGTERM)
    return open(runtime)

outbox.store.open = open_and_be_told
"""


@BOTH
def test_a_signal_before_it_works_ends_it_too(tmp_path: Path, is_async: bool) -> None:
    """It must not be lost, or whoever sent it waits until he loses patience."""
    write_app(tmp_path, [0], is_async=is_async, more=EARLY)
    with Command(tmp_path, "worker", "app:outbox") as worker:
        assert worker.end(10) == 0
        assert "ended by SIGTERM; 0 done" in worker.printed
        assert "begun" not in worker.printed and "Traceback" not in worker.printed


def test_a_loop_that_an_operation_blocks_hears_signals_too(tmp_path: Path) -> None:
    write_app(tmp_path, [60], is_async=True)
    app = tmp_path / "app.py"
    app.write_text(app.read_text().replace("await asyncio.sleep", "time.sleep"))
    with Command(tmp_path, "worker", "app:outbox") as worker:
        worker.wait_for("begun")
        worker.send()
        time.sleep(0.5)
        worker.send()
        assert worker.end(5) == 143


def test_what_fails_is_logged_without_what_could_steer_a_terminal(tmp_path: Path) -> None:
    write_app(tmp_path, [], more="\noutbox.put(send, 0.0, True)\n")
    with Command(tmp_path, "worker", "app:outbox") as worker:
        printed = worker.wait_for("attempt 1 failed")
        worker.send()
        assert worker.end() == 0
    assert "\x1b" not in printed and "ConnectionError: down \\x1b[31m\\n" in printed


def test_the_level_of_the_log_is_obeyed(tmp_path: Path) -> None:
    write_app(tmp_path, [0])
    with Command(tmp_path, "worker", "app:outbox", "--log-level", "warning") as worker:
        worker.wait_for("sent\n")
        time.sleep(0.2)
        worker.send()
        assert worker.end() == 0
        assert "INFO" not in worker.printed and "1 done" in worker.printed


def test_a_rate_holds_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")  # of the server in the same container
    write_app(tmp_path, [0] * 50)
    with Command(tmp_path, "worker", "app:outbox", "--rate", "10/s") as worker:
        worker.wait_for("sent\n")
        time.sleep(1)
        worker.send()
        assert worker.end() == 0
        assert "Warning" not in worker.printed
        assert 5 <= worker.printed.count("sent\n") <= 16


def test_a_backlog_that_is_too_long_is_told(tmp_path: Path) -> None:
    write_app(tmp_path, [0, 0, 0], more="\ntime.sleep(0.01)\n")
    with Command(tmp_path, "worker", "app:outbox", "--alarm-depth", "2", "--rate", "1/min", "--concurrency", "1") as it:
        assert "WARNING ALARM: 3 records in the backlog (alarm from 2)" in it.wait_for("ALARM")


@pytest.mark.parametrize("where", ["2>&-", ">&- 2>&-", "2>/dev/full"])
def test_a_log_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path, where: str) -> None:
    write_app(tmp_path, [0, 0])
    app = tmp_path / "app.py"
    app.write_text(
        app.read_text()
        .replace('print("sent", flush=True)', "open(f'sent-{time.monotonic_ns()}', 'w')")
        .replace('print("begun", flush=True)', "pass")
    )
    worker = subprocess.Popen(
        ["bash", "-c", f"exec {sys.executable} -W ignore -m seawall worker app:outbox {where}"], cwd=tmp_path
    )
    try:
        end = time.monotonic() + 20
        while len(list(tmp_path.glob("sent-*"))) < 2:
            assert time.monotonic() < end and worker.poll() is None
            time.sleep(0.05)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_its_health_can_be_asked_for(tmp_path: Path) -> None:
    write_app(tmp_path, [0, 1.5])
    with Command(tmp_path, "worker", "app:outbox", "--concurrency", "1", "--health", "127.0.0.1:0") as worker:
        worker.wait_for("sent\n")
        address = worker.printed.split("health at http://")[1].split()[0]
        assert get(address, "/healthz") == (200, "ok\n")
        assert get(address, "/readyz") == (200, "ok\n")
        assert 'seawall_outbox_done_total{outbox="mails"} 1' in get(address, "/metrics")[1]
        assert json.loads(get(address, "/stats")[1])["done"] == 1
        worker.send()
        time.sleep(0.3)
        assert get(address, "/readyz") == (503, "the worker is stopping\n")
        assert get(address, "/healthz") == (200, "ok\n"), "what ends as it should must not be killed for it"
        assert worker.end() == 0


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    write_app(tmp_path, [])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Command(tmp_path, "worker", "app:outbox", "--health", address) as worker:
            assert worker.end() == 2
            assert worker.printed == f"seawall worker: cannot listen on {address}: Address already in use\n"


# -- what cannot be worked at ------------------------------------------------------------------------------------------


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """What the command says in a folder with an `app`; it must end with 2."""
    (tmp_path / "app.py").write_text(
        "from seawall.outbox import MemoryOutbox, MemoryStore, Outbox\n"
        "class Kept(MemoryStore): durable = True\n"
        "memory, empty, full = MemoryOutbox(), Outbox(Kept()), Outbox(Kept())\n"
        "@full.operation('mail')\n"
        "async def mail() -> None: ...\n"
        "def make(): return empty\n"
        "def fails(): raise ValueError('no \\x1b settings')\n"
        "class nest: outbox = empty\n"
    )
    (tmp_path / "bad.py").write_text("def go():\n    return 1 / 0\n\ngo()\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit('not today')\n")
    (tmp_path / "needs.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("app", "bad", "leaves", "needs"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def say(*args: str) -> str:
        assert cli.main(["worker", *args]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    yield say
    for name in ("app", "bad", "leaves", "needs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nothing:outbox"], "seawall worker: there is no module 'nothing'; looked in "),
        (["app.sub:outbox"], "seawall worker: "),
        (["app:other"], "'app' has no attribute 'other'; there is app:memory and app:empty and app:full"),
        (["app"], "'app' names no outbox: expected module:attribute, such as app:outbox"),
        (["app:nest"], "app:nest is a nest, and no Outbox"),
        (["../app:outbox"], "expected module:attribute"),
        (["app:memory"], "app:memory is in the memory of whoever puts work into it"),
        (["app:memory"], "Outbox('sqlite:///var/outbox.db')"),
        (["app:empty"], "import the module that registers them (@outbox.operation) in app, or name it here: --import"),
        (["app:make"], "app:make has no operations"),
        (["app:nest.outbox"], "app:nest.outbox has no operations"),
        (["app:fails"], "ValueError: no \\x1b settings"),
        (["app:empty", "--import", "nothing"], "there is no module 'nothing'"),
        (["app:full", "--threads"], "--threads: operation 'mail' is async, and threads cannot run it; use --asyncio"),
        (["app:full", "--concurrency", "0"], "worker(concurrency=0): expected a whole number from 1 to 10000"),
        (["app:full", "--lease", "soon"], "worker(lease='soon'): expected seconds as a number"),
        (["app:full", "--rate", "50"], "--rate='50': expected a rate like"),
        (["app:full", "--health", "8081"], "health='8081': expected host:port"),
        (["app:full", "--alarm-depth", "much"], "--alarm-depth much: expected a number of records"),
        (["leaves:outbox"], "SystemExit: not today"),
        (["needs:outbox"], "importing 'needs' failed"),
    ],
)
def test_what_cannot_be_worked_at_is_told_in_words(said: object, args: list[str], told: str) -> None:
    assert told in said(*args)  # type: ignore[operator]


def test_an_error_in_the_users_module_is_shown_where_it_is_and_without_our_frames(said: object) -> None:
    text = said("bad:outbox")  # type: ignore[operator]
    assert "importing 'bad' failed" in text and 'bad.py", line 2, in go' in text and "ZeroDivisionError" in text
    assert "seawall/cli" not in text and "importlib" not in text


def test_operations_of_another_module_are_found_when_it_is_named(tmp_path: Path) -> None:
    write_app(tmp_path, [])
    (tmp_path / "bare.py").write_text("from seawall.outbox import Outbox\nimport app\noutbox = Outbox(app.Kept())\n")
    (tmp_path / "jobs.py").write_text("import bare\n@bare.outbox.operation('job')\ndef job() -> None: ...\n")
    with Command(tmp_path, "worker", "bare:outbox", "--import", "jobs") as worker:
        worker.wait_for("operations: job;")
        worker.send()
        assert worker.end() == 0
