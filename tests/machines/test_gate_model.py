"""The gate does, step by step, what a list of holders and a list of waiting ones would do."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seawall.machines.gate import Gate, GatePermit, Ticket
from tests.machines.effort import MODEL


class BesideItsLists(RuleBasedStateMachine):
    """Comers and goers, by the fast lane and under the lock, a changing limit, and forks."""

    @initialize(limit=st.integers(1, 4), queue=st.integers(0, 4))
    def begin(self, limit: int, queue: int) -> None:
        self.gate = Gate(limit, queue)
        self.limit = limit
        self.holders: list[GatePermit] = []
        self.line: list[Ticket] = []
        self.granted: list[Ticket] = []
        self.lost: list[GatePermit] = []

    # -- the model -------------------------------------------------------------------------------------------------

    def used(self) -> int:
        return len(self.holders) + len(self.granted)

    def grants_in_order(self, told: list[Ticket]) -> None:
        """Who stands first in the line has been granted first, as many as there is room for, and nobody else."""
        room = max(0, self.limit - self.used())
        due, self.line = self.line[:room], self.line[room:]
        assert told == due
        assert all(ticket.granted is not None for ticket in due)
        self.granted += due

    # -- coming ----------------------------------------------------------------------------------------------------

    @rule()
    def one_comes_under_the_lock(self) -> None:
        permit = self.gate.take()
        assert (permit is not None) == (not self.line and self.used() < self.limit)
        if permit is not None:
            self.holders.append(permit)

    @rule()
    def one_comes_by_the_fast_lane(self) -> None:
        if not self.gate.waiting and self.gate.free:
            assert not self.line and self.used() < self.limit
            self.holders.append(self.gate.free.pop())

    @rule()
    def one_gets_in_line(self) -> None:
        room = not self.line and self.used() < self.limit
        ticket = self.gate.join()
        if len(self.line) >= self.gate.queue:
            assert ticket is None
            return
        assert ticket is not None
        if room:
            assert ticket.granted is not None
            self.granted.append(ticket)
        else:
            assert ticket.granted is None
            self.line.append(ticket)

    # -- going -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0, 9), fast=st.booleans())
    def one_goes(self, which: int, fast: bool) -> None:
        permit = self.holders.pop(which % len(self.holders))
        if fast and not self.gate.waiting and permit is self.gate.permit:
            self.gate.free.append(permit)
            assert not self.gate.waiting
        else:
            self.grants_in_order(self.gate.release(permit))

    @precondition(lambda self: self.granted)
    @rule(which=st.integers(0, 9))
    def one_that_was_granted_begins(self, which: int) -> None:
        ticket = self.granted.pop(which % len(self.granted))
        assert ticket.granted is not None
        self.holders.append(ticket.granted)

    @precondition(lambda self: self.line or self.granted)
    @rule(which=st.integers(0, 9))
    def one_loses_patience(self, which: int) -> None:
        """Even when it was granted at that very moment."""
        tickets = self.granted + self.line
        ticket = tickets[which % len(tickets)]
        (self.granted if ticket in self.granted else self.line).remove(ticket)
        self.grants_in_order(self.gate.leave(ticket))
        assert ticket.granted is None
        assert self.gate.leave(ticket) == [], "leaving twice changes nothing"

    @precondition(lambda self: self.lost)
    @rule()
    def one_from_before_the_fork_goes(self) -> None:
        permit = self.lost.pop()
        assert permit is not self.gate.permit, "the fast lane must not take it"
        self.grants_in_order(self.gate.release(permit))

    # -- by hand ---------------------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 6))
    def the_limit_changes(self, limit: int) -> None:
        self.limit = limit
        self.grants_in_order(self.gate.resize(limit))

    @rule(sure=st.integers(0, 4))
    def the_process_forks(self, sure: int) -> None:
        if sure == 4:
            self.gate.begin_epoch()
            self.lost += self.holders
            self.holders, self.granted, self.line = [], [], []
            assert self.gate.in_use == 0

    # -- at any time -----------------------------------------------------------------------------------------------

    @invariant()
    def all_permits_are_accounted_for(self) -> None:
        if not hasattr(self, "gate"):
            return
        gate, used = self.gate, self.used()
        assert gate.in_use == used
        assert list(gate.waiting) == self.line
        assert used + len(gate.free) == gate.limit + gate.excess
        assert gate.limit == self.limit
        assert gate.excess == max(0, used - gate.limit), "no more is in use than the limit, but for what still drains"
        assert not (gate.free and (gate.waiting or gate.excess))
        assert len(gate.waiting) <= gate.queue


def test_the_gate_is_equal_to_its_model() -> None:
    """First come first served, nothing lost or doubled, growing and draining, forks; both lanes."""
    run_state_machine_as_test(BesideItsLists, settings=MODEL)


def filled(limit: int, queue: int) -> tuple[Gate, list[GatePermit], list[Ticket]]:
    gate = Gate(limit, queue)
    permits: list[Any] = [gate.take() for _ in range(limit)]
    tickets: list[Any] = [gate.join() for _ in range(queue)]
    return gate, permits, tickets


def test_first_come_first_served_and_no_overtaking() -> None:
    """Permits that come back go down the line; who comes later may not take one while somebody waits."""
    gate, permits, tickets = filled(3, 3)
    for permit, ticket in zip(permits, tickets, strict=True):
        assert gate.take() is None
        assert gate.release(permit) == [ticket]
    assert gate.take() is None


def test_a_ticket_granted_as_it_leaves_hands_its_permit_to_the_next() -> None:
    """Time is up and the permit comes in the same instant: it is not lost."""
    gate, permits, (first, second) = filled(1, 2)
    gate.release(permits[0])
    assert first.granted is not None
    assert gate.leave(first) == [second]
    assert second.granted is not None
    assert gate.in_use == 1


def test_below_use_a_resize_drains_and_the_fast_lane_knows() -> None:
    """Permits handed out before a shrinking are no longer `permit`, so each comes back by the slow way and vanishes."""
    gate, permits, tickets = filled(3, 1)
    gate.resize(1)
    assert all(permit is not gate.permit for permit in permits)
    for permit, (used, granted) in zip(permits, [(2, False), (1, False), (1, True)], strict=True):
        assert bool(gate.release(permit)) is granted
        assert gate.in_use == used
    assert tickets[0].granted is gate.permit


def test_after_a_fork_all_permits_are_free_and_old_ones_do_not_count() -> None:
    """In the child nobody holds and nobody waits; the parent's permits come back into nothing."""
    gate, permits, tickets = filled(2, 2)
    gate.resize(1)
    gate.begin_epoch()
    assert (gate.in_use, len(gate.free), len(gate.waiting), gate.excess) == (0, 1, 0, 0)
    for permit in permits:
        assert permit is not gate.permit
        assert gate.release(permit) == []
    assert len(gate.free) == 1
    assert tickets[0].granted is None


def test_what_the_fast_lane_gave_back_beside_a_waiting_one_is_not_for_newcomers() -> None:
    """It saw nobody waiting, then gave back; until it looks again the permit is free, and still goes to the line."""
    gate, permits, (first,) = filled(1, 1)
    gate.free.append(permits[0])
    assert gate.take() is None
    assert gate.pass_on() == [first]


def test_nobody_is_granted_without_the_one_who_must_wake_him_being_told() -> None:
    """Who gets in line behind another does not quietly grant the other what the fast lane has just given back."""
    gate = Gate(1, 2)
    permit = gate.take()
    first = gate.join()
    assert permit is not None and first is not None
    gate.free.append(permit)
    second = gate.join()
    assert second is not None
    assert first.granted is None
    assert gate.pass_on() == [first]
