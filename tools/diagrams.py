"""Keeps the diagrams in docs/ equal to the machines they show: each is drawn from runs of the machine itself.

    python tools/diagrams.py --check     (or nothing) 1 if a page is out of date
    python tools/diagrams.py --write     draw them anew

No list of states or transitions stands here. The breaker goes through every short sequence of calls, and what it
reports is drawn; a transition whose cause has no words below is an error, so a new one cannot be left out.
"""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from seawall import Policy, Retry, events
from seawall.machines.breaker import Breaker, Mode, Permit, Refusal, Rules, State, Transition
from seawall.machines.gate import Gate
from seawall.machines.verdict import Ended, Verdict
from seawall.testing import Script, VirtualClock
from seawall.units import SECOND, show_seconds

DOCS = Path(__file__).resolve().parent.parent / "docs"
Arrow = tuple[str, str, str]
"""From, to, and what makes it go there."""

# -- the breaker ---------------------------------------------------------------------------------------------------

TINY = Rules(
    failure_rate_ppm=500_000,
    slow_rate_ppm=1_000_000,
    slow_after_ns=SECOND,
    consecutive=2,
    min_calls=2,
    window_ns=None,
    window_calls=4,
    open_for_ns=10 * SECOND,
    probes=1,
    probe_lease_ns=60 * SECOND,
)
"""Every rule switched on, and each within reach of two calls."""
CALLS = ("ok", "slow", "fail", "ignore", "hang", "pass time")
DEPTH = 5
BY_HAND: dict[str, Mode | None] = {
    "force_open()": Mode.FORCED_OPEN,
    "disable()": Mode.DISABLED,
    "watch()": Mode.SHADOW,
    "auto()": Mode.AUTO,
    "reset()": None,
}
WORDS = {
    ("closed", "open", "failed"): "the failure rate is reached",
    ("closed", "open", "slow"): "the slow rate is reached",
    ("closed", "open", "consecutive"): "too many fail in a row",
    ("open", "half_open", None): "a call comes after the pause",
    ("half_open", "open", "probes"): "too many probes fail",
    ("half_open", "open", "slow probes"): "too many probes are slow",
    ("half_open", "closed", None): "enough probes succeed",
}
"""What a cause that the machine reports is called in the picture."""


class Watched:
    """A breaker under observation: every transition it reports, and every answer it gives."""

    def __init__(self, arrows: dict[Arrow, None], answers: dict[str, dict[str, None]]) -> None:
        self.breaker = Breaker(TINY)
        self._arrows = arrows
        self._answers = answers
        self._now_ns = 0

    def go(self, moves: Iterable[str]) -> None:
        """Make calls that end in a certain way, let time pass, work the breaker by hand."""
        for move in moves:
            if move in BY_HAND:
                mode = BY_HAND[move]
                breaker, now = self.breaker, self._now_ns
                self._record(breaker.reset(now) if mode is None else breaker.set_mode(mode, now), move)
            elif move == "pass time":
                self._now_ns += 100 * SECOND
            else:
                self._call(move)

    def _call(self, how: str) -> None:
        before = self.breaker.label
        answer = self.breaker.admit(self._now_ns, 0.5)
        self._answers.setdefault(before, {})[_in_words(answer)] = None
        self._record(answer.transition)
        if isinstance(answer, Refusal) or how == "hang":
            return
        duration = 2 * SECOND if how == "slow" else 0
        verdict = Verdict.OK if how == "slow" else Verdict(how)
        self._now_ns += duration
        self._record(self.breaker.settle(answer, Ended(verdict, duration), self._now_ns, 0.5))

    def _record(self, change: Transition | None, by_hand: str | None = None) -> None:
        if change is None or change.before == change.after:
            return
        cause = (change.before, change.after, change.trip.rule if change.trip else None)
        if by_hand is None and cause not in WORDS:
            raise KeyError(f"the breaker went {cause}: find words for it in tools/diagrams.py")
        self._arrows[change.before, change.after, by_hand or WORDS[cause]] = None


def _in_words(answer: Permit | Refusal) -> str:
    if isinstance(answer, Permit):
        return "let through" if answer.transition is None else "let through, as the first probe"
    return f"refused: {answer.why}" if answer.transition is None else "refused, if calls under way open it just then"


def breaker_runs() -> tuple[list[Arrow], dict[str, list[str]]]:
    """Every arrow that was seen, and what a call got in each state."""
    arrows: dict[Arrow, None] = {}
    answers: dict[str, dict[str, None]] = {}
    ways: dict[str, tuple[str, ...]] = {}
    for length in range(DEPTH + 1):
        for way in itertools.product(CALLS, repeat=length):
            watched = Watched(arrows, answers)
            watched.go(way)
            ways.setdefault(watched.breaker.label, way)
    for way in ways.values():
        for turns in itertools.product(BY_HAND, repeat=2):
            # In SHADOW nobody is refused in any state: what calls get is told for the other modes.
            told = {} if "watch()" in turns else answers
            Watched(arrows, told).go((*way, *turns, "ok"))
    return list(arrows), {state: sorted(each) for state, each in answers.items()}


def breaker() -> str:
    """The states by the rules, the states by hand, and what a call gets in each."""
    arrows, answers = breaker_runs()
    own = [state.value for state in State]
    by_rule = [arrow for arrow in arrows if arrow[2] not in BY_HAND]
    rows = [f"| `{state}` | {'; '.join(each)} |" for state, each in answers.items()]
    return "\n\n".join(
        [
            _mermaid([f"[*] --> {own[0]}", *_drawn(_joined(by_rule))]),
            "\n".join(["| state | a call is |", "| --- | --- |", *rows]),
            "By hand:",
            _mermaid(
                [
                    "state by_rule {",
                    f"    [*] --> {own[0]}",
                    *(f"    {before} --> {after}" for before, after in dict.fromkeys((a, b) for a, b, _ in by_rule)),
                    "}",
                    "[*] --> by_rule",
                    *_drawn(_joined(_gathered(arrows, own))),
                ]
            ),
        ]
    )


def _gathered(arrows: Iterable[Arrow], own: list[str]) -> Iterator[Arrow]:
    """The arrows by hand, with one in place of those that all of the breaker's own states have."""
    by_hand = [arrow for arrow in arrows if arrow[2] in BY_HAND]
    for before, after, cause in by_hand:
        sources = {a for a, b, c in by_hand if (b, c) == (after, cause)}
        from_all = sources >= set(own) - {after}
        start = "by_rule" if from_all and before in own and after not in own else before
        # Whoever comes back from a mode begins anew, where the diagram inside begins.
        end = "by_rule" if before not in own and after == own[0] else after
        yield start, end, cause


# -- the bulkhead --------------------------------------------------------------------------------------------------


def gate_runs() -> list[Arrow]:
    """One caller at a gate with one permit and one place to wait, whatever the others do."""
    arrows: dict[Arrow, None] = {}
    for others_hold, others_wait, then in itertools.product((False, True), (False, True), ("is its turn", "gives up")):
        gate = Gate(1, 1)
        held = gate.take() if others_hold else None
        if others_hold and others_wait:
            gate.join()
        permit = gate.take()
        if permit is not None:
            arrows["arrives", "works", "a permit is free"] = None
        else:
            ticket = gate.join()
            if ticket is None:
                arrows["arrives", "refused", "the queue is full"] = None
                continue
            arrows["arrives", "waits", "there is room in the queue"] = None
            if then == "gives up":
                gate.leave(ticket)
                arrows["waits", "leaves", "max_wait or the deadline is over"] = None
                continue
            assert held is not None, "nobody waits for a free permit"
            assert gate.release(held) == [ticket], "the first in the queue gets the permit"
            permit = ticket.granted
            arrows["waits", "works", "a permit comes back, first come first served"] = None
        assert permit is not None, "whoever works has a permit"
        gate.release(permit)
        assert gate.in_use == 0, "the permit is back"
        arrows["works", "[*]", "the call ends, however it ends"] = None
    return list(arrows)


def gate() -> str:
    """The way of one caller."""
    return _mermaid(["[*] --> arrives", *_drawn(_joined(gate_runs())), "refused --> [*]", "leaves --> [*]"])


# -- the retry -----------------------------------------------------------------------------------------------------


def retry() -> str:
    """One call that fails twice, as it really went."""
    fetch = Script(ConnectionError, ConnectionError, "answer")
    lines = ["participant caller", "participant retry", "participant function", "caller->>retry: call"]

    def told(event: events.RetryScheduled) -> None:
        pause = show_seconds(round(event.delay * 1e9))
        lines.extend([f"function-->>retry: {type(event.error).__name__}", f"Note over retry: pause of up to {pause}"])
        lines.append(f"retry->>function: attempt {event.attempt}")

    stop = events.subscribe(told, events.RetryScheduled)
    try:
        with VirtualClock():
            lines.append("retry->>function: attempt 1")
            answer = Policy(Retry(on=ConnectionError, jitter=False)).call(fetch)
    finally:
        stop()
    lines += [f"function-->>retry: {answer}", f"retry-->>caller: {answer}"]
    return _mermaid(lines, kind="sequenceDiagram")


# -- pages ---------------------------------------------------------------------------------------------------------

PAGES: dict[str, tuple[str, Callable[[], str]]] = {
    "breaker": ("circuit-breaker.md", breaker),
    "bulkhead": ("bulkhead.md", gate),
    "retry": ("retry.md", retry),
}
"""Diagram -> the page that it stands in, and what draws it."""


def _joined(arrows: Iterable[Arrow]) -> list[Arrow]:
    """One arrow for all causes that lead the same way."""
    causes: dict[tuple[str, str], dict[str, None]] = {}
    for before, after, cause in arrows:
        causes.setdefault((before, after), {})[cause] = None
    return [(before, after, " or ".join(each)) for (before, after), each in causes.items()]


def _drawn(arrows: Iterable[Arrow]) -> list[str]:
    return [f"{before} --> {after}: {cause}" for before, after, cause in arrows]


def _mermaid(lines: Iterable[str], kind: str = "stateDiagram-v2") -> str:
    return "\n".join(["```mermaid", kind, *(f"    {line}" for line in lines), "```"])


def redrawn(text: str, name: str, drawing: str) -> str:
    """A page with the diagram of that name between its markers. Raises `ValueError` if it has no such markers."""
    start, end = f"<!-- diagram: {name} (made by tools/diagrams.py --write) -->", f"<!-- end of diagram: {name} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"no markers for the diagram {name!r}: {start} ... {end}")
    return f"{before}{start}\n\n{drawing}\n\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Compare, or draw anew with `--write`; 1 if a page is out of date."""
    if arguments not in ([], ["--check"], ["--write"]):
        print("usage: python tools/diagrams.py [--check | --write]", file=sys.stderr)
        return 2
    stale = 0
    for name, (page_name, draw) in PAGES.items():
        page = DOCS / page_name
        text = page.read_text(encoding="utf-8")
        now = redrawn(text, name, draw())
        if arguments == ["--write"]:
            page.write_text(now, encoding="utf-8")
        elif now != text:
            stale += 1
            print(
                *difflib.unified_diff(text.splitlines(), now.splitlines(), page_name, "the code", lineterm=""), sep="\n"
            )
    if stale:
        print("\nA diagram differs from what the code does: python tools/diagrams.py --write")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
