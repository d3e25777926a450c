"""Cancels a coroutine at every point where it can be cancelled, one run for each: what leaks is found for certain.

A coroutine can be cancelled wherever its loop has control: between any two callbacks of the loop while it lives. That
covers "before it began", "while it waits", and the narrow "what it waits for has come, but it has not run yet" in which
most leaks live. Timed cancellation hits these by luck; here each is a numbered *point* and gets a run of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from seawall.testing._where import where
from seawall.testing.failures import RunFailure, SwallowedCancellation
from seawall.testing.loop import VirtualLoop

__all__ = ["Victim", "cancel_everywhere"]

T = TypeVar("T")


class Victim:
    """What a scenario gets: `await victim(coroutine)` runs the one coroutine that is to be cancelled."""

    def __init__(self, loop: VirtualLoop, plan: Sequence[int]) -> None:
        self._loop = loop
        self._plan = frozenset(plan)
        self._task: asyncio.Task[Any] | None = None
        self.points = 0
        """How many points its life has had so far."""
        self.stood: list[str] = []
        """Where it stood at each cancellation."""

    @property
    def cancelled(self) -> bool:
        """Whether it ended by being cancelled."""
        return self._task is not None and self._task.done() and self._task.cancelled()

    @property
    def started(self) -> bool:
        """Whether the scenario has handed over its coroutine."""
        return self._task is not None

    async def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run `coroutine` as a task until it ends. Its result, or `None` if it was cancelled; raises what it raised."""
        if self._task is not None:
            coroutine.close()
            raise RunFailure("a scenario has one victim: await victim(...) once")
        task = self._task = asyncio.create_task(coroutine, name="victim")
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    def pass_point(self) -> None:
        """Between two callbacks of the loop: cancel here if this is the point to try."""
        if self._task is None or self._task.done():
            return
        self.points += 1
        if self.points in self._plan:
            self.stood.append(f"t={self._loop.time():g} s, {where(self._task)}")
            self._task.cancel()


Scenario = Callable[[Victim], Coroutine[Any, Any, object]]


def cancel_everywhere(
    scenario: Scenario,
    check: Callable[[], object] | None = None,
    *,
    seeds: Iterable[int | None] = (None, 0, 1),
    twice: bool = False,
    may_swallow: bool = False,
    only: Sequence[int] | None = None,
    max_points: int = 10_000,
) -> int:
    """Run `scenario` once undisturbed and then once for each point of its victim's life, with a cancellation there.

    `scenario(victim)` builds a fresh world, starts whatever runs beside, awaits `victim(coroutine)` once, lets the rest
    end and asserts that everything is back where it belongs. It runs in virtual time (see `run`), so tasks that are
    left waiting, errors nobody handled and deadlocks fail it too. `check`, if given, is called after each run, when
    its loop is closed.

    All of it happens for each of `seeds`, the orders of ready tasks (`None` is asyncio's own order). `twice=True` also
    cancels a second time at each later point, such as during clean-up: the number of runs grows with the square. A
    victim that was cancelled and ended otherwise fails with `SwallowedCancellation`, unless `may_swallow=True`.
    `only=[k]` (or `[k, later]`) replays one case. `max_points` bounds the number of cases.

    Returns the number of cases tried. What a run raises carries a note with the point, the line where the victim stood
    and how to replay it. Raises `ValueError` if there are more than `max_points` cases, `RunFailure` if the scenario
    never starts its victim, or does not repeat itself.

    >>> async def scenario(victim):
    ...     seats = asyncio.Semaphore(1)
    ...     async def visit():
    ...         await seats.acquire()
    ...         try:
    ...             await asyncio.sleep(1)
    ...         finally:
    ...             seats.release()
    ...     other = asyncio.create_task(visit())      # holds the seat first, so that the victim has to wait
    ...     await victim(visit())
    ...     await other
    ...     assert not seats.locked(), "a seat is lost"
    >>> cancel_everywhere(scenario) > 5
    True
    """
    tried = 0
    for seed in seeds:
        driver = _Driver(scenario, check, seed, may_swallow)
        for _ in driver.each_case(twice) if only is None else (driver.try_at(tuple(only)),):
            tried += 1
            if tried > max_points:
                raise ValueError(f"more than max_points={max_points} cases: make the scenario smaller or raise it")
    return tried


class _Driver:
    def __init__(
        self, scenario: Scenario, check: Callable[[], object] | None, seed: int | None, may_swallow: bool
    ) -> None:
        self._scenario = scenario
        self._check = check
        self._seed = seed
        self._may_swallow = may_swallow

    def each_case(self, twice: bool) -> Iterable[int]:
        """Run the cases of one seed, one for each item taken."""
        for first in range(1, self.try_at(()) + 1):
            life = self.try_at((first,))
            yield life
            for second in range(first + 1, life + 1) if twice else ():
                yield self.try_at((first, second))

    def try_at(self, plan: tuple[int, ...]) -> int:
        """One run with cancellations at the points of `plan`; the number of points it had."""
        loop = VirtualLoop(seed=self._seed)
        victim = Victim(loop, plan)
        loop.after_turn = victim.pass_point
        try:
            loop.run(lambda: self._scenario(victim))
            self._judge(victim, plan)
            if self._check is not None:
                self._check()
        except BaseException as error:
            error.add_note(self._note(plan, victim))
            raise
        return victim.points

    def _judge(self, victim: Victim, plan: tuple[int, ...]) -> None:
        if not victim.started:
            raise RunFailure("the scenario never awaited victim(...)")
        if len(victim.stood) < len(plan):
            raise RunFailure(f"only {victim.points} points this time: the scenario does not repeat itself")
        if plan and not victim.cancelled and not self._may_swallow:
            raise SwallowedCancellation("the victim was cancelled, and ended as if it had not been")

    def _note(self, plan: tuple[int, ...], victim: Victim) -> str:
        if not plan:
            return f"without any cancellation, seed {self._seed}"
        stood = "".join(f"\n  point {point}: {place}" for point, place in zip(plan, victim.stood, strict=False))
        replay = f"cancel_everywhere(..., seeds=[{self._seed}], only={list(plan)})"
        return f"victim cancelled at {len(victim.stood)} point(s):{stood}\nreplay: {replay}"
