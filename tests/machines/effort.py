"""How much the model tests of the machines try: enough to find planted faults, little enough for every run.

Nothing is stored between runs (a failure prints the blob that repeats it), and no health check looks at the clock.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["LONG", "MODEL", "QUICK"]

QUICK = settings(
    max_examples=60,
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
"""For a property of one small value."""

LONG = settings(QUICK, max_examples=120)
"""For a property of a trace of steps."""

MODEL = settings(QUICK, max_examples=150, stateful_step_count=40)
"""For a machine beside its model."""
