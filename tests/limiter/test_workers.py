"""A limiter in memory under several workers is warned about once, with the remedy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from seawall import Limiter, Memory, Policy, RateLimit, Retry, TokenBucket
from seawall.limiter import workers
from seawall.limiter.workers import signs_of_several_workers


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_warned", False)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)


@pytest.mark.parametrize(
    ("argv", "sign"),
    [
        (["/usr/bin/gunicorn", "app:app", "-w", "4"], "gunicorn with 4 workers"),
        (["gunicorn", "-w3", "app:app"], "gunicorn with 3 workers"),
        (["uvicorn", "app:app", "--workers=2"], "uvicorn with 2 workers"),
        (["/site-packages/uvicorn/__main__.py", "app:app", "--workers", "2"], "uvicorn with 2 workers"),
        (["uvicorn", "app:app", "--workers", "1"], None),
        (["uvicorn", "app:app"], None),
        (["uvicorn", "app:app", "--workers"], None),
        (["celery", "-A", "shop", "worker", "-c", "4"], "celery with 4 workers"),
        (["celery", "-A", "shop", "worker", "--concurrency=4", "--pool=prefork"], "celery with 4 workers"),
        (["/venv/celery/__main__.py", "worker", "-c4"], "celery with 4 workers"),
        (["celery", "-A", "shop", "worker", "-c", "1"], None),
        (["celery", "-A", "shop", "worker", "-c", "4", "-P", "threads"], None),
        (["celery", "-A", "shop", "worker", "--pool=solo"], None),
        (["celery", "-A", "shop", "beat", "-c", "4"], None),
        (["python", "-w", "4"], None),
        ([], None),
    ],
)
def test_workers_are_read_from_the_command_line(argv: list[str], sign: str | None) -> None:
    assert signs_of_several_workers(argv) == sign


def test_a_worker_of_celery_has_a_process_for_each_processor_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, sign in ((8, "celery with 8 workers"), (1, None), (None, None)):
        monkeypatch.setattr(workers.os, "cpu_count", lambda processors=processors: processors)
        assert signs_of_several_workers(["celery", "-A", "shop", "worker"]) == sign


def test_workers_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind=127.0.0.1 --workers=3")
    assert signs_of_several_workers(["gunicorn", "app:app"]) == "gunicorn with 3 workers"
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert signs_of_several_workers(["python"]) == "WEB_CONCURRENCY=4"
    for nonsense in ("", "x", "-1", "1", "٤", "9" * 40):
        monkeypatch.setenv("WEB_CONCURRENCY", nonsense)
        assert signs_of_several_workers(["python"]) is None


def test_it_warns_once_and_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with pytest.warns(RuntimeWarning, match=r"'search'.*WEB_CONCURRENCY=4.*store=Valkey\(url\)"):
        Limiter(TokenBucket("1/s"), name="search")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Limiter(TokenBucket("1/s"), name="another")


def test_who_says_memory_means_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Limiter(TokenBucket("1/s"), store=Memory())


def test_lint_finds_a_limit_inside_a_retry() -> None:
    wrong = Policy(Retry(on=OSError), RateLimit(TokenBucket("1/s")), name="wrong")
    right = Policy(RateLimit(TokenBucket("1/s")), Retry(on=OSError), name="right")
    assert [finding.rule for finding in wrong.lint()] == ["limit-in-retry"]
    assert not right.lint()


APP = """
from seawall import Limiter, Memory, TokenBucket

Limiter(TokenBucket("1/s"), name="meant", store=Memory())
first = Limiter(TokenBucket("1/s"), name="first")
second = Limiter(TokenBucket("1/s"), name="second")


async def app(scope, receive, send):
    raise NotImplementedError
"""


def test_real_workers_of_uvicorn_warn_once_each(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "limited_app.py").write_text(APP, encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "limited_app:app", "--workers", "2", "--port", "0", "--lifespan", "off"]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as server:
        give_up = threading.Timer(40, server.kill)
        give_up.start()
        try:
            assert server.stderr is not None
            for line in server.stderr:
                said.append(line)
                if sum("Started server process" in each for each in said) == 2:
                    break
            server.send_signal(signal.SIGTERM)
            said += server.stderr
        finally:
            give_up.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # its workers too
    warned = [line for line in said if "RuntimeWarning" in line]
    assert len(warned) == 2, said
    assert all("limiter 'first'" in line and "store=Valkey(url)" in line for line in warned)
