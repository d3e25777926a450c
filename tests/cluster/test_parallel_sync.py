"""Synchronous forks and broadcasts: real threads and real time, with events instead of sleeps."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import (
    Broadcast,
    BroadcastError,
    Bulkhead,
    BulkheadFull,
    Cluster,
    Criticality,
    DeadlineExceeded,
    Endpoint,
    Forking,
    criticality,
    current,
    deadline,
    operation,
    remaining,
)
from seawall.policies.registry import Registry
from tests.cluster.service import Dead, at_rest, chosen_first
from tests.policies.worlds import in_threads, until

LONG = 10.0
"""Seconds after which a test that hangs gives up."""


class Gates:
    """A service whose replicas answer when they are told to: each attempt waits at the gate of its endpoint."""

    def __init__(self, size: int) -> None:
        self.addresses = [f"e{number}:80" for number in range(size)]
        self.gates = {address: threading.Event() for address in self.addresses}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.answers: dict[str, Any] = {address: address for address in self.addresses}
        self.threads: set[str] = set()

    def cluster(self, strategy: Any, **settings: Any) -> Cluster[Any]:
        return Cluster("stock", self.addresses, strategy=strategy, names=Registry(), **settings)

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[self.addresses[number]].set()

    def open_all(self) -> None:
        self.open(*range(len(self.addresses)))

    def __call__(self, endpoint: Endpoint) -> Any:
        self.begun.append(endpoint.address)
        self.threads.add(threading.current_thread().name)
        assert self.gates[endpoint.address].wait(LONG)
        self.ended.append(endpoint.address)
        answer = self.answers[endpoint.address]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def gates() -> Iterator[Gates]:
    service = Gates(3)
    yield service
    service.open_all()


def begin(call: Any) -> tuple[threading.Thread, list[Any]]:
    """Call in another thread; what came of it is in the list."""
    end: list[Any] = []

    def run() -> None:
        try:
            end.append(call())
        except BaseException as error:
            end.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, end


def test_forks_run_beside_each_other_and_the_first_answer_is_taken(gates: Gates) -> None:
    cluster = gates.cluster(Forking(3))
    thread, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 3)
    assert cluster.snapshot()["threads_in_use"] == 3
    gates.open(1)
    thread.join(LONG)
    assert end == ["e1:80"]
    assert cluster.snapshot()["threads_in_use"] == 2, "a loser keeps its thread until it ends"
    assert sum(each["in_flight"] for each in cluster.snapshot()["endpoints"]) == 2
    gates.open_all()
    until(lambda: len(gates.ended) == 3)
    at_rest(cluster)


def test_a_loser_keeps_its_permit_until_it_ends_and_what_it_brings_is_closed(gates: Gates) -> None:
    class Response:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    gates.answers = {address: Response() for address in gates.addresses}
    cluster = gates.cluster(Forking(2), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    thread, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 2)
    first, second = (gates.addresses.index(address) for address in gates.begun)
    gates.open(second)
    thread.join(LONG)
    won, lost = gates.answers[gates.addresses[second]], gates.answers[gates.addresses[first]]
    assert end == [won]
    assert cluster[gates.addresses[first]][Bulkhead].in_use == 1
    gates.open(first)
    until(lambda: lost.closed)
    assert (won.closed, lost.closed) == (0, 1)
    at_rest(cluster)


def test_a_fast_failure_never_beats_a_later_success(gates: Gates) -> None:
    gates.answers["e0:80"] = gates.answers["e1:80"] = Dead("no")
    cluster = gates.cluster(Forking("all"))
    thread, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 3)
    gates.open(0, 1)
    until(lambda: len(gates.ended) == 2)
    assert end == []
    gates.open(2)
    thread.join(LONG)
    assert end == ["e2:80"]
    at_rest(cluster)


def test_forks_are_at_different_endpoints_however_the_threads_run() -> None:
    for _ in range(200):
        service = Gates(2)
        service.open_all()
        service.answers = dict.fromkeys(service.addresses, Dead("no"))
        cluster = service.cluster(Forking(2))
        with pytest.raises(ExceptionGroup):
            cluster.call(service)
        assert sorted(service.begun) == service.addresses


def test_a_staggered_fork_starts_after_the_silence(gates: Gates) -> None:
    cluster = gates.cluster(Forking(2, stagger="30ms", budget=None), balancer=chosen_first("e0:80"))
    gates.open(1)
    began = time.monotonic()
    assert cluster.call(gates) == "e1:80"
    assert time.monotonic() - began >= 0.03
    assert gates.begun == ["e0:80", "e1:80"]
    gates.open_all()
    at_rest(cluster)


def test_a_failure_starts_the_next_fork_long_before_its_time(gates: Gates) -> None:
    gates.answers["e0:80"] = Dead("no")
    gates.open_all()
    cluster = gates.cluster(Forking(2, stagger=60, budget=None), balancer=chosen_first("e0:80"))
    assert cluster.call(gates) == "e1:80"
    assert gates.begun == ["e0:80", "e1:80"]
    at_rest(cluster)


@pytest.mark.parametrize("strategy", [Forking(2), Forking(2, stagger="5ms", budget=None), Broadcast()], ids=str)
def test_the_deadline_ends_the_wait_and_the_threads_go_on(gates: Gates, strategy: Any) -> None:
    cluster = gates.cluster(strategy)
    began = time.monotonic()
    with deadline("50ms"), pytest.raises((DeadlineExceeded, BroadcastError)) as caught:
        cluster.call(gates)
    assert 0.04 <= time.monotonic() - began < 5  # a broadcast keeps a moment for telling
    if isinstance(caught.value, BroadcastError):
        errors = list(caught.value.failed.values())
        assert len(errors) == 3
    else:
        errors = [caught.value]
    assert all(isinstance(error, DeadlineExceeded) and error.inherited for error in errors)
    assert cluster.snapshot()["threads_in_use"] == len(gates.begun) >= 2
    gates.open_all()
    at_rest(cluster)


def test_when_no_thread_is_free_the_call_is_refused_and_not_queued(gates: Gates) -> None:
    cluster = gates.cluster(Forking(2), max_threads=2)
    thread, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 2)
    with pytest.raises((BulkheadFull, ExceptionGroup)) as caught:
        cluster.call(gates)
    error = caught.value
    refusals = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    assert all(isinstance(refusal, BulkheadFull) and "2 threads" in str(refusal) for refusal in refusals)
    with pytest.raises(BroadcastError) as told:
        cluster.broadcast(gates)
    assert {type(refusal) for refusal in told.value.failed.values()} == {BulkheadFull}
    assert len(told.value.failed) == 3
    assert len(gates.begun) == 2, "nothing was sent"
    gates.open_all()
    thread.join(LONG)
    assert end[0] in gates.addresses
    at_rest(cluster)
    assert cluster.call(gates) in gates.addresses


def test_no_more_forks_than_threads_are_begun() -> None:
    service = Gates(5)
    service.open_all()
    service.answers = dict.fromkeys(service.addresses, Dead("no"))
    for _ in range(20):
        with pytest.raises(ExceptionGroup) as caught:
            service.cluster(Forking("all"), max_threads=2).call(service)
        assert [type(error) for error in caught.value.exceptions] == [Dead, Dead]


def test_one_free_thread_is_enough_for_one_fork(gates: Gates) -> None:
    cluster = gates.cluster(Forking(2), max_threads=3)
    thread, _ = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 2)
    other, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 3)
    gates.open_all()
    thread.join(LONG)
    other.join(LONG)
    assert end[0] in gates.addresses, "the refused fork does not decide"
    at_rest(cluster)


@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_a_broadcast_reaches_more_endpoints_than_there_are_threads(threads: int) -> None:
    service = Gates(40)
    service.open_all()
    service.answers["e0:80"] = Dead("no")
    cluster = service.cluster(Broadcast(39), max_threads=threads)
    answers = cluster.call(service)
    assert sorted(service.begun) == sorted(service.addresses)
    assert len(answers) == 39
    at_rest(cluster)


def test_an_endpoint_that_hangs_holds_one_thread_and_no_other_endpoint() -> None:
    service = Gates(6)
    cluster = service.cluster(Broadcast(), max_threads=2)
    thread, end = begin(lambda: cluster.call(service))
    service.open(1, 2, 3, 4, 5)
    until(lambda: len(service.ended) == 5)
    assert end == []
    service.open(0)
    thread.join(LONG)
    assert len(end[0]) == 6
    at_rest(cluster)


def test_after_the_deadline_no_more_endpoints_are_told_and_late_answers_are_closed() -> None:
    class Response:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    service = Gates(6)
    service.answers = {address: Response() for address in service.addresses}
    cluster = service.cluster(Broadcast(), max_threads=2)
    with deadline("30ms"), pytest.raises(BroadcastError) as caught:
        cluster.call(service)
    assert len(caught.value.failed) == 6
    begun = list(service.begun)
    assert len(begun) == 2
    service.open_all()
    at_rest(cluster)
    assert service.begun == begun, "it went on without its caller"
    assert [service.answers[address].closed for address in begun] == [1, 1]


def test_broadcasts_run_beside_each_other_on_threads(gates: Gates) -> None:
    cluster = gates.cluster(Broadcast())
    thread, end = begin(lambda: cluster.call(gates))
    until(lambda: len(gates.begun) == 3)
    assert cluster.snapshot()["threads_in_use"] == 3
    gates.open_all()
    thread.join(LONG)
    assert {str(endpoint): value for endpoint, value in end[0].items()} == {each: each for each in gates.addresses}
    at_rest(cluster)


USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.mark.parametrize("strategy", [Forking("all"), Broadcast()], ids=str)
def test_threads_have_the_context_of_the_caller(strategy: Any) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(endpoint: Endpoint) -> None:
        left = remaining()
        assert left is not None and 0 < left <= 60
        here = current()
        seen.append((USER.get(), here.criticality, here.operation, here.attempt, threading.current_thread().name))
        USER.set(endpoint.address)
        raise Dead

    cluster = Gates(3).cluster(strategy)
    USER.set("ann")
    with deadline(60), criticality(Criticality.SHEDDABLE), operation("audit"):
        cluster.run(look)
    assert {each[:3] for each in seen} == {("ann", Criticality.SHEDDABLE, "audit")}
    assert sorted(each[3] for each in seen) == [1, 2, 3], "each attempt has its own number"
    assert {each[4] for each in seen} == {"seawall stock"}
    assert USER.get() == "ann", "what an attempt sets stays in it"
    assert current().attempt == 1


def test_many_callers_at_once_lose_nothing() -> None:
    service = Gates(5)
    service.open_all()
    cluster = service.cluster(Forking(2), each=(Bulkhead(50),))

    def calls() -> list[Any]:
        return [cluster.call(service) for _ in range(30)] + [len(cluster.broadcast(service)) for _ in range(5)]

    for end in in_threads([calls] * 4):
        assert not isinstance(end, BaseException), end
        assert end[30:] == [5] * 5
        assert set(end[:30]) <= set(service.addresses)
    at_rest(cluster)


def test_a_function_that_awaits_is_refused_in_a_fork() -> None:
    async def later(endpoint: Endpoint) -> str:
        return "never"

    with pytest.raises(TypeError, match="async function"):
        Gates(2).cluster(Forking(2)).call(later)
