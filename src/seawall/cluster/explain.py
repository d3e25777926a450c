"""`cluster.explain()`: a paragraph for the person who asks, at three in the morning, what this cluster is doing."""

from __future__ import annotations

from collections.abc import Sequence

from seawall.cluster.calls import Calls
from seawall.cluster.core import Core
from seawall.cluster.member import Member
from seawall.runtime import off

__all__ = ["explain"]

MOST_SHOWN = 5
AWAITS = "awaits a probe"


def explain(core: Core, calls: Calls) -> str:
    """What would happen to the next call, and then why, endpoint by endpoint."""
    if off.everything:
        made = "go to all endpoints" if calls.strategy.answers_for_all else "be one attempt"
        return f"{core.name}: Seawall is switched off by disable(); the next call would {made}, without any layer."
    refused, around = _around(core)
    said = [refused or _verdict(core, calls), calls.strategy.explain(), *_trouble(core, calls), around]
    if core.directory.last_problem and core.directory.members:
        said.append(f"The latest look-up of the endpoints failed ({core.directory.last_problem}); the last list stays.")
    return " ".join([f"{core.name}:", *filter(None, said)])


def _around(core: Core) -> tuple[str, str]:
    """Whether the layers around would let nothing through, and what they are."""
    if core.around is None:
        return "", ""
    verdict, _, layers = core.around.explain().partition(": ")[2].partition(". ")
    refused = any(layer.refuses for layer in core.around.layers)
    return f"{verdict}." if refused else "", f"Around it: {layers}"


def _verdict(core: Core, calls: Calls) -> str:
    members = core.directory.members
    if not members:
        problem = core.directory.last_problem
        if problem:
            return f"No endpoints are known: the latest look-up failed ({problem}); it is asked again within seconds."
        return "The next call would ask for the endpoints first: none are known yet."
    problems = [_problem(member, calls) for member in members]
    usable = problems.count(None)
    count = f"{usable} of {len(members)} endpoints {'is' if usable == 1 else 'are'} usable"
    if calls.strategy.kind == "broadcast":
        return f"The next call would go to all {len(members)} endpoints ({count})."
    if any(problem is not None and problem.endswith(AWAITS) for problem in problems):
        return f"The next call would be a probe of an endpoint that was ejected; {count}."
    return _without_a_probe(calls, members, usable, count)


def _without_a_probe(calls: Calls, members: Sequence[Member], usable: int, count: str) -> str:
    if usable == 0 and calls.roster.strict:
        return "The next call would fail at once, and nothing would be sent: all endpoints are silent or refuse."
    if all(_refuses(member) for member in members):
        return f"The next call would be refused, and nothing sent: the guards of all {len(members)} endpoints refuse."
    if not calls.roster.strict and 2 * usable < len(members):
        return f"The next call would be made; {count}, too few to be choosy, so health is ignored."
    return f"The next call would be made; {count}."


def _refuses(member: Member) -> bool:
    """Whether a guard of its own would refuse the next attempt: a breaker, a full bulkhead, a limit."""
    return any(layer.refuses for layer in member.policy.layers)


def _problem(member: Member, calls: Calls) -> str | None:
    """What keeps the balancer from choosing this endpoint; None if nothing does."""
    known = calls.roster.standing(member)
    if known["standing"] == "out":
        left = known["retry_after"]
        return f"{member.endpoint} is ejected for another {left:.3g} s" if left else f"{member.endpoint} {AWAITS}"
    if known["standing"] == "probing":
        return f"{member.endpoint} is being probed"
    if member.refuses:
        wait = member.retry_after
        return f"{member.endpoint} has an open breaker" + (f" for another {wait:.3g} s" if wait else "")
    if _refuses(member):
        return f"{member.endpoint} is full"
    return None


def _trouble(core: Core, calls: Calls) -> list[str]:
    problems = [problem for member in core.directory.members if (problem := _problem(member, calls)) is not None]
    if not problems:
        return []
    more = f"; and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
    return [f"Not usable: {'; '.join(problems[:MOST_SHOWN])}{more}."]
