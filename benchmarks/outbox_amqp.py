"""Section `outbox_amqp`: records stored and done in RabbitMQ, beside aio-pika by itself on a queue of the same kind.

Everybody publishes persistent messages to quorum queues of one broker on this machine and waits for its word; the bare
rows are aio-pika's publish, get and ack. Run it by itself: `python -m benchmarks.outbox_amqp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from .measure import FULL, QUICK, Effort, Subject, Timing, async_timings, sync_timings
from .report import heading, table_text
from .settings import ANSWER
from .tables import TIMES, Table, compared

TOGETHER = 50
LEASED = 8
PAYLOAD = b'{"user":7,"text":"' + b"x" * 200 + b'"}'
SEAWALL = "seawall"
BARE = "aio-pika"
HOUR = 3_600_000_000_000
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
READY_SECONDS = 40
NOTES = {
    "put": "One record at a time, by a synchronous caller; aio-pika by running its loop for each.",
    "put async": "The two hops to the thread of the store and back are what asyncio callers pay beside aio-pika.",
    "way": "aio-pika gets and acks one message, and does not wait to hear that the ack was read; Seawall does.",
    "way async": f"Seawall leases {LEASED} at a time, aio-pika gets one after another.",
}


def outbox_amqp(effort: Effort) -> list[Table]:
    """Putting one record; putting fifty at once; a record's whole way; the same fifty at once."""
    with _broker() as url:
        if url is None:
            note = "RabbitMQ is not installed (Debian: apt-get install rabbitmq-server): there is no broker."
            return [Table("outbox amqp", "RabbitMQ outbox", [], notes=[note])]
        return [
            _table("put", "one put after another", sync_timings(_blocking(url, _put_only), effort), 1),
            _table("put async", f"{TOGETHER} puts at once", async_timings(_together(url, _put_only), effort), TOGETHER),
            _table("way", "put, lease, ack, one after another", sync_timings(_blocking(url, _whole_way), effort), 1),
            _table(
                "way async",
                f"put, lease, ack of {TOGETHER} at once",
                async_timings(_together(url, _whole_way), effort),
                TOGETHER,
            ),
        ]


def _table(key: str, title: str, timings: list[Timing], each: int) -> Table:
    for timing in timings:
        timing.samples = [sample / each for sample in timing.samples]
    rows = compared(timings)
    for row in rows:
        if row.middle:
            row.note = f"{1e9 / row.middle:,.0f} a second"
    share = next((1 / row.of_bare for row in rows if row.subject.startswith(SEAWALL) and row.of_bare), None)
    notes = [NOTES[key]]
    if share is not None:
        notes.append(f"Seawall reaches {share:.2f} {TIMES} the rate of aio-pika by itself.")
    title = f"RabbitMQ outbox, {title} (figures: ns a record)"
    return Table(f"outbox amqp {key}", title, rows, bare=BARE, notes=notes)


# -- subjects ----------------------------------------------------------------------------------------------------------

Work = Callable[[Any, int], Coroutine[Any, Any, None]]
"""Given something with `put`, and `finish` for what was put; and how many records."""


async def _put_only(where: Any, count: int) -> None:
    await asyncio.gather(*(where.put() for _ in range(count))) if count > 1 else await where.put()


async def _whole_way(where: Any, count: int) -> None:
    await _put_only(where, count)
    await where.finish(count)


def _blocking(url: str, work: Work) -> list[Subject]:
    def bare() -> Callable[[], int]:
        loop = asyncio.new_event_loop()
        pika = Pika(url, work.__name__)

        def call() -> int:
            loop.run_until_complete(work(pika, 1))
            return ANSWER

        return call

    def ours() -> Callable[[], int]:
        from seawall.runtime.blocking import drive

        store = Store(url, work.__name__, is_async=False)

        def call() -> int:
            drive(work(store, 1))
            return ANSWER

        return call

    return [Subject(BARE, bare, "bare"), Subject(SEAWALL, ours, "ours")]


def _together(url: str, work: Work) -> list[Subject]:
    def calls(where: Any) -> Callable[[], Any]:
        async def call() -> int:
            await work(where, TOGETHER)
            return ANSWER

        return call

    return [
        Subject(BARE, lambda: calls(Pika(url, f"many{work.__name__}")), "bare"),
        Subject(f"{SEAWALL}, async", lambda: calls(Store(url, f"many{work.__name__}", is_async=True)), "ours"),
    ]


class Pika:
    """aio-pika by itself: one connection, one channel with confirms, one quorum queue."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = f"bare{name}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exchange: Any = None
        self._queue: Any = None
        self._opening = asyncio.Lock()

    async def _open(self) -> None:
        async with self._opening:
            if self._loop is asyncio.get_running_loop():
                return
            import aio_pika

            connection = await aio_pika.connect(self._url)
            channel = await connection.channel(publisher_confirms=True)
            self._exchange = channel.default_exchange
            arguments: dict[str, Any] = {"x-queue-type": "quorum"}
            self._queue = await channel.declare_queue(self._name, durable=True, arguments=arguments)
            self._loop = asyncio.get_running_loop()

    async def put(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            await self._open()
        import aio_pika

        message = aio_pika.Message(PAYLOAD, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._exchange.publish(message, routing_key=self._name, mandatory=True)

    async def finish(self, count: int) -> None:
        for _ in range(count):
            await (await self._queue.get()).ack()


class Store:
    """Seawall's store."""

    def __init__(self, url: str, name: str, *, is_async: bool) -> None:
        from seawall.outbox.amqp import AmqpStore
        from seawall.runtime.which import runtime_for

        # A machine that stands still for a moment is no outage.
        self._open = AmqpStore(url, name=f"ours{name}", timeout="30s", backlog=10_000_000).open(
            runtime_for(is_async=is_async)
        )
        self._is_async = is_async

    async def put(self) -> None:
        from seawall.outbox.record import Work as Record
        from seawall.outbox.record import fresh_id

        now, key = time.time_ns(), fresh_id()
        await self._open.put(
            Record(
                id=key,
                operation="benchmark",
                payload=PAYLOAD,
                idempotency_key=key,
                due_ns=now,
                created_ns=now,
                expires_ns=now + HOUR,
            )
        )

    async def finish(self, count: int) -> None:
        while count > 0:
            leases, _ = await self._open.lease(min(count, LEASED), HOUR)
            if self._is_async:
                await asyncio.gather(*(self._open.ack(lease) for lease in leases))
            else:
                for lease in leases:
                    await self._open.ack(lease)
            count -= len(leases)


# -- the broker --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _broker() -> Iterator[str | None]:
    """The URL of a broker that lasts as long as the section; None without one."""
    if not (PROGRAMS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    port, names_port, tools_port = _free_port(), _free_port(), _free_port()
    (folder / "enabled_plugins").write_text("[].")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "RUNNING_UNDER_SYSTEMD": "true",  # then the script becomes the node, whose process we know
        "RABBITMQ_NODENAME": f"seawall{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(tools_port),
        "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(names_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        names = ["epmd", "-port", str(names_port), "-address", "127.0.0.1"]
        for command in (names, [str(PROGRAMS / "rabbitmq-server")]):
            with (folder / "output").open("ab") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=folder,
                        env=environment,
                        start_new_session=True,
                    )
                )
        _wait_for(port, processes[-1])
        yield f"amqp://guest:guest@127.0.0.1:{port}/"
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            if probe.recv(8):
                return
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError("the broker did not come up")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    print(heading("python -m benchmarks.outbox_amqp"), end="\n\n")
    for table in outbox_amqp(QUICK if "--quick" in sys.argv else FULL):
        print(table_text(table, markdown=False), end="\n\n", flush=True)
