"""Look-ups on threads of their own, in real time: who waits, for how long, and what a source that hangs can hold up."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from seawall import Cluster, DeadlineExceeded, Ejection, Endpoint, Failfast, NoEndpoints, RoundRobin, Timeout, deadline
from seawall.events import LookupFailed
from seawall.policies.registry import Registry
from seawall.runtime import jobs
from tests.policies.worlds import heard, in_threads, until, workers_go_home

__all__ = ["workers_go_home"]

LONG = 20.0


class Resolver:
    """A source that answers when it is told to."""

    def __init__(self, *answers: Any, every: Any = 3_600) -> None:
        self.answers = list(answers)
        self.every = every
        self.asked = self.inside = self.most = 0
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self._lock = threading.Lock()

    def read(self) -> Any:
        with self._lock:
            answer = self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.threads.add(threading.current_thread().name)
        try:
            assert self.gate.wait(LONG), "nobody let it go"
        finally:
            with self._lock:
                self.inside -= 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


def cluster_of(source: Any, **settings: Any) -> Cluster[Any]:
    settings = {"strategy": Failfast(), "balancer": RoundRobin(slow_start=0), "names": Registry(), **settings}
    return Cluster("stock", source, **settings)


def in_the_background(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    ends: list[Any] = []

    def body() -> None:
        try:
            ends.append(function())
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, ends


def test_the_first_callers_wait_for_one_look_up_and_all_get_its_answer() -> None:
    resolver = Resolver(["a:80"])
    cluster = cluster_of(resolver)
    waiting = [in_the_background(lambda: cluster.call(str)) for _ in range(8)]
    until(lambda: len(cluster._core.directory._waiting) == 8)
    resolver.gate.set()
    for thread, ends in waiting:
        thread.join(LONG)
        assert ends == ["a:80"]
    assert (resolver.asked, resolver.most) == (1, 1)
    assert resolver.threads == {"seawall stock endpoints"}
    assert not cluster._core.directory._waiting


def test_the_first_callers_all_hear_of_a_failure() -> None:
    resolver = Resolver(OSError("no route"))
    cluster = cluster_of(resolver)
    waiting = [in_the_background(lambda: cluster.call(str)) for _ in range(4)]
    until(lambda: len(cluster._core.directory._waiting) == 4)
    resolver.gate.set()
    for thread, ends in waiting:
        thread.join(LONG)
        assert isinstance(ends[0], NoEndpoints) and "no endpoints: OSError: no route" in str(ends[0])
    assert cluster.snapshot()["failed_lookups"] == resolver.asked == 1


@pytest.mark.parametrize("form", ["with deadline", "Timeout around"])
def test_nobody_waits_for_the_first_list_beyond_the_deadline_and_no_waiter_is_left_behind(form: str) -> None:
    resolver = Resolver(["a:80"])
    cluster = cluster_of(resolver, around=(Timeout("30ms"),) if form == "Timeout around" else ())

    def call() -> float:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            if form == "Timeout around":
                cluster.call(str)
            else:
                with deadline("30ms"):
                    cluster.call(str)
        return time.monotonic() - began

    try:
        for _ in range(3):
            assert 0.02 < call() < 5
        assert not cluster._core.directory._waiting, "they would pile up while the source hangs"
        assert resolver.asked == 1
    finally:
        resolver.gate.set()
    until(lambda: cluster.endpoints)
    assert cluster.call(str) == "a:80"


def test_async_callers_wait_without_holding_the_loop_and_leave_nothing_when_cancelled() -> None:
    resolver = Resolver(["a:80"])
    cluster = cluster_of(resolver)

    async def answer(endpoint: Endpoint) -> str:
        return str(endpoint)

    async def main() -> None:
        calls = [asyncio.create_task(cluster.acall(answer)) for _ in range(5)]
        while len(cluster._core.directory._waiting) < 5:
            await asyncio.sleep(0)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        with deadline("20ms"), pytest.raises(DeadlineExceeded):
            await cluster.acall(answer)
        assert len(cluster._core.directory._waiting) == 4
        resolver.gate.set()
        assert await asyncio.gather(*calls[1:]) == ["a:80"] * 4

    asyncio.run(main())
    assert resolver.asked == 1


def test_a_loop_that_is_gone_holds_nobody_up() -> None:
    """Its waiters cannot be woken any more; those of other loops are."""
    resolver = Resolver(["a:80"])
    cluster = cluster_of(resolver)

    async def answer(endpoint: Endpoint) -> str:
        return str(endpoint)

    async def give_up() -> None:
        task = asyncio.create_task(cluster.acall(answer))
        while not cluster._core.directory._waiting:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    thread, ends = in_the_background(lambda: asyncio.run(cluster.acall(answer)))
    until(lambda: cluster._core.directory._waiting)
    resolver.gate.set()
    thread.join(LONG)
    assert ends == ["a:80"]


def test_while_a_look_up_blocks_other_calls_go_on_with_the_list_they_have() -> None:
    resolver = Resolver(["a:80"], ["b:80"], every="1ms")
    resolver.gate.set()
    cluster = cluster_of(resolver)
    assert cluster.call(str) == "a:80"
    until(lambda: resolver.inside == 0)
    resolver.gate.clear()
    until(lambda: cluster.call(str) and resolver.inside)
    asked = resolver.asked
    ends = in_threads([lambda: [cluster.call(str) for _ in range(200)]] * 4)
    assert {end for each in ends for end in each} <= {"a:80", "b:80"}
    assert (resolver.asked, resolver.most) == (asked, 1), "only one look-up at a time"
    resolver.gate.set()
    until(lambda: cluster.call(str) == "b:80")


def test_a_source_that_does_not_answer_is_told_once_each_time_it_would_have_been_asked() -> None:
    resolver = Resolver(["a:80"], ["b:80"], every="20ms")
    resolver.gate.set()
    cluster = cluster_of(resolver)
    assert cluster.call(str) == "a:80"
    resolver.gate.clear()
    with heard(LookupFailed) as seen:
        until(lambda: cluster.call(str) and len(seen) >= 2)
        calls = time.monotonic()
    assert time.monotonic() - calls < LONG
    assert cluster.snapshot()["last_problem"].startswith("the source has not answered for ")
    assert seen[0].reason.startswith("the source has not answered for ") and seen[0].error is None
    assert cluster.snapshot()["failed_lookups"] >= 2 and "has not answered" in cluster.explain()
    resolver.gate.set()
    until(lambda: cluster.call(str) == "b:80")
    assert cluster.snapshot()["last_problem"] == ""


def test_without_a_thread_for_the_look_up_the_last_list_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(["a:80"], every="1ms")
    resolver.gate.set()
    cluster = cluster_of(resolver)
    assert cluster.call(str) == "a:80"
    until(lambda: not any(thread.name.startswith("seawall stock") for thread in threading.enumerate()))

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(jobs.threading, "Thread", NoThread)
        until(lambda: cluster.call(str) == "a:80" and cluster.snapshot()["failed_lookups"])
        assert cluster.snapshot()["last_problem"] == "RuntimeError: can't start new thread"
        other = cluster_of(Resolver(["a:80"]))
        with pytest.raises(NoEndpoints, match="no endpoints: RuntimeError: can't start new thread"):
            other.call(str)
    until(lambda: cluster.call(str) and cluster.snapshot()["last_problem"] == "")


def test_what_a_look_up_throws_at_its_thread_is_counted_and_the_thread_is_fit_for_the_next() -> None:
    resolver = Resolver(SystemExit(3), ["a:80"], every="1ms")
    resolver.gate.set()
    cluster = cluster_of(resolver)
    with pytest.raises(NoEndpoints, match="no endpoints: SystemExit: 3"):
        cluster.call(str)
    until(lambda: cluster.run(str).ok)
    assert cluster.snapshot()["failed_lookups"] == 1


def test_an_answer_to_an_earlier_question_comes_too_late() -> None:
    """A look-up by hand overtook one that hung; what that brings in the end is older."""
    resolver = Resolver(["old:80"], ["new:80"])
    cluster = cluster_of(resolver)
    slow, _ = in_the_background(cluster.refresh)
    until(lambda: resolver.asked == 1)
    late, resolver.gate = resolver.gate, threading.Event()
    resolver.gate.set()
    assert [str(each) for each in cluster.refresh()] == ["new:80"]
    late.set()
    slow.join(LONG)
    assert [str(each) for each in cluster.endpoints] == ["new:80"]


# -- a forked child -----------------------------------------------------------------------------------------------------


def in_a_child(check: Callable[[], None]) -> None:
    """Run `check` in a forked child; fails with its traceback."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        text = ""
        try:
            check()
        except BaseException:
            text = traceback.format_exc()
        os.write(write, text.encode()[:60_000])
        os._exit(bool(text))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        if not select.select([pipe], [], [], LONG)[0]:
            os.kill(child, signal.SIGKILL)
            told = "it hangs"
        else:
            told = pipe.read().decode()
    os.waitpid(child, 0)
    assert not told, told


forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
quiet = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forking
@quiet
def test_a_child_asks_again_where_the_parent_was_asking() -> None:
    """The thread that asks does not exist there, nor do those who wait for it."""
    resolver = Resolver(["a:80"])
    cluster = cluster_of(resolver)
    thread, ends = in_the_background(lambda: cluster.call(str))
    until(lambda: cluster._core.directory._waiting)

    def child() -> None:
        assert not cluster._core.directory._waiting
        resolver.gate.set()
        assert cluster.call(str) == "a:80"

    workers = cluster._core.directory._workers
    workers._idle += 1  # as if one waited for work: it does not exist in the child either
    in_a_child(child)
    workers._idle -= 1
    resolver.gate.set()
    thread.join(LONG)
    assert ends == ["a:80"]


@forking
@quiet
def test_a_child_has_nothing_in_flight_and_its_balancer_knows_it() -> None:
    """Attempts of the parent's other threads would otherwise weigh there for ever; the child's own one ends well."""
    from seawall import PowerOfTwo

    cluster = cluster_of(["a:80", "b:80"], balancer=PowerOfTwo(slow_start=0))
    gate = threading.Event()

    def hold(endpoint: Endpoint) -> None:
        assert gate.wait(LONG)

    running = [in_the_background(lambda: cluster.call(hold)) for _ in range(2)]
    until(lambda: [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [1, 1])
    cluster.update(["b:80", "c:80", "d:80"])
    cluster.update(["b:80", "c:80"])

    def child() -> None:
        cluster.update(["a:80", "b:80", "c:80"])
        assert [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [0, 0, 0]
        assert {cluster.call(str) for _ in range(200)} == {"a:80", "b:80", "c:80"}
        cluster.update(["c:80"])
        cluster.update(["a:80", "b:80", "c:80"])
        assert [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [0, 0, 0]

    def forks(endpoint: Endpoint) -> None:
        in_a_child(child)

    cluster.call(forks)
    cluster.update(["a:80", "b:80", "c:80"])

    def goes_on(endpoint: Endpoint) -> str:
        read, write = os.pipe()
        if os.fork() == 0:  # pragma: no cover
            os.close(read)
            return f"child {write}"
        os.close(write)
        with os.fdopen(read) as pipe:
            return pipe.read()

    told = cluster.call(goes_on)
    if told.startswith("child"):  # pragma: no cover
        os.write(int(told.split()[1]), b"well")
        os._exit(0)
    os.wait()
    assert told == "well", "the call in which a child was made ends in the child too"
    gate.set()
    for thread, ends in running:
        thread.join(LONG)
        assert ends == [None]
    assert [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [0, 0, 0]


@forking
@quiet
def test_locks_that_other_threads_hold_are_free_in_the_child() -> None:
    cluster = cluster_of(["a:80", "b:80"], ejection=Ejection(consecutive=1))
    core, roster = cluster._core, cluster._calls.roster
    with pytest.raises(ZeroDivisionError):
        cluster.call(lambda endpoint: 1 // 0)
    locked, gate = threading.Event(), threading.Event()

    def holds_them() -> None:
        with core._lock, core.directory._lock, roster._lock:
            locked.set()
            assert gate.wait(LONG)

    thread, _ = in_the_background(holds_them)
    assert locked.wait(LONG)

    def child() -> None:
        cluster.update(["a:80", "b:80", "c:80"])
        assert {cluster.using(Failfast(name="new")).call(str) for _ in range(9)} == {"a:80", "b:80", "c:80"}
        for _ in range(3):
            assert cluster.run(lambda endpoint: {}["none"]).error is not None
        assert [each["standing"] for each in cluster.snapshot()["endpoints"]].count("out") == 1, "with a clean record"

    in_a_child(child)
    gate.set()
    thread.join(LONG)
