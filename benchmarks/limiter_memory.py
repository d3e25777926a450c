"""Section `limiter_memory`: a flood of ten million distinct keys against one limiter in memory; only when asked for.

Every key of the flood comes once, 100,000 a second in virtual time, so that the result does not depend on the machine.
Beside it good callers come at half their limit: some known from the start, others who are new all the time, and so find
no room of their own. Tells the resident memory as it goes, how many good hits were refused, and the bytes of a key.

It has a process to itself, ``python -m benchmarks.limiter_memory``, so that nothing else is in the figures. That takes
two minutes, and ends by itself after ten.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seawall import Limiter, Memory, TokenBucket
from seawall.runtime import clock

from .measure import FULL, Effort
from .tables import Row, Table

SECOND = 1_000_000_000
LIMIT = TokenBucket("10/s")
FLOOD = 100_000
"""Hits of the flood in a second."""
GOOD = 1_000
"""Good callers at a time of either kind, each five times a second."""
STAY = 10
"""Seconds until a good caller of the second kind goes and another comes."""
KEYS = 10_000_000
MAX_KEYS = 1_000_000
MOST_SECONDS = 600
"""Of real time; then the flood ends where it is."""
STEPS = 20
GROWN, KNOWN, NEW = "most, of all", "known from the start", "new all the time"
KEY, PLAIN, KEY_RESIDENT = "a live key", "in a plain dict, of the same", "a live key, by resident memory"


@dataclass(slots=True)
class Seen:
    """How things stood after so many keys of the flood."""

    keys: int
    virtual: float
    real: float
    resident: float
    exact: int
    known: tuple[int, int]
    """Of the good callers who are known: hits refused, hits."""
    fresh: tuple[int, int]


class Clock:
    """Virtual time that the flood itself moves."""

    def __init__(self) -> None:
        self.now_ns = SECOND

    def __enter__(self) -> Clock:
        self._restore = clock.install(lambda: self.now_ns, lambda _: None)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()


def resident() -> float:
    """Resident memory of this process in MiB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * 4096 / (1 << 20)


def fill_limiter(count: int = 100_000) -> object:
    """Keys of ten characters, as user numbers are."""
    limiter = Limiter(LIMIT, name="bytes", store=Memory())
    for number in range(count):
        limiter.hit(f"user:{number:05}")
    return limiter


def fill_dict(count: int = 100_000) -> object:
    """The same texts and as large numbers, without a limiter."""
    now = time.monotonic_ns() | 1 << 40
    states: dict[str, int] = {}
    for number in range(count):
        states[f"user:{number:05}"] = now + number
    return states


def resident_of_a_key(count: int = 100_000) -> float:
    """What a live key takes by resident memory, with what the allocator adds and keeps; in a fresh process."""
    gc.collect()
    before = resident()
    kept = fill_limiter(count)
    taken = (resident() - before) * (1 << 20) / count
    del kept
    return taken


def asked_for_a_key(fill: Callable[[int], object], count: int = 100_000) -> float:
    """What is asked of the allocator for it."""
    tracemalloc.start()
    kept = fill(count)
    asked, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return asked / count


class Good:
    """Good callers, and how many of their hits were refused."""

    def __init__(self, limiter: Limiter, *, come_and_go: bool) -> None:
        self._limiter = limiter
        self._come_and_go = come_and_go
        self._at = 0
        self.hits = self.refused = 0

    def hit(self, now_ns: int) -> None:
        self._at = (self._at + 1) % GOOD
        name = f"good {self._at}"
        if self._come_and_go:
            # They do not all change at once.
            name += f" of {(now_ns + self._at * STAY * SECOND // GOOD) // (STAY * SECOND)}"
        self.hits += 1
        self.refused += not self._limiter.hit(name).allowed


def flood(keys: int, max_keys: int) -> Iterator[Seen]:
    """Run it, and stop in between to tell."""
    begun = time.monotonic()
    with Clock() as virtual:
        limiter = Limiter(LIMIT, name="flooded", store=Memory(max_keys=max_keys))
        known, fresh = Good(limiter, come_and_go=False), Good(limiter, come_and_go=True)
        for _ in range(GOOD):
            known.hit(0)
        each = FLOOD // (5 * GOOD)
        for number in range(keys):
            virtual.now_ns += SECOND // FLOOD
            limiter.hit(f"10.{number >> 16}.{number & 0xFFFF}")
            if number % each == 0:
                known.hit(virtual.now_ns)
                fresh.hit(virtual.now_ns)
            if (number + 1) % max(1, keys // STEPS) == 0:
                real = time.monotonic() - begun
                exact = limiter.snapshot()["keys"][LIMIT.name]
                refused = (known.refused, known.hits), (fresh.refused, fresh.hits)
                yield Seen(number + 1, virtual.now_ns / SECOND, real, resident(), exact, *refused)
                if real > MOST_SECONDS:
                    return


def early(seen: list[Seen], keys: int) -> float:
    """The most that was resident in the first two fifths: by then the table has been full and empty again."""
    return max(one.resident for one in seen if one.keys <= keys * 0.4)


def limiter_memory(effort: Effort) -> list[Table]:
    """In a process of its own; with less effort a tenth of the keys, and room for a tenth."""
    keys, max_keys = (KEYS, MAX_KEYS) if effort is FULL else (KEYS // 10, MAX_KEYS // 10)
    command = [sys.executable, "-m", "benchmarks.limiter_memory", "--json", f"--keys={keys}", f"--max-keys={max_keys}"]
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=2 * MOST_SECONDS)
        told: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [Table("limiter memory", "Memory of a limiter", [Row("flood", "ours", error=str(error)[:120])])]
    seen = [Seen(**one) for one in told["seen"]]
    first, last = early(seen, keys), seen[-1]
    rows = [
        Row(f"{one.keys:,} keys", "ours", one.resident, one.resident, one.resident, of_first=one.resident / first)
        for one in seen[STEPS // 5 - 1 :: STEPS // 5]
    ]
    most = max(one.resident for one in seen)
    rows.append(Row(GROWN, "ours", most, most, most, of_first=most / first))
    notes = [
        f"{last.keys:,} of {keys:,} keys in {last.virtual:.0f} s of virtual time; the time of this machine ran out."
    ]
    title = f"Memory of a process under {keys:,} keys that come once each, with max_keys={max_keys:,}"
    of_first = "of the most in the first two fifths"
    good = [_good(KNOWN, *last.known), _good(NEW, *last.fresh)]
    key = [Row(name, "ours", size, size, size) for name, size in told["bytes_of_a_key"].items()]
    key[0].note = "its text, its state and its share of the table, as asked of the allocator"
    key[-1].note = "with what the allocator adds and keeps"
    return [
        Table("limiter memory", title, rows, unit="MiB", bare="", first=of_first, notes=notes[last.keys == keys :]),
        Table("limiter memory good", "Good hits refused meanwhile", good, unit="of a million", bare=""),
        Table("limiter memory key", "A key in memory, of 100,000", key, unit="bytes", bare=""),
    ]


def _good(name: str, refused: int, hits: int) -> Row:
    share = 1e6 * refused / max(1, hits)
    return Row(name, "ours", share, share, share, note=f"{refused:,} of {hits:,}")


def main(arguments: list[str]) -> int:
    """Exit code 1 if memory went on growing, or more than a thousandth of the good hits was refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter_memory", description=__doc__)
    parser.add_argument("--keys", type=int, default=KEYS, help="distinct keys of the flood")
    parser.add_argument("--max-keys", type=int, default=MAX_KEYS, help="keys that the limiter keeps exactly")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, at the end")
    options = parser.parse_args(arguments)
    by_resident = resident_of_a_key()
    if not options.json:
        print(f"{'keys':>12} {'virtual':>9} {'real':>7} {'resident':>10} {'exact':>10}  good hits refused: known, new")
    seen: list[Seen] = []
    for one in flood(options.keys, options.max_keys):
        seen.append(one)
        if not options.json:
            shares = ", ".join(
                f"{refused} of {hits} ({refused / max(1, hits):.4%})" for refused, hits in (one.known, one.fresh)
            )
            place = f"{one.keys:>12,} {one.virtual:>7.1f} s {one.real:>5.0f} s"
            print(f"{place} {one.resident:>6.1f} MiB {one.exact:>10,}  {shares}", flush=True)
    before, most = early(seen, options.keys), max(one.resident for one in seen)
    # Tracing comes last: it takes memory of its own.
    a_key = {KEY: asked_for_a_key(fill_limiter), PLAIN: asked_for_a_key(fill_dict), KEY_RESIDENT: by_resident}
    if options.json:
        print(json.dumps({"bytes_of_a_key": a_key, "seen": [dataclasses.asdict(one) for one in seen]}))
    else:
        print(", ".join(f"{name}: {size:.0f} bytes" for name, size in a_key.items()))
        print(f"most resident in the first two fifths {before:.1f} MiB, in all {most:.1f} MiB")
    (refused, hits), (refused_new, hits_new) = seen[-1].known, seen[-1].fresh
    return int(most > before * 1.05 or (refused + refused_new) > 0.001 * (hits + hits_new))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
