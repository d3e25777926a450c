"""Runs the phases: twin services, the same users at the same moments on both sides, everything bounded."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol, cast

from seawall.demo.measure import PhaseResult, Run
from seawall.demo.policy import NAME, recommendations
from seawall.demo.process import Service
from seawall.demo.service import CAPACITY
from seawall.demo.shop import Shop, session
from seawall.demo.sides import Deeds, Guarded, Plain, Side
from seawall.demo.traffic import PHASES, Arrival, Order, Phase, Step, arrivals

MAX_WAITING: Final = 1_000
"""Users that one side may keep waiting at once; more are shown an error. It bounds the demo, no phase reaches it."""
OVERTIME_SECONDS: Final = 20.0
REDRAW_SECONDS: Final = 0.1


class Progress(Protocol):
    """Shows a running demo; called from the event loop, so it must be quick."""

    def update(self, result: PhaseResult, elapsed: float) -> None:
        """Show a phase that runs."""

    def done(self, result: PhaseResult) -> None:
        """Show a phase that has ended."""


async def run_demo(run: Run, progress: Progress, phases: Sequence[Phase] = PHASES) -> None:
    """Run all phases into `run`; raises `StartError` when a service does not start."""
    for phase in phases:
        result = PhaseResult(phase, phase.load * CAPACITY, run.seconds)
        try:
            await _run_phase(run, result, progress)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        run.results.append(result)
        progress.done(result)
    run.complete = True


async def _run_phase(run: Run, result: PhaseResult, progress: Progress) -> None:
    seed = f"{run.seed}:{result.phase.key}"
    twins = (Service(seed, run.pids), Service(seed, run.pids))
    async with AsyncExitStack() as stack:
        # Left in reverse order: sessions first, then the services, whatever happens.
        for service in twins:
            stack.push_async_callback(service.kill)
        await _all(service.start() for service in twins)
        plain_session = await stack.enter_async_context(session())
        guarded_session = await stack.enter_async_context(session())
        policy = recommendations()
        sides: tuple[Side, Side] = (
            Plain(Shop(plain_session, twins[0].url, result.plain), result.plain),
            Guarded(Shop(guarded_session, twins[1].url, result.seawall), result.seawall, policy),
        )
        planned = arrivals(seed, result.rate, run.seconds)
        with Deeds(NAME) as deeds:
            async with asyncio.timeout(run.seconds + OVERTIME_SECONDS):
                await _send(result, sides, twins, planned, progress)
        result.deeds = dict(deeds.counts)
        result.snapshot = policy.snapshot()


async def _send(
    result: PhaseResult,
    sides: tuple[Side, Side],
    twins: tuple[Service, Service],
    planned: Sequence[Arrival],
    progress: Progress,
) -> None:
    for step in result.phase.steps:
        if step.at == 0:
            await _order(twins, step.order)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as outer:
        watching = outer.create_task(_show(result, progress, began))
        async with asyncio.TaskGroup() as group:
            later = [step for step in result.phase.steps if step.at > 0]
            group.create_task(_follow(later, twins, began, result.seconds))
            for number, arrival in enumerate(planned):
                await asyncio.sleep(began + arrival.at - loop.time())
                result.lateness.append(loop.time() - began - arrival.at)
                # Neither side may always be the first to go.
                for side in sides if number % 2 else reversed(sides):
                    _admit(group, side, arrival.user)
        watching.cancel()


def _admit(group: asyncio.TaskGroup, side: Side, user: int) -> None:
    tally = side.tally
    tally.arrived += 1
    if tally.waiting > MAX_WAITING:
        tally.end("error", 0.0, "turned away by the demo")
        return
    group.create_task(_visit(side, user))


async def _visit(side: Side, user: int) -> None:
    loop = asyncio.get_running_loop()
    came = loop.time()
    ending, reason = await side.visit(user)
    side.tally.end(ending, loop.time() - came, reason)


async def _follow(steps: Sequence[Step], twins: Sequence[Service], began: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    for step in steps:
        await asyncio.sleep(began + step.at * seconds - loop.time())
        await _order(twins, step.order)


async def _order(twins: Sequence[Service], order: Order) -> None:
    await _all(service.obey(order) for service in twins)


async def _show(result: PhaseResult, progress: Progress, began: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        progress.update(result, loop.time() - began)
        await asyncio.sleep(REDRAW_SECONDS)


async def _all(things: Iterable[Coroutine[object, object, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for thing in things:
            group.create_task(thing)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    # One cause is enough for a message; the rest of a group are its consequences.
    first = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
