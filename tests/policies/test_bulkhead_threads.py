"""`Bulkhead(threads=True)`: blocking functions on own threads, which keep their permit until they really end."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    Fallback,
    Policy,
    Retry,
    Timeout,
    current,
    deadline,
    operation,
    remaining,
)
from tests.policies.worlds import fail, until

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends the hanging functions of a test."""
    event = threading.Event()
    yield event
    event.set()


def test_the_function_runs_on_another_thread() -> None:
    policy = Policy(Bulkhead(1, threads=True))
    assert policy.call(threading.get_ident) != threading.get_ident()
    assert asyncio.run(policy.acall(threading.get_ident)) != threading.get_ident()
    assert policy.caller.on_threads


def test_values_arguments_and_errors_come_back() -> None:
    policy = Policy(Bulkhead(1, threads=True))
    assert policy.call(int, "ff", base=16) == 255
    with pytest.raises(ConnectionError):
        policy.call(fail())
    with pytest.raises(SystemExit):
        policy.call(sys.exit, 3)
    assert policy[Bulkhead].in_use == 0


def test_context_variables_and_deadline_go_along_and_changes_stay_there() -> None:
    policy = Policy(Bulkhead(1, threads=True))
    seen: list[object] = []

    def look() -> None:
        seen.extend((TENANT.get(), current().operation, (remaining() or 0) > 5))
        TENANT.set("changed")

    token = TENANT.set("acme")
    with deadline(10), operation("report"):
        policy.call(look)
    assert seen == ["acme", "report", True]
    assert TENANT.get() == "acme"
    TENANT.reset(token)


def test_a_timed_out_call_keeps_its_permit_until_it_really_ends(release: threading.Event) -> None:
    policy = Policy(Bulkhead(1, threads=True), Timeout("5ms"), name="hanging")
    with pytest.raises(DeadlineExceeded) as caught:
        policy.call(release.wait, 20)
    assert not caught.value.inherited
    assert str(caught.value) == "hanging: no answer within 5 ms"
    assert policy[Bulkhead].in_use == 1
    with pytest.raises(BulkheadFull):
        policy.call(str)
    release.set()
    until(lambda: policy[Bulkhead].in_use == 0)


def test_an_async_call_is_freed_by_its_timeout_too(release: threading.Event) -> None:
    policy = Policy(Timeout("5ms"), Bulkhead(1, threads=True))

    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await policy.acall(release.wait, 20)
        assert not caught.value.inherited
        assert policy[Bulkhead].in_use == 1

    asyncio.run(main())
    release.set()
    until(lambda: policy[Bulkhead].in_use == 0)


def test_a_cancelled_async_call_leaves_its_thread_and_permit_behind(release: threading.Event) -> None:
    policy = Policy(Bulkhead(1, threads=True))
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(20)

    async def main() -> None:
        call = asyncio.create_task(policy.acall(hang))
        while not begun.is_set():
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert policy[Bulkhead].in_use == 1

    asyncio.run(main())
    release.set()
    until(lambda: policy[Bulkhead].in_use == 0)


def test_a_callers_deadline_frees_the_caller(release: threading.Event) -> None:
    policy = Policy(Bulkhead(1, threads=True))
    with deadline("5ms"), pytest.raises(DeadlineExceeded) as caught:
        policy.call(release.wait, 20)
    assert caught.value.inherited


def test_a_retry_of_a_hung_attempt_takes_another_thread(release: threading.Event) -> None:
    policy = Policy(Fallback("gave up"), Retry(on=TimeoutError, delay=0), Bulkhead(2, threads=True), Timeout("5ms"))
    outcome = policy.run(release.wait, 20)
    assert (outcome.value, outcome.degraded) == ("gave up", True)
    assert policy[Bulkhead].in_use == 2, "two hang; the third attempt found no permit"


def test_a_permit_is_not_left_to_the_hung_thread_of_an_earlier_attempt(release: threading.Event) -> None:
    """The second attempt is refused inside the bulkhead, before it has a thread: its permit comes back at once."""
    policy = Policy(
        Retry(on=TimeoutError, delay=0), Bulkhead(2, threads=True), CircuitBreaker(consecutive=1), Timeout("5ms")
    )
    with pytest.raises(CircuitOpen):
        policy.call(release.wait, 20)
    assert policy[Bulkhead].in_use == 1


def test_threads_are_used_again_and_never_more_than_the_limit() -> None:
    policy = Policy(Bulkhead(3, queue=100, max_wait=None, threads=True))
    names: set[int] = set()
    for _ in range(50):
        names.add(policy.call(threading.get_ident))
    assert len(names) <= 3


def test_a_full_bulkhead_waits_with_a_queue(release: threading.Event) -> None:
    policy = Policy(Bulkhead(1, queue=1, max_wait=None, threads=True))
    ends: list[object] = []
    first = threading.Thread(target=policy.call, args=(release.wait, 20))
    second = threading.Thread(target=lambda: ends.append(policy.call(str.upper, "ok")))
    first.start()
    until(lambda: policy[Bulkhead].in_use == 1)
    second.start()
    until(lambda: policy[Bulkhead].waiting == 1)
    release.set()
    first.join(20)
    second.join(20)
    assert ends == ["OK"]


def test_what_cannot_run_on_threads_is_refused_with_the_reason() -> None:
    policy = Policy(Bulkhead(1, threads=True), name="reports")

    async def coroutine() -> None: ...

    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigError, match="runs blocking functions"):
        policy(coroutine)
    with pytest.raises(ConfigError, match="runs blocking functions"):
        asyncio.run(policy.acall(coroutine))
    with pytest.raises(TypeError, match="generator"):
        policy.call(rows)
    with pytest.raises(TypeError, match="give it a function"):
        policy.guard()
    with pytest.raises(TypeError, match="give it a function"):
        policy.attempts()
    with pytest.raises(ConfigError, match="two bulkheads with threads"):
        Policy(Bulkhead(1, threads=True), Bulkhead(2, threads=True, name="other"))
    assert policy[Bulkhead].in_use == 0


def test_a_thread_that_cannot_be_started_gives_the_permit_back(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(Bulkhead(1, threads=True))

    def cannot(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start"):
        patch.setattr(threading.Thread, "start", cannot)
        policy.call(str)
    assert policy[Bulkhead].in_use == 0
    assert policy.call(str) == ""


def test_the_interpreter_exits_though_a_call_hangs() -> None:
    script = """
import threading
from seawall import Bulkhead, Policy, Timeout
policy = Policy(Bulkhead(1, threads=True), Timeout("5ms"))
try:
    policy.call(threading.Event().wait)
except TimeoutError as error:
    print(error.__class__.__name__)
"""
    end = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert end.stdout == "DeadlineExceeded\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_with_its_own_permits_locks_and_threads() -> None:
    """Threads of the parent do not exist in the child: the permits they hold would never come back."""
    script = """
import os, threading, warnings
from seawall import Bulkhead, CircuitBreaker, Policy, Retry
warnings.simplefilter("ignore")
plain = Policy(Retry(on=OSError), CircuitBreaker(), Bulkhead(1))
pooled = Policy(Bulkhead(1, threads=True))
by_tenant = Policy(Bulkhead(1).per(lambda tenant: tenant))
release, inside = threading.Event(), threading.Barrier(4)
def hold(*_):
    inside.wait(10)
    release.wait(20)
for call in (lambda: plain.call(hold), lambda: pooled.call(hold), lambda: by_tenant.call(hold, "acme")):
    threading.Thread(target=call).start()
inside.wait(10)
assert plain[Bulkhead].in_use == pooled[Bulkhead].in_use == 1
with plain[CircuitBreaker]._lock, plain[Bulkhead]._lock, by_tenant['Bulkhead'].layers._lock:
    child = os.fork()
    if child == 0:
        ends = [plain.call(str.upper, "a"), pooled.call(str.upper, "b"), by_tenant.call(str.upper, "acme")]
        free = plain[Bulkhead].in_use == pooled[Bulkhead].in_use == 0
        os._exit(0 if ends == ["A", "B", "ACME"] and free else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
release.set()
"""
    end = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (end.stdout, end.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_permit_held_across_a_fork_does_not_count_twice_in_the_child() -> None:
    script = """
import os, warnings
from seawall import Bulkhead, Policy
warnings.simplefilter("ignore")
policy = Policy(Bulkhead(2))
with policy.guard():
    child = os.fork()
if child == 0:
    held = [policy.guard(), policy.guard()]
    for guard in held:
        guard.__enter__()
    os._exit(policy[Bulkhead].in_use + (0 if policy.run(str).error else 10))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), policy[Bulkhead].in_use)
"""
    end = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (end.stdout, end.stderr) == ("2 0\n", "")
