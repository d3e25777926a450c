"""Under every order of threads a roster overlooks no change, gives out each probe once, and hears of every attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from seawall import Policy, events
from seawall.cluster import directory, member, roster
from seawall.cluster.endpoint import Endpoint
from seawall.cluster.member import Seat
from seawall.cluster.serving import report
from seawall.events import EndpointEjected, EndpointReturned
from seawall.machines import balance, ejection, window
from seawall.machines.ejection import Rules
from seawall.machines.verdict import Verdict
from seawall.runtime import clock
from tests.cluster.lab import QUICK, Lab
from tests.support.threads import as_many, explore
from tests.threads.frames import World, expect

SEEDS = as_many(150)
CLUSTER: list[Any] = [roster, directory, member, __file__]
HEALTH: list[Any] = [roster, ejection, window, balance, __file__]
OK, FAIL, IGNORE = Verdict.OK, Verdict.FAIL, Verdict.IGNORE


def end(seat: Seat, verdict: Verdict) -> None:
    report(seat, verdict, clock.now_ns())


def test_a_new_list_is_never_overlooked_by_a_count_that_is_under_way() -> None:
    def build() -> World:
        lab = Lab(2)

        def calls() -> None:
            for _ in range(3):
                end(lab.roster.pick(), OK)
                lab.roster.spoil()

        def check() -> None:
            expect(set(lab.picks(8)) == {2, 3}, f"picked {lab.picks(8)}")
            expect({each for each, _ in lab.roster._healths.items()} == set(lab.directory.members), "health of others")

        return [calls, calls, lambda: lab.update(2, 3)], check

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS


def test_what_tells_whether_a_count_is_due_may_go_away_at_any_moment() -> None:
    """So it is read once."""

    def build() -> World:
        lab = Lab(1, None)
        return [lab.roster.pick, lambda: lab.roster.pick_other(())] * 2, lambda: expect(lab.roster.size == 1, "gone")

    assert explore(build, trace=[roster], seeds=range(4 * SEEDS)) == 4 * SEEDS


def test_whoever_picks_while_others_count_gets_somebody() -> None:
    def build() -> World:
        lab, served = Lab(3), list[int]()

        def calls() -> None:
            for _ in range(4):
                lab.roster.spoil()
                served.append(lab.number_of(lab.roster.pick()))
                other = lab.roster.pick_other({lab.member(0): None})
                expect(other is not None and lab.roster.has_other(()) and lab.roster.size == 3, "nobody there")

        def check() -> None:
            expect(Counter(served) == {0: 4, 1: 4, 2: 4}, f"not in turn: {served}")

        return [calls] * 3, check

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS


def test_a_crowd_that_is_due_is_counted_by_one_thread_for_all() -> None:
    def build() -> World:
        lab, looks = Lab(3), list[int]()
        usable_of = lab.roster._usable

        def usable(*arguments: Any) -> Any:
            looks.append(1)
            return usable_of(*arguments)

        lab.roster._usable = usable  # type: ignore[method-assign]

        def calls() -> None:
            for _ in range(2):
                lab.roster.pick()

        return [calls] * 4, lambda: expect(len(looks) == 1, f"counted {len(looks)} times")

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS


def test_each_of_several_probes_that_are_due_goes_to_one_thread() -> None:
    def build() -> World:
        lab, probes = Lab(4, QUICK.replace(strict=True)), list[int]()
        lab.eject(0, 1, 2)
        clock.sleep_ns(20_000_000_000)

        def calls() -> None:
            for _ in range(2):
                seat = lab.roster.pick()
                if lab.number_of(seat) != 3:
                    probes.append(lab.number_of(seat))

        return [calls] * 4, lambda: expect(sorted(probes) == [0, 1, 2], f"probed {probes}")

    assert explore(build, trace=HEALTH, seeds=range(SEEDS)) == SEEDS


def test_several_rosters_that_meet_a_new_member_are_all_told_of_its_attempts() -> None:
    def build() -> World:
        lab = Lab(2)
        others = [lab.another(QUICK.replace(consecutive=number)) for number in (2, 3)]
        lab.update(0, 1, 2)

        def check() -> None:
            known = Counter(len(each.healths) for each in lab.directory.members)
            expect(known == {3: 3}, f"some know less: {known}")

        return [each.pick for each in (lab.roster, *others)], check

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS


def test_no_success_of_the_fast_lane_is_lost_and_one_ejection_has_one_event() -> None:
    def build() -> World:
        lab = Lab(2, Rules(consecutive=None, failure_rate_ppm=500_000, min_calls=8))
        seat, seen = lab.seat_at(0), list[Any]()
        end(seat, OK)
        stop = events.subscribe(seen.append, EndpointEjected, EndpointReturned)

        def ends(*verdicts: Verdict) -> Callable[[], None]:
            return lambda: [end(seat, verdict) for verdict in verdicts] and None

        def check() -> None:
            stop()
            # Of 14 attempts 8 failed: whichever came last of the first that made a half, it was ejected once.
            expect(len(seen) == 1 == lab.roster.ejections, f"{len(seen)} events")
            expect(lab.standings() == ["out", "in"], str(lab.standings()))

        return [ends(OK, OK, OK), ends(OK, OK), ends(*[FAIL] * 4), ends(*[FAIL] * 4)], check

    assert explore(build, trace=HEALTH, seeds=range(SEEDS)) == SEEDS


def test_counts_of_both_lanes_add_up() -> None:
    def build() -> World:
        lab = Lab(2, Rules(consecutive=None, min_calls=1_000))
        seat = lab.seat_at(0)
        end(seat, OK)

        def ends(*verdicts: Verdict) -> Callable[[], None]:
            return lambda: [end(seat, verdict) for verdict in verdicts] and None

        def check() -> None:
            health = lab.health(0)
            health.roll(clock.now_ns())
            counts = (health.window.calls, health.window.failed)
            expect(counts == (12, 3), f"counted {counts}")

        return [ends(OK, OK, OK, OK), ends(OK, FAIL, OK), ends(OK, FAIL, OK, FAIL)], check

    assert explore(build, trace=HEALTH, seeds=range(SEEDS)) == SEEDS


def test_a_probe_that_ends_as_its_endpoint_leaves_or_returns_does_not_stay_out_for_ever() -> None:
    def build() -> World:
        lab = Lab(3)
        lab.eject(0)
        clock.sleep_ns(20_000_000_000)
        probe = lab.seat_at(0)

        def flaps() -> None:
            for numbers in ((1, 2), (0, 1, 2)):
                lab.update(*numbers)
                end(lab.roster.pick(), OK)

        def check() -> None:
            # In any order it is in again, or out and due at once.
            if lab.standing(0) != "in":
                end(lab.seat_at(0), OK)
            expect(lab.standing(0) == "in" and lab.roster._ejector is not None, lab.standing(0))
            expect(lab.roster._ejector.out == 0, "it still takes a place among those that are out")

        return [flaps, lambda: end(probe, OK)], check

    assert explore(build, trace=CLUSTER + HEALTH, seeds=range(SEEDS)) == SEEDS


def test_lists_that_are_changed_at_once_end_as_one_of_them() -> None:
    def build() -> World:
        lab = Lab(1)
        lists = [(0, 1), (2, 3), (1, 4)]

        def changes(numbers: tuple[int, ...]) -> Callable[[], None]:
            return lambda: lab.update(*numbers)

        def check() -> None:
            now = tuple(int(str(each.endpoint)[1:-3]) for each in lab.directory.members)
            expect(now in lists, f"a mixture: {now}")
            expect(set(lab.picks(6)) == set(now), "the roster has another list")
            expect(all(each.there for each in lab.directory.members), "one that is there is thought to be away")
            former = lab.directory._former
            expect(not any(each.there for each in former.values()), "one that has left is thought to be there")
            expect(
                set(former)
                == {f"e{number}:80" for number in range(5)} - {str(e.endpoint) for e in lab.directory.members},
                "one is forgotten",
            )

        return [changes(numbers) for numbers in lists], check

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS


def test_callers_without_a_list_are_all_woken_however_they_meet_the_answer() -> None:
    """A job that ends while somebody begins to wait for it."""

    class Source:
        every = 1

        def read(self) -> tuple[Endpoint, ...]:
            return (Endpoint("a:80"),)

    class Job:
        done = False

    class Runtime:
        is_async = False

        def parker(self) -> Any:
            from seawall.runtime.blocking import ThreadParker

            return ThreadParker()

    def build() -> World:
        from seawall.runtime.blocking import drive

        here = directory.Directory("stock", Source(), lambda endpoint: Policy())  # type: ignore[arg-type]
        job, woken = Job(), list[int]()

        def waits() -> None:
            drive(here._wait_for(job, Runtime()))  # type: ignore[arg-type]
            woken.append(1)

        def answers() -> None:
            here.lookup()
            job.done = True
            here._wake()

        return [waits, waits, answers, waits], lambda: expect(len(woken) == 3 and not here._waiting, "one waits on")

    assert explore(build, trace=CLUSTER, seeds=range(SEEDS)) == SEEDS
