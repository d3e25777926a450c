"""A worker does what waits: at once, again after failures, until it is done or a dead letter with its cause."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    Criticality,
    Fallback,
    Policy,
    Timeout,
    criticality,
    current,
    deadline,
    events,
    remaining,
)
from seawall.outbox import MemoryOutbox, Run, idempotency_key
from seawall.outbox import current as current_run
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.testing import run
from tests.outbox.benches import make_work
from tests.outbox.yards import Yard
from tests.policies.worlds import World, heard, in_both_worlds


async def drain_here(world: World, worker: Any) -> int:
    done = await worker.adrain() if world.is_async else worker.drain()
    assert isinstance(done, int)
    return done


def yard_of(world: World, *args: Any, **settings: Any) -> Yard:
    yard = Yard(*args, **settings)
    return yard if world.is_async else yard.in_threads()


# -- one record ------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_work_is_done_and_forgotten(world: World) -> None:
    yard = yard_of(world)
    (key,) = yard.put("a")
    worker = yard.outbox.worker()
    with heard(events.WorkDone) as seen:
        await world.passes(3)
        assert await drain_here(world, worker) == 1
    assert yard.done == ["a"]
    assert yard.outbox.stats().waiting == 0
    assert seen == [events.WorkDone(policy="outbox", layer="do", id=key, attempts=1, age=3.0)]
    assert await drain_here(world, worker) == 0
    assert worker.snapshot()["done"] == 1


@in_both_worlds
async def test_failures_are_tried_again_on_schedule_until_one_succeeds(world: World) -> None:
    def act(name: str, attempt: int) -> None:
        if attempt < 4:
            raise ConnectionError(f"refused {attempt}")

    yard = yard_of(world, act)
    (key,) = yard.put("a")
    worker = yard.outbox.worker()
    with heard(events.WorkRetried, events.WorkDone) as seen:
        for _ in range(4):
            assert not yard.done
            await drain_here(world, worker)
            if not yard.done:
                (work,) = yard.outbox.records("waiting")
                assert work.last_error == f"ConnectionError: refused {work.attempts}"
                await world.passes((work.due_ns - clock.wall_ns()) / 1e9)
    assert yard.tries == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    assert [type(event).__name__ for event in seen] == ["WorkRetried"] * 3 + ["WorkDone"]
    assert [event.attempts for event in seen] == [1, 2, 3, 4]
    assert all(0 <= event.delay <= 2**number for number, event in enumerate(seen[:3]))
    assert (seen[0].id, str(seen[0].error), seen[0].refused) == (key, "refused 1", False)


@in_both_worlds
async def test_after_20_attempts_it_is_a_dead_letter_with_its_cause(world: World) -> None:
    def act(name: str, attempt: int) -> None:
        raise ValueError("no such user")

    yard = yard_of(world, act)
    (key,) = yard.put("a")
    with heard(events.WorkDied) as seen:
        for _ in range(25):
            await drain_here(world, yard.outbox.worker())
            await world.passes(900)
    assert len(yard.tries) == 20
    (dead,) = yard.outbox.records("dead")
    assert (dead.id, dead.attempts, dead.ended, dead.last_error) == (key, 20, "attempts", "ValueError: no such user")
    assert seen == [
        events.WorkDied(
            policy="outbox", layer="do", id=key, attempts=20, why="attempts", error="ValueError: no such user"
        )
    ]


@in_both_worlds
async def test_after_a_day_it_is_a_dead_letter_without_another_attempt(world: World) -> None:
    yard = yard_of(world)
    yard.put("a")
    await world.passes(86_400)
    assert await drain_here(world, yard.outbox.worker()) == 0
    (dead,) = yard.outbox.records("dead")
    assert (dead.ended, yard.tries) == ("age", [])
    assert dead.last_error == "it expired before any attempt was made"


@in_both_worlds
async def test_a_replayed_dead_letter_is_done(world: World) -> None:
    works = False

    def act(name: str, attempt: int) -> None:
        if not works:
            raise ValueError("no")

    yard = yard_of(world, act, final=ValueError)
    yard.put("a")
    await drain_here(world, yard.outbox.worker())
    assert yard.names("dead") == ["a"]
    works = True
    assert yard.outbox.replay("all") == 1
    assert await drain_here(world, yard.outbox.worker()) == 1
    assert yard.tries == [("a", 1), ("a", 1)]


@in_both_worlds
async def test_every_kind_of_exception_is_recorded_and_errors_of_the_program_are_counted(world: World) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    errors: dict[str, Exception] = {
        "type": TypeError("a bug"),
        "assertion": AssertionError(),
        "odd": Odd(),
        "group": ExceptionGroup("both", [ValueError("a")]),
        "recursion": RecursionError("deep"),
        "memory": MemoryError(),
    }

    def act(name: str, attempt: int) -> None:
        raise errors[name]

    yard = yard_of(world, act)
    worker = yard.outbox.worker()
    for name, error in errors.items():
        yard.put(name)
        await drain_here(world, worker)
        (work,) = yard.outbox.records("waiting")
        assert work.last_error.startswith(type(error).__name__)
        assert worker.snapshot()["last_error"] == f"do: {work.last_error}"
        yard.outbox.purge("waiting", "all")
    assert worker.snapshot()["retried"] == 6
    assert worker.snapshot()["program_errors"] == 2


@in_both_worlds
async def test_an_unknown_operation_stays_with_its_error_until_it_is_known_again(world: World) -> None:
    """A handler was renamed, or this process has not loaded it: tried again on schedule, and not a crash."""
    yard = yard_of(world)
    function, outbox = yard.do, MemoryOutbox()
    store = outbox.store.open(None)  # type: ignore[arg-type]  # it is the same for every runtime
    await store.put(make_work(operation="do", payload=b'{"name":"a"}'))
    worker = outbox.worker()
    assert await drain_here(world, worker) == 0
    (work,) = outbox.records("waiting")
    assert (work.attempts, work.last_error) == (1, "Unreadable: no operation 'do' is registered here")
    outbox.operation("do")(function)
    await world.passes(1)
    assert await drain_here(world, worker) == 1
    assert yard.done == ["a"]


@in_both_worlds
async def test_an_unknown_operation_ends_as_a_dead_letter(world: World) -> None:
    outbox = MemoryOutbox()
    store = outbox.store.open(None)  # type: ignore[arg-type]  # as above
    await store.put(make_work(operation="gone"))
    for _ in range(25):
        await drain_here(world, outbox.worker())
        await world.passes(900)
    (dead,) = outbox.records("dead")
    assert (dead.ended, dead.attempts) == ("attempts", 20)


@in_both_worlds
async def test_bytes_that_cannot_be_read_are_an_error_like_any_other(world: World) -> None:
    yard = yard_of(world)
    store = yard.outbox.store.open(None)  # type: ignore[arg-type]  # as above
    for payload in (b"\xff", b"{}", b'{"name":"a","other":1}', b"[" * 100_000):
        await store.put(make_work(operation="do", payload=payload))
    worker = yard.outbox.worker()
    assert await drain_here(world, worker) == 0
    errors = [work.last_error for work in yard.outbox.records("waiting")]
    assert [error.partition(":")[0] for error in errors] == ["Unreadable"] * 4
    assert "the record lacks 'name'" in errors[1]
    assert yard.tries == []


# -- what is in effect during an attempt ---------------------------------------------------------------------------------


@in_both_worlds
async def test_the_handler_sees_its_key_and_nothing_of_the_context_in_which_the_worker_was_started(
    world: World,
) -> None:
    outbox = MemoryOutbox()
    seen: list[Any] = []

    def look(name: str) -> None:
        left = remaining()
        assert left is not None
        context = current()
        seen.append(
            (current_run(), idempotency_key(), round(left), context.operation, context.criticality, context.attempt)
        )

    function = outbox.operation("look", key=lambda name: f"key:{name}")(world.way_of(look))
    with criticality(Criticality.SHEDDABLE_PLUS):
        queued = outbox.put(function, "a")
    assert current_run() is None and idempotency_key() is None
    with deadline("1s"), criticality(Criticality.CRITICAL_PLUS):
        await drain_here(world, outbox.worker(timeout="2min"))
    assert current_run() is None
    assert current().operation is None and remaining() is None
    expected = Run(id=queued.id, operation="look", idempotency_key="key:a", attempt=1)
    assert seen == [(expected, "key:a", 120, "look", Criticality.SHEDDABLE_PLUS, 1)]


@in_both_worlds
async def test_parts_of_an_operation_have_keys_of_their_own(world: World) -> None:
    outbox = MemoryOutbox()
    seen: list[str | None] = []

    def act() -> None:
        seen.extend([idempotency_key(), idempotency_key("debit"), idempotency_key("credit")])

    outbox.using(key="transfer-9").put(outbox.operation("act")(world.way_of(act)))
    await drain_here(world, outbox.worker())
    assert seen == ["transfer-9", "transfer-9.debit", "transfer-9.credit"]


def test_an_attempt_that_hangs_is_ended_and_counts_as_a_failure() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 1_000 if attempt == 1 else 0)
        yard.put("a")
        async with yard.outbox.worker(timeout="5s", concurrency=1):
            await asyncio.sleep(10)
        assert yard.done == ["a"]
        assert yard.tries == [("a", 1), ("a", 2)]
        assert 5 <= yard.times[1] <= 6

    run(main)


# -- through a policy ----------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_attempts_go_through_a_twin_of_the_policy_with_a_state_of_its_own(world: World) -> None:
    """The worker's failures do not open the breaker of fresh calls, nor its open breaker the worker's."""
    mails = Policy(CircuitBreaker(consecutive=2), name="mails")
    mails[CircuitBreaker].force_open()
    yard = yard_of(world, through=mails)
    yard.put("a")
    assert await drain_here(world, yard.outbox.worker()) == 1
    assert mails.snapshot()["calls"] == 0


@in_both_worlds
async def test_a_refusal_is_no_attempt_and_no_record_is_burnt_while_a_breaker_is_open(world: World) -> None:
    def act(name: str, attempt: int) -> None:
        raise ConnectionError("down")

    yard = yard_of(world, act, through=Policy(CircuitBreaker(consecutive=1, open_for="30s"), name="mails"))
    yard.put("a", "b", "c")
    worker = yard.outbox.worker()
    with heard(events.WorkRetried) as seen:
        await drain_here(world, worker)
    assert [(event.refused, event.attempts) for event in seen] == [(False, 1), (True, 0)]
    assert isinstance(seen[1].error, CircuitOpen)
    assert 27 <= seen[1].delay <= 33
    attempts = {place: work.attempts for place, work in zip("abc", yard.outbox.records("waiting"), strict=True)}
    assert attempts == {"a": 1, "b": 0, "c": 0}
    assert worker.snapshot()["refused"] == 1


@in_both_worlds
async def test_a_fallbacks_answer_is_not_the_work(world: World) -> None:
    def act(name: str, attempt: int) -> None:
        raise ConnectionError("down")

    yard = yard_of(world, act, through=Policy(Fallback("cached"), name="mails"))
    yard.put("a")
    assert await drain_here(world, yard.outbox.worker()) == 0
    (work,) = yard.outbox.records("waiting")
    assert work.last_error.startswith("LesserAnswer: a fallback answered in place of the work")


@in_both_worlds
async def test_operations_through_one_policy_share_its_twin_and_others_do_not(world: World) -> None:
    outbox, shared = MemoryOutbox(), Policy(CircuitBreaker(consecutive=1), name="shared")
    seen: list[str] = []

    def failing(name: str) -> None:
        seen.append(name)
        raise ConnectionError("down")

    def also(name: str) -> None:
        seen.append(name)

    def apart(name: str) -> None:
        seen.append(name)

    first = outbox.operation("failing", through=shared)(world.way_of(failing))
    second = outbox.operation("also", through=shared)(world.way_of(also))
    third = outbox.operation("apart")(world.way_of(apart))
    for function, name in ((first, "1"), (second, "2"), (third, "3")):
        outbox.put(function, name)
    await drain_here(world, outbox.worker())
    assert seen == ["1", "3"], "the breaker that the first opened refuses the second"


@in_both_worlds
async def test_a_drain_has_its_lease_for_as_long_as_an_attempt_may_take(world: World) -> None:
    """It does not renew: what takes long must not be done by another worker beside it."""
    others: list[int] = []

    def act(name: str, attempt: int) -> float:
        return 100

    yard = yard_of(world, act)
    yard.put("a")
    store: Any = yard.outbox.store
    ack = store.ack

    async def look(lease: Any) -> Any:
        leases, _ = await store.lease(1, 1)
        others.append(len(leases))
        return await ack(lease)

    store.ack = look
    assert await drain_here(world, yard.outbox.worker(lease="10s", timeout="2min")) == 1
    assert others == [0]


# -- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, r"worker\(concurrency=0\)"),
        ({"concurrency": True}, "concurrency=True"),
        ({"lease": 0}, r"worker\(lease=0\)"),
        ({"lease": "soon"}, "lease='soon'"),
        ({"timeout": 0}, r"worker\(timeout=0\)"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"grace": -1}, r"worker\(grace=-1\)"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemoryOutbox().worker(**settings)


def test_a_sync_worker_refuses_async_operations_when_it_starts() -> None:
    yard = Yard()
    worker = yard.outbox.worker()
    for start in (worker.run, worker.drain, worker.__enter__):
        with pytest.raises(ConfigError, match="operation 'do' is async, and this worker is not; use `async with"):
            start()


def test_one_registered_later_waits_for_an_async_worker() -> None:
    yard = Yard().in_threads()
    yard.put("a")

    async def do(name: str, order: str | None = None) -> None:
        yard.done.append(name)

    worker = yard.outbox.worker()
    shift = worker._begin(BLOCKING)
    yard.outbox.operation("do")(do)
    drive(shift.drain(1))
    assert "is async and needs an async worker" in yard.outbox.records("waiting")[0].last_error


def test_a_worker_works_once_at_a_time() -> None:
    async def main() -> None:
        worker = Yard().outbox.worker()
        async with worker:
            with pytest.raises(RuntimeError, match="works already"):
                await worker.arun()
        async with worker:
            assert worker.snapshot()["state"] == "working"
        assert worker.snapshot()["state"] == "idle"

    run(main)


def test_timeout_none_is_an_explicit_choice() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 3_600)
        yard.put("a")
        async with yard.outbox.worker(timeout=None):
            await asyncio.sleep(4_000)
        assert yard.tries == [("a", 1)] and yard.done == ["a"]

    run(main)


def test_layers_of_the_policy_are_in_force() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 100 if attempt == 1 else 0, through=Policy(Timeout("1s"), name="mails"))
        yard.put("a")
        async with yard.outbox.worker():
            await asyncio.sleep(5)
        assert yard.done == ["a"] and yard.times[1] <= 2

    run(main)
