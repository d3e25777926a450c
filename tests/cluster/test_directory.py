"""The list of endpoints may change at any time: who stays keeps its state, and a bad answer changes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seawall import (
    CircuitBreaker,
    Cluster,
    ConfigError,
    Ejection,
    Endpoint,
    Failfast,
    File,
    Lookup,
    NoEndpoints,
    RoundRobin,
    Timeout,
)
from seawall.cluster.directory import MOST_FORMER, Directory
from seawall.cluster.member import Member
from seawall.events import EndpointsChanged, LookupFailed
from seawall.policies.registry import Registry
from seawall.policy import Policy
from seawall.testing import VirtualClock, run
from tests.policies.worlds import World, fail, heard, in_both_worlds


def cluster_of(endpoints: Any, **settings: Any) -> Cluster[Any]:
    settings = {"strategy": Failfast(), "balancer": RoundRobin(slow_start=0), "names": Registry(), **settings}
    return Cluster("stock", endpoints, **settings)


def addresses(cluster: Cluster[Any]) -> list[str]:
    return [str(endpoint) for endpoint in cluster.endpoints]


def members_of(cluster: Cluster[Any]) -> tuple[Member, ...]:
    return cluster._core.directory.members


def shot(cluster: Cluster[Any], address: str) -> dict[str, Any]:
    (found,) = [each for each in cluster.snapshot()["endpoints"] if each["address"] == address]
    return found  # type: ignore[no-any-return]


class Answers:
    """A source that gives one answer after the other, and the last again and again; errors are raised."""

    def __init__(self, *answers: Any, every: Any = 10) -> None:
        self.answers = list(answers)
        self.every = every
        self.asked = 0

    def read(self) -> Any:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else tuple(answer)


# -- a list changed by hand -------------------------------------------------------------------------------------------


def test_who_stays_keeps_its_policy_and_who_joins_gets_one() -> None:
    cluster = cluster_of(["a:80", "b:80"], each=(CircuitBreaker(),))
    before = {str(member.endpoint): member for member in members_of(cluster)}
    assert cluster.update(["b:80", "c:80"]) is True
    after = {str(member.endpoint): member for member in members_of(cluster)}
    assert list(after) == ["b:80", "c:80"]
    assert after["b:80"] is before["b:80"]
    assert cluster["c:80"].name == "stock[c:80]"
    with pytest.raises(KeyError, match="stock has no endpoint a:80; it has b:80, c:80"):
        cluster["a:80"]


def test_what_changed_is_told_in_one_event() -> None:
    cluster = cluster_of(["a:80", "b:80", "c:80"])
    with heard() as seen:
        assert cluster.update(["d:80", "b:80", "c:80", "e:80"]) is True
        assert cluster.update(["d:80", "b:80", "c:80", "e:80"]) is False
    assert seen == [
        EndpointsChanged(policy="stock", layer="endpoints", added=("d:80", "e:80"), removed=("a:80",)),
    ]


def test_another_order_is_no_change() -> None:
    """DNS gives another one every time."""
    cluster = cluster_of(["a:80", "b:80", "c:80"])
    with heard() as seen:
        assert cluster.update(["c:80", "a:80", "b:80"]) is False
    assert not seen and addresses(cluster) == ["a:80", "b:80", "c:80"]


@pytest.mark.parametrize("changed", [Endpoint("a:80", 5), Endpoint("a:80", 1, "a.example")], ids=repr)
def test_another_weight_or_host_is_a_change_of_an_endpoint_that_stays(changed: Endpoint) -> None:
    cluster = cluster_of(["a:80", "b:80"])
    member = members_of(cluster)[0]
    with heard() as seen:
        assert cluster.update([changed, "b:80"]) is True
    assert members_of(cluster)[0] is member
    assert vars(cluster.endpoints[0]) == vars(changed)
    assert [(event.added, event.removed) for event in seen] == [((), ())]
    assert cluster.call(lambda endpoint: vars(endpoint)) == vars(changed)


@in_both_worlds
async def test_a_new_list_is_used_by_the_very_next_call(world: World) -> None:
    cluster = cluster_of(["a:80"])
    assert await world.call(cluster, str) == "a:80"
    cluster.update(["b:80"])
    assert await world.call(cluster, str) == "b:80"
    cluster.update(["a:80"])
    assert await world.call(cluster.using(Failfast(name="view")), str) == "a:80"
    assert await world.call(cluster, str) == "a:80"


def test_an_empty_list_is_refused_counted_and_told() -> None:
    cluster = cluster_of(["a:80", "b:80"])
    with heard() as seen:
        assert cluster.update([]) is False
        assert cluster.update(iter(())) is False
    told = LookupFailed(policy="stock", layer="endpoints", reason="the list of endpoints is empty", error=None)
    assert seen == [told, told]
    assert addresses(cluster) == ["a:80", "b:80"]
    assert cluster.snapshot()["failed_lookups"] == 2
    assert "the list of endpoints is empty" in cluster.explain()
    cluster.update(["a:80", "b:80"])
    assert cluster.snapshot()["last_problem"] == "" and "look-up" not in cluster.explain()


@in_both_worlds
async def test_an_endpoint_that_flaps_gets_its_breaker_back(world: World) -> None:
    """A breaker that was open is not closed by an answer that leaves its endpoint out."""
    cluster = cluster_of(["a:80", "b:80"], each=(CircuitBreaker(consecutive=1, open_for=100),))
    await world.error_of(cluster, fail())
    assert shot(cluster, "a:80")["breaker_refuses"]
    cluster.update(["b:80"])
    await world.passes(10)
    cluster.update(["a:80", "b:80"])
    assert shot(cluster, "a:80")["breaker_refuses"]
    assert [await world.call(cluster, str) for _ in range(3)] == ["b:80"] * 3


@in_both_worlds
async def test_an_endpoint_that_flaps_is_still_ejected_and_its_time_goes_on(world: World) -> None:
    cluster = cluster_of(["a:80", "b:80", "c:80"], ejection=Ejection(consecutive=1, out_for=10))
    await world.error_of(cluster, fail())
    before = shot(cluster, "a:80")
    assert before["standing"] == "out" and 8 <= before["retry_after"] <= 12
    cluster.update(["b:80", "c:80"])
    assert {await world.call(cluster, str) for _ in range(4)} == {"b:80", "c:80"}
    await world.passes(5)
    cluster.update(["a:80", "b:80", "c:80"])
    assert {await world.call(cluster, str) for _ in range(4)} == {"b:80", "c:80"}
    assert shot(cluster, "a:80")["retry_after"] == pytest.approx(before["retry_after"] - 5)
    await world.passes(7)
    assert "a:80" in {await world.call(cluster, str) for _ in range(4)}
    assert shot(cluster, "a:80")["standing"] == "in"


@in_both_worlds
async def test_an_endpoint_that_flaps_has_no_slow_start_and_one_that_is_new_has(world: World) -> None:
    cluster = cluster_of(["a:80", "b:80"], balancer=RoundRobin(slow_start=10))
    await world.passes(100)
    cluster.update(["a:80", "b:80", "c:80"])
    cluster.update(["c:80"])
    cluster.update(["a:80", "b:80", "c:80"])
    calls = [await world.call(cluster, str) for _ in range(210)]
    assert calls.count("a:80") == pytest.approx(100, abs=4) and calls.count("c:80") == pytest.approx(10, abs=4)


def test_those_that_left_are_remembered_up_to_a_bound_the_latest_longest() -> None:
    cluster = cluster_of(["keep:80"])
    directory = cluster._core.directory
    first = {}
    for number in range(MOST_FORMER + 100):
        cluster.update(["keep:80", f"e{number}:80"])
        first[number] = members_of(cluster)[1]
    cluster.update(["keep:80"])
    assert len(directory._former) == MOST_FORMER
    cluster.update(["keep:80", "e99:80", "e100:80"])
    assert members_of(cluster)[1] is not first[99] and members_of(cluster)[2] is first[100]
    cluster.update(["keep:80"])
    cluster.update([f"f{number}:80" for number in range(500)])
    assert len(directory._former) == MOST_FORMER and len(directory.members) == 500


class Held:
    """An attempt that waits until it is let go."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    async def __call__(self, endpoint: Endpoint) -> str:
        gate = self.gates.setdefault(str(endpoint), asyncio.Event())
        await gate.wait()
        if endpoint.address == "a:80":
            raise ConnectionError
        return str(endpoint)


def test_an_endpoint_may_leave_and_come_back_while_attempts_are_in_flight_there() -> None:
    async def main() -> None:
        cluster = cluster_of(["a:80", "b:80"], ejection=Ejection(consecutive=1), each=(Timeout(60),))
        held = Held()
        calls = [asyncio.create_task(cluster.acall(held)) for _ in range(4)]
        await asyncio.sleep(1)
        assert [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [2, 2]
        member = members_of(cluster)[0]
        cluster.update(["b:80", "c:80"])
        assert [each["in_flight"] for each in cluster.snapshot()["endpoints"]] == [2, 0]
        assert len(member.flying) == 2, "they go on"
        for gate in held.gates.values():
            gate.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["ConnectionError"] * 2 + ["str"] * 2
        assert len(member.flying) == 0
        assert cluster.snapshot()["ejections"] == 0, "that of one that has left says nothing"
        cluster.update(["a:80", "b:80"])
        assert [each["standing"] for each in cluster.snapshot()["endpoints"]] == ["in", "in"]

    run(main)


def test_a_probe_that_ends_while_its_endpoint_is_away_is_given_to_the_next() -> None:
    """Or nobody would ask there for a minute."""

    async def main() -> None:
        cluster = cluster_of(["a:80", "b:80", "c:80"], ejection=Ejection(consecutive=1, out_for=10))
        held = Held()
        held.gates["a:80"] = gate = asyncio.Event()
        gate.set()
        with pytest.raises(ConnectionError):
            await cluster.acall(held)
        await asyncio.sleep(13)
        gate.clear()
        probe = asyncio.create_task(cluster.acall(held))
        await asyncio.sleep(0.001)
        assert shot(cluster, "a:80")["standing"] == "probing"
        cluster.update(["b:80", "c:80"])
        await cluster.acall(lambda endpoint: asyncio.sleep(0))
        gate.set()
        with pytest.raises(ConnectionError):
            await probe
        cluster.update(["a:80", "b:80", "c:80"])
        asked: list[str] = []

        async def answer(endpoint: Endpoint) -> None:
            asked.append(str(endpoint))

        await cluster.acall(answer)
        assert asked == ["a:80"] and shot(cluster, "a:80")["standing"] == "in"

    run(main)


def test_a_policy_that_cannot_be_made_changes_nothing() -> None:
    def make(endpoint: Endpoint) -> Policy:
        if endpoint.address == "bad:80":
            raise ConfigError("no")
        return Policy(name=str(endpoint))

    directory = Directory("stock", (Endpoint("a:80"), Endpoint("b:80")), make)
    directory.update((Endpoint("b:80"),))
    before = directory.members
    with pytest.raises(ConfigError):
        directory.update((Endpoint("a:80"), Endpoint("bad:80")))
    assert directory.members is before
    assert list(directory._former) == ["a:80"]


# -- a source -----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_source_is_asked_by_the_first_call_and_then_every_so_often(world: World) -> None:
    answers = Answers(["a:80"], ["b:80"], ["c:80"])
    cluster = cluster_of(answers)
    assert answers.asked == 0 and cluster.endpoints == ()
    assert "none are known yet" in cluster.explain()
    assert await world.call(cluster, str) == "a:80"
    await world.passes(9.999_999)
    assert await world.call(cluster, str) == "a:80"
    assert answers.asked == 1
    await world.passes(0.000_001)
    assert await world.call(cluster, str) == "b:80"
    await world.passes(3_600)
    assert await world.call(cluster, str) == "c:80"
    assert answers.asked == 3, "what nobody needs is not asked for"


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a text")


BAD_ANSWERS: list[Any] = [
    OSError(5, "unreachable"),
    Broken(),
    ValueError("line\none\0two" + "x" * 10_000),
    (),
    lambda: None,
    lambda: 5,
    lambda: "a:80",
    lambda: [5],
    lambda: ["a:80", "a:80"],
    lambda: ["bad one"],
    lambda: {"a:80": object()}[1],
]
PROBLEMS = [
    "OSError: [Errno 5] unreachable",
    "Broken",
    "ValueError: line one",
    "the list of endpoints is empty",
    "ConfigError: the list of endpoints=None: expected a list of addresses",
    "ConfigError: the list of endpoints=5: expected a list of addresses",
    "ConfigError: the list of endpoints='a:80': expected a list of addresses, not one text",
    "ConfigError: Endpoint(address=5): expected text",
    "ConfigError: the list of endpoints: a:80 is given twice",
    "ConfigError: Endpoint(address='bad one'): expected text",
    "KeyError: 1",
]
BAD = [*zip(BAD_ANSWERS, PROBLEMS, strict=True)]


@pytest.mark.parametrize(("answer", "problem"), BAD, ids=PROBLEMS)
@in_both_worlds
async def test_a_bad_answer_keeps_the_last_good_list_and_is_counted_and_told(
    world: World, answer: Any, problem: str
) -> None:
    answers = Answers(["a:80"], answer, answer, ["b:80"])
    cluster = cluster_of(answers)
    assert await world.call(cluster, str) == "a:80"
    with heard(LookupFailed) as seen:
        for _ in range(2):
            await world.passes(10)
            assert await world.call(cluster, str) == "a:80"
            assert await world.call(cluster, str) == "a:80", "and it is not asked again at once"
    assert answers.asked == 3
    now = cluster.snapshot()
    assert now["failed_lookups"] == len(seen) == 2
    assert now["last_problem"] == seen[0].reason and seen[0].reason.startswith(problem)
    assert seen[0].error is (answer if isinstance(answer, Exception) else seen[0].error)
    assert len(seen[0].reason) <= 200 and "\n" not in seen[0].reason
    assert now["last_problem"] in cluster.explain()
    await world.passes(10)
    assert await world.call(cluster, str) == "b:80"
    assert (cluster.snapshot()["last_problem"], cluster.snapshot()["failed_lookups"]) == ("", 2)


@pytest.mark.parametrize(("answer", "problem"), BAD, ids=PROBLEMS)
@in_both_worlds
async def test_without_any_list_the_call_says_why_and_when_it_is_worth_while(
    world: World, answer: Any, problem: str
) -> None:
    cluster = cluster_of(Answers(answer, answer, ["a:80"]))
    for left in (1, 0.75):
        error = await world.error_of(cluster, str)
        assert isinstance(error, NoEndpoints) and error.policy == "stock"
        assert error.detail.startswith(f"no endpoints: {problem}")
        assert error.retry_after == pytest.approx(left), "nothing works without a list, so it is asked again soon"
        await world.passes(0.25)
    assert "asked again within seconds" in cluster.explain()
    await world.passes(0.5)
    assert isinstance(await world.error_of(cluster, str), NoEndpoints)
    await world.passes(1)
    assert await world.call(cluster, str) == "a:80"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_look_up_is_noted_and_goes_on(interrupt: type[BaseException]) -> None:
    cluster = cluster_of(Answers(["a:80"], interrupt()))
    cluster.refresh()
    with pytest.raises(interrupt):
        cluster.refresh()
    assert addresses(cluster) == ["a:80"] and cluster.snapshot()["failed_lookups"] == 1


@in_both_worlds
async def test_a_listener_may_call_through_the_cluster(world: World) -> None:
    """It is told when the change is made, and holds up nobody."""
    cluster = cluster_of(Answers(["a:80"], OSError("down"), ["b:80"]))
    seen: list[Any] = []

    def listener(event: Any) -> None:
        seen.append((type(event).__name__, addresses(cluster), cluster.call(str)))
        cluster.snapshot()

    await world.call(cluster, str)
    from seawall import events

    stop = events.subscribe(listener, EndpointsChanged, LookupFailed)
    try:
        for _ in range(2):
            await world.passes(10)
            await world.call(cluster, str)
    finally:
        stop()
    assert seen == [("LookupFailed", ["a:80"], "a:80"), ("EndpointsChanged", ["b:80"], "b:80")]


@in_both_worlds
async def test_a_list_given_by_hand_stands_until_the_next_answer(world: World) -> None:
    cluster = cluster_of(Answers(["a:80"], ["b:80"]))
    cluster.update(["hand:80"])
    assert await world.call(cluster, str) == "hand:80"
    await world.passes(10)
    assert await world.call(cluster, str) == "a:80"


def test_refresh_asks_at_once_and_puts_the_next_look_up_off() -> None:
    answers = Answers(["a:80"], ["b:80"], OSError("down"))
    with VirtualClock() as time:
        cluster = cluster_of(answers)
        assert [str(each) for each in cluster.refresh()] == ["a:80"]
        time.advance(9)
        assert [str(each) for each in cluster.refresh()] == ["b:80"]
        time.advance(9)
        assert cluster.call(str) == "b:80" and answers.asked == 2
        assert [str(each) for each in cluster.refresh()] == ["b:80"], "a failure is counted, not raised"
        assert cluster.snapshot()["last_problem"] == "OSError: down"
        time.advance(9)
        assert cluster.call(str) == "b:80" and answers.asked == 3
    fixed = cluster_of(["a:80"])
    assert [str(each) for each in fixed.refresh()] == ["a:80"], "there is nobody to ask"


# -- a file that changes ------------------------------------------------------------------------------------------------


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_text("")


def half_written(path: Path) -> None:
    path.write_text("c:80\nd:80 wei")


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def of_bytes(path: Path) -> None:
    path.write_bytes(b"\xff")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [deleted, emptied, half_written, unreadable, of_bytes, a_folder])
@in_both_worlds
async def test_whatever_happens_to_the_file_the_last_good_list_stays_until_it_is_good_again(
    world: World, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "stock.endpoints"
    path.write_text("a:80\nb:80\n")
    cluster = cluster_of(File(path))
    assert await world.call(cluster, str) == "a:80"
    harm(path)
    await world.passes(1)
    assert {await world.call(cluster, str) for _ in range(4)} == {"a:80", "b:80"}
    assert cluster.snapshot()["failed_lookups"] == 1
    assert cluster.snapshot()["last_problem"]
    if path.is_dir():
        path.rmdir()
    other = tmp_path / "new"
    other.write_text("c:80 weight=2\n")
    os.replace(other, path)
    await world.passes(1)
    assert await world.call(cluster, str) == "c:80"
    assert (cluster.snapshot()["last_problem"], addresses(cluster)) == ("", ["c:80"])


@in_both_worlds
async def test_a_file_replaced_by_a_link_to_another_is_read_there(world: World, tmp_path: Path) -> None:
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "link"
    first.write_text("a:80")
    second.write_text("b:80")
    link.symlink_to(first)
    cluster = cluster_of(File(link))
    assert await world.call(cluster, str) == "a:80"
    link.unlink()
    link.symlink_to(second)
    await world.passes(1)
    assert await world.call(cluster, str) == "b:80"


def test_a_function_is_asked_as_any_source() -> None:
    with VirtualClock() as time:
        known = ["a:80"]
        cluster = cluster_of(lambda: known)
        assert cluster.call(str) == "a:80"
        known[0] = "b:80"
        time.advance(10)
        assert cluster.call(str) == "b:80"
        later = cluster_of(Lookup(lambda: known, every="1h"))
        assert later.call(str) == "b:80"
        known[0] = "c:80"
        time.advance("59min")
        assert later.call(str) == "b:80"
        time.advance("1min")
        assert later.call(str) == "c:80"
