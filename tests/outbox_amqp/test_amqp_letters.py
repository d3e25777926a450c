"""Dead letters: listed, found, replayed and purged, one by one or all; looking at them changes nothing."""

from __future__ import annotations

import pytest

from seawall.errors import ConfigError
from seawall.outbox.record import Work
from seawall.outbox.store import OpenStore
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import SECOND, make_work
from tests.outbox_amqp.conftest import Make

pytestmark = pytest.mark.once


def buried(store: OpenStore, count: int) -> list[Work]:
    """Dead letters, in the order of their ids, which tell milliseconds apart."""
    works = sorted((make_work(payload=b"%d" % number) for number in range(count)), key=lambda work: work.id)
    for work in works:
        drive(store.put(work))
        ((lease,), _) = drive(store.lease(1, 60 * SECOND))
        assert drive(store.bury(lease, "attempts", f"ValueError: {work.payload.decode()}"))
    return works


def test_pages_of_dead_letters_follow_each_other(make: Make) -> None:
    store = make().open(BLOCKING)
    works = buried(store, 12)
    for _ in range(2):
        seen: list[str] = []
        while page := drive(store.page("dead", limit=5, after=seen[-1] if seen else None)):
            assert len(page) <= 5
            seen += [work.id for work in page]
        assert seen == [work.id for work in works]
    assert drive(store.page("dead", after="z")) == []


def test_looking_at_a_dead_letter_changes_nothing_of_it(make: Make) -> None:
    store = make().open(BLOCKING)
    (work,) = buried(store, 1)
    for _ in range(3):
        found = drive(store.find(work.id))
        assert found == work.replace(attempts=1, ended="attempts", last_error="ValueError: 0")
    assert drive(store.find("no such id")) is None


def test_only_those_chosen_are_replayed_or_purged(make: Make) -> None:
    store = make().open(BLOCKING)
    works = buried(store, 4)
    assert drive(store.replay({works[1].id, "no such id"})) == 1
    assert drive(store.purge("dead", [works[0].id])) == 1
    assert [work.id for work in drive(store.page("dead"))] == [works[2].id, works[3].id]
    ((lease,), _) = drive(store.lease(2, SECOND))
    assert (lease.work.id, lease.work.attempts, lease.work.ended) == (works[1].id, 1, "")
    assert drive(store.replay(())) == 0
    assert drive(store.replay()) == 2
    assert drive(store.purge("dead")) == 0


def test_many_are_replayed_at_once(make: Make) -> None:
    store = make().open(BLOCKING)
    works = buried(store, 120)
    assert drive(store.replay()) == 120
    stats = drive(store.stats())
    assert (stats.waiting, stats.dead) == (120, 0)
    leases, _ = drive(store.lease(120, SECOND))
    assert {lease.work.id for lease in leases} == {work.id for work in works}


def test_what_waits_can_be_purged_as_a_whole_but_neither_listed_nor_picked(make: Make) -> None:
    store = make().open(BLOCKING)
    works = [make_work() for _ in range(3)] + [make_work(due_ns=make_work().due_ns + 3_600 * SECOND)]
    for work in works:
        drive(store.put(work))
    with pytest.raises(ConfigError, match="cannot list what waits"):
        drive(store.page("waiting"))
    with pytest.raises(ConfigError, match="cannot be searched"):
        drive(store.find(works[0].id))
    with pytest.raises(ConfigError, match="purge all"):
        drive(store.purge("waiting", {works[0].id}))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))
    assert drive(store.page("leased")) == [lease.work]
    assert drive(store.purge("waiting")) == 3
    assert drive(store.ack(lease))
    assert drive(store.stats()).waiting == 0


def test_dropped_ones_are_listed_without_their_payload(make: Make) -> None:
    store = make(backlog=2, when_full="drop-oldest").open(BLOCKING)
    works = [make_work() for _ in range(4)]
    dropped = [victim for work in works for victim in drive(store.put(work))]
    assert [work.id for work in dropped] == [works[0].id, works[1].id]
    listed = drive(store.page("dropped"))
    assert {(work.id, work.payload, work.ended) for work in listed} == {(work.id, b"", "backlog") for work in works[:2]}
    assert drive(store.stats()).dropped == 2
    assert drive(store.purge("dropped", {works[0].id})) == 1
    assert [work.id for work in drive(store.page("dropped"))] == [works[1].id]
