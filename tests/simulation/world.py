"""One simulated world: callers, policies and services in trouble, then peace, in which everything must come home."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from seawall import Bulkhead, Policy, events
from seawall.context import CURRENT
from seawall.policy.caller import Caller
from seawall.runtime import chance, clock
from seawall.testing import VirtualLoop
from tests.cancellation.bench import everything_is_home
from tests.simulation.calls import Plan, by_form, outcome_of, plan
from tests.simulation.endpoints import MOODS, Endpoint
from tests.simulation.invariants import Watch, breakers_of, live_layers
from tests.simulation.shapes import Shape, draw, guards

__all__ = ["Options", "Report", "jitter_of_time", "locking", "play", "shown"]

PEACE = 100.0
ROUNDS = 8


class Options(NamedTuple):
    """What decides a run. Equal options give equal reports."""

    seed: int
    calls: int = 36
    policies: int = 3
    locked: bool = False
    """Whether every layer takes its lock, as where the interpreter has none of its own."""
    form: str | None = None
    """One form for all calls that no block makes; None leaves it to the seed."""


class Report(NamedTuple):
    """All that can be seen of a run from outside."""

    trace: str
    calls: tuple[str, ...]
    events: tuple[str, ...]
    snapshots: tuple[str, ...]


def play(options: Options) -> Report:
    """Run a world to its end; raises with the options as a note if a promise is broken."""
    loop = VirtualLoop(seed=options.seed)
    try:
        with locking(options.locked):
            return loop.run(World(options, loop).main)
    except BaseException as error:
        error.add_note(f"replay: play({options})")
        raise


@contextlib.contextmanager
def locking(locked: bool) -> Iterator[None]:
    """Policies made in the block use no fast lane."""
    defaults: Any = Caller.__init__.__kwdefaults__
    before, defaults["locked"] = defaults["locked"], locked or defaults["locked"]
    try:
        yield
    finally:
        defaults["locked"] = before


def jitter_of_time() -> float:
    """A number in [0, 1) that depends on the instant alone: how often somebody draws must not decide a run."""
    return clock.now_ns() * 2_654_435_761 % 2**32 / 2**32


def shown(event: events.Event) -> str:
    """An event with its instant, without what differs from process to process."""
    error = getattr(event, "error", None)
    fields = {**vars(event), "error": f"{type(error).__name__}: {error}"} if error else vars(event)
    return f"{clock.now_ns()} {type(event).__name__} {fields}"


class World:
    def __init__(self, options: Options, loop: VirtualLoop) -> None:
        self.options = options
        self.loop = loop
        self.random = Random(f"world {options.seed}")
        self.outcomes: dict[str, Counter[str]] = {}
        self.calls: list[str] = []
        self.events: list[str] = []
        self.retries: dict[str, list[float]] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.cancelled: set[asyncio.Task[None]] = set()

    async def main(self) -> Report:
        self.endpoints = [Endpoint(f"endpoint {index}", self.loop.random) for index in range(2)]
        self.shared = guards(self.random, "shared")
        nested = self.shared if self.random.random() < 0.5 else None
        self.shapes = [draw(self.random, f"policy {index}", nested) for index in range(self.options.policies)]
        self.policies = [self.shared, *(shape.policy for shape in self.shapes)]
        watch = self.loop.after_turn = Watch(self.policies)
        undo = [chance.install(jitter_of_time), events.subscribe(self._take_event)]
        try:
            await self._war()
            self.loop.after_turn = None
            await self._peace()
        finally:
            for each in reversed(undo):
                each()
        assert watch.steps > 0
        snapshots = tuple(repr(policy.snapshot()) for policy in self.policies)
        return Report(self.loop.trace, tuple(self.calls), tuple(self.events), snapshots)

    # -- faults on -----------------------------------------------------------------------------------------------

    async def _war(self) -> None:
        plans = [plan(self.random, self.shapes, number) for number in range(self.options.calls)]
        trouble = asyncio.create_task(self._trouble(), name="trouble")
        for each in plans:
            await asyncio.sleep(each.pause)
            task = asyncio.create_task(self._call(each), name=f"call {each.number}")
            self.tasks.append(task)
            if each.cancel_after is not None:
                self.loop.call_later(each.cancel_after, self._cancel, task)
        await asyncio.sleep(self.random.uniform(0, 3))
        trouble.cancel()
        for endpoint in self.endpoints:
            endpoint.heal()
        await asyncio.wait(self.tasks)
        for task in self.tasks:
            assert task.cancelled() == (task in self.cancelled), f"{task.get_name()}: a cancellation was lost"
            if not task.cancelled():
                task.result()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if task.cancel():
            self.cancelled.add(task)

    async def _trouble(self) -> None:
        """Endpoints change their mood, operators turn knobs, people look."""
        random = self.loop.random
        while True:
            await asyncio.sleep(random.expovariate(4))
            random.choice(self.endpoints).change(random.choice(MOODS))
            if random.random() < 0.3:
                self._turn_a_knob(random, random.choice(self.shapes))

    def _turn_a_knob(self, random: Random, shape: Shape) -> None:
        policy = shape.policy
        policy.snapshot(), policy.explain()
        if shape.switch is not None:
            shape.switch.turn_on(why="peak", lasting=random.choice((None, 0.3)))
        with contextlib.suppress(KeyError):
            policy[Bulkhead].resize(random.randrange(1, 6))
        for breaker in breakers_of(policy):
            getattr(breaker, random.choice(("force_open", "disable", "watch", "auto", "auto", "reset")))()

    async def _call(self, each: Plan) -> None:
        """One call of a user, timed and entered in the books."""
        begun, context, task = self.loop.now_ns, CURRENT.get(), asyncio.current_task()
        outcome = "?"
        try:
            outcome = await outcome_of(by_form(each, self.options.form, self._work, self.endpoints[each.endpoint]))
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            took = self.loop.now_ns - begun
            self.outcomes.setdefault(each.shape.policy.name, Counter())[outcome.partition(" ")[0]] += 1
            self.calls.append(f"{each.number} {self.loop.now_ns} {outcome}")
            total = each.shape.total
            assert total is None or took <= total * 1e9, f"{took} ns, for a call of at most {total} s"
            assert CURRENT.get() is context, "the context of the call is still in force"
            assert task is None or task.cancelling() == (task in self.cancelled), "cancelling() is out of balance"

    async def _work(self, policy: Policy, endpoint: Endpoint, number: int) -> int:
        for layer in policy.layers:
            assert getattr(layer, "state", "") not in ("open", "forced_open") or layer.snapshot()["mode"] == "shadow", (
                f"{layer.policy}: an open breaker let a call through"
            )
        return await endpoint.serve(number)

    def _take_event(self, event: events.Event) -> None:
        self.events.append(shown(event))
        if isinstance(event, events.RetryScheduled):
            self.retries.setdefault(event.policy, []).append(self.loop.time())

    # -- faults off ------------------------------------------------------------------------------------------------

    async def _peace(self) -> None:
        await asyncio.sleep(0.001)  # losers of a hedge are cancelled, not waited for
        assert not any(endpoint.running for endpoint in self.endpoints), "something still runs"
        for policy in self.policies:
            _at_rest(policy)
        for shape in self.shapes:
            self._books_balance(shape)
        for policy in self.policies:
            for breaker in breakers_of(policy):
                breaker.auto()
        for shape in self.shapes:
            if shape.switch is not None:
                shape.switch.turn_off()
        for _ in range(ROUNDS):
            await asyncio.sleep(PEACE)
            answers = [await self._try_all(shape) for shape in self.shapes]
        assert all(answers), f"still refused or failing in peace: {[shape.policy.explain() for shape in self.shapes]}"
        for policy in self.policies:
            used = policy is not self.shared or any(self.shared in shape.policy.specs for shape in self.shapes)
            for breaker in breakers_of(policy) if used else ():
                # What newcomers share while all compartments are busy is not asked for again in peace.
                assert breaker.policy.endswith("[*]") or breaker.state == "closed", (
                    f"{breaker.policy}: {breaker.explain()}"
                )
            _at_rest(policy)

    async def _try_all(self, shape: Shape) -> bool:
        """One call for each key; whether all are answered in full."""
        answers: list[object] = []
        for number in range(3):
            policy = shape.policy.for_key(number) if shape.keyed else shape.policy
            answers.append((await policy.arun(self.endpoints[0].serve_numbered, self.endpoints[0], number)).value)
        return answers == [0, 1, 2]

    def _books_balance(self, shape: Shape) -> None:
        policy, counted = shape.policy, self.outcomes.get(shape.policy.name, Counter[str]())
        kept = [each for _, each in policy._by_key.items()]
        shots = [each.snapshot() for each in (policy, *kept)]
        booked = {kind: sum(shot[kind] for shot in shots) for kind in ("ok", "failed", "rejected", "cancelled")}
        assert booked == {kind: counted[kind] for kind in booked}, f"{policy.name}: {counted}"
        assert sum(shot["calls"] for shot in shots) == sum(counted.values())
        if shape.budget is not None and not shape.keyed:
            self._budget_held(shape, sum(counted.values()))

    def _budget_held(self, shape: Shape, calls: int) -> None:
        assert shape.budget is not None
        times, span = self.retries.get(shape.policy.name, []), float(shape.budget.window)
        most = shape.budget.share * calls + shape.budget.per_second * span
        for first, start in enumerate(times):
            within = sum(time - start < 0.9 * span for time in times[first:])
            assert within <= most, f"{within} retries in {span} s, for {calls} calls"


def _at_rest(policy: Policy) -> None:
    for each in (policy, *(kept for _, kept in policy._by_key.items())):
        everything_is_home(each)
    assert not any(getattr(layer, "waiting", 0) for layer in live_layers(policy))
