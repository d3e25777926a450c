"""A simulated cluster: fifty replicas in trouble under every strategy at once, then peace, in which all must be well."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from seawall import (
    Broadcast,
    BroadcastError,
    Cluster,
    DeadlineExceeded,
    Endpoint,
    Failover,
    Forking,
    RetryBudget,
    deadline,
    events,
)
from seawall.context import CURRENT
from seawall.machines.ejection import Standing
from seawall.runtime import chance
from seawall.testing import VirtualLoop
from tests.cancellation.bench import everything_is_home
from tests.simulation.calls import causes
from tests.simulation.cluster_shapes import DEGRADED, draw
from tests.simulation.cluster_watch import CALL, Call, Watch, budget_held
from tests.simulation.invariants import breakers_of
from tests.simulation.replicas import MOODS, Network
from tests.simulation.world import Report, jitter_of_time, shown

__all__ = ["Options", "play"]

ROUNDS, PEACE = 8, 60.0


class Options(NamedTuple):
    """What decides a run. Equal options give equal reports."""

    seed: int
    calls: int = 20
    endpoints: int = 50


class Plan(NamedTuple):
    """One call, decided before the world begins."""

    call: Call
    view: Cluster[Any]
    pause: float
    form: str
    deadline: float | None
    cancel_after: float | None


def play(options: Options) -> Report:
    """Run a world to its end; raises with the options as a note if a promise is broken."""
    loop = VirtualLoop(seed=options.seed)
    try:
        return loop.run(World(options, loop).main)
    except BaseException as error:
        error.add_note(f"replay: tests.simulation.cluster_world.play({options})")
        raise


class World:
    def __init__(self, options: Options, loop: VirtualLoop) -> None:
        self.options = options
        self.loop = loop
        self.random = Random(f"cluster world {options.seed}")
        self.network = Network(loop.random)
        self.addresses = [f"e{number}:80" for number in range(options.endpoints)]
        self.calls: list[str] = []
        self.events: list[str] = []
        self.extra: dict[str, list[float]] = {"failover": [], "staggered": []}
        self.made: Counter[str] = Counter()
        self.cancelled: set[asyncio.Task[None]] = set()

    async def main(self) -> Report:
        for number in range(self.options.endpoints + 10):
            self.network.add(f"e{number}:80")
        self.cluster, self.views, self.total = draw(self.random, "stock", self.addresses)
        self.watch = Watch(self.cluster, self.network, self.loop.time)
        self.watch.follow()
        undo = [chance.install(jitter_of_time), events.subscribe(self._take_event)]
        self.loop.after_turn = self._look
        try:
            await self._war()
            self.loop.after_turn = None
            await self._peace()
        finally:
            for each in reversed(undo):
                each()
        assert self.watch.steps > 0
        snapshots = repr(self.cluster.snapshot()), *(repr(view.calls.strategy.snapshot()) for view in self.views)
        return Report(self.loop.trace, tuple(self.calls), tuple(self.events), snapshots)

    def _look(self) -> None:
        if not self.loop._queue:
            self.watch.look()

    def _take_event(self, event: events.Event) -> None:
        self.events.append(shown(event))
        self.watch.take_event(event)
        if isinstance(event, events.ForkStarted):
            self.extra["staggered"].append(self.loop.time())

    # -- faults on ---------------------------------------------------------------------------------------------------

    def _plan(self, number: int) -> Plan:
        random = self.random
        return Plan(
            call=Call(number),
            view=random.choice((self.cluster, self.cluster, *self.views[:-1], *self.views)),
            pause=random.choice((0, 0, 0.01, 0.05, 0.2)),
            form=random.choice(("acall", "acall", "arun", "decorated")),
            deadline=random.choice((None, None, 0, 0.1, 0.5)),
            cancel_after=random.choice((None, None, None, 0, 0.005, 0.05, 0.3)),
        )

    async def _war(self) -> None:
        plans = [self._plan(number) for number in range(self.options.calls)]
        trouble = asyncio.create_task(self._trouble(), name="trouble")
        tasks: list[asyncio.Task[None]] = []
        for plan in plans:
            await asyncio.sleep(plan.pause)
            tasks.append(asyncio.create_task(self._call(plan), name=f"call {plan.call.number}"))
            if plan.cancel_after is not None:
                self.loop.call_later(plan.cancel_after, self._cancel, tasks[-1])
        await asyncio.sleep(self.random.uniform(0, 2))
        trouble.cancel()
        self.network.heal()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() == (task in self.cancelled), f"{task.get_name()}: a cancellation was lost"
            if not task.cancelled():
                task.result()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if task.cancel():
            self.cancelled.add(task)

    async def _trouble(self) -> None:
        """Replicas and links fail, the list of endpoints changes, people look."""
        random = self.loop.random
        for replica in self.network.all():
            replica.change(random.choice(MOODS))
        while True:
            await asyncio.sleep(random.expovariate(5))
            kind = random.random()
            if kind < 0.8:
                self.network.shake()
            elif kind < 0.95:
                self._change_the_list(random)
            else:
                view = random.choice(self.views)
                view.snapshot(), view.explain()

    def _change_the_list(self, random: Random) -> None:
        known = list(self.network.replicas)
        wanted = random.sample(known, min(random.choice((1, 2, 4, len(known) // 2, len(known))), len(known)))
        self.cluster.update([Endpoint(address, weight=random.choice((1, 1, 3))) for address in wanted])
        self.watch.follow()

    async def _call(self, plan: Plan) -> None:
        """One call of a user, timed and entered in the books."""
        begun, context, task = self.loop.now_ns, CURRENT.get(), asyncio.current_task()
        CALL.set(plan.call)
        self.made[plan.view.strategy.name] += 1
        outcome = "?"
        try:
            outcome = await self._outcome_of(plan)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            took = self.loop.now_ns - begun
            self.calls.append(f"{plan.call.number} {plan.view.strategy.name} {self.loop.now_ns} {outcome}")
            for limit in (plan.deadline, self.total):
                assert limit is None or took <= limit * 1e9, f"call {plan.call.number}: {took} ns, {limit} s were given"
            assert CURRENT.get() is context, "the context of the call is still in force"
            assert task is None or task.cancelling() == (task in self.cancelled), "cancelling() is out of balance"
            self._attempts_are_sound(plan)

    async def _outcome_of(self, plan: Plan) -> str:
        number, patience = plan.call.number, contextlib.nullcontext()
        with patience if plan.deadline is None else deadline(plan.deadline):
            try:
                value = await self._by_form(plan, number)
            except Exception as error:
                self._nothing_is_lost(plan, error)
                kinds = [type(each).__name__ for each in causes(error)]
                return f"failed {kinds} {error} {getattr(error, '__notes__', [])}"
        if isinstance(value, Mapping):
            assert set(value.values()) == {number}
            return f"ok {len(value)} endpoints"
        assert value in (number, DEGRADED), f"{value!r} is the answer of another call"
        if value == DEGRADED:
            self._nothing_is_lost(plan, None)
        return f"ok {value}"

    async def _by_form(self, plan: Plan, number: int) -> Any:
        if plan.form == "acall":
            return await plan.view.acall(self._work, number)
        if plan.form == "arun":
            outcome = await plan.view.arun(self._work, number)
            attempts = len(plan.call.attempts)
            assert attempts <= outcome.attempts, (
                f"{outcome.attempts} attempts, the function was called {attempts} times"
            )
            return outcome.unwrap()

        @plan.view
        async def decorated(endpoint: Endpoint, number: int) -> int:
            return await self._work(endpoint, number)

        return await decorated(number)

    async def _work(self, endpoint: Endpoint, number: int) -> int:
        call, context = CALL.get(), CURRENT.get()
        assert call.number == number
        call.attempts.append((endpoint.address, context.attempt, self.loop.now_ns))
        if context.deadline_ns is not None:
            assert self.loop.now_ns < context.deadline_ns, "an attempt after the deadline"
        call.running += 1
        try:
            answer = await self.network.replicas[endpoint.address].serve(number)
        finally:
            call.running -= 1
        call.answered_ns.append(self.loop.now_ns)
        return answer

    def _nothing_is_lost(self, plan: Plan, error: Exception | None) -> None:
        """A call fails or is answered otherwise only if no attempt had an answer before."""
        if isinstance(plan.view.strategy, Broadcast):
            assert not isinstance(error, BroadcastError) or len(error.succeeded) == len(plan.call.answered_ns)
            return
        if isinstance(plan.view.strategy, Forking) and error is not None and not isinstance(error, DeadlineExceeded):
            assert not plan.call.running, f"call {plan.call.number}: a failure won while others were still running"
        before = [when for when in plan.call.answered_ns if when < self.loop.now_ns]
        assert not before, f"call {plan.call.number}: an answer was lost"

    def _attempts_are_sound(self, plan: Plan) -> None:
        strategy, attempts = plan.view.strategy, plan.call.attempts
        numbers = [number for _, number, _ in attempts]
        assert len(set(numbers)) == len(numbers), f"call {plan.call.number}: two attempts have one number: {numbers}"
        if isinstance(strategy, Failover):
            assert len(attempts) <= strategy.retries + 1
            self.extra["failover"] += [when / 1e9 for _, number, when in attempts if number > 1]
        elif isinstance(strategy, Forking):
            assert len(attempts) <= strategy.n
            assert len({address for address, _, _ in attempts}) == len(attempts), "two forks at one endpoint"
        elif not isinstance(strategy, Broadcast):
            assert len(attempts) <= 1

    # -- faults off --------------------------------------------------------------------------------------------------

    async def _peace(self) -> None:
        await asyncio.sleep(0.001)  # losers of a fork are cancelled, not waited for
        assert not self.network.running, "something still runs"
        self._at_rest()
        self._budgets_held()
        for _ in range(ROUNDS):
            await asyncio.sleep(PEACE)
            await self._mend()
            if self._is_well():
                break
        answers = [await self._ask(view) for view in self.views]
        assert all(answers), f"still failing in peace: {[view.explain() for view in self.views]}"
        assert self._is_well(), f"still sick in peace: {[view.explain() for view in self.views]}"
        await asyncio.sleep(0.001)
        self._at_rest()

    async def _mend(self) -> None:
        """Call as users would, until every endpoint has been asked."""
        for view in {view.calls.roster: view for view in reversed(self.views)}.values():
            ejector = view.calls.roster._ejector
            for _ in range(2 * len(self.network.replicas)):
                await self._ask(view)
                if ejector is None or not ejector.out:
                    break
        for _ in range(2):
            if not self._has_open_breakers():
                break
            await self._ask(self.views[-1])  # the broadcast, so that every breaker gets its probes
            await asyncio.sleep(0.001)

    def _has_open_breakers(self) -> bool:
        policies = [member.policy for member in self.cluster._core.directory.members]
        return any(breaker.state != "closed" for policy in policies for breaker in breakers_of(policy))

    def _is_well(self) -> bool:
        rosters = {view.calls.roster for view in self.views}
        return (
            not any(roster.panic or (roster._ejector and roster._ejector.out) for roster in rosters)
            and all(health.standing is Standing.IN for roster in rosters for health in roster._healths.values())
            and not self._has_open_breakers()
        )

    async def _ask(self, view: Cluster[Any]) -> bool:
        call = Call(-2)
        CALL.set(call)
        outcome = await view.arun(self._work, call.number)
        return outcome.ok and not outcome.degraded

    def _at_rest(self) -> None:
        self.watch.at_rest()
        for member in self.watch.members:
            everything_is_home(member.policy)

    def _budgets_held(self) -> None:
        for name, view in (("failover", self.cluster), ("staggered", self.views[-2])):
            budget: RetryBudget | None = view.strategy.budget
            if budget is not None:
                calls = self.made[view.strategy.name]
                budget_held(budget, sorted(self.extra[name]), calls, slack=0.4)
