"""`Switch`: planned degradation, turned on by a person and off again by a person or by itself."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from seawall import events
from seawall.errors import Degraded
from seawall.policies.layer import Fast, Lane, Live, Site
from seawall.policies.registry import Registry, registry
from seawall.policies.spec import Spec
from seawall.record import Record
from seawall.runtime import clock, forks
from seawall.units import Duration, duration_ns

__all__ = ["Switch", "SwitchGuard", "Turn"]

REMEMBERED = 100


class Turn(Record):
    """One entry of the audit trail: at `at` (seconds since 1970) `by` turned it on or off, and `why`."""

    at: float
    on: bool
    by: str
    why: str
    expires_in: float | None


class Switch:
    """While it is on, every `Fallback(..., when=switch)` answers without making the call.

    For expected peaks and maintenance. It is found by its name in `registry.switches`; the last 100 turns are kept in
    `history`, each is an event, and it shows in `explain()` and `snapshot()` of the policies that use it.

    Example:
        >>> from seawall import Policy, Fallback, Switch
        >>> sale = Switch("recommendations")
        >>> shelf = Policy(Fallback(["bestsellers"], when=sale), name="shelf")
        >>> sale.turn_on(why="black friday", by="ops", lasting="6h")
        >>> shelf.run(lambda: ["for you"]).value
        ['bestsellers']
        >>> sale.turn_off(by="ops"); shelf.call(lambda: ["for you"])
        ['for you']
    """

    def __init__(self, name: str, *, names: Registry = registry) -> None:
        self.name = name
        self.history: deque[Turn] = deque(maxlen=REMEMBERED)
        self.lit = False
        """Whether it was turned on and has not been found expired; `is_on` is the whole truth."""
        self._until_ns: int | None = None
        self._lock = threading.RLock()
        names.switches[name] = self
        forks.renew_after_fork(self)

    def turn_on(self, *, why: str, by: str = "", lasting: Duration | None = None) -> None:
        """Degrade from now on, or only for a time. Raises `ConfigError` if `lasting` is not a duration above 0."""
        lasting_ns = None if lasting is None else duration_ns(lasting, "turn_on(lasting)", zero=False)
        self._turn(True, by, why, lasting_ns)

    def turn_off(self, *, why: str = "", by: str = "") -> None:
        """Serve in full again."""
        self._turn(False, by, why, None)

    @property
    def is_on(self) -> bool:
        """Whether it is on now; an expired one turns itself off when it is asked."""
        until = self._until_ns  # before `lit`: it is cleared after it, so None here means that there is no end
        if not self.lit:
            return False
        if until is not None and clock.now_ns() >= until:
            self._turn(False, "itself", "expired", None, expiring=until)
            return self.lit
        return True

    @property
    def expires_in(self) -> float | None:
        """Seconds until it turns itself off; None if it will not."""
        until = self._until_ns
        return None if until is None else max(0, until - clock.now_ns()) / 1e9

    def _turn(self, on: bool, by: str, why: str, lasting_ns: int | None, expiring: int | None = None) -> None:
        expires_in = None if lasting_ns is None else lasting_ns / 1e9
        with self._lock:
            if expiring is not None and self._until_ns != expiring:
                return  # another one saw it expire, or a hand turned it meanwhile
            self.lit = on
            self._until_ns = None if lasting_ns is None else clock.now_ns() + lasting_ns
            self.history.append(Turn(clock.wall_time(), on, by, why, expires_in))
        if events.sinks:
            events.emit(
                events.SwitchChanged(policy=self.name, layer="Switch", on=on, by=by, why=why, expires_in=expires_in)
            )

    def __repr__(self) -> str:
        return f"Switch({self.name!r}, {'on' if self.is_on else 'off'})"

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()


class SwitchGuard(Live):
    """Refuses with `Degraded` while its switch is on; stands directly inside the fallback that answers."""

    kind = "switch"
    by_hand = False

    def __init__(self, site: Site, spec: Spec, switch: Switch) -> None:
        super().__init__(site, spec)
        self.switch = switch
        self.name = f"the switch {switch.name!r}"

    def lane(self, *, is_async: bool) -> Lane:
        fast = Fast(enter=("if $switch.lit:", "    $enter()"), names={"switch": self.switch, "enter": self._enter})
        return Lane(self._enter, fast=fast)

    def _enter(self) -> None:
        if self.switch.is_on:
            self._refuse()

    def _refuse(self) -> None:
        self.emit_refused(Degraded.reason)
        if not self.shadow:
            left = self.switch.expires_in
            raise Degraded(
                f"the switch {self.switch.name!r} is on", policy=self.policy, measured=1, threshold=0, retry_after=left
            )

    @property
    def refuses(self) -> bool:
        return self.switch.is_on and not self.shadow

    def snapshot(self) -> dict[str, Any]:
        last = self.switch.history[-1] if self.switch.history else None
        return {"switch": self.switch.name, "on": self.switch.is_on, "why": last.why if last else ""}

    def explain(self) -> str:
        if not self.switch.is_on:
            return f"The switch {self.switch.name!r} is off."
        last = self.switch.history[-1]
        who = f" by {last.by}" if last.by else ""
        return f"The switch {self.switch.name!r} was turned on{who} ({last.why}): the fallback answers without a call."
