"""Runs the phases: the same users at the same moments on both sides, everything bounded."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Protocol, cast

from seawall.demo.client import session
from seawall.demo.layout import CAPACITY, PROCESSES, SIDES, Side
from seawall.demo.measure import PhaseResult, Run
from seawall.demo.phases import PHASES, Phase, Step
from seawall.demo.processes import StartError, all_of
from seawall.demo.shop import Shop
from seawall.demo.traffic import Arrival, Users, arrivals

MAX_WAITING: Final = 1_000
"""Users that one side may keep waiting at once; more are shown an error. It bounds the demo, no phase reaches it."""
OVERTIME_SECONDS: Final = 30.0
BACKLOG_SECONDS: Final = 10.0
"""How long a phase waits for work that is done later."""
REDRAW_SECONDS: Final = 0.1

Shops = Mapping[Side, Shop]


class Progress(Protocol):
    """Shows a running demo; called from the event loop, so it must be quick."""

    def starting(self, processes: int) -> None:
        """Say that the shops are being started."""

    def update(self, result: PhaseResult, elapsed: float) -> None:
        """Show a phase that runs."""

    def done(self, result: PhaseResult) -> None:
        """Show a phase that has ended."""


@asynccontextmanager
async def open_shops(run: Run, progress: Progress) -> AsyncGenerator[Shops]:
    """Both shops, open; whatever happens, none of their processes is left. Raises `StartError`."""
    progress.starting(PROCESSES)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(session())
        shops: Shops = {side: Shop(side, run.seed, run.pids, http) for side in SIDES}
        for shop in shops.values():
            stack.push_async_callback(shop.close)
        async with _one_error():
            await all_of(shop.open() for shop in shops.values())
        yield shops


async def run_phases(shops: Shops, run: Run, progress: Progress, phases: Sequence[Phase] = PHASES) -> None:
    """Run all phases into `run`. Raises `StartError` when a process fails."""
    async with _one_error():
        for number, phase in enumerate(phases):
            if number:
                await all_of(shop.renew(phases[number - 1].touched) for shop in shops.values())
            result = PhaseResult(phase, phase.load * CAPACITY, run.seconds)
            try:
                async with asyncio.timeout(run.seconds + OVERTIME_SECONDS):
                    await _run_phase(shops, run.seed, result, progress)
            except TimeoutError as error:
                late = f"{OVERTIME_SECONDS:g} s after its last user should have come"
                raise StartError(f"the phase {phase.name!r} had not ended {late}") from error
            run.results.append(result)
            progress.done(result)
    run.complete = True


async def heal(shops: Shops) -> None:
    """Start everything anew, whatever happened to it. Raises `StartError`."""
    async with _one_error():
        await all_of(shop.renew(shop.everything) for shop in shops.values())


async def _run_phase(shops: Shops, seed: str, result: PhaseResult, progress: Progress) -> None:
    async with session() as http:
        users = [Users(http, shops[side].url, result.tally(side)) for side in SIDES]
        planned = arrivals(f"{seed}:{result.phase.key}", result.rate, result.seconds)
        steps = result.phase.steps
        await _order(shops, [step for step in steps if step.at == 0])
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as outer:
            watching = outer.create_task(_show(result, progress, began))
            async with asyncio.TaskGroup() as group:
                group.create_task(_follow(shops, [step for step in steps if step.at > 0], began, result.seconds))
                await _send(group, result, users, planned, began)
            watching.cancel()
    await _collect(shops, result)


async def _send(
    group: asyncio.TaskGroup, result: PhaseResult, users: Sequence[Users], planned: Sequence[Arrival], began: float
) -> None:
    loop = asyncio.get_running_loop()
    for number, arrival in enumerate(planned):
        await asyncio.sleep(began + arrival.at - loop.time())
        result.lateness.append(loop.time() - began - arrival.at)
        # Neither side may always be the first to go.
        for side in users if number % 2 else reversed(users):
            side.tally.arrived += 1
            if side.tally.waiting > MAX_WAITING:
                side.tally.end("error", 0.0, "turned away by the demo")
            else:
                group.create_task(side.visit(arrival, f"{result.phase.key}-{number}"))


async def _follow(shops: Shops, steps: Sequence[Step], began: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    for at in sorted({step.at for step in steps}):
        await asyncio.sleep(began + at * seconds - loop.time())
        await _order(shops, [step for step in steps if step.at == at])


async def _order(shops: Shops, steps: Sequence[Step]) -> None:
    await all_of(shop.obey(step) for step in steps for shop in shops.values())


async def _show(result: PhaseResult, progress: Progress, began: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        progress.update(result, loop.time() - began)
        await asyncio.sleep(REDRAW_SECONDS)


async def _collect(shops: Shops, result: PhaseResult) -> None:
    """Ask both fronts what they did, when nothing waits there any more, and the ledgers what came of it."""
    prefix = f"{result.phase.key}-"
    for side, shop in shops.items():
        shop.check()
        stats = await shop.stats()
        deadline = asyncio.get_running_loop().time() + BACKLOG_SECONDS
        while stats["backlog"] and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(REDRAW_SECONDS)
            stats = await shop.stats()
        tally = result.tally(side)
        tally.sent, tally.cpu_seconds = stats["sent"], stats["cpu_seconds"]
        tally.charged, tally.audited = shop.ledger.orders("charged", prefix), shop.ledger.orders("audited", prefix)
        if side == "seawall":
            result.deeds, result.backlog, result.snapshot = stats["deeds"], stats["backlog"], stats["snapshot"]


@asynccontextmanager
async def _one_error() -> AsyncGenerator[None]:
    # One cause is enough for a message; the rest of a group are its consequences.
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
