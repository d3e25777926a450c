"""The contract of stores, as scenarios that the tests of every store run: see `seawall.outbox.store`.

A test module parametrizes over `CONTRACT` and runs each scenario on a `Bench` with its own store, in threads' way and in
asyncio's:

    @pytest.mark.parametrize("scenario", CONTRACT, ids=lambda scenario: scenario.__name__)
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_the_contract(scenario, is_async):
        Bench(make_store, is_async=is_async).run(scenario)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from seawall.errors import ConfigError, NotQueued
from seawall.outbox.store import Lease
from seawall.runtime import clock
from tests.outbox.benches import HOUR, SECOND, Bench, make_work

__all__ = ["CONTRACT"]

Scenario = Callable[[Bench], Coroutine[Any, Any, None]]
CONTRACT: list[Scenario] = []


def promise(scenario: Scenario) -> Scenario:
    CONTRACT.append(scenario)
    return scenario


# -- put and lease -----------------------------------------------------------------------------------------------------


@promise
async def a_record_comes_back_as_it_was_put(bench: Bench) -> None:
    """Every field, bytes of every value, and one attempt counted by the lease."""
    work = await bench.put(
        payload=bytes(range(256)) * 4,
        idempotency_key="order-17",
        priority=9,
        order_key="user:7 äß",
        criticality=3,
        last_error="ConnectionError: refused ☂",
    )
    assert await bench.open.find(work.id) == work
    lease = await bench.take()
    assert lease.work == work.replace(attempts=1)


@promise
async def an_empty_and_a_large_payload_come_back(bench: Bench) -> None:
    await bench.put(payload=b"")
    await bench.put(payload=b"x" * 1_000_000)
    assert (await bench.take()).work.payload == b""
    assert len((await bench.take()).work.payload) == 1_000_000


@promise
async def those_put_earlier_go_first(bench: Bench) -> None:
    works = [await bench.put() for _ in range(20)]
    assert await bench.taken() == [work.id for work in works]


@promise
async def higher_priority_goes_first_then_earlier_due(bench: Bench) -> None:
    now = clock.wall_ns()
    low = await bench.put(priority=0)
    late = await bench.put(due_ns=now - SECOND)
    early = await bench.put(due_ns=now - 2 * SECOND)
    high = await bench.put(priority=9)
    assert await bench.taken() == [high.id, early.id, late.id, low.id]


@promise
async def nothing_is_leased_before_it_is_due_whatever_its_priority(bench: Bench) -> None:
    later = await bench.put(due_ns=clock.wall_ns() + 10 * SECOND, priority=9)
    now = await bench.put(priority=0)
    assert await bench.taken() == [now.id]
    await bench.passes(9.5)
    assert await bench.lease() is None
    await bench.passes(0.6)
    assert await bench.taken() == [later.id]


@promise
async def lease_says_when_to_ask_again(bench: Bench) -> None:
    """Never later than the next record is due or the next lease runs out; None if nothing is held."""
    assert await bench.open.lease(1, SECOND) == ([], None)
    await bench.put(due_ns=clock.wall_ns() + 10 * SECOND)
    _, hint = await bench.open.lease(1, SECOND)
    assert hint is not None and 0 < hint <= 10 * SECOND
    await bench.put()
    leases, hint = await bench.open.lease(2, 3 * SECOND)
    assert len(leases) == 1
    assert hint is not None and 0 < hint <= 3 * SECOND


@promise
async def at_most_n_are_leased_and_none_of_them_twice(bench: Bench) -> None:
    works = [await bench.put() for _ in range(7)]
    first, _ = await bench.open.lease(3, 60 * SECOND)
    second, _ = await bench.open.lease(10, 60 * SECOND)
    assert len(first) == 3 and len(second) == 4
    assert sorted(lease.work.id for lease in (*first, *second)) == sorted(work.id for work in works)
    assert await bench.lease() is None


@promise
async def operations_in_skip_are_left_alone_by_stores_that_can_tell(bench: Bench) -> None:
    await bench.put(operation="mail.send")
    other = await bench.put(operation="audit.write")
    lease = await bench.take(skip={"mail.send"})
    assert lease.work.id == other.id
    assert await bench.lease(skip={"mail.send"}) is None
    assert (await bench.take()).work.operation == "mail.send"


@promise
async def putting_an_id_again_changes_nothing(bench: Bench) -> None:
    work = await bench.put()
    await bench.open.put(work)
    assert (await bench.open.stats()).waiting == 1
    lease = await bench.take()
    await bench.open.put(work)
    assert await bench.lease() is None
    assert await bench.open.bury(lease, "final", "no")
    await bench.open.put(work)
    assert (await bench.open.stats()).waiting == 0
    assert await bench.ids("dead") == [work.id]


# -- the ends of a lease -----------------------------------------------------------------------------------------------


@promise
async def what_is_acked_is_forgotten(bench: Bench) -> None:
    work = await bench.put()
    lease = await bench.take()
    assert await bench.open.ack(lease)
    assert await bench.open.find(work.id) is None
    stats = await bench.open.stats()
    assert (stats.waiting, stats.leased, stats.dead, stats.oldest_ns) == (0, 0, 0, None)


@promise
async def a_retry_is_due_at_its_time_with_its_error_and_the_attempt_counted(bench: Bench) -> None:
    await bench.put()
    lease = await bench.take()
    assert await bench.open.retry(lease, clock.wall_ns() + 5 * SECOND, "TimeoutError: no answer")
    await bench.passes(4.5)
    assert await bench.lease() is None
    await bench.passes(0.6)
    again = (await bench.take()).work
    assert (again.attempts, again.last_error) == (2, "TimeoutError: no answer")
    assert abs(again.due_ns - lease.work.created_ns - 5 * SECOND) < SECOND


@promise
async def a_release_is_not_an_attempt(bench: Bench) -> None:
    await bench.put(last_error="before")
    assert await bench.open.release(await bench.take(), clock.wall_ns())
    lease = await bench.take()
    assert (lease.work.attempts, lease.work.last_error) == (1, "before")
    assert await bench.open.release(lease, clock.wall_ns() + SECOND, "breaker open")
    assert await bench.lease() is None
    await bench.passes(1.1)
    again = (await bench.take()).work
    assert (again.attempts, again.last_error) == (1, "breaker open")


@promise
async def what_is_buried_is_a_dead_letter_with_its_cause(bench: Bench) -> None:
    work = await bench.put()
    assert await bench.open.bury(await bench.take(), "attempts", "ValueError: no")
    assert await bench.lease() is None
    (dead,) = await bench.open.page("dead")
    assert (dead.id, dead.payload, dead.attempts) == (work.id, work.payload, 1)
    assert (dead.ended, dead.last_error) == ("attempts", "ValueError: no")
    assert await bench.open.find(work.id) == dead


@promise
async def a_lease_that_runs_out_makes_the_record_due_at_once_with_the_attempt_counted(bench: Bench) -> None:
    await bench.put()
    await bench.take(ttl=10)
    await bench.passes(9.5)
    assert await bench.lease() is None
    await bench.passes(0.6)
    assert (await bench.take()).work.attempts == 2


@promise
async def renewal_lets_a_lease_last(bench: Bench) -> None:
    await bench.put()
    lease = await bench.take(ttl=10)
    for _ in range(5):
        await bench.passes(6)
        assert await bench.open.renew(lease, 10 * SECOND)
        assert await bench.lease() is None
    await bench.passes(11)
    assert await bench.lease() is not None


async def _each_end(bench: Bench, lease: Lease) -> list[bool]:
    now = clock.wall_ns()
    return [
        await bench.open.renew(lease, SECOND),
        await bench.open.ack(lease),
        await bench.open.retry(lease, now, "late"),
        await bench.open.release(lease, now, "late"),
        await bench.open.bury(lease, "final", "late"),
    ]


@promise
async def a_lease_after_which_another_was_given_out_is_fenced(bench: Bench) -> None:
    """None of its reports changes anything, before the other lease ends and after."""
    await bench.put(last_error="first")
    old = await bench.take(ttl=1)
    await bench.passes(1.1)
    new = await bench.take(ttl=60)
    assert await _each_end(bench, old) == [False] * 5
    found = await bench.open.find(new.work.id)
    assert found is not None and (found.attempts, found.last_error) == (2, "first")
    assert await bench.open.retry(new, clock.wall_ns(), "second")
    assert await _each_end(bench, old) == [False] * 5
    assert await _each_end(bench, new) == [False] * 5
    third = await bench.take()
    assert (third.work.attempts, third.work.last_error) == (3, "second")
    assert await bench.open.ack(third)
    assert await _each_end(bench, third) == [False] * 5


@promise
async def a_settled_lease_is_fenced_whatever_ended_it(bench: Bench) -> None:
    now = clock.wall_ns()
    for end in ("ack", "retry", "release", "bury"):
        await bench.put()
        lease = await bench.take()
        if end == "ack":
            assert await bench.open.ack(lease)
        elif end == "retry":
            assert await bench.open.retry(lease, now + HOUR, "")
        elif end == "release":
            assert await bench.open.release(lease, now + HOUR)
        else:
            assert await bench.open.bury(lease, "final", "")
        assert await _each_end(bench, lease) == [False] * 5, end


@promise
async def a_lease_that_ran_out_is_good_until_the_record_is_leased_again(bench: Bench) -> None:
    """What is done late is done all the same, and must not be done again."""
    done, renewed, retried, released, buried = [
        await bench.put(operation=name) for name in ("done", "renewed", "retried", "released", "buried")
    ]
    leases, _ = await bench.open.lease(5, SECOND)
    held = {lease.work.id: lease for lease in leases}
    await bench.passes(5)
    stats = await bench.open.stats()
    assert stats.waiting + stats.leased == 5
    assert await bench.open.ack(held[done.id])
    assert await bench.open.renew(held[renewed.id], 60 * SECOND)
    assert await bench.open.retry(held[retried.id], clock.wall_ns() + HOUR, "late")
    assert await bench.open.release(held[released.id], clock.wall_ns())
    assert await bench.open.bury(held[buried.id], "final", "late")
    lease = await bench.take()
    assert (lease.work.id, lease.work.attempts) == (released.id, 1)
    assert await bench.lease() is None
    assert await bench.open.ack(held[renewed.id])


@promise
async def a_lease_may_be_given_back_in_the_instant_in_which_it_ran_out(bench: Bench) -> None:
    """Nobody noticed that it ran out but the store: the record is where it was, once."""
    for end in ("retry", "release"):
        work = await bench.put()
        lease = await bench.take(ttl=1)
        await bench.passes(1)
        await bench.open.lease(1, SECOND, {work.operation})
        now = clock.wall_ns()
        told = bench.open.retry(lease, now, "") if end == "retry" else bench.open.release(lease, now)
        assert await told
        again, _ = await bench.open.lease(5, 60 * SECOND)
        assert [each.work.id for each in again] == [work.id]
        assert await bench.open.ack(again[0])


# -- order -------------------------------------------------------------------------------------------------------------


@promise
async def work_with_one_order_key_is_done_one_after_another(bench: Bench) -> None:
    first, second, third = [await bench.put(order_key="user:7") for _ in range(3)]
    lease = await bench.take()
    assert lease.work.id == first.id
    assert await bench.lease() is None, "the first is in work"
    assert await bench.open.retry(lease, clock.wall_ns() + 5 * SECOND, "failed")
    assert await bench.lease() is None, "the first is to be tried again before"
    await bench.passes(5.1)
    assert await bench.taken() == [first.id, second.id, third.id]


@promise
async def an_order_key_holds_up_nothing_but_its_own(bench: Bench) -> None:
    poison = await bench.put(order_key="user:7")
    await bench.put(order_key="user:7")
    assert await bench.open.retry(await bench.take(), clock.wall_ns() + HOUR, "poison")
    others = [await bench.put(order_key="user:8"), await bench.put(), await bench.put(order_key="user:8")]
    assert sorted(await bench.taken()) == sorted(work.id for work in others)
    assert await bench.open.find(poison.id) is not None


@promise
async def neither_priority_nor_due_time_breaks_the_order_of_a_key(bench: Bench) -> None:
    now = clock.wall_ns()
    first = await bench.put(order_key="k", priority=0, due_ns=now + 2 * SECOND)
    second = await bench.put(order_key="k", priority=9, operation="another.operation")
    assert await bench.lease() is None
    await bench.passes(2.1)
    assert await bench.taken() == [first.id, second.id]


@promise
async def a_dead_letter_lets_the_next_of_its_key_go(bench: Bench) -> None:
    await bench.put(order_key="k")
    second = await bench.put(order_key="k")
    assert await bench.open.bury(await bench.take(), "attempts", "poison")
    assert (await bench.take()).work.id == second.id


@promise
async def an_expired_lease_keeps_the_order_of_its_key(bench: Bench) -> None:
    first, second = await bench.put(order_key="k"), await bench.put(order_key="k")
    await bench.take(ttl=1)
    await bench.passes(1.1)
    assert await bench.taken() == [first.id, second.id]


@promise
async def what_is_purged_lets_the_next_of_its_key_go(bench: Bench) -> None:
    first, second = await bench.put(order_key="k"), await bench.put(order_key="k")
    assert await bench.open.purge("waiting", {first.id}) == 1
    assert await bench.taken() == [second.id]


# -- by hand -----------------------------------------------------------------------------------------------------------


@promise
async def stats_tell_how_many_are_where(bench: Bench) -> None:
    oldest = await bench.put()
    await bench.passes(1)
    for _ in range(4):
        await bench.put()
    assert (await bench.open.stats()).oldest_ns == oldest.created_ns
    await bench.open.bury(await bench.take(), "final", "")
    await bench.open.ack(await bench.take())
    lease = await bench.take()
    stats = await bench.open.stats()
    assert (stats.waiting, stats.leased, stats.dead, stats.dropped) == (2, 1, 1, 0)
    assert stats.oldest_ns == lease.work.created_ns
    assert await bench.ids("leased") == [lease.work.id]
    assert len(await bench.ids("waiting")) == 2


@promise
async def pages_follow_each_other(bench: Bench) -> None:
    works = [await bench.put(due_ns=clock.wall_ns() + HOUR) for _ in range(25)]
    seen: list[str] = []
    while page := await bench.open.page("waiting", limit=10, after=seen[-1] if seen else None):
        assert len(page) <= 10
        seen += [work.id for work in page]
    assert seen == [work.id for work in works]
    with pytest.raises(ConfigError, match="waiting"):
        await bench.open.page("pending")


@promise
async def a_replayed_dead_letter_has_all_its_attempts_and_time_again(bench: Bench) -> None:
    now = clock.wall_ns()
    await bench.put(expires_ns=now + HOUR)
    assert await bench.open.bury(await bench.take(), "attempts", "ValueError: no")
    await bench.passes(5 * 3_600)
    assert await bench.open.replay() == 1
    assert await bench.ids("dead") == []
    work = (await bench.take()).work
    assert (work.attempts, work.ended, work.last_error) == (1, "", "ValueError: no")
    assert abs(work.expires_ns - clock.wall_ns() - HOUR) < SECOND


@promise
async def only_those_chosen_are_replayed_or_purged(bench: Bench) -> None:
    works = [await bench.put() for _ in range(4)]
    for _ in works:
        await bench.open.bury(await bench.take(), "final", "")
    assert await bench.open.replay({works[1].id, "no such id"}) == 1
    assert await bench.ids("waiting") == [works[1].id]
    assert await bench.open.purge("dead", [works[0].id]) == 1
    assert await bench.ids("dead") == [works[2].id, works[3].id]
    assert await bench.open.replay(()) == 0
    assert await bench.open.purge("dead") == 2


@promise
async def what_is_out_on_lease_is_not_purged(bench: Bench) -> None:
    await bench.put()
    await bench.put()
    lease = await bench.take()
    assert await bench.open.purge("waiting") == 1
    assert await bench.open.ack(lease)
    with pytest.raises(ConfigError, match="state"):
        await bench.open.purge("leased")


@promise
async def listeners_hear_of_what_may_be_leased(bench: Bench) -> None:
    """Or the store says by its hint how soon to ask again: one of the two."""
    heard: list[str] = []
    deaf = bench.store.listen(lambda: heard.append("news"))
    await bench.put()
    if not heard:
        lease = await bench.take()
        await bench.open.ack(lease)
        _, hint = await bench.open.lease(1, SECOND)
        assert hint is not None and hint <= 5 * SECOND
        return
    await bench.put(order_key="k")
    await bench.put(order_key="k")
    await bench.put(order_key="k")
    leases, _ = await bench.open.lease(10, 60 * SECOND)
    assert len(leases) == 2
    for lease, end in zip(leases, (bench.open.ack, bench.open.ack), strict=True):
        del heard[:]
        assert await end(lease)
    assert heard, "the next of the key may go"
    now = clock.wall_ns()
    for end in (
        lambda lease: bench.open.bury(lease, "final", ""),
        lambda lease: bench.open.retry(lease, now, ""),
        lambda lease: bench.open.release(lease, now),
    ):
        lease = await bench.take()
        del heard[:]
        assert await end(lease)
        assert heard
    del heard[:]
    await bench.open.replay()
    assert heard
    deaf()
    del heard[:]
    await bench.put()
    assert heard == []


# -- the backlog -------------------------------------------------------------------------------------------------------


@promise
async def a_full_backlog_refuses_and_nothing_is_thrown_away(bench: Bench) -> None:
    """Dead letters count too."""
    bench.fresh(backlog=3, when_full="reject")
    works = [await bench.put() for _ in range(3)]
    lease = await bench.take()
    for _ in range(2):
        with pytest.raises(NotQueued, match="full"):
            await bench.put()
    assert await bench.open.bury(lease, "final", "")
    with pytest.raises(NotQueued, match="full"):
        await bench.put()
    stats = await bench.open.stats()
    assert (stats.waiting, stats.leased, stats.dead, stats.dropped) == (2, 0, 1, 0)
    assert await bench.open.purge("dead") == 1
    last = await bench.put()
    assert await bench.taken() == [works[1].id, works[2].id, last.id]


@promise
async def the_oldest_make_room_dead_letters_first_and_never_those_in_work(bench: Bench) -> None:
    bench.fresh(backlog=3, when_full="drop-oldest")
    works = [await bench.put() for _ in range(3)]
    in_work = await bench.take()
    buried = await bench.take()
    assert await bench.open.bury(buried, "final", "")
    for victim in (works[1], works[2]):
        newest = make_work()
        dropped = await bench.open.put(newest)
        assert [(work.id, work.ended) for work in dropped] == [(victim.id, "backlog")]
        works.append(newest)
    stats = await bench.open.stats()
    assert (stats.waiting, stats.leased, stats.dead, stats.dropped) == (2, 1, 0, 2)
    assert await bench.ids("dropped") == [works[1].id, works[2].id]
    assert await bench.open.ack(in_work)
    assert await bench.taken() == [works[3].id, works[4].id]


@promise
async def with_everything_in_work_there_is_nothing_to_drop(bench: Bench) -> None:
    bench.fresh(backlog=2, when_full="drop-oldest")
    await bench.put()
    await bench.put()
    leases, _ = await bench.open.lease(2, 60 * SECOND)
    with pytest.raises(NotQueued, match="full"):
        await bench.put()
    assert all([await bench.open.ack(lease) for lease in leases])


# -- time --------------------------------------------------------------------------------------------------------------


@promise
async def the_civil_clock_may_jump_and_nothing_is_lost_or_late_by_more_than_the_jump(bench: Bench) -> None:
    for jump in (3_600, -3_600):
        bench.fresh()
        due = await bench.put(due_ns=clock.wall_ns() + 10 * SECOND)
        held = await bench.put()
        lease = await bench.take(ttl=10)
        bench.jump(jump)
        after = await bench.put()
        await bench.passes(10.5)
        if jump < 0:
            await bench.passes(3_600)
        found = await bench.taken()
        assert sorted(found) == sorted((due.id, held.id, after.id))
        assert not await bench.open.ack(lease)
