"""Who shares a trip, whose connection it is, and what becomes of both when somebody leaves in the middle."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from seawall import ConfigError, Limiter, SlidingWindow, TokenBucket, Valkey
from tests.valkey.conftest import Make
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server


def calls(server: Server) -> int:
    """How often the script was called."""
    stats = server.do("INFO", "commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


def test_tasks_that_ask_in_one_turn_of_the_loop_share_one_call(server: Server, store: Make) -> None:
    # More patient than any machine is busy: whoever gives up is decided for without the server.
    mine = store(server.url, timeout="60s", connect_timeout="60s")
    limiters = [Limiter(TokenBucket("1000/s"), name=name, store=mine) for name in ("first", "second")]

    async def main() -> None:
        assert await limiters[0].ahit("warm")
        before = calls(server)
        found = await asyncio.gather(*(limiters[number % 2].ahit(f"user {number}") for number in range(100)))
        assert all(found), mine
        assert calls(server) - before == 1, server.do("INFO", "commandstats")
        before = calls(server)
        await asyncio.gather(*(limiters[0].ahit(f"user {number}") for number in range(600)))
        assert calls(server) - before == 3, ("at most 256 in a call", server.do("INFO", "commandstats"))

    asyncio.run(main())


def test_each_in_a_call_sees_what_those_before_it_took(store: Make) -> None:
    limiter = Limiter({"a": TokenBucket("7/h"), "b": SlidingWindow("9/h")}, name="order", store=store())

    async def main() -> list[bool]:
        return [bool(each) for each in await asyncio.gather(*(limiter.ahit("ann", 2) for _ in range(5)))]

    assert asyncio.run(main()) == [True] * 3 + [False] * 2


def test_threads_that_wait_for_a_connection_share_its_next_call(server: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("1000/s"), name="threads", store=store(server.url))
    assert limiter.hit("warm")
    before = calls(server)
    found: list[bool] = []
    server.freeze()
    threads = [threading.Thread(target=lambda n=n: found.append(bool(limiter.hit(f"user {n}")))) for n in range(30)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    server.thaw()
    for thread in threads:
        thread.join()
    assert found == [True] * 30
    assert calls(server) - before == 2, "one for the first, one for all who came meanwhile"


def test_a_task_that_is_cancelled_leaves_the_others_their_answers(server: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("100/h"), name="cancel", store=store(server.url))

    async def main() -> None:
        assert await limiter.ahit("warm")
        server.freeze()
        tasks = [asyncio.create_task(limiter.ahit(f"user {number}")) for number in range(6)]
        await asyncio.sleep(0.05)
        for task in tasks[::2]:
            task.cancel()
        server.thaw()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each).__name__ for each in ended] == ["CancelledError", "Answer"] * 3
        # Answers are still those of their questions.
        decisions = await asyncio.gather(*(limiter.ahit(f"next {number}", number) for number in range(1, 9)))
        assert [decision.remaining for decision in decisions] == [100 - number for number in range(1, 9)]

    asyncio.run(main())


def test_one_who_is_cancelled_before_his_call_goes_out_takes_nothing(shared: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="early", store=store())

    async def main() -> None:
        assert await limiter.ahit("ann")
        task = asyncio.create_task(limiter.ahit("ann"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await limiter.apeek("ann")).remaining == 9

    asyncio.run(main())


def test_a_connection_that_was_cut_short_is_never_used_again(shared: Server, store: Make) -> None:
    proxy = Proxy(shared.port)
    try:
        mine = store(proxy.url, timeout="150ms", on_outage="closed", breaker=None, connections=1)
        limiter = Limiter(TokenBucket("100/h"), name="cut", store=mine)

        async def main() -> None:
            assert (await limiter.ahit("ann", 1)).remaining == 99
            proxy.mode, proxy.drip_seconds = "drip", 0.01
            assert not await limiter.ahit("ann", 10), "its answer is on its way when the time is over"
            proxy.mode = "pass"
            made = proxy.connections
            assert (await limiter.ahit("ben", 20)).remaining == 80, "not the answer that ann did not wait for"
            assert proxy.connections == made + 1

        asyncio.run(main())
    finally:
        proxy.close()


def test_each_loop_has_a_client_that_ends_with_it(server: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("1000/h"), name="loops", store=store(server.url))

    async def main() -> None:
        assert all(await asyncio.gather(*(limiter.ahit(f"user {number}") for number in range(20))))

    for _ in range(3):
        asyncio.run(main())
    gc.collect()  # whatever was left open would warn, and warnings are errors
    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limiter.hit("thread")
    time.sleep(0.05)
    lines = server.do("CLIENT", "LIST").decode().splitlines()
    assert len([line for line in lines if "cmd=client|list" not in line]) == 1, "only that of the threads is left"


def test_aclose_and_close_end_connections_and_the_store_goes_on(server: Server, store: Make) -> None:
    mine = store(server.url)
    limiter = Limiter(TokenBucket("10/h"), name="close", store=mine)

    async def main() -> None:
        assert await limiter.ahit("ann")
        await mine.aclose()
        assert await limiter.ahit("ann")

    asyncio.run(main())
    assert limiter.hit("ann")
    mine.close()
    assert limiter.hit("ann").remaining == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_connections_of_its_own(store: Make) -> None:
    limiter = Limiter(TokenBucket("100/h"), name="fork", store=store())
    assert limiter.hit("ann")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: they hold nothing here
        context = multiprocessing.get_context("fork")
        answers: Any = context.Queue()
        children = [context.Process(target=hit_often, args=(limiter, answers)) for _ in range(3)]
        for child in children:
            child.start()
    mine = [limiter.hit("ann").remaining for _ in range(10)]
    theirs = [answers.get(timeout=20) for _ in range(3)]
    for child in children:
        child.join()
    everything = mine + [number for each in theirs for number in each]
    assert sorted(everything) == list(range(59, 99)), "each answer went to the one who had asked"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_loop_whose_process_forks_keeps_its_connections(server: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("100/h"), name="fork", store=store(server.url, on_outage="closed"))

    async def main() -> None:
        assert await limiter.ahit("ann")
        child = os.fork()
        if child == 0:
            code = 2
            try:
                gc.collect()
                asyncio._set_running_loop(None)
                code = 0 if limiter.hit("ann") and asyncio.run(limiter.ahit("ann")) else 1
                gc.collect()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222  # it is what is tried
        assert (await limiter.ahit("ann")).remaining == 96

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.run(main())


def hit_often(limiter: Limiter, answers: Any) -> None:
    async def main() -> list[int]:
        return [(await limiter.ahit("ann")).remaining for _ in range(5)]

    answers.put([limiter.hit("ann").remaining for _ in range(5)] + asyncio.run(main()))


def test_processes_count_one_another(server: Server, store: Make) -> None:
    stores = [store(server.url) for _ in range(3)]
    for number, each in enumerate(stores):
        assert Limiter(TokenBucket("10/h"), name="nodes", store=each).hit(f"user {number}")
    assert [each.snapshot()["nodes"] for each in stores] == [1, 2, 3]


def test_a_server_that_would_drop_counters_is_warned_about_once(start: Callable[..., Server], store: Make) -> None:
    full = start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    limiter = Limiter(TokenBucket("10/h"), name="evict", store=store(full.url))
    assert limiter.hit("ann")
    with pytest.warns(RuntimeWarning, match="noeviction"):
        assert limiter.hit("ann")
    assert limiter.hit("ann")


def test_keys_show_nothing_of_their_callers_and_differ_by_secret(server: Server, store: Make) -> None:
    for secret in (None, "one", b"two"):
        Limiter(TokenBucket("9/h"), name="my limiter", store=store(server.url, prefix="p", secret=secret)).hit(
            "ann@example"
        )
    keys = sorted(key.decode() for key in server.do("KEYS", "p:*:token_bucket:*"))
    assert len(keys) == 3
    for key in keys:
        assert "ann" not in key and "my limiter" not in key
        prefix, subject, kind, policy, name = key.split(":", 4)
        assert (prefix, kind, name) == ("p", "token_bucket", "TokenBucket")
        assert subject.startswith("{") and subject.endswith("}") and len(subject) == 34
        int(subject[1:-1], 16)
        int(policy, 16)


# -- TLS, by a door in front of the server: the one of the tests was built without --------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(file)]
    try:
        made = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no certificate can be made here: {error}")
    file.write_bytes(file.read_bytes() + made.stdout)
    return file


class TlsDoor(Proxy):
    """The proxy, behind TLS."""

    def __init__(self, port: int, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.wrap = lambda sock: context.wrap_socket(sock, server_side=True)
        super().__init__(port)


@pytest.fixture
def door(shared: Server, certificate: Path) -> Any:
    opened = TlsDoor(shared.port, certificate)
    yield opened
    opened.close()


def test_tls_is_spoken_and_certificates_are_checked(door: TlsDoor, certificate: Path, store: Make) -> None:
    url = f"valkeys://localhost:{door.port}"
    limiter = Limiter(TokenBucket("10/h"), name="tls", store=store(url, ssl_ca_certs=str(certificate)))
    assert limiter.hit("ann")

    async def main() -> bool:
        return bool(await limiter.ahit("ann"))

    assert asyncio.run(main())
    doubtful = Limiter(TokenBucket("10/h"), name="tls", store=store(url, on_outage="open"))
    with pytest.raises(Exception, match="certificate"):
        doubtful.hit("ann")

    async def other() -> None:
        with pytest.raises(Exception, match="certificate"):
            await doubtful.ahit("ann")
        # asyncio closes what failed to shake hands some turns later: until only its own pipe is left.
        sockets: Any = cast("Any", asyncio.get_running_loop())._selector.get_map()
        for _ in range(2_000):
            if len(sockets) == 1:
                break
            await asyncio.sleep(0.005)

    asyncio.run(other())


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {"ssl_ca_certs": "x"},
        {"socket_timeout": 3},
        {"prefix": "{a}"},
        {"prefix": ""},
        {"on_outage": "maybe"},
        {"nodes": 0},
        {"timeout": 0},
        {"timeout": "-1s"},
        {"secret": ""},
        {"breaker": 3},
        {"connections": 0},
    ):
        with pytest.raises(ConfigError):
            Valkey("valkey://127.0.0.1", **wrong)
    with pytest.raises(ConfigError, match="redis-py"):
        Valkey(object())


def test_a_password_is_never_shown() -> None:
    store = Valkey("valkey://user:hidden@127.0.0.1:1/2")
    assert "hidden" not in repr(store) + repr(store.snapshot())


def test_a_thread_that_is_interrupted_before_it_passes_the_lead_on_leaves_the_others_without_it_for_a_moment_only(
    server: Server, store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = Limiter(
        TokenBucket("1000/s"), name="led", store=store(server.url, connect_timeout="500ms", timeout="500ms")
    )
    assert limiter.hit("warm")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seawall.stores.valkey.threads.ThreadClient._lead", interrupted)
        with pytest.raises(KeyboardInterrupt):
            limiter.hit("ann")
    before = calls(server)
    for number in range(5):
        limiter.hit(f"user {number}")
    assert calls(server) - before >= 3, "nobody leads, and all the others wait"


def test_two_threads_that_want_the_last_idle_connection_both_have_one(store: Make) -> None:
    limiter = Limiter(TokenBucket("1000/s"), name="idle", store=store())
    assert limiter.hit("warm")

    class Idle(list[Any]):
        """One is there, and another thread takes it just before it is taken."""

        def pop(self, *_: Any) -> Any:
            self.clear()
            return super().pop()

    exchange = cast("Any", limiter._table)._core.threads()._exchange
    for address, lines in exchange._idle.items():
        exchange._idle[address] = Idle(lines)
    assert limiter.hit("ann")
