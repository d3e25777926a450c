"""Where processes die: a service that makes each effect once, a zygote that forks them, and what must hold afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from seawall.outbox import Outbox

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9


class Service:
    """A real HTTP service that deduplicates: however often a key is posted, its effect is made once."""

    def __init__(self) -> None:
        self.posts: Counter[str] = Counter()
        self.effects: set[str] = set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                key = self.headers["Idempotency-Key"]
                service.posts[key] += 1
                service.effects.add(key)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002  # the base class's name

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Ground:
    """A zygote, and what its children are told."""

    def __init__(self, folder: Path, service: Service, *, pause_ms: int = 5) -> None:
        self.service = service
        self._pause_ms = pause_ms
        """How long a worker waits before it looks again: about what its store takes for the shortest delay."""
        self._told = folder / "told"
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.process_outbox.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zygote.communicate(timeout=10)

    def play(self, role: str, url: str, **order: Any) -> dict[str, Any]:
        """Have a child play a role; how it ended (`code`), and its number of steps."""
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        where = {"told": str(self._told), "service": self.service.address, "pause_ms": self._pause_ms}
        self._zygote.stdin.write(json.dumps({"role": role, "url": url, **where, **order}) + "\n")
        self._zygote.stdin.flush()
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        assert answer["code"] in (0, KILLED), answer
        return answer

    def told(self) -> dict[str, str]:
        """What producers were told is queued since it was asked last: id -> idempotency key."""
        lines = self._told.read_text(encoding="ascii").splitlines() if self._told.exists() else []
        self._told.unlink(missing_ok=True)
        return dict(line.split() for line in lines)

    def spread(self, deaths: int, role: str, url: str, *, one_outbox: bool = False) -> Iterator[tuple[int, int]]:
        """Numbers from 1, each with a step of a role, evenly from its first to its last."""
        fate = Fate(self, url, "whole", one_outbox=one_outbox)
        if role == "work":
            fate.produce("produce")
            fate.work_until_done()
        else:
            fate.produce(role)
        steps = fate.steps
        assert steps > deaths, "too short a way to die on it so often"
        for number in range(deaths):
            yield number + 1, 1 + number * steps // deaths


class Fate:
    """What becomes of some records while processes die over them."""

    def __init__(self, ground: Ground, url: str, serial: str, *, records: int = 5, one_outbox: bool = False) -> None:
        self._ground = ground
        self._url = url
        # One for all, where it takes long to make another.
        self._name = "killed" if one_outbox else f"killed-{serial}"
        self.keys = [*(f"effect-{serial}-{number}" for number in range(records - 1)), f"poison-{serial}"]
        self.database = ""
        """Where the work of transactions is committed."""
        self.acknowledged: dict[str, str] = {}
        self.steps = 0
        """Of the last child that came to its end."""
        self._hours = 0

    def produce(self, role: str, kill_at: int | None = None, victim: int = 0) -> int:
        answer = self._ground.play(
            role,
            self._url,
            name=self._name,
            keys=self.keys,
            kill_at=kill_at,
            victim=victim,
            database=self.database,
        )
        self.acknowledged |= self._ground.told()
        self.steps = answer["steps"]
        return int(answer["code"])

    def relay(self, kill_at: int | None = None) -> int:
        """As workers, relays begin an hour after one another: what a dead one had claimed is free again."""
        answer = self._ground.play(
            "relay", self._url, name=self._name, kill_at=kill_at, database=self.database, jump_hours=self._hours
        )
        self._hours += 1
        self.steps = answer["steps"]
        return int(answer["code"])

    def work(self, kill_at: int | None = None, victim: int = 0) -> int:
        """Each worker begins an hour after the last, by the civil clock: leases have run out."""
        answer = self._ground.play(
            "work", self._url, name=self._name, kill_at=kill_at, victim=victim, jump_hours=self._hours
        )
        self._hours += 1
        self.steps = answer["steps"]
        return int(answer["code"])

    def work_until_done(self) -> None:
        assert self.work() == 0

    @property
    def repeated(self) -> int:
        """How many effects were asked for more than once."""
        return sum(self._ground.service.posts[key] > 1 for key in self.keys)

    def check(self) -> int:
        """ids in = ids done and dead; the number of those that were acknowledged."""
        outbox = Outbox(self._url, name=self._name)
        stats = outbox.stats()
        assert (stats.waiting, stats.leased, stats.dropped) == (0, 0, 0)
        dead = {work.idempotency_key: work for work in outbox.records("dead", limit=1_000)}
        outbox.close()
        service = self._ground.service
        for key in self.acknowledged.values():
            assert (key in service.effects) != (key in dead), f"{key} is neither done nor dead, or both"
        for key, work in dead.items():
            assert key.startswith("poison")
            assert (work.ended, work.attempts >= 2) == ("attempts", True)
            assert "ConnectionError: never" in work.last_error or "never came back" in work.last_error
        return len(self.acknowledged)
