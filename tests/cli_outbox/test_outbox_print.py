"""Tables fit, progress shows on terminals only and leaves nothing behind, spans read well."""

from __future__ import annotations

import io

import pytest

from seawall.cli.outbox_print import age, instant, safe, table, width
from seawall.cli.outbox_progress import Progress
from seawall.cli.outbox_target import without_password
from seawall.testing import VirtualClock


@pytest.mark.parametrize("room", [60, 80, 100])
def test_the_last_column_gives_way_first_and_the_second_after_it(room: int) -> None:
    rows = [["1" * 32, "an.operation.with.a.long.name", "3", "some 指示 text " * 9], ["2" * 32, "short", "1", ""]]
    lines = table(["ID", "OPERATION", "TRIES", "ERROR"], rows, room).splitlines()
    assert max(map(width, lines)) <= max(room, 32 + 8 + 5 + 8 + 6)
    assert "1" * 32 in lines[1] and all(line == line.rstrip() for line in lines)


def test_without_a_terminal_nothing_is_cut() -> None:
    assert "x" * 500 in table(["A", "B"], [["1", "x" * 500]], None)


def test_what_could_steer_a_terminal_is_written_out() -> None:
    assert safe("a\x1b\x07\n\t\r\x9b\u202e\ud800\U000e0001é") == ("a\\x1b\\x07\\n\\t\\r\\x9b\\u202e\\ud800\\U000e0001é")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 ms"), (0.0014, "1 ms"), (1.26, "1.3 s"), (59, "59 s"), (90, "1.5 min"), (7_200, "2 h"), (1e9, "11574 d")],
)
def test_spans_read_as_people_say_them(seconds: float, told: str) -> None:
    assert age(seconds) == told


def test_an_instant_beyond_the_calendar_is_still_told() -> None:
    assert instant(1_767_225_600_000_000_000) == "2026-01-01T00:00:00Z"
    assert instant(10**30) == f"{10**30} ns"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("valkey://bob:hush@host", "valkey://bob:***@host"),
        ("valkey://:hush@host", "valkey://:***@host"),
        ("amqp://a:b:c@h/x and valkey://d:e@f", "amqp://a:***@h/x and valkey://d:***@f"),
        ("x://h?password=hush&a=1", "x://h?password=***&a=1"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
    ],
)
def test_passwords_are_blotted_out(text: str, told: str) -> None:
    assert without_password(text) == told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_and_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with VirtualClock() as time, Progress("retrying", 1_000) as progress:
        progress.at(100)
        assert terminal.getvalue() == "", "what is done at once needs none"
        time.advance(1)
        progress.at(500)
        progress.at(600)
        time.advance(1)
        progress.at(1_200)
    assert terminal.getvalue() == (
        f"\rretrying [{'#' * 15}{'.' * 15}] 500 of 1,000\rretrying [{'#' * 30}] 1,000 of 1,000\r\x1b[K"
    )


def test_elsewhere_no_progress_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with VirtualClock() as time, Progress("looking", None) as progress:
        time.advance(10)
        progress.at(5)
    assert stream.getvalue() == ""
