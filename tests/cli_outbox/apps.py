"""Processes of the real command, and the applications that they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["APP", "Command"]

APP = """
import asyncio, os, time
from seawall.outbox import MemoryStore, Outbox


class Kept(MemoryStore):
    '''It says that it is durable: what it holds is put there when this is imported.'''

    durable = True

    def __repr__(self):
        return "Kept('valkey://bob:hush@host:6379?password=hush')"


outbox = Outbox(Kept(), name="mails")


@outbox.operation("mail.send")
{kind} send(seconds: float, fails: bool = False) -> None:
    print("begun", flush=True)
    {sleep}(seconds)
    if fails:
        raise ConnectionError("down \\x1b[31m\\n")
    print("sent", flush=True)


for seconds in {seconds}:
    outbox.put(send, seconds)
"""


def write_app(folder: Path, seconds: list[float], *, is_async: bool = False, more: str = "") -> None:
    kind, sleep = ("async def", "await asyncio.sleep") if is_async else ("def", "time.sleep")
    (folder / "app.py").write_text(APP.format(kind=kind, sleep=sleep, seconds=seconds) + more)


class Command:
    """`seawall ...` in a process of its own, whose lines can be waited for."""

    def __init__(self, folder: Path, *args: str, out: Path | None = None) -> None:
        self._out = (out or folder) / "printed.txt"
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("SEAWALL_", "COLUMNS"))}
        with self._out.open("wb") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "seawall", *args],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Until `text` was printed; everything so far."""
        end = time.monotonic() + seconds
        while text not in self.printed:
            assert time.monotonic() < end and self.process.poll() is None, f"no {text!r} in:\n{self.printed}"
            time.sleep(0.02)
        return self.printed

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 20) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
