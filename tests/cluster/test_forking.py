"""`Forking`: several endpoints are asked beside each other, and the first good answer is taken; here in asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    ConfigError,
    DeadlineExceeded,
    Ejection,
    Endpoint,
    Failsilent,
    Forking,
    NoEndpoints,
    Retry,
    RetryBudget,
    Timeout,
    deadline,
    disable,
    enable,
)
from seawall.events import AttemptFailed, ForkStarted
from seawall.testing import hang, run, slow
from tests.cluster.service import SIZES, Dead, Service, at_rest, chosen_first, distinct, filled
from tests.policies.worlds import World, all_end, heard, in_both_worlds

ALL: Any = "all"


def staggered(after: Any = 1, **settings: Any) -> Forking:
    """Without a budget, so that the test alone decides how many forks there are."""
    return Forking(**{"n": 3, "stagger": after, "budget": None, **settings})


async def error_of(call: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # whatever it is, the test looks at it
        await call
    return caught.value


# -- who wins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, ALL])
@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_n_different_endpoints_are_asked_but_no_more_than_there_are(world: World, size: int, n: Any) -> None:
    service = Service(size).all_do(Dead)
    cluster = service.cluster(Forking(n), max_threads=600)
    for _ in range(2):
        service.forget()
        error = await world.error_of(cluster, service)
        count = size if n == ALL else min(n, size)
        assert len(service.asked) == count
        assert distinct(service.asked)
        assert sorted(service.numbers) == list(range(1, count + 1)), "each attempt has its own number"
        errors = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        assert [type(each) for each in errors] == [Dead] * count
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES[1:])
@in_both_worlds
async def test_one_dead_endpoint_is_not_noticed(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(Forking(2))
    for _ in range(size + 2):
        outcome = await world.outcome(cluster, service)
        assert outcome.value == str(outcome.endpoint) != "e0:80"
    assert "e0:80" in service.asked
    assert world.now == 0
    at_rest(cluster)


@pytest.mark.parametrize("size", [2, 5])
@in_both_worlds
async def test_flapping_and_returning_endpoints(world: World, size: int) -> None:
    service = Service(size).does(0, Dead, "well", then="cycle")
    cluster = service.cluster(Forking(2), ejection=Ejection(consecutive=1, out_for=10))
    for _ in range(8):
        assert await world.call(cluster, service) is not None
        await world.passes(13)
    service.does(0)
    assert any([await world.call(cluster, service) == "e0:80" for _ in range(40)])
    at_rest(cluster)


def test_the_fastest_wins_and_the_others_are_cancelled() -> None:
    async def main() -> None:
        service = Service(3).does(0, slow(3, "slow")).does(1, slow(1, "fast")).does(2, hang)
        cluster = service.cluster(Forking(3))
        outcome = await cluster.arun(service.aio)
        assert (outcome.value, str(outcome.endpoint), outcome.attempts) == ("fast", "e1:80", 3)
        assert asyncio.get_running_loop().time() == 1
        await asyncio.sleep(0.001)
        assert service.running == 0
        assert [service.scripts[each].cancelled for each in service.addresses] == [1, 0, 1]
        at_rest(cluster)

    run(main)


@pytest.mark.parametrize("n", [2, 5])
def test_a_fast_failure_never_beats_a_later_success(n: int) -> None:
    async def main() -> None:
        service = Service(n).all_do(Dead).does(n - 1, slow(3, "late but right"))
        cluster = service.cluster(Forking(ALL))
        for _ in range(5):
            assert await cluster.acall(service.aio) == "late but right"
        at_rest(cluster)

    run(main)


def test_the_errors_come_in_the_order_of_the_forks() -> None:
    async def main() -> None:
        service = Service(3).does(0, slow(3, Dead("zero"))).does(1, Dead("one")).does(2, slow(1, Dead("two")))
        with heard(AttemptFailed) as failures:
            error = await error_of(service.cluster(Forking(3)).acall(service.aio))
        assert isinstance(error, ExceptionGroup)
        names = {"e0:80": "zero", "e1:80": "one", "e2:80": "two"}
        assert [str(each) for each in error.exceptions] == [names[address] for address in service.asked]
        assert "all 3 forks failed" in str(error)
        told = {event.attempt: event.endpoint for event in failures}
        assert told == dict(enumerate(service.asked, 1)), "an event names the attempt that it speaks of"

    run(main, seed=None)  # in the order in which the forks were started


class Response:
    """Something that has to be closed."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.closed = 0

    async def aclose(self) -> None:
        await asyncio.sleep(0.1)
        self.closed += 1


def test_what_losers_bring_is_closed_and_what_the_winner_brought_is_not() -> None:
    async def main() -> None:
        brought: list[Response] = []

        async def fetch(endpoint: Endpoint) -> Response:
            delay = {"e0:80": 1, "e1:80": 1, "e2:80": 2}[endpoint.address]
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # too late to stop
            brought.append(Response(endpoint.address))
            return brought[-1]

        cluster = Service(3).cluster(Forking(3))
        won = await cluster.acall(fetch)
        await asyncio.sleep(1)
        assert len(brought) == 3
        assert [response.closed for response in brought if response is not won] == [1, 1]
        assert won.closed == 0
        at_rest(cluster)

    for seed in range(10):
        run(main, seed=seed)


class Refused(Exception):
    """An answer of an edge, with something to close."""

    def __init__(self, response: Response) -> None:
        super().__init__("refused")
        self.response = response

    async def aclose(self) -> None:
        await self.response.aclose()


def test_failures_that_are_not_wanted_are_closed_too() -> None:
    async def main() -> None:
        responses = [Response(), Response()]
        service = Service(3).does(0, Refused(responses[0])).does(1, slow(1, Refused(responses[1])))
        service.does(2, slow(2, "well"))
        assert await service.cluster(Forking(3)).acall(service.aio) == "well"
        await asyncio.sleep(1)
        assert [response.closed for response in responses] == [1, 1]

    run(main)


@in_both_worlds
async def test_an_answer_decides_at_once_and_is_not_closed(world: World) -> None:
    class Missing(Exception):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    missing = Missing()
    service = Service(2).does(0, missing).does(1, Dead)
    cluster = service.cluster(Forking(2, stagger=60, budget=None), on=OSError, balancer=chosen_first("e0:80"))
    outcome = await world.outcome(cluster, service)
    assert outcome.error is missing
    assert str(outcome.endpoint) == "e0:80", "it answered"
    assert service.asked == ["e0:80"]
    assert missing.closed == 0
    at_rest(cluster)


# -- staggered -------------------------------------------------------------------------------------------------------


def test_the_next_fork_starts_after_the_silence_of_those_before() -> None:
    async def main() -> None:
        service = Service(5).all_do(slow(3.5, "slow"))
        cluster = service.cluster(staggered(1))
        with heard(ForkStarted) as started:
            outcome = await cluster.arun(service.aio)
        assert service.times == [0, 1, 2], "n is the most there are"
        assert distinct(service.asked)
        assert (outcome.value, outcome.attempts, asyncio.get_running_loop().time()) == ("slow", 3, 3.5)
        assert [(event.policy, event.layer, event.after) for event in started] == [("stock", "Forking", 1)] * 2
        assert cluster.snapshot()["strategy"]["extra"] == 2
        await asyncio.sleep(0.1)
        assert service.running == 0
        at_rest(cluster)

    run(main)


def test_no_fork_while_answers_are_prompt() -> None:
    async def main() -> None:
        service = Service(3).all_do(slow(0.999, "prompt"))
        cluster = service.cluster(staggered(1))
        for _ in range(10):
            assert await cluster.acall(service.aio) == "prompt"
        assert len(service.asked) == 10
        assert cluster.snapshot()["strategy"]["extra"] == 0

    run(main)


def test_a_failure_starts_the_next_fork_at_once_and_the_last_one_is_waited_for() -> None:
    async def main() -> None:
        service = Service(3).does(0, slow(0.5, Dead)).does(1, Dead).does(2, slow(5, "well"))
        cluster = service.cluster(staggered(1), balancer=chosen_first("e0:80"))
        with heard(ForkStarted) as started:
            assert await cluster.acall(service.aio) == "well"
        assert service.times == [0, 0.5, 0.5]
        assert [event.after for event in started] == [0, 0], "not for silence"

    run(main)


def test_a_failure_beside_one_that_is_still_silent_starts_the_next_at_once_too() -> None:
    async def main() -> None:
        service = Service(3).does(0, slow(9, "slow")).does(1, slow(0.2, Dead)).does(2, slow(1, "well"))
        cluster = service.cluster(staggered(1), balancer=chosen_first("e0:80"))
        began = {"e0:80": 0.0, "e1:80": 1.0, "e2:80": 1.2}
        for _ in range(20):
            service.forget()
            start = asyncio.get_running_loop().time()
            assert await cluster.acall(service.aio) == "well"
            times = {attempt.address: attempt.when - start for attempt in service.attempts}
            if service.asked[1] == "e1:80":
                assert times == pytest.approx(began)
                return
        raise AssertionError("e1 was never the second")

    run(main)


def test_when_all_fail_they_are_asked_one_after_the_other_without_a_pause() -> None:
    async def main() -> None:
        service = Service(5).all_do(Dead)
        cluster = service.cluster(staggered(60, n=ALL))
        error = await error_of(cluster.acall(service.aio))
        assert isinstance(error, ExceptionGroup) and len(error.exceptions) == 5
        assert distinct(service.asked)
        assert (service.times, service.numbers) == ([0] * 5, [1, 2, 3, 4, 5])
        at_rest(cluster)

    run(main)


def test_by_a_quantile_none_is_called_slow_before_enough_is_known() -> None:
    async def main() -> None:
        service = Service(2).all_do(slow(0.1, "usual"))
        cluster = service.cluster(staggered("p95"))
        assert cluster.snapshot()["strategy"]["stagger"] is None
        assert "as soon as enough is known" in cluster.explain()
        for _ in range(20):
            await cluster.acall(service.aio)
        assert len(service.asked) == 20
        assert 0.1 <= cluster.snapshot()["strategy"]["stagger"] <= 0.1125
        service.forget()
        service.all_do(slow(3, "slow"))
        await cluster.acall(service.aio)
        began, forked = service.times
        assert 0.1 <= forked - began <= 0.1125

    run(main)


def test_forks_are_a_tenth_of_the_calls_and_one_a_second() -> None:
    async def main() -> None:
        service = Service(3).all_do(slow(2, "slow"))
        cluster = service.cluster(Forking(2, stagger=0.05))
        calls = [asyncio.create_task(cluster.acall(service.aio)) for _ in range(300)]
        assert await all_end(calls) == ["slow"] * 300
        extra = len(service.asked) - 300
        assert extra == cluster.snapshot()["strategy"]["extra"] == 30 + 10
        at_rest(cluster)

    run(main)


def test_failures_draw_on_the_same_budget() -> None:
    async def main() -> None:
        service = Service(2).all_do(Dead)
        cluster = service.cluster(Forking(2, stagger=1, budget=RetryBudget(0, per_second=1, window=5)))
        errors = [await error_of(cluster.acall(service.aio)) for _ in range(8)]
        assert [type(error) for error in errors] == [ExceptionGroup] * 5 + [Dead] * 3
        assert len(service.asked) == 8 + 5

    run(main)


def test_forks_at_once_were_asked_for_and_have_no_budget() -> None:
    async def main() -> None:
        service = Service(2).all_do(slow(1, "well"))
        cluster = service.cluster(Forking(2, budget=RetryBudget(0, per_second=0)))
        for _ in range(50):
            await cluster.acall(service.aio)
        assert len(service.asked) == 100

    run(main)


def test_no_fork_and_no_budget_for_one_endpoint() -> None:
    async def main() -> None:
        service = Service(1).all_do(slow(3, "slow"))
        cluster = service.cluster(Forking(3, stagger=1, budget=RetryBudget(0, per_second=1, window=5)))
        with heard(ForkStarted) as started:
            await cluster.acall(service.aio)
        assert started == []
        assert len(service.asked) == 1
        strategy = cluster._calls.strategy
        assert strategy.budget is not None and strategy.budget.snapshot()["extra"] == 0

    run(main)


# -- refusals --------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_forks_pass_over_endpoints_that_refuse_and_never_meet(world: World) -> None:
    service = Service(5).all_do(Dead)
    cluster = service.cluster(Forking(2), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    room = filled(cluster, "e0:80", "e1:80", "e2:80")
    for _ in range(20):
        service.forget()
        error = await world.error_of(cluster, service)
        assert sorted(service.asked) == ["e3:80", "e4:80"], "both forks at different endpoints that do not refuse"
        assert isinstance(error, ExceptionGroup) and len(error.exceptions) == 2
        assert sorted(service.numbers) == [1, 2]
    room()
    at_rest(cluster)


@in_both_worlds
async def test_a_fork_that_finds_nobody_left_says_nothing(world: World) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Forking(2), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    room = filled(cluster, "e0:80")
    outcome = await world.outcome(cluster, service)
    assert isinstance(outcome.error, Dead)
    assert (outcome.attempts, service.asked) == (1, ["e1:80"])
    room()


@in_both_worlds
async def test_all_refuse(world: World) -> None:
    """Whichever fork ends first and knows of some only."""
    for _ in range(10):
        service = Service(3).all_do(Dead)
        cluster = service.cluster(Forking(2), each=(CircuitBreaker(consecutive=1, open_for=20),))
        await world.error_of(cluster.using(Forking(ALL)), service)
        service.forget()
        began = world.now
        await world.passes(5)
        outcome = await world.outcome(cluster, service)
        assert isinstance(outcome.error, NoEndpoints)
        waits = [cluster[endpoint][CircuitBreaker].snapshot()["retry_after"] for endpoint in cluster.endpoints]
        assert outcome.error.retry_after == min(waits)
        assert "3 endpoints refuse" in str(outcome.error)
        assert (outcome.attempts, service.asked, world.now) == (0, [], began + 5)
        at_rest(cluster)


@in_both_worlds
async def test_nothing_is_forked_to_those_who_are_ejected(world: World) -> None:
    service = Service(4).does(0, Dead)
    cluster = service.cluster(Forking(ALL), ejection=Ejection(consecutive=1, out_for=10))
    while cluster.snapshot()["endpoints"][0]["standing"] == "in":
        await world.call(cluster, service)
        at_rest(cluster)
    await world.passes(1)
    service.forget()
    service.all_do(Dead)
    await world.error_of(cluster, service)
    assert sorted(service.asked) == service.addresses[1:]
    at_rest(cluster)


@in_both_worlds
async def test_a_probe_is_made_beside_healthy_forks(world: World) -> None:
    service = Service(3).does(0, Dead)
    cluster = service.cluster(Forking(2), ejection=Ejection(consecutive=1, out_for=10))
    while "e0:80" not in service.asked:
        await world.call(cluster, service)
    await world.passes(12)
    service.forget()
    assert await world.call(cluster, service) != "e0:80"
    assert len(service.asked) == 2 and "e0:80" in service.asked
    at_rest(cluster)


def test_twenty_callers_make_one_probe() -> None:
    async def main() -> None:
        service = Service(1).does(0, Dead)
        silent = Failsilent(Ejection(consecutive=1, out_for=10))
        cluster = service.cluster(Forking(2), ejection=Ejection(consecutive=1, out_for=10))
        await cluster.using(silent).arun(service.aio)
        service = Service(2).does(0, Dead)
        cluster = service.cluster(Forking(2), ejection=Ejection(consecutive=1, out_for=10))
        await cluster.acall(service.aio)
        await asyncio.sleep(12)
        service.forget()
        service.all_do(slow(1, "well"))
        assert await all_end([cluster.acall(service.aio) for _ in range(20)]) == ["well"] * 20
        assert service.asked.count("e0:80") == 1
        at_rest(cluster)

    run(main)


# -- errors ----------------------------------------------------------------------------------------------------------

BUGS = [TypeError, NameError, AttributeError, AssertionError, SyntaxError]


@pytest.mark.parametrize("bug", BUGS)
def test_an_error_of_the_program_decides_at_once(bug: type[Exception]) -> None:
    async def main() -> None:
        service = Service(3).does(0, bug).does(1, slow(9, "well")).does(2, slow(9, "well"))
        cluster = service.cluster(staggered(60), ejection=Ejection(consecutive=1), balancer=chosen_first("e0:80"))
        assert type(await error_of(cluster.acall(service.aio))) is bug
        assert service.asked == ["e0:80"], "it was forked"
        together = cluster.using(Forking(3))
        assert type(await error_of(together.acall(service.aio))) is bug
        await asyncio.sleep(0.1)
        assert service.running == 0
        assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}
        assert asyncio.get_running_loop().time() < 1

    run(main)


@in_both_worlds
async def test_it_is_a_failure_if_it_is_named(world: World) -> None:
    service = Service(2).does(0, TypeError).does(1, "well")
    cluster = service.cluster(Forking(2), on=(TypeError, OSError), balancer=chosen_first("e0:80"))
    assert await world.call(cluster, service) == "well"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exits_decide_and_pass_through(error: type[BaseException]) -> None:
    """In asyncio the first two leave the loop itself, out of any task."""
    service = Service(2).does(0, error)
    cluster = service.cluster(Forking(2, stagger=60), balancer=chosen_first("e0:80"), on=lambda error: True)
    with pytest.raises(error):
        cluster.call(service)
    if error is GeneratorExit:
        with pytest.raises(error):
            run(lambda: cluster.acall(service.aio))
    assert set(service.asked) == {"e0:80"}
    at_rest(cluster)


def test_a_task_inside_that_was_cancelled_decides() -> None:
    async def main() -> None:
        async def cancelled(endpoint: Endpoint) -> None:
            raise asyncio.CancelledError

        cluster = Service(2).cluster(Forking(2))
        assert isinstance(await error_of(cluster.acall(cancelled)), asyncio.CancelledError)
        at_rest(cluster)

    run(main)


# -- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Forking(2), staggered(1), staggered(5)], ids=str)
def test_the_deadline_ends_all_forks(strategy: Forking) -> None:
    async def main() -> None:
        service = Service(3).all_do(hang)
        cluster = service.cluster(strategy)
        with deadline(2):
            error = await error_of(cluster.acall(service.aio))
        assert isinstance(error, DeadlineExceeded) and error.inherited
        assert asyncio.get_running_loop().time() == 2
        await asyncio.sleep(0.001)
        assert service.running == 0
        assert all(attempt.left is not None and attempt.left <= 2 for attempt in service.attempts)
        at_rest(cluster)

    run(main)


@in_both_worlds
async def test_nothing_is_sent_after_the_deadline(world: World) -> None:
    service = Service(3)
    with deadline(0):
        assert isinstance(await world.error_of(service.cluster(Forking(2)), service), DeadlineExceeded)
    assert service.asked == []


def test_a_timeout_of_each_attempt_is_a_failure_and_starts_the_next() -> None:
    async def main() -> None:
        service = Service(2).does(0, hang).does(1, "well")
        cluster = service.cluster(staggered(60), each=(Timeout(1),), balancer=chosen_first("e0:80"))
        assert await cluster.acall(service.aio) == "well"
        assert service.times == [0, 1]
        at_rest(cluster)

    run(main)


# -- with other parts ------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_retry_around_forks_again(world: World) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Forking(2), around=(Retry(on=ExceptionGroup, delay=1, attempts=3, budget=None),))
    await world.error_of(cluster, service)
    assert len(service.asked) == 6
    assert sorted(service.numbers) == [1, 2, 3, 4, 5, 6]
    at_rest(cluster)


@in_both_worlds
async def test_disabled_it_is_one_attempt(world: World) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(Forking(3))
    disable()
    try:
        assert isinstance(await world.error_of(cluster, service), Dead)
        assert isinstance((await world.outcome(cluster, service)).error, Dead)
    finally:
        enable()
    assert len(service.asked) == 2


@in_both_worlds
async def test_the_caller_goes_on_in_his_own_context(world: World) -> None:
    from seawall.context import CURRENT

    service = Service(2)
    before = CURRENT.get()
    await world.call(service.cluster(Forking(2)), service)
    assert CURRENT.get() is before


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 0},
        {"n": True},
        {"n": 1.0},
        {"n": "some"},
        {"n": 1001},
        {"stagger": "p49"},
        {"stagger": "p100"},
        {"stagger": -1},
        {"stagger": float("nan")},
        {"budget": 0.1},
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Forking(**settings)
    assert f"Forking({next(iter(settings))}" in str(caught.value)
