"""`Failback`: a call that fails is stored under the key of its first attempts, answers `Queued`, and is done later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import seawall
from seawall import (
    BroadcastError,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Cluster,
    ConfigError,
    DeadlineExceeded,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Forking,
    NotQueued,
    Outcome,
    Timeout,
    deadline,
    events,
    remaining,
)
from seawall.cluster import Broadcast
from seawall.outbox import Failback, MemoryOutbox, Queued, current, idempotency_key
from seawall.policies.registry import Registry
from seawall.runtime import clock
from tests.policies.worlds import World, heard, in_both_worlds


class Audit:
    """A cluster under `Failback`, and an operation through it that does as it is told."""

    def __init__(
        self,
        world: World,
        act: Callable[[Any, str], Any],
        *,
        endpoints: Any = ("a:80", "b:80"),
        after: Any = None,
        failback: Any = None,
        operation: Any = None,
        **settings: Any,
    ) -> None:
        self.world = world
        self.outbox = MemoryOutbox(**settings.pop("outbox", {}))
        strategy = Failback(self.outbox, after=after or Failfast(), **(failback or {}))
        self.cluster: Any = Cluster("audit", list(endpoints), strategy=strategy, names=Registry(), **settings)
        self.calls: list[str] = []
        self.keys: list[str | None] = []

        def write(endpoint: Endpoint, entry: str) -> Any:
            self.calls.append(str(endpoint))
            self.keys.append(idempotency_key())
            return act(endpoint, entry)

        async def awrite(endpoint: Endpoint, entry: str) -> Any:
            self.calls.append(str(endpoint))
            self.keys.append(idempotency_key())
            answer = act(endpoint, entry)
            return await answer if hasattr(answer, "__await__") else answer

        self.write: Any = awrite if world.is_async else write
        self.outbox.operation("audit.write", through=self.cluster, **(operation or {}))(self.write)

    async def call(self, *args: Any, function: Any = None) -> Any:
        function = function or self.write
        if self.world.is_async:
            return await self.cluster.acall(function, *args)
        return self.cluster.call(function, *args)

    async def outcome(self, *args: Any) -> Outcome[Any]:
        if self.world.is_async:
            outcome = await self.cluster.arun(self.write, *args)
        else:
            outcome = self.cluster.run(self.write, *args)
        assert isinstance(outcome, Outcome)
        return outcome

    async def drain(self) -> int:
        worker = self.outbox.worker()
        done = await worker.adrain() if self.world.is_async else worker.drain()
        assert isinstance(done, int)
        return done

    @property
    def waiting(self) -> int:
        return self.outbox.stats().waiting


def failing(error: BaseException) -> Callable[..., Any]:
    def act(endpoint: object, entry: str) -> Any:
        raise error

    return act


# -- success and failure -----------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_call_that_succeeds_returns_its_result_and_queues_nothing(world: World) -> None:
    audit = Audit(world, lambda endpoint, entry: f"written {entry}")
    assert await audit.call("login") == "written login"
    outcome = await audit.outcome("login")
    assert (outcome.value, outcome.queued, outcome.degraded) == ("written login", False, False)
    assert audit.waiting == 0


@in_both_worlds
async def test_a_call_that_fails_is_queued_and_says_so(world: World) -> None:
    audit = Audit(world, failing(ConnectionError("down")))
    with heard(events.WorkQueued) as seen:
        queued = await audit.call("login")
    assert isinstance(queued, Queued)
    now = clock.wall_ns()
    (work,) = audit.outbox.records("waiting")
    assert (work.id, work.operation, work.payload) == (queued.id, "audit.write", b'{"entry":"login"}')
    assert (work.attempts, work.last_error) == (0, "ConnectionError: down")
    assert (queued.due, queued.durable) == (work.due_ns / 1e9, False)
    assert now <= work.due_ns <= now + 1_000_000_000, "the first pause, with jitter"
    assert len(seen) == 1 and isinstance(seen[0].error, ConnectionError) and seen[0].id == queued.id
    outcome = await audit.outcome("logout")
    assert outcome.ok and outcome.queued and isinstance(outcome.value, Queued)
    assert (outcome.attempts, outcome.degraded) == (1, False)
    snapshot = audit.cluster.snapshot()["strategy"]
    assert (snapshot["kind"], snapshot["queued"], snapshot["after"]["kind"]) == ("failback", 2, "failfast")


@in_both_worlds
async def test_what_was_queued_is_done_later_through_a_twin_that_queues_nothing(world: World) -> None:
    down = True

    def act(endpoint: object, entry: str) -> str:
        if down:
            raise ConnectionError("down")
        return "written"

    audit = Audit(world, act, after=Failover(retries=1))
    await audit.call("login")
    assert len(audit.calls) == 2
    await world.passes(1)
    assert await audit.drain() == 0
    assert len(audit.calls) == 4
    assert audit.waiting == 1, "a failure of the worker is a retry, not another record"
    down = False
    await world.passes(2)
    assert await audit.drain() == 1
    assert audit.waiting == 0
    assert audit.outbox.snapshot()["queued"] == 1


@in_both_worlds
async def test_the_key_is_the_same_in_every_attempt_the_first_ones_included(world: World) -> None:
    """If the first attempt made its effect and only the answer was lost, the effect is made once all the same."""
    effects: set[str] = set()

    def act(endpoint: object, entry: str) -> None:
        key = idempotency_key()
        run = current()
        assert key is not None and run is not None and run.operation == "audit.write"
        if key in effects:
            return
        effects.add(key)
        raise TimeoutError("the answer was lost")

    audit = Audit(world, act, after=Failfast())
    queued = await audit.call("login")
    await world.passes(1)
    assert await audit.drain() == 1
    assert effects == {queued.id}
    assert audit.keys == [queued.id, queued.id]
    assert idempotency_key() is None
    await audit.call("another")
    assert len(effects) == 2


@in_both_worlds
async def test_a_key_of_ones_own_is_in_effect_from_the_first_attempt(world: World) -> None:
    audit = Audit(
        world, failing(OSError()), operation={"key": lambda entry: f"entry:{entry}"}, after=Failover(retries=1)
    )
    await audit.call("login")
    assert audit.keys == ["entry:login", "entry:login"]
    assert audit.outbox.records("waiting")[0].idempotency_key == "entry:login"


# -- what is not queued ------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_errors_of_the_program_are_not_queued_unless_they_are_named(world: World) -> None:
    audit = Audit(world, failing(AttributeError("a bug")))
    with pytest.raises(AttributeError, match="a bug"):
        await audit.call("login")
    group = Audit(world, failing(ExceptionGroup("both", [OSError(), TypeError("a bug")])))
    with pytest.raises(ExceptionGroup):
        await group.call("login")
    assert audit.waiting == group.waiting == 0
    named = Audit(world, failing(AttributeError("a bug")), failback={"on": (AttributeError, OSError)})
    assert isinstance(await named.call("login"), Queued)


@in_both_worlds
async def test_only_errors_that_are_meant_are_queued(world: World) -> None:
    audit = Audit(world, failing(ValueError("no such user")), failback={"on": OSError})
    with pytest.raises(ValueError, match="no such user"):
        await audit.call("login")
    assert isinstance(await Audit(world, failing(OSError()), failback={"on": OSError}).call("login"), Queued)


@in_both_worlds
async def test_an_error_that_is_an_answer_is_not_queued(world: World) -> None:
    """The endpoint is well and has answered by it: later it would answer the same."""
    audit = Audit(world, failing(ValueError("no such user")), on=ConnectionError)
    with pytest.raises(ValueError, match="no such user"):
        await audit.call("login")
    assert audit.waiting == 0
    assert isinstance(await Audit(world, failing(ConnectionError()), on=ConnectionError).call("login"), Queued)


@in_both_worlds
async def test_refusals_are_queued(world: World) -> None:
    """An open breaker, a full bulkhead further inside, nobody to ask: nothing was sent, and later it may be."""
    each = (CircuitBreaker(consecutive=1),)
    audit = Audit(world, failing(ConnectionError("down")), endpoints=("a:80",), each=each)
    await audit.call("one")
    with heard(events.WorkQueued) as seen:
        assert isinstance(await audit.call("two"), Queued)
    assert seen[0].error.retry_after is not None, "the breaker refused"
    assert len(audit.calls) == 1
    inside = Audit(world, failing(BulkheadFull("full")))
    assert isinstance(await inside.call("login"), Queued)


def test_a_cancellation_is_not_queued() -> None:
    async def scenario() -> None:
        audit = Audit(World(is_async=True), lambda endpoint, entry: asyncio.sleep(100))
        calling = asyncio.create_task(audit.call("login"))
        await asyncio.sleep(1)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()
        assert audit.waiting == 0

    seawall.testing.run(scenario)


@in_both_worlds
async def test_exits_pass(world: World) -> None:
    if world.is_async:
        return  # asyncio ends its loop by them
    audit = Audit(world, failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        await audit.call("login")
    assert audit.waiting == 0


@in_both_worlds
async def test_switched_off_it_only_makes_the_call(world: World) -> None:
    audit = Audit(world, failing(ConnectionError("down")))
    seawall.disable()
    try:
        with pytest.raises(ConnectionError):
            await audit.call("login")
    finally:
        seawall.enable()
    assert audit.waiting == 0


# -- what is found before the first attempt ----------------------------------------------------------------------------


@in_both_worlds
async def test_what_is_no_operation_is_refused_before_an_attempt(world: World) -> None:
    audit = Audit(world, lambda endpoint, entry: None)
    called: list[str] = []

    def other(endpoint: object, entry: str) -> None:
        called.append(entry)

    with pytest.raises(ConfigError, match=r"outbox: .*other is no operation, so it cannot be queued; register it"):
        await audit.call("login", function=world.way_of(other))
    assert called == []


@in_both_worlds
async def test_arguments_that_cannot_be_stored_are_refused_before_an_attempt(world: World) -> None:
    """Not in the night in which the audit is down for the first time."""
    audit = Audit(world, lambda endpoint, entry: None)
    with pytest.raises(TypeError, match=r"audit\.write\(entry\['at'\]\): complex is not JSON"):
        await audit.call({"at": 1j})
    with pytest.raises(TypeError, match=r"audit\.write: too many positional arguments"):
        await audit.call("login", "extra")
    assert audit.calls == []


@in_both_worlds
async def test_an_operation_goes_through_the_cluster_it_is_called_through(world: World) -> None:
    audit = Audit(world, lambda endpoint, entry: None)
    nowhere = audit.outbox.operation("nowhere")(world.way_of(lambda endpoint, entry: None))
    with pytest.raises(
        ConfigError, match=r"audit: operation 'nowhere' goes through no cluster; register it with through=audit"
    ):
        await audit.call("login", function=nowhere)
    mails = Cluster("mails", ["m:80"], names=Registry())
    elsewhere = audit.outbox.operation("elsewhere", through=mails)(world.way_of(lambda endpoint, entry: None))
    with pytest.raises(ConfigError, match="'elsewhere' is registered with through=mails"):
        await audit.call("login", function=elsewhere)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"after": Failsafe()}, r"Failback\(after=Failsafe.*it never fails, so nothing would ever be queued"),
        ({"after": Broadcast()}, r"Failback\(after=Broadcast.*put\(\) that"),
        ({"after": Failback(MemoryOutbox())}, "the inner one would queue the work already"),
        ({"after": Failover}, "expected a strategy"),
        ({"after": None}, "expected a strategy"),
        ({"on": KeyboardInterrupt}, r"Failback\(on="),
        ({"on": ()}, r"Failback\(on=\(\)\)"),
        ({"reserve": -1}, r"Failback\(reserve=-1\)"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Failback(MemoryOutbox(), **settings)


@pytest.mark.parametrize("outbox", [None, "sqlite:///outbox.db", MemoryOutbox])
def test_it_needs_an_outbox(outbox: Any) -> None:
    with pytest.raises(ConfigError, match=r"Failback\(outbox=.*expected an outbox, such as MemoryOutbox\(\)"):
        Failback(outbox)


# -- when it cannot be stored ------------------------------------------------------------------------------------------


@in_both_worlds
async def test_not_queued_is_raised_from_the_error_of_the_call(world: World) -> None:
    error = ConnectionError("down")
    audit = Audit(world, failing(error), outbox={"backlog": 1})
    await audit.call("one")
    with pytest.raises(
        NotQueued,
        match=r"audit\.write is not queued: the backlog is full .*; the call had failed with ConnectionError: down",
    ) as caught:
        await audit.call("two")
    assert caught.value.__cause__ is error
    assert isinstance(caught.value.__context__, NotQueued), "and the error of the store beside it"
    outcome = await audit.outcome("three")
    assert isinstance(outcome.error, NotQueued) and not outcome.queued
    assert audit.cluster.snapshot()["strategy"]["not_queued"] == 2
    assert audit.waiting == 1


@in_both_worlds
async def test_a_fallback_around_answers_when_nothing_could_be_queued(world: World) -> None:
    """Fallback: another answer now. Failback: the same work later."""
    audit = Audit(world, failing(ConnectionError("down")), outbox={"backlog": 1}, around=(Fallback("noted on paper"),))
    assert isinstance(await audit.call("one"), Queued)
    outcome = await audit.outcome("two")
    assert (outcome.value, outcome.degraded, outcome.queued) == ("noted on paper", True, False)


# -- deadlines ---------------------------------------------------------------------------------------------------------


def hangs(world: World) -> Callable[..., Any]:
    """An attempt that takes as long as it may, the way that each world can."""

    def act(endpoint: object, entry: str) -> Any:
        if world.is_async:
            return asyncio.sleep(1_000)
        left = remaining()
        assert left is not None
        clock.sleep_ns(round(left * 1e9))
        raise DeadlineExceeded("a transport obeys the deadline", inherited=True)

    return act


@in_both_worlds
async def test_a_call_that_hangs_is_queued_within_the_callers_deadline(world: World) -> None:
    """A little of it is kept for storing: 50 ms, or a quarter if it is short."""
    for seconds, kept in ((2.0, 0.05), (0.1, 0.025)):
        audit = Audit(world, hangs(world), after=Failover())
        began = world.now
        with deadline(seconds):
            queued = await audit.call("login")
        assert isinstance(queued, Queued)
        assert round(world.now - began, 3) == round(seconds - kept, 3)
        assert audit.outbox.records("waiting")[0].last_error.startswith("DeadlineExceeded")


@in_both_worlds
async def test_a_total_timeout_around_the_call_leaves_time_for_storing_too(world: World) -> None:
    audit = Audit(world, hangs(world), around=(Timeout("1s"),), failback={"reserve": "100ms"})
    began = world.now
    assert isinstance(await audit.call("login"), Queued)
    assert round(world.now - began, 3) == 0.9


@in_both_worlds
async def test_attempt_timeouts_are_failures_like_any_other(world: World) -> None:
    if not world.is_async:
        return  # in sync only the transport can end an attempt
    audit = Audit(world, hangs(world), each=(Timeout("300ms"),), after=Failover(retries=1, base=0))
    assert isinstance(await audit.call("login"), Queued)
    assert len(audit.calls) == 2 and round(world.now, 3) == 0.6


@in_both_worlds
async def test_work_whose_deadline_has_passed_is_queued_without_an_attempt(world: World) -> None:
    """Passed from the start or a moment ago, called or run: the work is stored, in sync and async alike."""
    audit = Audit(world, lambda endpoint, entry: None)
    with deadline(0):
        assert isinstance(await audit.call("login"), Queued)
        outcome = await audit.outcome("login")
    assert outcome.queued and outcome.attempts == 0 and isinstance(outcome.value, Queued)
    with deadline("1ms"):
        await world.passes(0.005)
        assert isinstance(await audit.call("logout"), Queued)
    assert audit.calls == []
    assert audit.waiting == 3
    assert audit.outbox.records("waiting")[0].last_error.startswith("DeadlineExceeded")


@in_both_worlds
async def test_a_result_within_the_deadline_is_returned(world: World) -> None:
    audit = Audit(world, lambda endpoint, entry: "written")
    with deadline("1s"):
        assert await audit.call("login") == "written"
        outcome = await audit.outcome("login")
    assert outcome.value == "written" and not outcome.queued


# -- the strategies that are tried first ---------------------------------------------------------------------------------


@in_both_worlds
async def test_failover_goes_elsewhere_before_anything_is_queued(world: World) -> None:
    def act(endpoint: object, entry: str) -> str:
        if len(audit.calls) == 1:
            raise ConnectionRefusedError("down")
        return "written"

    audit = Audit(world, act, after=Failover())
    assert await audit.call("login") == "written"
    assert sorted(audit.calls) == ["a:80", "b:80"] and audit.waiting == 0


@in_both_worlds
async def test_failover_is_the_default_and_keeps_its_budget(world: World) -> None:
    outbox = MemoryOutbox()
    strategy: Any = Failback(outbox)
    assert strategy.after == Failover()
    live = strategy.live("audit")
    assert live.budget is live._inner.budget and live.budget is not None
    audit = Audit(world, failing(ConnectionError("down")), after=Failover())
    for _ in range(40):
        await audit.call("login")
    snapshot = audit.cluster.snapshot()["strategy"]["after"]
    assert snapshot["budget"]["calls"] == 40
    assert snapshot["retries"] < 80, "the budget held"
    assert audit.waiting == 40


@in_both_worlds
async def test_failsilent_sends_nothing_to_the_silent_and_queues(world: World) -> None:
    audit = Audit(world, failing(TimeoutError("no answer")), after=Failsilent(Ejection(consecutive=1)))
    for number in range(5):
        assert isinstance(await audit.call(f"{number}"), Queued)
    assert sorted(audit.calls) == ["a:80", "b:80"], "both are silent after one timeout each"
    assert audit.waiting == 5
    assert audit.outbox.records("waiting")[4].last_error.startswith("NoEndpoints")


@in_both_worlds
async def test_forking_is_queued_when_all_forks_have_failed_and_all_bear_the_key(world: World) -> None:
    audit = Audit(world, failing(ConnectionError("down")), after=Forking(2))
    queued = await audit.call("login")
    assert isinstance(queued, Queued)
    assert audit.keys == [queued.id] * 2
    answers = Audit(world, failing(ValueError("no such user")), after=Forking(2), on=ConnectionError)
    with pytest.raises(ValueError, match="no such user"):
        await answers.call("login")
    assert answers.waiting == 0


@in_both_worlds
async def test_an_error_of_a_broadcast_is_no_answer(world: World) -> None:
    audit = Audit(world, failing(BroadcastError("caches", needed=2)), on=ConnectionError)
    assert isinstance(await audit.call("login"), Queued)


@in_both_worlds
async def test_one_call_in_a_cluster_may_be_under_failback(world: World) -> None:
    """By `using`: the operation goes through the cluster, whatever its own strategy."""
    outbox = MemoryOutbox()
    audit = Cluster("audit", ["a:80"], strategy=Failover(retries=0), names=Registry())
    asked: list[str] = []

    def write(endpoint: object, entry: str) -> None:
        asked.append(entry)
        raise ConnectionError("down")

    function: Any = outbox.operation("audit.write", through=audit)(world.way_of(write))
    view: Any = audit.using(Failback(outbox))
    again: Any = audit.using(Failback(outbox))
    for each in (view, again):
        if world.is_async:
            await each.acall(function, "login")
        else:
            each.call(function, "login")
    assert outbox.stats().waiting == 2
    assert again.snapshot()["strategy"]["queued"] == 2, "equal strategies share their state"
    await world.passes(1)
    worker = outbox.worker()
    assert await (worker.adrain() if world.is_async else asyncio_free(worker.drain)) == 0
    assert len(asked) == 3 * 2 + 2


async def asyncio_free(function: Callable[[], Any]) -> Any:
    return function()


def test_a_failback_explains_itself() -> None:
    audit = Audit(World(is_async=False), lambda endpoint, entry: None, after=Failover())
    assert (
        "If that fails, failback stores the work in the outbox 'outbox', to be done later." in audit.cluster.explain()
    )


def test_the_worker_of_an_open_breaker_does_not_burn_attempts() -> None:
    """The twin's own breaker opens; records wait for it, and come through when it lets them."""
    down = True

    def act(endpoint: object, entry: str) -> None:
        if down:
            raise ConnectionError("down")

    async def scenario() -> None:
        nonlocal down
        each = (CircuitBreaker(consecutive=3, open_for="10s"),)
        audit = Audit(World(is_async=True), act, endpoints=("a:80",), each=each)
        for number in range(50):
            await audit.call(f"{number}")
        assert audit.waiting == 50
        async with audit.outbox.worker():
            await asyncio.sleep(1_800)
            assert max(work.attempts for work in audit.outbox.records("waiting")) <= 10
            down = False
            await asyncio.sleep(600)
        assert audit.waiting == 0
        assert audit.outbox.stats().dead == 0

    seawall.testing.run(scenario)


def test_cancelled_anywhere_a_call_is_whole() -> None:
    """It was stored or not, and what was stored is done: whatever happens to the caller in between."""

    async def scenario(victim: Any) -> None:
        audit = Audit(World(is_async=True), lambda endpoint, entry: slow_failure(), after=Failover(retries=1))

        async def slow_failure() -> None:
            await asyncio.sleep(0.1)
            raise ConnectionError("down")

        with deadline("10s"):
            queued = await victim(audit.call("login"))
        assert idempotency_key() is None
        assert audit.waiting == (0 if queued is None else 1)

    assert seawall.testing.cancel_everywhere(scenario) > 20


def test_circuit_open_is_not_confused_with_the_guards_of_the_cluster() -> None:
    audit = Audit(World(is_async=False), failing(CircuitOpen("of something inside", retry_after=5)))
    assert isinstance(audit.cluster.call(audit.write, "login"), Queued)
    assert len(audit.calls) == 1
