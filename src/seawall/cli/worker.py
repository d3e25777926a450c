"""`seawall worker`: does what waits in an outbox until it is told to stop."""

import argparse
import asyncio
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from seawall.cli.outbox_print import fail, safe, say
from seawall.cli.outbox_target import Unfit, import_module, outbox_of, store_words
from seawall.errors import ConfigError
from seawall.runtime import clock
from seawall.units import rate_of

if TYPE_CHECKING:
    from types import FrameType

    from seawall.outbox import HealthServer, Outbox, Worker

MOST_NAMES = 8
NONE = "none"
LAST_SECONDS = 5.0
"""How long asyncio may take to end after the worker has."""
ONE_SIGNAL_NS = 300_000_000
"""Two signals within this time are one: wrappers pass on what the terminal has sent to all."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # pyright: ignore[reportPrivateUsage]  # it has no public name
    """Add the command to the command line."""
    parser = commands.add_parser(
        "worker",
        help="do what waits in an outbox",
        description="Does the work of an outbox until it gets SIGTERM or SIGINT: then it takes up nothing more, lets "
        "what is in work end, gives back the rest, and ends with exit code 0. A second signal ends it at once, with "
        "128 and its number. Exit code 1: it failed; 2: it could not be started as asked.",
    )
    parser.add_argument("outbox", metavar="MODULE:OUTBOX", help="such as app:outbox, found from the current directory")
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this too, because it registers operations; may be given again",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--threads", action="store_true", help="work in threads. Default: if no operation is async")
    kind.add_argument("--asyncio", action="store_true", help="work in tasks. Default: if any operation is async")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="records at once (default %(default)s)")
    parser.add_argument("--lease", default="60s", metavar="TIME", help="how long a record is taken for (%(default)s)")
    parser.add_argument(
        "--timeout", default="5min", metavar="TIME", help="the longest attempt, or none (default %(default)s)"
    )
    parser.add_argument(
        "--grace", default="30s", metavar="TIME", help="how long a stop waits for what is in work (%(default)s)"
    )
    parser.add_argument("--rate", metavar="RATE", help="so fast at most towards each target, such as 50/s")
    parser.add_argument(
        "--alarm-depth", default="0.8", metavar="N", help="records, or a share of the backlog, or none (%(default)s)"
    )
    parser.add_argument(
        "--alarm-age", default="1h", metavar="TIME", help="of the oldest record, or none (default %(default)s)"
    )
    parser.add_argument("--health", metavar="HOST:PORT", help="serve /healthz, /readyz, /metrics and /stats there")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Work until a signal; 0 after a stop, 1 if it failed, 2 if it could not start."""
    from seawall.cli.worker_log import listen  # noqa: PLC0415  # the other commands do without it
    from seawall.outbox import HealthServer  # noqa: PLC0415

    try:
        outbox = outbox_of(options.outbox)
        for module in options.imports:
            import_module(module)
        is_async = _check(outbox, options)
        worker = _worker(outbox, options)
        health = HealthServer(worker, options.health) if options.health else None
    except Unfit as error:
        first, *rest = str(error).split("\n")
        code = fail("worker", first)
        for line in rest:
            say(safe(line))
        return code
    except ConfigError as error:
        return fail("worker", str(error))
    silence = listen(outbox.name, options.log_level)
    try:
        return _work(worker, options, health, is_async=is_async)
    finally:
        silence()


def _check(outbox: "Outbox", options: argparse.Namespace) -> bool:
    """Whether it is to work in tasks. Raises `Unfit` if this outbox cannot be worked at."""
    if not outbox.store.durable:
        raise Unfit(
            f"{options.outbox} is in the memory of whoever puts work into it, which no other process can see; give it "
            "a store that both reach, such as Outbox('sqlite:///var/outbox.db'), or work in that process: "
            "with outbox.worker(): ..."
        )
    operations = outbox.operations.all()
    if not operations:
        module = options.outbox.partition(":")[0]
        raise Unfit(
            f"{options.outbox} has no operations, so nothing could be done: import the module that registers them "
            f"(@outbox.operation) in {module}, or name it here: --import {module}.operations"
        )
    asynchronous = [operation.name for operation in operations if operation.is_async]
    if options.threads and asynchronous:
        raise Unfit(f"--threads: operation {asynchronous[0]!r} is async, and threads cannot run it; use --asyncio")
    return bool(asynchronous) or options.asyncio


def _worker(outbox: "Outbox", options: argparse.Namespace) -> "Worker":
    from seawall.limiter.limiter import Limiter  # noqa: PLC0415  # as above
    from seawall.limiter.specs import TokenBucket  # noqa: PLC0415

    limiter = None
    if options.rate is not None:
        amount, period_ns = rate_of(options.rate, "--rate")
        # No more at once than a tenth of a second brings: a burst is what the rate is to prevent.
        burst = max(1, amount * 100_000_000 // period_ns)
        with warnings.catch_warnings():
            # Meant so, and documented: each worker has the rate. Signs of several others mean a server beside it.
            warnings.simplefilter("ignore", RuntimeWarning)
            limiter = Limiter(TokenBucket(options.rate, burst=min(burst, amount)), name=f"{outbox.name} worker")
    return outbox.worker(
        concurrency=options.concurrency,
        lease=_duration(options.lease),
        timeout=None if options.timeout == NONE else _duration(options.timeout),
        grace=_duration(options.grace),
        limiter=limiter,
        alarm_depth=None if options.alarm_depth == NONE else _depth(options.alarm_depth),
        alarm_age=None if options.alarm_age == NONE else _duration(options.alarm_age),
    )


def _duration(text: str) -> int | str:
    """`"30"` is thirty seconds, as on other command lines."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _depth(text: str) -> float:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise Unfit(f"--alarm-depth {text}: expected a number of records, a share such as 0.8, or none") from None


def _work(worker: "Worker", options: argparse.Namespace, health: "HealthServer | None", *, is_async: bool) -> int:
    if health is not None:
        try:
            health.start()
        except OSError as error:
            return fail(
                "worker", f"cannot listen on {options.health}: {os.strerror(error.errno) if error.errno else error}"
            )
    say(_first_line(worker, health, is_async=is_async))
    ears = _Ears(worker)
    try:
        ears.open()
        if is_async:
            asyncio.run(_arun(worker, ears))
        else:
            try:
                worker.run()
            finally:
                with suppress(Exception):  # whatever was done is done
                    worker.outbox.close()
    except _Early:
        return 0
    except Exception as error:  # noqa: BLE001  # whatever it is: a message, and exit code 1
        return fail("worker", f"it failed: {type(error).__name__}: {error}", 1)
    finally:
        ears.close()
        if health is not None:
            health.stop()
        say(_last_line(worker, ears))
    return 0


async def _arun(worker: "Worker", ears: "_Ears") -> None:
    try:
        await worker.arun()
    finally:
        ears.lose_patience()
        # A broker takes back what a store holds in hand only when the connection is closed in peace.
        with suppress(Exception):
            await worker.outbox.aclose()


class _Early(SystemExit):
    """A signal before the worker works: there is nothing yet that could be told to stop."""


class _Ears:
    """Hears the signals that end a worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._before: dict[int, Any] = {}
        self.heard = ""
        self._heard_ns = 0
        self._last = threading.Timer(LAST_SECONDS, self._end)
        self._last.daemon = True

    def open(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._hear)

    def lose_patience(self) -> None:
        """The worker has ended. asyncio waits for every task, and for threads of its own, however long they take."""
        if self.heard:
            self._last.start()

    def _end(self) -> None:
        say(_last_line(self._worker, self))
        say("seawall worker: not waiting any longer for what will not be cancelled; its leases run out")
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(0)

    def close(self) -> None:
        self._last.cancel()
        if self.heard:
            return  # the process ends now; another signal must not make a failure of it
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _frame: "FrameType | None") -> None:
        now = clock.now_ns()
        if self.heard:
            if now - self._heard_ns < ONE_SIGNAL_NS:
                return
            # At once, and whatever hangs. Leases run out by themselves.
            os.write(2, b"seawall worker: ended at once; what was in work is due again when its leases run out\n")
            os._exit(128 + number)
        self.heard, self._heard_ns = signal.Signals(number).name, now
        if self._worker.snapshot()["state"] == "idle":
            raise _Early
        self._worker.stop()


def _first_line(worker: "Worker", health: "HealthServer | None", *, is_async: bool) -> str:
    outbox = worker.outbox
    names = [operation.name for operation in outbox.operations.all()]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    shown = f"{', '.join(names[:MOST_NAMES])}{more}"
    line = f"seawall worker: outbox {outbox.name!r} in {store_words(outbox.store)}; operations: {shown}; "
    line += f"concurrency {worker.concurrency} in {'tasks' if is_async else 'threads'}"
    return safe(line + (f"; health at http://{health.address}" if health is not None else ""))


def _last_line(worker: "Worker", ears: _Ears) -> str:
    seen = worker.snapshot()
    counts = ", ".join(f"{seen[key]} {key}" for key in ("done", "retried", "died", "lost"))
    return f"seawall worker: ended by {ears.heard or 'itself'}; {counts}"
