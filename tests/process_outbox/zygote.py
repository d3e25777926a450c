"""A process that has everything loaded and forks a child for each run: hundreds of deaths in seconds.

It reads a JSON object a line, forks, has the child play a role, and answers with how the child ended. A child may be
given a step at which something dies by SIGKILL: a line of Seawall's outbox, counted over all its threads. The same code
takes the same steps, so every line of it can be the last.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, cast
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.orm import Session

import seawall.integrations.sqlalchemy
import seawall.outbox
from seawall.errors import BackendUnavailable, NotQueued
from seawall.integrations.sqlalchemy import TransactionalOutbox
from seawall.outbox import Outbox, idempotency_key
from seawall.runtime import clock

HERE = tuple(
    str(Path(module.__file__ or "").parent) + os.sep for module in (seawall.outbox, seawall.integrations.sqlalchemy)
)
HOUR_NS = 3_600_000_000_000


class Steps:
    """Counts lines of the outbox's code, and kills a process at one of them."""

    def __init__(self, kill_at: int | None, victim: int) -> None:
        self.count = 0
        self._kill_at = kill_at
        self._victim = victim

    def start(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, arg: object) -> Any:
        del event, arg
        return self._line if frame.f_code.co_filename.startswith(HERE) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        del frame, arg
        if event == "line":
            self.count += 1
            if self.count == self._kill_at:
                os.kill(self._victim or os.getpid(), signal.SIGKILL)
        return self._line


def post(address: str, key: str) -> None:
    """What the effect is: a service that makes it once for each key."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=5)
    try:
        connection.request("POST", "/effects", body=b"", headers={"Idempotency-Key": key})
        if connection.getresponse().status != 200:
            raise ConnectionError("the service failed")
    finally:
        connection.close()


def open_outbox(order: dict[str, Any]) -> Outbox:
    outbox = Outbox(order["url"], name=order["name"])
    if hasattr(outbox.store, "clock"):  # a server has its own, which no child sets on
        cast("Any", outbox.store).clock = lambda: clock.wall_ns()  # the one in force when it is asked

    @outbox.operation("effect", base="1ms", cap="1ms")
    def effect(service: str) -> None:
        post(service, idempotency_key() or "none")

    @outbox.operation("poison", base="1ms", cap="1ms", attempts=2)
    def poison(service: str) -> None:
        raise ConnectionError(f"never, says {service}")

    return outbox


def produce(outbox: Outbox, order: dict[str, Any], steps: Steps) -> None:
    """Put work and write down what was acknowledged, after it was."""
    told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    functions = {each.name: each.function for each in outbox.operations.all()}
    steps.start()
    for key in order["keys"]:
        function = functions["poison" if key.startswith("poison") else "effect"]
        try:
            queued = outbox.using(key=key).put(function, order["service"])
        except NotQueued:
            continue
        os.write(told, f"{queued.id} {key}\n".encode())


async def aproduce(outbox: Outbox, order: dict[str, Any], steps: Steps) -> None:
    """The same from tasks beside each other."""
    told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    functions = {each.name: each.function for each in outbox.operations.all()}
    steps.start()

    async def one(key: str) -> None:
        function = functions["poison" if key.startswith("poison") else "effect"]
        try:
            queued = await outbox.using(key=key).aput(function, order["service"])
        except NotQueued:
            return
        os.write(told, f"{queued.id} {key}\n".encode())

    await asyncio.gather(*(one(key) for key in order["keys"]))
    await outbox.aclose()


def post_in_transactions(outbox: Outbox, order: dict[str, Any], steps: Steps) -> None:
    """Commit work in a database of its own, and write down what was committed, after it was."""
    told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    functions = {each.name: each.function for each in outbox.operations.all()}
    engine = sa.create_engine(order["database"])
    transactional = TransactionalOutbox(outbox)
    transactional.create(engine)
    steps.start()
    for key in order["keys"]:
        function = functions["poison" if key.startswith("poison") else "effect"]
        with Session(engine) as session:
            queued = transactional.using(key=key).put(session, function, order["service"])
            session.commit()
        os.write(told, f"{queued.id} {key}\n".encode())


def relay(outbox: Outbox, order: dict[str, Any], steps: Steps) -> None:
    """Take what was committed to the outbox."""
    engine = sa.create_engine(order["database"])
    transactional = TransactionalOutbox(outbox)
    transactional.create(engine)
    steps.start()
    while transactional.depth(engine):
        transactional.relay_once(engine)


def work(outbox: Outbox, steps: Steps, pause_ns: int) -> None:
    """Do what is due, until nothing is left that a worker could do now."""
    worker = outbox.worker(concurrency=2, lease="1s", timeout="5s")
    steps.start()
    for _ in range(1_000):
        try:
            worker.drain()
            stats = outbox.stats()
        except BackendUnavailable:
            return  # its server was killed
        if not stats.waiting + stats.leased:
            return
        clock.sleep_ns(pause_ns)


def play(order: dict[str, Any]) -> int:
    jump = order.get("jump_hours", 0) * HOUR_NS
    real = clock.wall_ns
    clock.install(clock.now_ns, clock.sleep_ns, lambda: real() + jump)
    steps = Steps(order.get("kill_at"), order.get("victim", 0))
    outbox = open_outbox(order)
    if order["role"] == "work":
        work(outbox, steps, order["pause_ms"] * 1_000_000)
    elif order["role"] == "post":
        post_in_transactions(outbox, order, steps)
    elif order["role"] == "relay":
        relay(outbox, order, steps)
    elif order["role"] == "aproduce":
        asyncio.run(aproduce(outbox, order, steps))
    else:
        produce(outbox, order, steps)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # None is what ends it
    return steps.count


def run(order: dict[str, Any]) -> dict[str, Any]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(read)
            threading.Thread(target=expire, args=(20.0,), daemon=True).start()
            os.write(write, str(play(order)).encode())
            code = 0
        except BaseException:  # a child must never go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    return {"code": os.waitstatus_to_exitcode(status), "steps": int(text or 0)}


def expire(seconds: float) -> None:
    threading.Event().wait(seconds)
    os._exit(99)


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
