"""Table, words and live lines: aligned, at most 100 columns, coloured only where that is wanted."""

import io
import re
from inspect import signature
from typing import cast

import pytest

from seawall.demo import policy, report
from seawall.demo.measure import PhaseResult, Run, Tally
from seawall.demo.progress import Lines, Live, progress_on, wants_colour
from seawall.demo.traffic import PHASES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def filled(number: int, seawall_errors: int = 0) -> PhaseResult:
    plain = Tally(arrived=1_000, attempts=1_000, served=700, errors=300, waits=[1.0] * 1_000)
    guarded = Tally(arrived=1_000, attempts=1_210, served=900, degraded=100 - seawall_errors, errors=seawall_errors)
    guarded.waits = [0.0004] * 1_000
    deeds = {
        "retries": 210,
        "breaker open": 1,
        "refused circuit_open": 12,
        "refused bulkhead_full": 88,
        "fallbacks": 100,
    }
    return PhaseResult(PHASES[number], 50.0, 5.0, plain, guarded, deeds, {}, [0.001])


RESULTS = [filled(number) for number in range(len(PHASES))]


def test_the_table_has_two_aligned_rows_a_phase() -> None:
    lines = report.table(RESULTS).splitlines()
    assert len(lines) == 2 + 2 * len(PHASES)
    assert re.split(r"\s{2,}", lines[0]) == list(report.HEADINGS)
    assert max(map(len, lines)) <= 100
    assert re.split(r"\s{2,}", lines[2]) == [
        "healthy",
        "plain",
        "1000",
        "700",
        "0",
        "300",
        "1000 ms",
        "1000 ms",
        "1000",
    ]
    assert re.split(r"\s{2,}", lines[3].strip()) == ["seawall", "1000", "900", "100", "0", "0.4 ms", "0.4 ms", "1210"]
    right_edge = lines[0].index("served") + len("served")
    assert {lines[2].index("700") + 3, lines[3].index("900") + 3} == {right_edge}


def test_colours_change_nothing_but_colours() -> None:
    painted = report.table(RESULTS, colour=True)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == report.table(RESULTS)


def test_words_name_what_was_counted_and_nothing_else() -> None:
    told = report.words([filled(1)])
    assert "showed 300 errors to its users, Seawall 0." in told
    assert "210 failed attempts were repeated" in told
    assert "breaker opened 1 time and kept 12 attempts" in told
    assert "88 attempts" in told and "100 users got popular items" in told
    quiet = PhaseResult(PHASES[0], 50.0, 5.0)
    assert report.words([quiet]) == "The plain client showed 0 errors to its users, Seawall 0."


def test_the_price_is_told_too() -> None:
    result = filled(3)
    result.seawall.served = 690
    told = report.words([result])
    assert 'in "killed -9, restarted" it served 10 users less than the plain client' in told
    assert max(map(len, told.splitlines())) <= 100


def test_a_busy_machine_is_told() -> None:
    result = PhaseResult(PHASES[0], 50.0, 5.0, lateness=[0.2])
    assert "this machine was busy" in report.words([result])


def test_settings_fit_a_terminal_and_give_a_reason_each() -> None:
    lines = report.settings(Run(seconds=5, seed="1")).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("open_for" in line and "default" in line for line in lines)


def test_progress_is_one_plain_line_a_phase_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = progress_on(stream)
    assert isinstance(progress, Lines)
    progress.update(RESULTS[0], 1.0)
    progress.done(RESULTS[0])
    progress.close()
    assert stream.getvalue() == (
        "healthy: 1000 users; plain 700 served, 0 degraded, 300 errors; seawall 900 served, 100 degraded, 0 errors\n"
    )


def test_live_lines_are_redrawn_in_place_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    live = Live(stream, colour=False)
    live.update(RESULTS[0], 1.0)
    first = stream.getvalue()
    assert first.count("\n") == 3 and "\x1b" not in first
    assert "#" * 20 + "x" * 9 in first
    assert max(map(len, first.splitlines())) == 79
    live.update(RESULTS[0], 2.0)
    assert stream.getvalue()[len(first) :].startswith("\x1b[3A\x1b[J")
    live.done(RESULTS[0])
    assert stream.getvalue().endswith("0 errors\n")


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


def test_every_setting_that_is_given_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_specs(*specs: object, name: str) -> tuple[object, ...]:
        return specs

    monkeypatch.setattr(policy, "Policy", only_specs)
    specs = cast("tuple[object, ...]", policy.recommendations())
    given = [
        (type(spec).__name__, field)
        for spec in specs
        for field, parameter in signature(type(spec)).parameters.items()
        if field != "name" and getattr(spec, field) != parameter.default
    ]
    assert [layer for layer, _ in given] == [setting.layer for setting in policy.SETTINGS]
    for (_, field), setting in zip(given, policy.SETTINGS, strict=True):
        assert "=" not in setting.argument or setting.argument.startswith(f"{field}=")
