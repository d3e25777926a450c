"""Keeps the pictures in docs/plots/ equal to the limits they show: what each admits of the same traffic.

    python tools/plots.py --check     (or nothing) 1 if a picture is out of date
    python tools/plots.py --write     draw them anew

Every request goes through the machine of its limit, in virtual time and without chance, so a run gives the same bytes
everywhere. The pictures are plain SVG: one strip for each limit, a bar for each second.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from seawall import FixedWindow, LeakyBucket, SlidingLog, SlidingWindow, TokenBucket
from seawall.limiter.specs import LimitSpec
from seawall.machines import leaky_bucket
from seawall.machines.limit import Limit
from seawall.units import SECOND

PLOTS = Path(__file__).resolve().parent.parent / "docs" / "plots"
SECONDS = 180
MINUTE = 60
BEGIN = 20_000 * 86_400 * SECOND
"""The second 0 of the pictures: a midnight, so that the calendar's minutes begin at 0, 60 and 120."""

Request = tuple[int, int]
"""When, in nanoseconds since second 0, and which client."""


# -- traffic -----------------------------------------------------------------------------------------------------------


def evenly(per_second: int, first: int, last: int, client: int = 0) -> Iterator[Request]:
    """Requests from one second until another, none of them on the edge of a second."""
    gap = SECOND // per_second
    return ((first * SECOND + gap // 2 + number * gap, client) for number in range((last - first) * per_second))


def steady() -> Iterator[Request]:
    return evenly(2, 0, SECONDS)


def bursts() -> Iterator[Request]:
    for second in range(10, SECONDS, 40):
        yield from evenly(20, second, second + 3)


def border() -> Iterator[Request]:
    for edge in (60, 120):
        yield from evenly(15, edge - 4, edge + 4)


def crowd(clients: int = 30) -> Iterator[Request]:
    for client in range(clients):
        # Multiples of the golden ratio fall evenly into the first forty seconds, in no order that anybody sees.
        yield from evenly(1, int(client * 0.618_034 % 1 * 40), SECONDS, client)


@dataclass(frozen=True)
class Traffic:
    """Requests, the limits that they meet, and what is said about both."""

    title: str
    told: str
    requests: Callable[[], Iterable[Request]]
    limits: tuple[LimitSpec, ...]
    busiest: int
    """Of spans of how many seconds the fullest is told."""


ALL_TOGETHER = (
    TokenBucket("60/min"),
    TokenBucket("60/min", burst=10),
    LeakyBucket("60/min", queue=20),
    FixedWindow("60/min"),
    SlidingWindow("60/min"),
    SlidingLog("60/min"),
)
EACH_CLIENT = (
    TokenBucket("6/min"),
    TokenBucket("6/min", burst=2),
    LeakyBucket("6/min"),
    FixedWindow("6/min"),
    SlidingWindow("6/min"),
    SlidingLog("6/min"),
)
TRAFFICS = {
    "steady": Traffic(
        "More than the limit, all the time", "2 requests a second; the limit is 60 a minute", steady, ALL_TOGETHER, 60
    ),
    "bursts": Traffic(
        "Bursts after silence", "60 requests in 3 seconds, every 40 seconds; 60 a minute", bursts, ALL_TOGETHER, 60
    ),
    "border": Traffic(
        "Bursts around the border of a window",
        "15 requests a second, from 4 seconds before a full minute to 4 after; 60 a minute",
        border,
        ALL_TOGETHER,
        60,
    ),
    "crowd": Traffic(
        "A crowd of clients, each with a limit of his own",
        "30 clients who begin one after the other and ask each second; 6 a minute for each",
        crowd,
        EACH_CLIENT,
        1,
    ),
}
"""Name of the picture -> what it shows."""


# -- what is admitted --------------------------------------------------------------------------------------------------


def starts(limit: LimitSpec, requests: Iterable[Request]) -> list[int]:
    """When the admitted requests start, in order, up to the end of the picture; a leaky bucket's wait for a slot."""
    machine: Limit[Any] = limit.machine()
    states: dict[int, Any] = {}
    begun: list[int] = []
    for moment, client in sorted(requests):
        now = BEGIN + moment
        if isinstance(machine, leaky_bucket.LeakyBucket):
            slot = machine.queue_up(states.get(client), now, 1, None if machine.queue else 0)
            after, wait = slot or (None, 0)
        else:
            after, wait = machine.take(states.get(client), now, 1), 0
        if after is not None:
            states[client] = after
            begun.append(moment + wait)
    return sorted(moment for moment in begun if moment < SECONDS * SECOND)


def fullest(moments: Iterable[int], seconds: int) -> int:
    """The most within any span of that length."""
    most, recent = 0, deque[int]()
    for moment in moments:
        recent.append(moment)
        while recent[0] <= moment - seconds * SECOND:
            recent.popleft()
        most = max(most, len(recent))
    return most


def by_second(moments: Iterable[int]) -> Counter[int]:
    return Counter(moment // SECOND for moment in moments)


# -- the picture -------------------------------------------------------------------------------------------------------

WIDTH, LEFT, PLOT = 820, 46, 594
HEAD, STRIP, GAP = 108, 46, 30
SUM, MOST = WIDTH - 98, WIDTH - 16
"""Where the two columns of numbers end."""

STYLE = """\
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933 }
.page { fill: #ffffff } .title { font-size: 16px; font-weight: 600 } .name { font-weight: 600 }
.faint { fill: #52606d; font-size: 12px } .end { text-anchor: end } .middle { text-anchor: middle }
.asked { fill: #cbd2d9 } .admitted { fill: #0b69a3 } .axis { stroke: #7b8794 }
.edge { stroke: #d9480f; stroke-width: 2; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb } .page { fill: #12181f } .faint { fill: #a5b1bd }
  .asked { fill: #3e4c59 } .admitted { fill: #5bb8f5 } .axis { stroke: #7b8794 } .edge { stroke: #ffa94d }
}"""


def written(limit: LimitSpec) -> str:
    """As one would write it in code, but for its name."""
    settings = [f"{name}={getattr(limit, name)}" for name in ("burst", "queue") if getattr(limit, name, None)]
    return f"{type(limit).__name__}({', '.join([json.dumps(limit.rate), *settings])})"


def x_of(second: float) -> str:
    return f"{LEFT + PLOT * second / SECONDS:.2f}"


def text(x: float | str, y: float, words: str, kind: str = "") -> str:
    shape = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{shape}>{escape(words)}</text>'


def bars(counts: Counter[int], floor: float, scale: float, kind: str) -> str:
    """A bar for each second, all in one path; neighbours of the same height are one."""
    drawn: list[str] = []
    second = 0
    for count, same in groupby(counts[second] for second in range(SECONDS)):
        length = len(list(same))
        if count:
            height, width = f"{count * scale:.2f}", f"{PLOT * length / SECONDS:.2f}"
            drawn.append(f"M{x_of(second)} {floor}v-{height}h{width}v{height}z")
        second += length
    return f'<path class="{kind}" d="{"".join(drawn)}"/>'


def picture(traffic: Traffic) -> str:
    """The whole file."""
    requests = list(traffic.requests())
    asked = by_second(moment for moment, _ in requests)
    top = max(asked.values())
    foot = HEAD + len(traffic.limits) * (STRIP + GAP) - GAP
    height = foot + 52
    span = "most in a minute" if traffic.busiest == MINUTE else "most in a second"
    shown: list[str] = []
    said: list[str] = []
    for row, limit in enumerate(traffic.limits):
        begun = starts(limit, requests)
        floor = HEAD + row * (STRIP + GAP) + STRIP
        most = fullest(begun, traffic.busiest)
        said.append(f"{written(limit)}: {len(begun)} admitted, {span} {most}.")
        shown += [
            text(LEFT, floor - STRIP - 7, written(limit), "name"),
            bars(asked, floor, STRIP / top, "asked"),
            bars(by_second(begun), floor, STRIP / top, "admitted"),
            *(
                f'<path class="edge" d="M{x_of(edge)} {floor + 5}v{-STRIP - 14}"/>'
                for edge in (MINUTE, 2 * MINUTE)
                if isinstance(limit, FixedWindow)
            ),
            f'<path class="axis" d="M{LEFT} {floor}h{PLOT}M{LEFT - 4} {floor - STRIP}h4v{STRIP}h-4" fill="none"/>',
            text(LEFT - 7, floor - STRIP + 9, f"{top}/s", "faint end"),
            text(LEFT - 7, floor + 2, "0", "faint end"),
            text(SUM, floor - 14, str(len(begun)), "end"),
            text(MOST, floor - 14, str(most), "end"),
        ]
    for second in range(0, SECONDS + 1, 30):
        shown.append(f'<path class="axis" d="M{x_of(second)} {foot}v5"/>')
        shown.append(text(x_of(second), foot + 19, f"{second} s", "faint middle"))
    shown.append(text(LEFT + PLOT / 2, foot + 38, "time; bars: requests a second", "faint middle"))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(traffic.title)}: what each limit admits</title>',
        f'<desc id="desc">{escape(" ".join([traffic.told + ".", f"{len(requests)} asked.", *said]))}</desc>',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        text(16, 26, traffic.title, "title"),
        text(16, 46, traffic.told, "faint"),
        *legend(),
        text(SUM, 72, "admitted", "faint end"),
        text(SUM, 87, f"of {len(requests)}", "faint end"),
        text(MOST, 72, "most in", "faint end"),
        text(MOST, 87, span.removeprefix("most in "), "faint end"),
        *shown,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def legend() -> Iterator[str]:
    """What the colours mean."""
    for x, kind, words in ((16, "asked", "asked"), (86, "admitted", "admitted, when it starts")):
        yield f'<rect class="{kind}" x="{x}" y="62" width="12" height="12"/>'
        yield text(x + 18, 72, words, "faint")
    yield '<path class="edge" d="M282 77v-18"/>'
    yield text(292, 72, "border of a window of the calendar", "faint")


def main(arguments: list[str]) -> int:
    """Compare, or draw anew with `--write`; 1 if a picture is out of date."""
    if arguments not in ([], ["--check"], ["--write"]):
        print("usage: python tools/plots.py [--check | --write]", file=sys.stderr)
        return 2
    stale = 0
    for name, traffic in TRAFFICS.items():
        path = PLOTS / f"{name}.svg"
        drawn = picture(traffic)
        if arguments == ["--write"]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(drawn, encoding="utf-8", newline="\n")
        elif not path.is_file() or path.read_text(encoding="utf-8") != drawn:
            stale += 1
            print(f"docs/plots/{name}.svg differs from what the limits do: python tools/plots.py --write")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
