"""`Failover`: what one endpoint fails at, another one does, within the attempts, the budget and the deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seawall import (
    Broadcast,
    BroadcastError,
    Bulkhead,
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
    Fallback,
    Forking,
    NoEndpoints,
    Policy,
    Rejected,
    Retry,
    RetryBudget,
    Timeout,
    deadline,
    disable,
    enable,
    events,
    remaining,
)
from seawall.events import AttemptFailed, FailedOver, GaveUp
from seawall.runtime import clock
from seawall.testing import Script, slow
from tests.cluster.service import SIZES, Dead, Service, at_rest, chosen_first, distinct, filled
from tests.policies.worlds import World, heard, in_both_worlds
from tests.simulation.calls import causes

ALL = [Failover(budget=None), Failfast(), Failsafe("saved"), Forking(2), Broadcast(1)]


def steady(**settings: Any) -> Failover:
    """Without a budget, so that the test alone decides when it ends."""
    return Failover(**{"budget": None, **settings})


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_one_dead_endpoint_is_not_noticed(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(steady())
    if size == 1:
        assert isinstance(await world.error_of(cluster, service), Dead)
        assert service.asked == ["e0:80"] * 3
    else:
        for _ in range(size + 3):
            outcome = await world.outcome(cluster, service)
            assert outcome.value != "e0:80"
            assert str(outcome.endpoint) == outcome.value, "the outcome names the endpoint that answered"
            assert outcome.attempts == (2 if service.asked[-2:][0] == "e0:80" and outcome.attempts > 1 else 1)
        assert service.asked.count("e0:80") > 0
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_flapping_endpoints_are_not_noticed(world: World, size: int) -> None:
    service = Service(size).all_do(Dead, "well", then="cycle")
    cluster = service.cluster(steady(retries=size))
    for _ in range(6):
        assert await world.call(cluster, service) == "well"
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_when_all_are_dead_each_is_asked_once_and_the_last_error_is_raised(world: World, size: int) -> None:
    service = Service(size).all_do(Dead)
    cluster = service.cluster(steady(retries=2))
    for _ in range(3):
        service.forget()
        outcome = await world.outcome(cluster, service)
        assert isinstance(outcome.error, Dead)
        assert outcome.attempts == len(service.asked) == 3
        assert len(set(service.asked)) == min(3, size), "one was asked again while another was left"
        assert str(outcome.endpoint) == service.asked[-1]
    at_rest(cluster)


@pytest.mark.parametrize("size", [2, 5])
@in_both_worlds
async def test_a_returning_endpoint_gets_calls_again(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(steady(), ejection=Ejection(consecutive=1, out_for=10))
    for _ in range(2 * size):
        assert await world.call(cluster, service) != "e0:80"
    assert service.asked.count("e0:80") == 1, "an ejected endpoint was asked"
    service.does(0)
    service.forget()
    await world.passes(13)
    answers = [await world.call(cluster, service) for _ in range(3 * size)]
    assert "e0:80" in answers
    assert len(answers) == len(service.asked), "a healthy endpoint was failed over from"
    at_rest(cluster)


@in_both_worlds
async def test_endpoints_are_tried_again_only_when_none_is_left(world: World) -> None:
    service = Service(4).all_do(Dead)
    cluster = service.cluster(steady(retries=9))
    await world.error_of(cluster, service)
    assert distinct(service.asked[:4]), service.asked
    assert len(service.asked) == 10


# -- pauses ----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_refused_connection_costs_no_wait_while_another_endpoint_is_left(world: World) -> None:
    service = Service(3).all_do(ConnectionRefusedError)
    cluster = service.cluster(steady(retries=3, base=1, cap=1))
    await world.error_of(cluster, service)
    assert service.times[:3] == [0, 0, 0]
    assert 0 < service.times[3] <= 1, "all have been asked: now it waits"


@in_both_worlds
async def test_other_failures_are_followed_by_a_jittered_pause(world: World) -> None:
    service = Service(5).all_do(Dead)
    cluster = service.cluster(steady(retries=4, base=1, factor=2, cap=3))
    pauses: list[list[float]] = []
    for _ in range(50):
        service.forget()
        await world.error_of(cluster, service)
        pauses.append([later - earlier for earlier, later in zip(service.times, service.times[1:], strict=False)])
    for number, most in enumerate((1, 2, 3, 3)):
        nth = [each[number] for each in pauses]
        assert 0.7 * most < max(nth) <= most, f"pause {number + 1} is drawn up to {most} s, after the cap"
        assert min(nth) < 0.3 * most, "the whole range is drawn from"


@in_both_worlds
async def test_disable_waiting_leaves_out_the_pauses(world: World) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(steady(base=1, cap=1))
    disable(waiting_only=True)
    try:
        await world.error_of(cluster, service)
    finally:
        enable()
    assert service.times == [0, 0, 0]


class Busy(Exception):
    """A replica asks for time."""

    def __init__(self, retry_after: object) -> None:
        super().__init__(f"busy for {retry_after}")
        self.retry_after = retry_after


@in_both_worlds
async def test_a_wish_to_wait_is_no_wish_of_the_other_endpoints(world: World) -> None:
    service = Service(2).does(0, Busy(30)).does(1)
    cluster = service.cluster(steady())
    assert await world.call(cluster, service) == "e1:80"
    assert world.now < 1


@in_both_worlds
async def test_retry_after_is_obeyed_when_no_other_is_left(world: World) -> None:
    service = Service(1).does(0, Busy(30), "well")
    cluster = service.cluster(steady())
    assert await world.call(cluster, service) == "well"
    assert service.times == [0, 30]


@pytest.mark.parametrize("wish", [-1, float("nan"), "soon", True, None])
@in_both_worlds
async def test_an_unsound_wish_is_none(world: World, wish: object) -> None:
    service = Service(1).does(0, Busy(wish), "well")
    assert await world.call(service.cluster(steady(base=1, cap=1)), service) == "well"
    assert world.now <= 1


@pytest.mark.parametrize("wish", [61, 1e300, float("inf")])
@in_both_worlds
async def test_it_gives_up_rather_than_to_wait_too_long(world: World, wish: float) -> None:
    service = Service(1).does(0, Busy(wish), "well")
    cluster = service.cluster(steady())
    with heard(GaveUp) as gave_up:
        error = await world.error_of(cluster, service)
    assert isinstance(error, Busy)
    assert "it asked to wait" in error.__notes__[0]
    assert (gave_up[0].reason, gave_up[0].attempts, world.now) == ("retry_after", 1, 0)


# -- deadlines -------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_no_pause_beyond_the_deadline(world: World) -> None:
    service = Service(1).does(0, Busy(5), "well")
    cluster = service.cluster(steady())
    with heard(GaveUp) as gave_up, deadline(5):
        error = await world.error_of(cluster, service)
    assert isinstance(error, Busy), "its own error is raised at once"
    assert world.now == 0
    assert "would miss the deadline" in error.__notes__[0]
    assert gave_up[0].reason == "deadline"
    at_rest(cluster)


@in_both_worlds
async def test_a_deadline_in_mid_attempt_ends_an_async_call_there_and_a_sync_one_at_its_next_wait(world: World) -> None:
    service = Service(2).all_do(slow(3, Dead))
    cluster = service.cluster(steady())
    with deadline(2):
        error = await world.error_of(cluster, service)
    assert len(service.asked) == 1, "no attempt begins after the deadline"
    if world.is_async:
        assert world.now == 2
        assert isinstance(error, DeadlineExceeded) and error.inherited
    else:
        assert world.now == 3, "nothing can interrupt a thread"
        assert isinstance(error, Dead)
    assert service.running == 0
    at_rest(cluster)


@in_both_worlds
async def test_attempts_see_the_deadline_and_their_number(world: World) -> None:
    service = Service(3).all_do(slow(1, ConnectionRefusedError))
    with deadline(10):
        await world.error_of(service.cluster(steady()), service)
    assert service.numbers == [1, 2, 3]
    assert [attempt.left for attempt in service.attempts] == [10, 9, 8]


@in_both_worlds
async def test_a_timeout_of_an_attempt_is_a_failure_and_the_next_one_has_its_own(world: World) -> None:
    def hang(endpoint: Endpoint) -> None:
        asked.append(str(endpoint))
        left = remaining()
        assert left is not None
        clock.sleep_ns(round(left * 1e9))
        raise DeadlineExceeded("no answer", inherited=True)

    asked: list[str] = []
    service = Service(3)
    cluster = service.cluster(steady(base=0, cap=0), each=(Timeout(1),))
    if world.is_async:
        service.all_do(slow(60))
        error = await world.error_of(cluster, service)
        asked = service.asked
    else:
        error = await world.error_of(cluster, hang)
    assert isinstance(error, DeadlineExceeded) and not error.inherited
    assert (len(set(asked)), world.now) == (3, 3)
    at_rest(cluster)


@in_both_worlds
async def test_nothing_is_sent_when_the_deadline_has_passed_before(world: World) -> None:
    service = Service(2)
    cluster = service.cluster(steady())
    with deadline(1):
        await world.passes(1)
        error = await world.error_of(cluster, service)
    assert isinstance(error, DeadlineExceeded) and error.inherited
    assert service.asked == []


# -- budget ----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_retries_stay_within_their_budget_and_the_first_error_beyond_it_is_raised_as_it_is(world: World) -> None:
    service = Service(3).all_do(ConnectionRefusedError)
    cluster = service.cluster(Failover(budget=RetryBudget(0.2, per_second=0)))
    with heard(GaveUp) as gave_up:
        for _ in range(104):
            error = await world.error_of(cluster, service)
            assert isinstance(error, ConnectionRefusedError)
    retries = len(service.asked) - 104
    assert retries == 20
    assert cluster.snapshot()["strategy"]["retries"] == retries
    assert "the retry budget is empty" in error.__notes__[-1]
    assert gave_up[-1].reason == "budget"
    assert error.__cause__ is None


@in_both_worlds
async def test_one_budget_may_be_shared_by_name(world: World) -> None:
    shared = RetryBudget(0, per_second=1, window=2, name=f"failover tests {world.is_async}")
    one, two = (Service(2).all_do(ConnectionRefusedError) for _ in range(2))
    first, second = one.cluster(Failover(budget=shared)), two.cluster(Failover(budget=shared))
    await world.error_of(first, one)
    await world.error_of(second, two)
    assert len(one.asked) + len(two.asked) == 2 + 2
    assert "'failover tests" in (await world.error_of(second, two)).__notes__[-1]


@in_both_worlds
async def test_healthy_calls_fill_the_budget(world: World) -> None:
    service = Service(2)
    cluster = service.cluster(Failover(budget=RetryBudget(0.1, per_second=0)))
    for _ in range(20):
        await world.call(cluster, service)
    service.all_do(ConnectionRefusedError)
    service.forget()
    await world.error_of(cluster, service)
    assert len(service.asked) == 3


# -- refusals --------------------------------------------------------------------------------------------------------


def force_open(cluster: Cluster[Any], *addresses: str) -> None:
    for address in addresses:
        cluster[address][CircuitBreaker].force_open()


@pytest.mark.parametrize("size", [2, 5])
@in_both_worlds
async def test_an_endpoint_that_refuses_is_passed_over_at_once_and_costs_nothing(world: World, size: int) -> None:
    """Also before the balancer has heard of the open breaker: here it hears of none."""
    service = Service(size)
    cluster = service.cluster(
        Failover(retries=0, budget=RetryBudget(0, per_second=0)), each=(Bulkhead(1),), balancer=chosen_first("e0:80")
    )
    room = filled(cluster, "e0:80")
    with heard(AttemptFailed) as refusals:
        outcome = await world.outcome(cluster, service)
    assert outcome.value == str(outcome.endpoint) != "e0:80"
    assert outcome.attempts == 1, "the function was called once"
    assert service.numbers == [1]
    assert world.now == 0
    assert [(event.endpoint, event.refused, event.attempt) for event in refusals] == [("e0:80", True, 1)]
    room()
    at_rest(cluster)


@in_both_worlds
async def test_when_all_refuse_it_says_when_the_first_may_be_asked_again(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(steady(), each=(CircuitBreaker(consecutive=1, open_for=20),))
    for when in (0, 3, 2):
        await world.passes(when)
        service.all_do(Dead)
        await world.error_of(cluster.using(Failover(0)), service)
    assert len(set(service.asked)) == 3
    service.forget()
    await world.passes(1)
    error = await world.error_of(cluster, service)
    assert isinstance(error, NoEndpoints)
    waits = [cluster[endpoint][CircuitBreaker].snapshot()["retry_after"] for endpoint in cluster.endpoints]
    assert error.retry_after == min(waits) < max(waits)
    assert isinstance(error.__cause__, CircuitOpen)
    assert (service.asked, world.now) == ([], 6)
    outcome = await world.outcome(cluster, service)
    assert (outcome.attempts, outcome.endpoint) == (0, None)
    await world.passes(error.retry_after - 0.001)
    assert isinstance(await world.error_of(cluster, service), NoEndpoints)
    await world.passes(0.001)
    service.all_do("well")
    assert await world.call(cluster, service) == "well", "it may be asked again just when it said so"
    at_rest(cluster)


@in_both_worlds
async def test_a_single_endpoint_that_refuses(world: World) -> None:
    service = Service(1)
    cluster = service.cluster(steady(), each=(CircuitBreaker(),))
    force_open(cluster, "e0:80")
    error = await world.error_of(cluster, service)
    assert isinstance(error, NoEndpoints)
    assert "the only endpoint refuses" in str(error)
    assert service.asked == []


@in_both_worlds
async def test_when_the_others_refuse_one_that_failed_is_tried_again_after_a_pause(world: World) -> None:
    """Two more attempts were promised; that the other endpoint is full is no reason to give up."""
    service = Service(2).does(0, ConnectionRefusedError, "well again")
    cluster = service.cluster(
        Failover(budget=RetryBudget(0, per_second=1, window=1), base=1, cap=1),
        each=(Bulkhead(1),),
        balancer=chosen_first("e0:80"),
    )
    room = filled(cluster, "e1:80")
    outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.attempts) == ("well again", 2)
    assert service.asked == ["e0:80", "e0:80"]
    assert 0 < service.times[1] <= 1, "not at once: it has just failed"
    assert cluster.snapshot()["strategy"]["retries"] == 1
    room()
    at_rest(cluster)


@in_both_worlds
async def test_what_has_failed_stands_when_nobody_else_can_be_asked(world: World) -> None:
    """The endpoint that failed has opened its breaker, and the other one is full."""
    service = Service(2).does(0, Dead)
    cluster = service.cluster(
        steady(), each=(CircuitBreaker(consecutive=1), Bulkhead(1)), balancer=chosen_first("e0:80")
    )
    room = filled(cluster, "e1:80")
    with heard(GaveUp) as gave_up:
        error = await world.error_of(cluster, service)
    assert isinstance(error, Dead)
    assert "did not fail over" in error.__notes__[0] and "refuse" in error.__notes__[0]
    assert [event.reason for event in gave_up] == ["endpoints"]
    assert service.asked == ["e0:80"]
    room()
    at_rest(cluster)


@in_both_worlds
async def test_refusals_from_further_inside_are_not_this_endpoints(world: World) -> None:
    """What the function itself calls refuses: it was called, and would be refused elsewhere too."""
    inner = Policy(CircuitBreaker(), name="inner")
    inner[CircuitBreaker].force_open()
    asked: list[str] = []

    async def acalls(endpoint: Endpoint) -> None:
        asked.append(str(endpoint))
        await inner.acall(Script("x").aio)

    def calls(endpoint: Endpoint) -> None:
        asked.append(str(endpoint))
        inner.call(str)

    cluster = Service(3).cluster(steady(), ejection=Ejection(consecutive=1), each=(CircuitBreaker(consecutive=1),))
    error = await world.error_of(cluster, acalls if world.is_async else calls)
    assert isinstance(error, CircuitOpen) and error.policy == "inner"
    assert len(asked) == 1
    assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}
    assert not any(each["breaker_refuses"] for each in cluster.snapshot()["endpoints"])


@pytest.mark.parametrize("strategy", ALL, ids=str)
@in_both_worlds
async def test_a_cluster_of_the_same_name_further_inside_is_another(world: World, strategy: Any) -> None:
    """A service that calls itself, say: when nobody can be asked there, this attempt has been made all the same."""
    inner = Service(2)
    nobody = inner.cluster(Failover(), each=(CircuitBreaker(),))
    force_open(nobody, *inner.addresses)
    asked: list[str] = []

    async def acalls(endpoint: Endpoint) -> Any:
        asked.append(str(endpoint))
        return await nobody.acall(inner.aio)

    def calls(endpoint: Endpoint) -> Any:
        asked.append(str(endpoint))
        return nobody.call(inner)

    outcome = await world.outcome(Service(3).cluster(strategy), acalls if world.is_async else calls)
    expected = {"Failover": 1, "Failfast": 1, "Failsafe": 1, "Forking": 2, "Broadcast": 3}[strategy.name]
    assert len(asked) == outcome.attempts == expected
    if isinstance(strategy, Forking):
        assert isinstance(outcome.error, ExceptionGroup)
        assert [type(error) for error in outcome.error.exceptions] == [NoEndpoints] * 2
    elif isinstance(strategy, (Failover, Failfast)):
        assert isinstance(outcome.error, NoEndpoints)


# -- which errors ----------------------------------------------------------------------------------------------------

BUGS = [
    TypeError,
    NameError,
    AttributeError,
    AssertionError,
    SyntaxError,
    ExceptionGroup("two", [KeyError(), TypeError()]),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
@in_both_worlds
async def test_errors_of_the_program_are_neither_tried_again_nor_counted(world: World, bug: Any) -> None:
    service = Service(3).all_do(bug)
    cluster = service.cluster(steady(), ejection=Ejection(consecutive=1))
    error = await world.error_of(cluster, service)
    assert isinstance(error, bug if isinstance(bug, type) else ExceptionGroup)
    assert len(service.asked) == 1
    assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}


@in_both_worlds
async def test_they_are_if_they_are_named(world: World) -> None:
    service = Service(3).all_do(TypeError)
    await world.error_of(service.cluster(steady(), on=(TypeError, Dead)), service)
    assert len(service.asked) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@in_both_worlds
async def test_exits_pass_through(world: World, error: type[BaseException]) -> None:
    service = Service(3).all_do(error)
    cluster = service.cluster(steady(), on=lambda _: True, ejection=Ejection(consecutive=1))
    with heard(AttemptFailed, GaveUp) as told, pytest.raises(error):
        await world.call(cluster, service)
    assert len(service.asked) == 1
    assert told == [], "an exit is no failure"
    assert cluster.snapshot()["strategy"]["gave_up"] == 0
    at_rest(cluster)


@pytest.mark.parametrize(
    "on", [Dead, (Dead, OSError), lambda error: isinstance(error, Dead)], ids=["type", "types", "fn"]
)
@in_both_worlds
async def test_an_error_that_is_not_named_is_an_answer(world: World, on: Any) -> None:
    service = Service(3).all_do(KeyError("no such item"))
    cluster = service.cluster(steady(), on=on, ejection=Ejection(consecutive=1))
    with heard(AttemptFailed) as failures:
        assert isinstance(await world.error_of(cluster, service), KeyError)
    assert len(service.asked) == 1
    assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}
    assert failures == [], "an answer is no failed attempt"
    service.all_do(Dead)
    await world.error_of(cluster, service)
    assert len(service.asked) == 4


@pytest.mark.parametrize("strategy", ALL, ids=str)
@in_both_worlds
async def test_a_predicate_that_raises_is_heard_and_loses_no_probe(world: World, strategy: Any) -> None:
    service = Service(2).does(0, Dead)
    cluster = service.cluster(strategy, on=lambda error: 1 / broken[0], ejection=Ejection(consecutive=1, out_for=10))
    broken = [1]
    while cluster.snapshot()["endpoints"][0]["standing"] == "in":
        await world.outcome(cluster, service)
    await world.passes(12)
    broken = [0]
    service.all_do(Dead)
    assert isinstance((await world.outcome(cluster, service)).error, (ZeroDivisionError, BroadcastError))
    at_rest(cluster)


@in_both_worlds
async def test_refusals_from_inside_are_tried_elsewhere_if_they_are_named(world: World) -> None:
    service = Service(3).all_do(Rejected("busy"))
    await world.error_of(service.cluster(steady(), on=(Rejected, OSError)), service)
    assert len(set(service.asked)) == 3
    service.forget()
    await world.error_of(service.cluster(steady(), on=Exception), service)
    assert len(service.asked) == 1


# -- what it tells ---------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_the_earlier_errors_are_causes_of_the_last_up_to_five(world: World) -> None:
    service = Service(20)
    for number in range(20):
        service.does(number, ConnectionRefusedError(f"no {number}"))
    error = await world.error_of(service.cluster(steady(retries=19)), service)
    chain = [str(each) for each in causes(error)]
    asked = [f"no {address[1:-3]}" for address in service.asked]
    assert chain == asked[-1:-7:-1]


@in_both_worlds
async def test_one_instance_raised_by_all_makes_no_circle(world: World) -> None:
    error = ConnectionRefusedError("the same")
    service = Service(5).all_do(error)
    cluster = service.cluster(steady(retries=4))
    for _ in range(3):
        assert await world.error_of(cluster, service) is error
    assert causes(error) == [error]
    assert not getattr(error, "__notes__", [])


@in_both_worlds
async def test_events(world: World) -> None:
    service = Service(2).does(0, ConnectionRefusedError("zero")).does(1, Dead("one"))
    cluster = service.cluster(steady(retries=1, name="over"))
    with heard(AttemptFailed, FailedOver, GaveUp) as seen:
        error = await world.error_of(cluster, service)
    first, second = service.asked
    kinds = [type(event).__name__ for event in seen]
    assert kinds == ["AttemptFailed", "FailedOver", "AttemptFailed", "GaveUp"]
    assert [(event.endpoint, event.attempt, event.refused) for event in seen if isinstance(event, AttemptFailed)] == [
        (first, 1, False),
        (second, 2, False),
    ]
    over, up = seen[1], seen[3]
    assert (over.policy, over.layer, over.attempt, over.delay, str(over.error)) == ("stock", "over", 2, 0, "zero")
    assert (up.policy, up.layer, up.attempts, up.reason, up.error) == ("stock", "over", 2, "attempts", error)


@in_both_worlds
async def test_what_an_attempt_brought_is_closed_before_the_next(world: World) -> None:
    class Response(Exception):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    first, last = Response(), Response()
    service = Service(1).does(0, first, last)
    cluster = service.cluster(steady(retries=1))
    assert await world.error_of(cluster, service) is last
    assert (first.closed, last.closed) == (1, 0)


@in_both_worlds
async def test_a_closed_response_is_not_raised(world: World) -> None:
    """It was closed to make room for the next attempt; then nobody else could be asked."""

    class Response(Exception):
        def close(self) -> None: ...

    response = Response()
    service = Service(2).does(0, response)
    cluster = service.cluster(
        steady(), each=(CircuitBreaker(consecutive=1), Bulkhead(1)), balancer=chosen_first("e0:80")
    )
    room = filled(cluster, "e1:80")
    error = await world.error_of(cluster, service)
    assert isinstance(error, NoEndpoints)
    assert response in causes(error)
    room()


# -- with other parts ------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_layers_around_see_the_whole_call(world: World) -> None:
    service = Service(2).all_do(ConnectionRefusedError)
    cluster = service.cluster(steady(retries=1), around=(Fallback("from the cache"),))
    outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.degraded, outcome.attempts) == ("from the cache", True, 2)
    assert await world.call(cluster, service) == "from the cache"
    service.all_do("well")
    outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.degraded, outcome.attempts) == ("well", False, 1)


@in_both_worlds
async def test_a_total_timeout_around_ends_all_attempts(world: World) -> None:
    service = Service(3).all_do(slow(2, Dead))
    cluster = service.cluster(steady(base=0, cap=0), around=(Timeout(3),))
    error = await world.error_of(cluster, service)
    if world.is_async:
        assert (world.now, type(error)) == (3, DeadlineExceeded)
    else:
        assert world.now == 4, "at the end of the attempt in which the time was over"
    assert len(service.asked) == 2
    at_rest(cluster)


@in_both_worlds
async def test_a_retry_around_asks_those_again_that_refused(world: World) -> None:
    service = Service(2).all_do(slow(5, "well"))
    cluster = service.cluster(steady(), each=(Bulkhead(1),), around=(Retry(on=NoEndpoints, delay=3, budget=None),))
    room = filled(cluster, *service.addresses)
    stop = events.subscribe(lambda event: room(), events.RetryScheduled)
    try:
        outcome = await world.outcome(cluster, service)
    finally:
        stop()
    assert (outcome.value, outcome.attempts) == ("well", 1)
    at_rest(cluster)


@in_both_worlds
async def test_what_refused_in_an_earlier_round_is_forgotten(world: World) -> None:
    """In the second round one endpoint still refuses, and the other fails once: it is tried again."""
    service = Service(2).does(0, Dead, "well")
    around = (Retry(on=NoEndpoints, delay=3, attempts=2, budget=None),)
    cluster = service.cluster(steady(), each=(Bulkhead(1),), around=around)
    filled(cluster, "e1:80")
    room = filled(cluster, "e0:80")
    stop = events.subscribe(lambda event: room(), events.RetryScheduled)
    try:
        assert await world.call(cluster, service) == "well"
    finally:
        stop()
    assert service.asked == ["e0:80"] * 2


@in_both_worlds
async def test_an_endpoint_that_refuses_when_all_have_been_tried_is_passed_over_without_another_pause(
    world: World,
) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(steady(retries=3, base=1, cap=1), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    rooms: list[Callable[[], None]] = []

    def after_the_third(event: AttemptFailed) -> None:
        if event.attempt == 3:
            rooms.append(filled(cluster, "e0:80"))

    stop = events.subscribe(after_the_third, AttemptFailed)
    try:
        with heard(FailedOver) as over:
            await world.error_of(cluster, service)
    finally:
        stop()
    assert [event.attempt for event in over] == [2, 3, 4], "one pause for each attempt"
    assert service.asked.count("e0:80") == 1 and len(service.asked) == 4
    rooms[0]()
    at_rest(cluster)


@in_both_worlds
async def test_disabled_it_is_one_attempt_without_any_layer(world: World) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(
        steady(), each=(CircuitBreaker(consecutive=1),), around=(Fallback("cached"),), ejection=Ejection(consecutive=1)
    )
    disable()
    try:
        for _ in range(5):
            service.forget()
            assert isinstance(await world.error_of(cluster, service), Dead)
            assert len(service.asked) == 1
        assert isinstance((await world.outcome(cluster, service)).error, Dead)
        service.forget()
        assert isinstance(await world.error_of(service.cluster(steady()), service), Dead)
        assert len(service.asked) == 1, "on the healthy path too"
    finally:
        enable()
    shot = cluster.snapshot()
    assert {each["standing"] for each in shot["endpoints"]} == {"in"}, "what happens while it is off is not counted"
    at_rest(cluster)


@in_both_worlds
async def test_a_view_shares_the_state_of_equal_strategies(world: World) -> None:
    service = Service(2).all_do(ConnectionRefusedError)
    cluster = service.cluster(Failover(budget=RetryBudget(0, per_second=1, window=2)))
    for _ in range(5):
        await world.error_of(cluster.using(Failover(retries=1, budget=RetryBudget(0, per_second=1, window=2))), service)
    assert len(service.asked) == 5 + 2


@pytest.mark.parametrize(
    "settings",
    [
        {"retries": -1},
        {"retries": 1.0},
        {"retries": True},
        {"base": 3, "cap": 2},
        {"base": -1},
        {"base": float("nan")},
        {"factor": 0.5},
        {"factor": True},
        {"factor": float("nan")},
        {"cap": "soon"},
        {"max_retry_after": -1},
        {"budget": 0.2},
        {"name": 7},
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Failover(**settings)
    assert f"{next(iter(settings))}" in str(caught.value)
