"""What happened, in plain words: what Seawall did, counted from its events, and where it is dearer or no better."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Final

from seawall.demo.deeds import Deeds
from seawall.demo.measure import PhaseResult, Tally
from seawall.demo.report import WIDTH

LATE_SECONDS: Final = 0.1
WORTH_SAYING: Final = 1.1
"""A time that is longer than this share of another one is told."""


def words(results: Sequence[PhaseResult]) -> str:
    """In all, then phase by phase."""
    phases = "\n".join(line for result in results for line in _phase(result))
    return "\n\n".join(["\n".join([_in_all(results), *_warnings(results)]), phases])


def _phase(result: PhaseResult) -> Iterator[str]:
    yield f"{result.phase.name}: {result.phase.title}"
    for who, said in (
        ("seawall", [*deeds(result.deeds), *_shown(result.seawall)]),
        ("plain", list(_shown(result.plain))),
        ("but", list(but(result))),
    ):
        for number, sentence in enumerate(said):
            label = f"  {'' if number else who:<9}"
            yield fill(sentence, WIDTH, initial_indent=label, subsequent_indent=" " * 13)


# -- what Seawall did ------------------------------------------------------------------------------------------------


def deeds(counted: Deeds) -> list[str]:
    """What it did, a line for each of its clusters; empty if it had nothing to do."""
    parts = (
        ("inventory", _inventory(_of(counted, "inventory"))),
        ("payments", _payments(_of(counted, "payments"))),
        ("recommendations", _recommendations(_of(counted, "recommendations"))),
        ("audit", _audit(_of(counted, "audit"), _of(counted, "audit-outbox"))),
        ("the door", _door(_of(counted, "looking"), _of(counted, "buying"))),
    )
    return [f"{who}: {'; '.join(said)}" for who, what in parts if (said := list(what))]


def _of(counted: Deeds, who: str) -> "_Counts":
    return _Counts(counted.get(who, {}))


class _Counts:
    """Counts by deed; what was not done was done 0 times."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def __getitem__(self, deed: str) -> int:
        return self._counts.get(deed, 0)

    def starting(self, word: str) -> int:
        """All deeds together that start with a word."""
        return sum(count for deed, count in self._counts.items() if deed.startswith(word))


def _inventory(did: _Counts) -> Iterator[str]:
    if over := did["failed over"]:
        yield f"{_count(over, 'failed attempt')} made good by another replica (failover)"
    if gave_up := did.starting("gave up"):
        yield f"{_count(gave_up, 'call')} given up"
    yield from _health(did)


def _payments(did: _Counts) -> Iterator[str]:
    if failed := did["failed attempts"]:
        yield f"{_count(failed, 'charge')} failed and not sent again, as it might be made twice (failfast)"
    yield from _health(did)


def _recommendations(did: _Counts) -> Iterator[str]:
    if lesser := did["fell back"] + did["fell back unasked"]:
        unasked = did["fell back unasked"]
        at_once = f", {unasked} of them at once while all replicas were silent (failsilent)" if unasked else ""
        yield f"{_count(lesser, 'page')} with popular items instead (fallback){at_once}"


def _audit(did: _Counts, outbox: _Counts) -> Iterator[str]:
    if queued := outbox["queued"]:
        yield f"{_count(queued, 'entry', 'entries')} queued and {outbox['delivered']} delivered later (failback)"
    if lost := outbox["died"] + outbox["dropped"]:
        yield f"{_count(lost, 'entry', 'entries')} lost"
    if saved := did["failed safe"]:
        yield f"{_count(saved, 'view')} uncounted without an error (failsafe)"
    yield from _health(did)


def _door(looking: _Counts, buying: _Counts) -> Iterator[str]:
    full, lesser = looking["refused bulkhead_full"], looking["fell back"] + looking["fell back unasked"]
    if full:
        yield f"{_count(full, 'looker')} refused while their compartment was full (bulkhead)"
    if lesser:
        yield f"{_count(lesser, 'catalogue page')} shown in place of an error (fallback)"
    if full := buying["refused bulkhead_full"]:
        yield f"{_count(full, 'buyer')} turned away before anything was charged (bulkhead)"


def _health(did: _Counts) -> Iterator[str]:
    if ejected := did["ejected"]:
        back = f", back {_times(did['returned'])}" if did["returned"] else ""
        yield f"a replica ejected {_times(ejected)}{back}"
    if opened := did["breaker open"]:
        kept = did["refused circuit_open"]
        yield f"a breaker opened {_times(opened)}" + (f" and refused {_count(kept, 'request')}" if kept else "")


# -- what users got --------------------------------------------------------------------------------------------------


def _shown(tally: Tally) -> Iterator[str]:
    if tally.errors:
        culprits = ", ".join(f"{who} {count}" for who, count in tally.culprits.most_common())
        yield f"{_count(tally.errors, 'error')} shown to users ({culprits})"
    if vain := tally.charged_in_vain:
        yield f"{_count(vain, 'user')} charged and then shown an error"
    if unaudited := tally.unaudited:
        yield f"{_count(unaudited, 'charge')} that audit knows nothing of"


def but(result: PhaseResult) -> Iterator[str]:
    """Where Seawall is dearer, or no better; never empty where nothing was wrong."""
    plain, seawall = result.plain, result.seawall
    if not plain.errors and not seawall.errors + seawall.degraded:
        yield "users saw no difference"
        yield f"CPU of the front per user {_cpu(seawall)} against {_cpu(plain)}"
    if seawall.degraded:
        yield f"{_count(seawall.degraded, 'page')} of {seawall.arrived} lesser ones"
    if seawall.served < plain.served:
        yield f"{plain.served - seawall.served} fewer served in full than by the plain front"
    if seawall.errors > plain.errors:
        yield f"{seawall.errors - plain.errors} more errors than the plain front"
    for name, one, other in (("p50", seawall.p50, plain.p50), ("p99", seawall.p99, plain.p99)):
        if one > WORTH_SAYING * other > 0:
            yield f"{name} {one * 1e3:.0f} ms against {other * 1e3:.0f} ms"
    ours, theirs = (tally.attempts / max(1, tally.served + tally.degraded) for tally in (seawall, plain))
    if ours > WORTH_SAYING * theirs > 0:
        yield f"{ours:.1f} attempts for each page shown against {theirs:.1f}"
    if result.backlog:
        yield f"{_count(result.backlog, 'entry', 'entries')} still queued at the end"


def _cpu(tally: Tally) -> str:
    return f"{tally.cpu_seconds / tally.arrived * 1e3:.1f} ms" if tally.arrived else "none"


def _in_all(results: Sequence[PhaseResult]) -> str:
    plain, seawall = [result.plain for result in results], [result.seawall for result in results]
    users, errors = sum(tally.arrived for tally in plain), sum(tally.errors for tally in plain)
    lesser = sum(tally.degraded for tally in seawall)
    both = f"{errors} an error, Seawall {sum(tally.errors for tally in seawall)}"
    sentences = [f"In all: of {users} users the plain front showed {both}, and {lesser} a lesser page."]
    if needless := sum(tally.needless for tally in plain):
        sentences.append(
            f"{needless} of the plain front's errors were for recommendations or audit: a try/except around those two "
            "would have spared its users these, though not the wait for the timeout, nor the missing audit entries."
        )
    vain, unaudited = sum(t.charged_in_vain for t in plain), sum(t.unaudited for t in plain)
    if vain + unaudited:
        ours = f"{sum(t.charged_in_vain for t in seawall)} and {sum(t.unaudited for t in seawall)}"
        sentences.append(
            f"The plain front charged {_count(vain, 'user')} whom it then showed an error, and {unaudited} of its "
            f"charges are missing in audit; with Seawall {ours}."
        )
    return fill(" ".join(sentences), WIDTH, subsequent_indent="  ")


def _warnings(results: Sequence[PhaseResult]) -> Iterator[str]:
    late = max((result.late_p99 for result in results), default=0.0)
    if late > LATE_SECONDS:
        yield fill(
            f"Note: this machine was busy: it sent users up to {late * 1e3:.0f} ms late (p99) on both sides, so the "
            "load was not what it should have been. Run it again when the machine is idle.",
            WIDTH,
            subsequent_indent="  ",
        )


def _count(number: int, noun: str, nouns: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
