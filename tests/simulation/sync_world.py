"""A world of one thread: calls within calls, in virtual time, so that guards are full and deadlines near."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

from seawall import Policy, deadline, events
from seawall.context import CURRENT
from seawall.errors import Rejected
from seawall.runtime import chance
from seawall.testing import VirtualClock
from tests.cancellation.bench import everything_is_home
from tests.simulation.calls import causes
from tests.simulation.endpoints import EndpointDown
from tests.simulation.shapes import Shape, draw, guards
from tests.simulation.world import Options, Report, jitter_of_time, locking, shown

__all__ = ["play_sync"]

DEEPEST = 3


def play_sync(options: Options) -> Report:
    """As `play`, for synchronous calls."""
    try:
        with locking(options.locked), VirtualClock() as clock:
            return _Thread(options, clock).run()
    except BaseException as error:
        error.add_note(f"replay: play_sync({options})")
        raise


class _Thread:
    def __init__(self, options: Options, clock: VirtualClock) -> None:
        self.options = options
        self.clock = clock
        self.random = random = Random(f"sync world {options.seed}")
        shared = guards(random, "shared", is_async=False)
        self.shapes = [draw(random, f"policy {i}", shared, is_async=False) for i in range(options.policies)]
        self.policies = [shared, *(shape.policy for shape in self.shapes)]
        self.calls: list[str] = []
        self.events: list[str] = []
        self.trouble = 0.0
        self.depth = 0
        self.number = 0

    def run(self) -> Report:
        undo = [chance.install(jitter_of_time), events.subscribe(lambda event: self.events.append(shown(event)))]
        try:
            for _ in range(self.options.calls):
                self.clock.advance(self.random.choice((0, 0.01, 0.3, 2)))
                self.trouble = self.random.choice((self.trouble, self.trouble, 0.0, 0.3, 1.0))
                self._call()
        finally:
            for each in reversed(undo):
                each()
        for policy in self.policies:
            for each in (policy, *(kept for _, kept in policy._by_key.items())):
                everything_is_home(each)
        snapshots = tuple(repr(policy.snapshot()) for policy in self.policies)
        return Report(str(self.clock.now_ns), tuple(self.calls), tuple(self.events), snapshots)

    def _call(self) -> None:
        shape = self.random.choice(self.shapes)
        form = self.random.choice(("call", "call", "decorated", "run", *shape.by_block))
        patience = self.random.choice((None, None, 0, 0.1, 1))
        if self.options.form is not None and form in ("call", "decorated", "run"):
            form = self.options.form
        self.number += 1
        number, context = self.number, CURRENT.get()
        within = contextlib.nullcontext() if patience is None else deadline(patience)
        try:
            with within:
                outcome = f"ok {self._by_form(shape, form, number)}"
        except Exception as error:
            kind = "rejected" if isinstance(error, Rejected) else "failed"
            seen = [type(each).__name__ for each in causes(error)]
            outcome = f"{kind} {seen} {error} {getattr(error, '__notes__', [])}"
        assert CURRENT.get() is context, "the context of the call is still in force"
        self.calls.append(f"{number} {self.clock.now_ns} {outcome}")

    def _by_form(self, shape: Shape, form: str, number: int) -> Any:
        policy: Policy = shape.policy.for_key(number % 3) if shape.keyed else shape.policy
        if form == "guard":
            with policy.guard():
                return self._work(self, number)
        if form == "attempts":
            result = None
            for attempt in policy.attempts():
                with attempt:
                    result = self._work(self, number)
            return result
        if form == "run":
            return policy.run(self._work, self, number).unwrap()
        return policy(self._work)(self, number) if form == "decorated" else policy.call(self._work, self, number)

    def _work(self, _endpoint: object, number: int) -> int:
        """Takes time, calls on while its permits are held, and fails as the times have it."""
        self.clock.advance(self.random.choice((0, 0.01, 0.1, 0.3)))
        if self.depth < DEEPEST and self.random.random() < 0.4:
            self.depth += 1
            self._call()
            self.depth -= 1
        if self.random.random() < self.trouble:
            raise self.random.choice(
                (EndpointDown("down"), EndpointDown("busy", 0.2), TimeoutError("late"), KeyError(1))
            )
        return number
