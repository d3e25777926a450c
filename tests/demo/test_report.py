"""Table, words and live lines: aligned, within 79 columns, coloured only where that is wanted, true to the counts."""

import io
import re

import pytest

from seawall.demo import report
from seawall.demo.measure import PhaseResult, Run, Tally
from seawall.demo.phases import PHASES
from seawall.demo.progress import Lines, Live, progress_on, wants_colour
from seawall.demo.words import deeds, words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tally(served: int, degraded: int, errors: int, wait: float, culprit: str = "inventory: not reached") -> Tally:
    users = served + degraded + errors
    counted = Tally(arrived=users, served=served, degraded=degraded, errors=errors, waits=[wait] * users)
    counted.reasons.update({culprit: errors} if errors else {})
    counted.sent = {"inventory": users, "audit": 210}
    return counted


def filled(number: int) -> PhaseResult:
    plain, seawall = tally(700, 0, 300, 1.0), tally(900, 96, 4, 0.0004, "payments: no answer in time")
    did = {"inventory": {"failed over": 210, "ejected": 2, "returned": 1}, "looking": {"refused bulkhead_full": 96}}
    return PhaseResult(PHASES[number], 50.0, 5.0, plain, seawall, did, 0, {}, [0.001])


RESULTS = [filled(number) for number in range(len(PHASES))]


def test_the_table_has_two_aligned_rows_a_phase() -> None:
    lines = report.table(RESULTS).splitlines()
    assert len(lines) == 2 + 2 * len(PHASES)
    assert re.split(r"\s{2,}", lines[0]) == list(report.HEADINGS)
    assert max(map(len, lines)) <= 79
    assert re.split(r"\s{2,}", lines[2]) == ["healthy", "plain", "1000", "700", "0", "300", "1000", "1000", "1210"]
    assert re.split(r"\s{2,}", lines[3].strip()) == ["seawall", "1000", "900", "96", "4", "0.4", "0.4", "1210"]
    right_edge = lines[0].index("served") + len("served")
    assert {lines[2].index("700") + 3, lines[3].index("900") + 3} == {right_edge}


def test_colours_change_nothing_but_colours() -> None:
    painted = report.table(RESULTS, colour=True)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == report.table(RESULTS)


def test_no_line_is_wider_than_a_terminal_of_80_columns() -> None:
    run = Run(seconds=5.0, seed="1", results=RESULTS)
    for text in (words(RESULTS), report.settings(run)):
        assert max(map(len, text.splitlines())) <= 79


@pytest.mark.parametrize(
    ("counted", "told"),
    [
        ({}, []),
        (
            {"inventory": {"failed attempts": 1, "failed over": 1}},
            ["inventory: 1 failed attempt made good by another replica (failover)"],
        ),
        (
            {"inventory": {"ejected": 3, "returned": 2, "breaker open": 1, "gave up budget": 2}},
            ["inventory: 2 calls given up; a replica ejected 3 times, back twice; a breaker opened once"],
        ),
        (
            {"payments": {"failed attempts": 4, "timed out": 4, "ejected": 1}},
            [
                "payments: 4 charges failed and not sent again, as it might be made twice (failfast); "
                "a replica ejected once"
            ],
        ),
        (
            {"recommendations": {"fell back": 12, "fell back unasked": 64}},
            [
                "recommendations: 76 pages with popular items instead (fallback), "
                "64 of them at once while all replicas were silent (failsilent)"
            ],
        ),
        (
            {
                "audit": {"failed safe": 9, "breaker open": 2, "refused circuit_open": 5},
                "audit-outbox": {"queued": 7, "delivered": 6, "died": 1},
            },
            [
                "audit: 7 entries queued and 6 delivered later (failback); 1 entry lost; 9 views uncounted without an "
                "error (failsafe); a breaker opened twice and refused 5 requests"
            ],
        ),
        (
            {"looking": {"refused bulkhead_full": 90, "fell back": 91}, "buying": {"refused bulkhead_full": 1}},
            [
                "the door: 90 lookers refused while their compartment was full (bulkhead); 91 catalogue pages shown "
                "in place of an error (fallback); 1 buyer turned away before anything was charged (bulkhead)"
            ],
        ),
    ],
)
def test_words_name_what_was_counted_and_nothing_else(counted: dict[str, dict[str, int]], told: list[str]) -> None:
    assert deeds(counted) == told


def test_where_nothing_was_wrong_the_words_say_so_and_name_the_cost() -> None:
    plain, seawall = tally(100, 0, 0, 0.25), tally(100, 0, 0, 0.25)
    plain.cpu_seconds, seawall.cpu_seconds = 0.2, 0.3
    told = words([PhaseResult(PHASES[0], 20.0, 5.0, plain, seawall)])
    assert "of 100 users the plain front showed 0 an error, Seawall 0, and 0 a\n  lesser page." in told
    assert "users saw no difference" in told
    assert "CPU of the front per user 3.0 ms against 2.0 ms" in told


def test_what_is_dearer_or_worse_is_told() -> None:
    plain, seawall = tally(90, 0, 10, 0.5), tally(70, 10, 20, 0.9)
    seawall.sent = {"inventory": 900}
    told = words([PhaseResult(PHASES[1], 20.0, 5.0, plain, seawall, backlog=1)])
    for sentence in (
        "10 pages of 100 lesser ones",
        "20 fewer served in full than by the plain front",
        "10 more errors than the plain front",
        "p50 900 ms against 500 ms",
        "p99 900 ms against 500 ms",
        "11.2 attempts for each page shown against 3.4",
        "1 entry still queued at the end",
    ):
        assert sentence in told


def test_what_a_try_except_would_have_spared_is_told() -> None:
    plain, seawall = tally(90, 0, 10, 0.5, "audit: not reached"), tally(100, 0, 0, 0.5)
    plain.charged, plain.audited, plain.orders_lost = {"a-1", "a-2"}, {"a-2"}, {"a-1"}
    seawall.charged = seawall.audited = {"a-1", "a-2"}
    told = " ".join(words([PhaseResult(PHASES[4], 20.0, 5.0, plain, seawall)]).split())
    assert "10 of the plain front's errors were for recommendations or audit: a try/except" in told
    assert (
        "charged 1 user whom it then showed an error, and 1 of its charges are missing in audit; with Seawall 0 and 0"
        in told
    )


def test_a_busy_machine_is_told() -> None:
    assert "machine was busy" not in words(RESULTS)
    assert "this machine was busy: it sent users up to 200 ms late" in words([*RESULTS, late(0.2)]).replace("\n  ", " ")


def late(seconds: float) -> PhaseResult:
    return PhaseResult(PHASES[0], 50.0, 5.0, lateness=[seconds])


def test_plain_lines_tell_a_phase_when_it_has_ended() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.starting(18)
    lines.update(RESULTS[0], 1.0)
    lines.done(RESULTS[0])
    lines.close()
    assert stream.getvalue() == (
        "starting both shops, 18 processes on free ports of 127.0.0.1\n"
        "healthy      1000 users; plain 300 errors; seawall 96 degraded, 4 errors\n"
    )


def test_live_lines_are_redrawn_in_place_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    live = Live(stream, colour=False)
    live.starting(18)
    begun = stream.getvalue()
    live.update(RESULTS[0], 1.0)
    first = stream.getvalue()[len(begun) :]
    assert first.startswith("\x1b[1A\x1b[J") and first.count("\n") == 3
    assert "#" * 20 + "x" * 9 in first
    assert max(map(len, first.removeprefix("\x1b[1A\x1b[J").splitlines())) == 79
    live.update(RESULTS[0], 2.0)
    assert stream.getvalue()[len(begun + first) :].startswith("\x1b[3A\x1b[J")
    live.done(RESULTS[0])
    assert stream.getvalue().endswith("4 errors\n")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv(variable, value)
    assert not wants_colour(Terminal())


def test_a_narrow_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "79")
    assert isinstance(progress_on(Terminal()), Lines)
    monkeypatch.setenv("COLUMNS", "80")
    assert isinstance(progress_on(Terminal()), Live)
