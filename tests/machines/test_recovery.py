"""A target that comes back meets a growing stream, never a storm; one that is down meets single probes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.recovery import RESTS, SECOND, Recovery
from seawall.machines.verdict import Verdict
from tests.machines.effort import LONG

OK, FAIL, IGNORE = Verdict.OK, Verdict.FAIL, Verdict.IGNORE
STEP = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.sampled_from([OK, OK, OK, FAIL, FAIL, IGNORE])),
    st.tuples(st.just("clock"), st.sampled_from([0, 1, SECOND // 2, SECOND, 31 * SECOND, 10**15])),
)


class Crowd:
    """A target at which as much begins as is admitted, with everything in flight noted."""

    def __init__(self, limit: int) -> None:
        self.machine = Recovery(limit)
        self.now = 0
        self.flying: list[tuple[int, str]] = []
        self.made = 0
        self.begun = 0

    def begin(self, work: str | None = None) -> None:
        self.made += 1
        self.begun += 1
        self.flying.append((self.machine.begin(), work or f"work-{self.made}"))

    def fill(self) -> None:
        for _ in range(self.machine.room(self.now)):
            self.begin()

    def end(self, verdict: Verdict, *, rand: float = 0.5, wish: int = 0, attempts: int = 1) -> None:
        began, work = self.flying.pop(0)
        self.machine.end(began, verdict, work, self.now, rand, attempts=attempts, retry_after_ns=wish)

    def outage(self) -> None:
        """Everything in flight fails, and the next two as well."""
        while self.flying:
            self.end(FAIL)
        for _ in range(2):
            self.now += 60 * SECOND
            self.begin()
            self.end(FAIL)


@LONG
@given(st.integers(1, 40), st.lists(STEP, max_size=80))
def test_never_more_than_allowed_and_never_more_than_the_limit(limit: int, trace: list[tuple[str, object]]) -> None:
    """Whatever ends in whatever order: 1 <= allowed <= limit, room keeps to it, and none begins in a rest."""
    crowd = Crowd(limit)
    machine = crowd.machine
    for what, value in trace:
        before = machine.allowed
        if what == "begin":
            for _ in range(min(int(value), machine.room(crowd.now))):  # type: ignore[call-overload]
                assert not machine.rest_ns(crowd.now)
                crowd.begin()
                assert machine.running <= machine.allowed
        elif what == "end" and crowd.flying:
            assert isinstance(value, Verdict)
            crowd.end(value)
            expected = {OK: min(limit, before + 1), FAIL: max(1, before // 2), IGNORE: before}[value]
            assert machine.allowed == expected
        elif what == "clock":
            assert isinstance(value, int)
            crowd.now += value
        assert 1 <= machine.allowed <= limit
        assert machine.running == len(crowd.flying)
        assert machine.rest_ns(crowd.now) <= RESTS.cap_ns


@LONG
@given(st.integers(1, 60), st.integers(0, 80), st.booleans())
def test_n_successes_after_an_outage_let_at_most_2n_plus_1_begin(limit: int, successes: int, lazy: bool) -> None:
    """That is the promise that a recovery is no storm, however much waits."""
    crowd = Crowd(limit)
    crowd.outage()
    crowd.now += 60 * SECOND
    crowd.begun = 0
    for count in range(successes):
        if not lazy or not crowd.flying:
            crowd.fill()
        crowd.end(OK)
        assert crowd.begun <= 2 * count + 1
    crowd.fill()
    assert crowd.begun <= 2 * successes + 1
    assert crowd.machine.running <= limit


def test_each_round_of_successes_doubles_what_is_under_way() -> None:
    crowd = Crowd(limit=20)
    rounds: list[int] = []
    for _ in range(6):
        crowd.fill()
        rounds.append(len(crowd.flying))
        for _ in range(len(crowd.flying)):
            crowd.end(OK)
    assert rounds == [1, 2, 4, 8, 16, 20]


def test_a_dead_target_meets_single_probes_with_growing_rests() -> None:
    """1, 2, 4, ... up to 30 s between them, and never two at once."""
    crowd = Crowd(limit=8)
    crowd.begin()
    crowd.end(FAIL)
    assert crowd.machine.room(0) == 1, "one failure alone proves nothing"
    rests: list[float] = []
    for _ in range(8):
        crowd.begin()
        crowd.end(FAIL, rand=0.9999999)
        assert not crowd.machine.room(crowd.now)
        rests.append(round(crowd.machine.rest_ns(crowd.now) / SECOND, 3))
        crowd.now += crowd.machine.rest_ns(crowd.now)
        assert crowd.machine.room(crowd.now) == 1
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]


def test_rests_are_spread_so_that_workers_do_not_probe_in_step() -> None:
    def rest(rand: float) -> int:
        crowd = Crowd(8)
        for _ in range(2):
            crowd.begin()
            crowd.end(FAIL, rand=rand)
        return crowd.machine.rest_ns(0)

    assert rest(0) == SECOND // 2
    assert rest(0.5) == SECOND * 3 // 4


def test_many_that_fail_together_are_one_sign_of_trouble() -> None:
    """Sixteen under way when the target dies: one rest of a second, not sixteen doublings."""
    crowd = Crowd(limit=16)
    for _ in range(5):
        crowd.fill()
        for _ in range(len(crowd.flying)):
            crowd.end(OK)
    crowd.fill()
    assert len(crowd.flying) == 16
    while crowd.flying:
        crowd.end(FAIL)
    assert crowd.machine.allowed == 1
    assert 0 < crowd.machine.rest_ns(0) <= SECOND


def test_one_poison_message_never_begins_a_rest() -> None:
    crowd = Crowd(limit=4)
    for _ in range(20):
        crowd.begin("poison")
        crowd.end(FAIL)
        assert crowd.machine.room(crowd.now) == 1


def test_work_that_has_failed_twice_before_begins_no_rest_but_still_halves() -> None:
    crowd = Crowd(limit=4)
    for _ in range(2):
        crowd.begin()
        crowd.end(OK)
    for allowed in (1, 1, 1, 1):
        crowd.begin()
        crowd.end(FAIL, attempts=3)
        assert crowd.machine.allowed == allowed and not crowd.machine.rest_ns(0)
    for _ in range(2):
        crowd.begin()
        crowd.end(FAIL, attempts=2)
    assert crowd.machine.rest_ns(0) and crowd.machine.probing


def test_a_success_ends_the_rest_and_its_growth() -> None:
    crowd = Crowd(limit=4)
    crowd.begin()
    crowd.outage()
    crowd.begin()
    assert crowd.machine.rest_ns(crowd.now)
    crowd.end(OK)
    assert crowd.machine.room(crowd.now) == 2
    for _ in range(2):
        crowd.begin()
        crowd.end(FAIL)
    assert 0 < crowd.machine.rest_ns(crowd.now) <= SECOND


def test_a_wish_of_the_target_is_obeyed_up_to_the_longest_rest() -> None:
    for wish, rest in ((0, 0.75), (10 * SECOND, 10), (10**18, 30)):
        crowd = Crowd(4)
        crowd.begin()
        crowd.end(FAIL, wish=wish)
        crowd.begin()
        crowd.end(FAIL, wish=wish)
        assert crowd.machine.rest_ns(0) / SECOND == rest
