"""The diagrams in docs/ show what the machines do now."""

from __future__ import annotations

import pytest

from seawall.machines.breaker import Mode, State
from tools import diagrams


def test_every_diagram_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagrams.main(["--check"]) == 0, capsys.readouterr().out


def test_every_state_and_every_mode_is_in_the_breakers_diagram() -> None:
    arrows, answers = diagrams.breaker_runs()
    ends = {end for before, after, _ in arrows for end in (before, after)}
    modes = {mode.value for mode in Mode} - {Mode.AUTO.value}  # it follows the states
    assert ends == {state.value for state in State} | modes
    assert set(answers) == ends - {Mode.SHADOW.value}  # it answers as the state it is in
    assert {mode for mode in diagrams.BY_HAND.values() if mode is not None} == set(Mode)


def test_every_cause_that_has_words_was_seen() -> None:
    arrows, _ = diagrams.breaker_runs()
    assert {(before, after, words) for (before, after, _), words in diagrams.WORDS.items()} <= set(arrows)


def test_a_cause_without_words_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(diagrams.WORDS, ("half_open", "open", "probes"))
    with pytest.raises(KeyError, match="probes"):
        diagrams.breaker_runs()


def test_a_page_is_changed_between_its_markers_only() -> None:
    start, end = "<!-- diagram: x (made by tools/diagrams.py --write) -->", "<!-- end of diagram: x -->"
    page = f"above\n\n{start}\nold\n{end}\n\nbelow\n"
    once = diagrams.redrawn(page, "x", "new")
    assert once == f"above\n\n{start}\n\nnew\n\n{end}\n\nbelow\n"
    assert diagrams.redrawn(once, "x", "new") == once
    with pytest.raises(ValueError, match="no markers"):
        diagrams.redrawn("no markers here", "x", "new")
