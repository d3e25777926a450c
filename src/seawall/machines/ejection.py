"""Which replicas get no traffic for a while because they keep failing, and how they come back.

States of one replica (`Health`)
    IN        gets traffic.
    OUT       gets none until `until_ns`.
    PROBING   one attempt, the probe, is under way to find out.

Rules
    IN -> OUT        after a failure, if `consecutive` came in a row, or of at least `min_calls` in the window a share
                     of `failure_rate` failed; and if one more may be out (`may_eject`).
    OUT -> PROBING   when the time is over and somebody takes the probe; exactly one gets it.
    PROBING -> IN    the probe succeeded. -> OUT, for longer: it failed. -> OUT, but due at once: it said nothing
                     (cancelled, refused). -> PROBING anew: it was silent for the lease, and somebody takes the next.
    The n-th ejection lasts n x `base`, +-20 %, at most `cap`. n shrinks by one for each `base` of health.
    `strict`: any number may be out. Otherwise, of n replicas, none if n = 1, else at most max(1, n // 2).
    Each state of a replica has a number, its `stay`: an attempt that began in another one changes nothing.

The fast lane. `next(health.ticks)` notes a success atomically, without a lock, while the clock has not reached
`health.edge_ns` and the stay is the same; the ticks are gathered at the next step taken under the caller's lock.
A success never ejects, so only failures are judged.

After Envoy's outlier detection.
"""

from __future__ import annotations

import itertools
from enum import Enum

from seawall.machines.verdict import Verdict
from seawall.machines.window import TimeWindow
from seawall.record import Record

__all__ = ["Change", "Ejector", "Health", "Rules", "Standing"]

PPM = 1_000_000
SECOND = 1_000_000_000
BUCKETS = 10


class Rules(Record, kw_only=True):
    """When to eject, and for how long. None switches a rule off."""

    consecutive: int | None = 5
    failure_rate_ppm: int | None = 500_000
    min_calls: int = 20
    window_ns: int = 30 * SECOND
    base_ns: int = 30 * SECOND
    cap_ns: int = 300 * SECOND
    probe_lease_ns: int = 60 * SECOND
    strict: bool = False


class Standing(Enum):
    """Where a replica stands."""

    IN = "in"
    OUT = "out"
    PROBING = "probing"


class Change(Record, kw_only=True):
    """A replica was ejected (`out_ns` says for how long, `why` for what) or is back (`out_ns` is None)."""

    why: str
    out_ns: int | None


class Health:
    """What is known of one replica."""

    __slots__ = (
        "_gathered",
        "edge_ns",
        "lease_until_ns",
        "returned_ns",
        "standing",
        "stay",
        "streak",
        "ticks",
        "times",
        "until_ns",
        "window",
    )

    def __init__(self, rules: Rules) -> None:
        self.standing = Standing.IN
        self.stay = 0
        self.streak = 0
        self.times = 0
        """How often it was ejected, less what health has made good."""
        self.until_ns = self.lease_until_ns = 0
        self.returned_ns: int | None = None
        """When it came back last."""
        self.window = TimeWindow(rules.window_ns, BUCKETS)
        self.ticks = itertools.count()
        self._gathered = 0
        self.edge_ns = 0

    def roll(self, now_ns: int) -> None:
        """Gather the ticks of the fast lane into their bucket, then let time pass."""
        drawn = next(self.ticks)
        if drawn > self._gathered:
            self.window.add_ok(drawn - self._gathered)
        self._gathered = drawn + 1
        self.window.roll(now_ns)

    def open_fast_lane(self) -> None:
        """Allow it where a success would change nothing but a count."""
        quiet = self.standing is Standing.IN and self.streak == 0
        self.edge_ns = self.window.edge_ns if quiet else 0

    def move(self, standing: Standing) -> None:
        """Begin a new stay."""
        self.standing = standing
        self.stay += 1
        self.streak = 0
        self.edge_ns = 0


class Ejector:
    """The replicas of one cluster. Not safe for threads by itself, but for the fast lane described above."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.size = 0
        """How many replicas there are; kept up to date by the caller."""
        self._out: dict[Health, None] = {}

    @property
    def out(self) -> int:
        """How many get no traffic now."""
        return len(self._out)

    @property
    def may_eject(self) -> bool:
        """Whether one more may be out."""
        if self.rules.strict:
            return True
        return self.size > 1 and len(self._out) < max(1, self.size // 2)

    def forget(self, health: Health) -> None:
        """The replica is gone."""
        self._out.pop(health, None)

    def remember(self, health: Health) -> None:
        """The replica is there, perhaps again."""
        if health.standing is not Standing.IN:
            self._out[health] = None

    def probe_due(self, health: Health, now_ns: int) -> bool:
        """Whether somebody may take its probe."""
        if health.standing is Standing.OUT:
            return now_ns >= health.until_ns
        return health.standing is Standing.PROBING and now_ns >= health.lease_until_ns

    def take_probe(self, health: Health, now_ns: int) -> int | None:
        """The stay of the one attempt that is its probe, or None if there is none to take."""
        if not self.probe_due(health, now_ns):
            return None
        health.move(Standing.PROBING)
        health.lease_until_ns = now_ns + self.rules.probe_lease_ns
        return health.stay

    def settle(self, health: Health, stay: int, verdict: Verdict, now_ns: int, rand: float) -> Change | None:
        """Tell how an attempt ended that began in `stay`. `rand` in [0, 1) is for the jitter."""
        health.roll(now_ns)
        change = None
        if stay == health.stay and health.standing is not Standing.OUT:
            if health.standing is Standing.PROBING:
                change = self._settle_probe(health, verdict, now_ns, rand)
            elif verdict is not Verdict.IGNORE:
                change = self._settle(health, failed=verdict is Verdict.FAIL, now_ns=now_ns, rand=rand)
        health.open_fast_lane()
        return change

    def _settle_probe(self, health: Health, verdict: Verdict, now: int, rand: float) -> Change | None:
        if verdict is Verdict.FAIL:
            return self._eject(health, "its probe failed", now, rand)
        if verdict is Verdict.IGNORE:
            health.move(Standing.OUT)
            health.until_ns = now
            return None
        health.move(Standing.IN)
        health.returned_ns = now
        health.window.clear()
        self._out.pop(health, None)
        return Change(why="its probe succeeded", out_ns=None)

    def _settle(self, health: Health, *, failed: bool, now_ns: int, rand: float) -> Change | None:
        window, rules = health.window, self.rules
        window.record(now_ns, failed=failed, slow=False)
        if not failed:
            health.streak = 0
            return None
        health.streak += 1
        why = None
        if rules.consecutive is not None and health.streak >= rules.consecutive:
            why = f"{health.streak} attempts failed in a row"
        elif window.calls >= rules.min_calls and self._too_many(window.failed, window.calls):
            why = f"{window.failed} of {window.calls} attempts failed"
        if why is None or not self.may_eject:
            return None
        return self._eject(health, why, now_ns, rand)

    def _too_many(self, failed: int, calls: int) -> bool:
        rate = self.rules.failure_rate_ppm
        return rate is not None and failed * PPM >= rate * calls

    def _eject(self, health: Health, why: str, now: int, rand: float) -> Change:
        rules = self.rules
        if health.standing is Standing.IN and health.returned_ns is not None:
            health.times -= min(health.times, max(0, now - health.returned_ns) // rules.base_ns)
        health.times += 1
        # The cap leaves room for the jitter: what comes after it would bring everybody back at the cap together.
        length = min(rules.base_ns * health.times, rules.cap_ns * 5 // 6)
        length = (4 * length + 2 * length * int(rand * PPM) // PPM) // 5
        health.move(Standing.OUT)
        health.until_ns = now + length
        self._out[health] = None
        return Change(why=why, out_ns=length)
