"""A flood of ten million distinct keys against one limiter in memory: ``python -m benchmarks.limiter_memory``.

Every key of the flood comes once, 100,000 a second in virtual time, so that the result does not depend on the machine.
Beside it good callers come at half their limit: some known from the start, others who are new all the time, and so find
no room of their own. Prints the resident memory as it goes, how many good hits were refused, and the bytes of a key.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from seawall import Limiter, Memory, TokenBucket
from seawall.runtime import clock

SECOND = 1_000_000_000
LIMIT = TokenBucket("10/s")
FLOOD = 100_000
"""Hits of the flood in a second."""
GOOD = 1_000
"""Good callers at a time of either kind, each five times a second."""
STAY = 10
"""Seconds until a good caller of the second kind goes and another comes."""


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


def bytes_of_a_key(count: int = 100_000) -> float:
    """What a live key takes, its own text included, by the resident memory of many at once."""
    gc.collect()
    before = resident()
    limiter = Limiter(LIMIT, name="bytes", store=Memory())
    for number in range(count):
        limiter.hit(f"user:{number}")
    return (resident() - before) * (1 << 20) / count


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

    def told(self) -> str:
        return f"{self.refused} of {self.hits} ({self.refused / max(1, self.hits):.4%})"


def flood(keys: int, max_keys: int) -> int:
    """Run it; 1 if memory went on growing, or more than a thousandth of the good hits was refused."""
    with Clock() as virtual:
        limiter = Limiter(LIMIT, name="flooded", store=Memory(max_keys=max_keys))
        known, fresh = Good(limiter, come_and_go=False), Good(limiter, come_and_go=True)
        for _ in range(GOOD):
            known.hit(0)
        each = FLOOD // (5 * GOOD)
        print(f"{'keys':>12} {'virtual':>9} {'real':>7} {'resident':>10} {'exact':>10}  good hits refused: known, new")
        begun = time.monotonic()
        early = late = 0.0
        for number in range(keys):
            virtual.now_ns += SECOND // FLOOD
            limiter.hit(f"10.{number >> 16}.{number & 0xFFFF}")
            if number % each == 0:
                known.hit(virtual.now_ns)
                fresh.hit(virtual.now_ns)
            if (number + 1) % max(1, keys // 20) == 0:
                held = resident()
                table = limiter.snapshot()
                # By then the table has been full and empty again.
                if number < keys * 0.4:
                    early = max(early, held)
                late = max(late, held)
                print(
                    f"{number + 1:>12,} {virtual.now_ns / SECOND:>7.1f} s {time.monotonic() - begun:>5.0f} s "
                    f"{held:>6.1f} MiB {table['keys'][LIMIT.name]:>10,}  {known.told()}, {fresh.told()}",
                    flush=True,
                )
        print(f"most resident in the first two fifths {early:.1f} MiB, in all {late:.1f} MiB")
        wrongly = (known.refused + fresh.refused) / max(1, known.hits + fresh.hits)
        return int(late > early * 1.05 or wrongly > 0.001)


def main(arguments: list[str]) -> int:
    """Exit code 0 if it held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter_memory", description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000, help="distinct keys of the flood")
    parser.add_argument("--max-keys", type=int, default=1_000_000, help="keys that the limiter keeps exactly")
    options = parser.parse_args(arguments)
    print(f"a key takes {bytes_of_a_key():.0f} bytes, of 100,000")
    return flood(options.keys, options.max_keys)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
