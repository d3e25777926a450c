"""What a breaker says of itself, to operators and in errors."""

from __future__ import annotations

from typing import Any

from seawall.machines.breaker import Rules, Trip
from seawall.units import show_seconds

__all__ = ["because", "explain", "measured"]


def because(trip: Trip | None, rules: Rules) -> str:
    """Why it opened, in brackets: `" (14 of 20 calls failed in 30 s)"`; nothing if it did not."""
    if trip is None:
        return ""
    if trip.rule == "consecutive":
        return f" ({trip.bad} {'call' if trip.bad == 1 else 'calls'} failed in a row)"
    if trip.rule == "probes":
        return f" ({trip.bad} of {trip.calls} probes failed)"
    slow = f"took over {show_seconds(rules.slow_after_ns or 0)}"
    if trip.rule == "slow probes":
        return f" ({trip.bad} of {trip.calls} probes {slow})"
    return f" ({trip.bad} of {trip.calls} calls {'failed' if trip.rule == 'failed' else slow} {span(rules)})"


def measured(trip: Trip | None) -> float:
    """What stands against the threshold of the rule: a number of calls in a row, or a share."""
    if trip is None:
        return 0
    return trip.bad if trip.rule == "consecutive" else trip.bad / trip.calls


def span(rules: Rules) -> str:
    """Over what it counts."""
    if rules.window_ns is None:
        return f"among the last {rules.window_calls}"
    return f"in {show_seconds(rules.window_ns)}"


def explain(now: dict[str, Any], trip: Trip | None, rules: Rules) -> str:
    """What it would do to the next call, and why; `now` is its snapshot."""
    state, why = now["state"], because(trip, rules)
    if state == "forced_open":
        return "The breaker was forced open by hand: it would refuse the call."
    if state == "disabled":
        return "The breaker is disabled by hand: it would let the call through and not count it."
    watching = " (It only watches: in fact it lets every call through.)" if now["mode"] == "shadow" else ""
    if state == "open":
        left = now["retry_after"]
        wait = (
            f"refuse it for another {show_seconds(round(left * 1e9))}" if left else "let it through as the first probe"
        )
        return f"The breaker is open{why}: it would {wait}.{watching}"
    if state == "half_open":
        probes = f"{rules.probes} probes decide, and it refuses what goes beyond them"
        return f"The breaker is half-open{why}: {probes}.{watching}"
    seen = f"{now['failed']} of {now['calls']} calls failed {span(rules)}"
    opens = f"opens when {' or '.join(_limits(rules))}"
    return f"The breaker is closed ({seen}): it would let the call through, and {opens}.{watching}"


def _limits(rules: Rules) -> list[str]:
    limits: list[str] = []
    if rules.failure_rate_ppm is not None:
        limits.append(f"{rules.failure_rate_ppm / 10_000:g} % of at least {rules.min_calls} fail")
    if rules.slow_after_ns is not None:
        limits.append(f"{rules.slow_rate_ppm / 10_000:g} % take over {show_seconds(rules.slow_after_ns)}")
    if rules.consecutive is not None:
        limits.append(f"{rules.consecutive} fail in a row")
    return limits
