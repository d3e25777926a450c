"""A breaker around each server: while one is down, nobody waits for it."""

from __future__ import annotations

from seawall import events
from seawall.machines.breaker import Breaker, Permit, Refusal, Rules, State, Transition
from seawall.machines.verdict import Ended, Verdict
from seawall.policies.breaker_words import because
from seawall.runtime import chance, clock
from seawall.runtime.section import Section
from seawall.stores.valkey.site import Address

__all__ = ["Breakers"]

MOST = 4_096


class Breakers:
    """One for each server, for all threads and loops of a process."""

    def __init__(self, store: str, rules: Rules | None) -> None:
        self._store = store
        self._rules = rules
        self._lock = Section()
        self._by_address: dict[Address, Breaker] = {}

    def is_open(self, address: Address) -> bool:
        """Whether a call would be refused now; asks for nothing."""
        breaker = self._by_address.get(address)
        return breaker is not None and breaker.state is State.OPEN and clock.now_ns() < breaker.until_ns

    def wait_ns(self, address: Address | None) -> int:
        """How long until it is asked again; 0 if it is not open."""
        breaker = None if address is None else self._by_address.get(address)
        return 0 if breaker is None else max(0, breaker.until_ns - clock.now_ns())

    def admit(self, address: Address) -> Permit | None:
        """Leave to ask a server; None if it is not asked now."""
        if self._rules is None:
            return Permit(-1, clock.now_ns())
        with self._lock:
            breaker = self._by_address.get(address)
            if breaker is None:
                if len(self._by_address) >= MOST:
                    self._by_address.clear()  # servers of a cluster that has changed often
                breaker = self._by_address[address] = Breaker(self._rules)
            answer = breaker.admit(clock.now_ns(), chance.random())
        self._announce(address, answer.transition)
        return None if isinstance(answer, Refusal) else answer

    def settle(self, address: Address, permit: Permit, verdict: Verdict) -> None:
        """Tell how it went."""
        if self._rules is None:
            return
        if self._lock.put_off(lambda: self.settle(address, permit, verdict)):
            return
        now = clock.now_ns()
        with self._lock:
            breaker = self._by_address.get(address)
            ended = Ended(verdict, now - permit.started_ns)
            change = None if breaker is None else breaker.settle(permit, ended, now, chance.random())
        self._announce(address, change)

    def states(self) -> dict[str, str]:
        """The state of each, for people."""
        return {f"{host}:{port}": breaker.label for (host, port), breaker in list(self._by_address.items())}

    def _announce(self, address: Address, change: Transition | None) -> None:
        if change is None or not events.sinks or self._rules is None:
            return
        why = "the pause is over" if change.after == "half_open" else "the server answers again"
        if change.trip is not None:
            why = because(change.trip, self._rules).strip(" ()")
        events.emit(
            events.BreakerChanged(
                policy=self._store,
                layer=f"{address[0]}:{address[1]}",
                before=change.before,
                after=change.after,
                why=why,
                retry_after=change.open_ns / 1e9 if change.open_ns else None,
            )
        )
