"""Workers in processes of their own, over one SQLite file: what was put is done, whoever dies meanwhile."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seawall.outbox import Outbox
from tests.cli_outbox.apps import Command

APP = """
import os, time
from pathlib import Path
from seawall.outbox import Outbox, current

outbox = Outbox("sqlite:///outbox.db", name="mails")


@outbox.operation("mail.send", attempts=50, base="10ms", cap="50ms")
{kind} send(number: int, seconds: float = 0.0) -> None:
    with open(f"begun-{{os.getpid()}}", "a") as file:
        file.write(f"{{number}}\\n")
    {sleep}(seconds)
    if Path("down").exists():
        raise ConnectionError("down")
    with open(f"done-{{os.getpid()}}", "a") as file:
        file.write(f"{{number}}\\n")
"""


class Shop:
    """A folder with an app, its outbox, and what its workers noted."""

    def __init__(self, folder: Path, *, is_async: bool = False) -> None:
        kind, sleep = ("async def", "import asyncio; await asyncio.sleep") if is_async else ("def", "time.sleep")
        self.folder = folder
        (folder / "shop.py").write_text(APP.format(kind=kind, sleep=sleep))
        self.outbox = Outbox(f"sqlite:///{folder}/outbox.db", name="mails")

        @self.outbox.operation("mail.send")
        def send(number: int, seconds: float = 0.0) -> None: ...

        self.send = send

    def put(self, numbers: range, seconds: float = 0.0) -> None:
        for number in numbers:
            self.outbox.put(self.send, number, seconds)

    def noted(self, what: str) -> list[int]:
        return [int(line) for file in self.folder.glob(f"{what}-*") for line in file.read_text().split()]

    def worker(self, name: str, *args: str) -> Command:
        folder = self.folder / name
        folder.mkdir()
        return Command(self.folder, "worker", "shop:outbox", "--log-level", "warning", *args, out=folder)

    def until(self, what: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.outbox.stats()
            time.sleep(0.05)

    def empty(self) -> bool:
        stats = self.outbox.stats()
        return stats.waiting + stats.leased == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_two_workers_share_the_work_and_do_each_piece_once(tmp_path: Path, is_async: bool) -> None:
    shop = Shop(tmp_path, is_async=is_async)
    shop.put(range(60), 0.02)
    with shop.worker("one", "--concurrency", "4") as one, shop.worker("two", "--concurrency", "4") as two:
        shop.until(shop.empty)
        for worker in (one, two):
            worker.send()
        assert (one.end(), two.end()) == (0, 0)
    assert sorted(shop.noted("done")) == list(range(60))
    assert len(list(tmp_path.glob("done-*"))) == 2, "both had a share"
    shop.outbox.close()


def test_what_a_killed_worker_had_is_done_by_the_next(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.put(range(10), 0.2)
    with shop.worker("one", "--lease", "1s", "--concurrency", "4") as one:
        shop.until(lambda: bool(shop.noted("begun")))
        one.send(signal.SIGKILL)
        one.end()
    with shop.worker("two", "--concurrency", "4", "--lease", "1s") as two:
        shop.until(shop.empty)
        two.send()
        assert two.end() == 0
    assert set(shop.noted("done")) == set(range(10))
    shop.outbox.close()


def test_what_is_given_back_at_a_stop_is_done_at_once_by_the_next(tmp_path: Path) -> None:
    shop = Shop(tmp_path, is_async=True)
    shop.put(range(1), 60)
    with shop.worker("one", "--grace", "100ms") as one:
        shop.until(lambda: bool(shop.noted("begun")))
        one.send()
        assert one.end() == 0
    stats = shop.outbox.stats()
    assert (stats.waiting, stats.leased) == (1, 0)
    (work,) = shop.outbox.records("waiting")
    assert work.attempts == 0
    shop.outbox.close()


def test_an_outage_is_worked_through_and_seen_by_the_operator(tmp_path: Path) -> None:
    """The whole of it: the downstream is down, the operator looks, it comes back, everything is done."""
    shop = Shop(tmp_path)
    (tmp_path / "down").touch()
    shop.put(range(5))
    with shop.worker("one") as worker:
        shop.until(lambda: bool(shop.noted("begun")))
        look = Command(tmp_path, "outbox", "stats", "shop:outbox", "--json", out=_folder(tmp_path, "look"))
        assert look.end() == 0
        told = json.loads(look.printed)
        assert told["waiting"] + told["leased"] == 5
        (tmp_path / "down").unlink()
        shop.until(shop.empty)
        worker.send()
        assert worker.end() == 0
    assert sorted(shop.noted("done")) == list(range(5))
    shop.outbox.close()


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
