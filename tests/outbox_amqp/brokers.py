"""Real RabbitMQ brokers for the tests: on 127.0.0.1, on free ports, in a folder of their own, and gone with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.valkey.servers import TELLING, WATCHES, until

__all__ = ["MISSING", "Broker", "free_port", "until"]

# Not the commands on PATH: on Debian they are wrappers that change the user and the folder.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
MISSING = "" if (PROGRAMS / "rabbitmq-server").exists() and shutil.which("epmd") else "RabbitMQ is not installed here"


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """One node, with the small server by which its own tools find it."""

    def __init__(self) -> None:
        self.port, self.names_port, self.tools_port = free_port(), free_port(), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        (self.folder / "enabled_plugins").write_text("[].")
        (self.folder / "advanced.config").write_text("[].")
        settings = ["log.console = false", "vm_memory_high_watermark.absolute = 1GB", "disk_free_limit.absolute = 10MB"]
        (self.folder / "rabbitmq.conf").write_text("\n".join([f"listeners.tcp.1 = 127.0.0.1:{self.port}", *settings]))
        self.process: subprocess.Popen[bytes] | None = None
        command = ["epmd", "-port", str(self.names_port), "-address", "127.0.0.1"]
        self._names = self._begin(command)
        self.start()

    @property
    def url(self) -> str:
        return self.url_by(self.port)

    @staticmethod
    def url_by(port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}/"

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "true",  # then the script becomes the node, whose process we know
            "RABBITMQ_NODENAME": f"seawall{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self.tools_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _begin(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            # Out of reach of a Ctrl-C, which a node would take for its own.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        with TELLING:
            WATCHES.tell(process.pid, str(self.folder))
        return process

    def start(self) -> None:
        """Start it, or start it again with what it has on disk."""
        self.process = self._begin([str(PROGRAMS / "rabbitmq-server")])
        until(self._answers, f"a broker on port {self.port}", seconds=40)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self._log()
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return len(probe.recv(8)) > 0

    def _log(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-1500:]

    def tell(self, *words: str) -> str:
        """One command of its tools; each takes a second or two."""
        command = [str(PROGRAMS / "rabbitmqctl"), *words]
        done = subprocess.run(command, env=self._environment(), capture_output=True, timeout=30, check=True)
        return done.stdout.decode()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, as the system does when memory is short."""
        if self.process is not None:
            _end(self.process)
            self.process = None

    def close(self) -> None:
        self.kill()
        _end(self._names)
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    with TELLING:
        WATCHES.tell(process.pid, "")
