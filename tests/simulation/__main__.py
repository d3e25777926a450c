"""`python -m tests.simulation [calls] [seed]`: how long a simulated load takes on this machine."""

from __future__ import annotations

import sys
import time

from tests.simulation.load import load


def main() -> None:
    calls, seed = (int(given) for given in (sys.argv[1:] + ["10000", "0"][len(sys.argv) - 1 :])[:2])
    began = time.perf_counter()
    served = load(calls, seed)
    took = time.perf_counter() - began
    print(f"{calls} calls in {took:.2f} s: {took / calls * 1e6:.0f} us a call, {served.steps} task steps")  # noqa: T201
    print(f"{served.virtual_seconds:.1f} s of virtual time, {served.answers}, trace {served.trace}")  # noqa: T201


main()
