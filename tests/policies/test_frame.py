"""The healthy frame decides as the locked layers and the step-by-step chain do, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import linecache
import traceback
from random import Random

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, Switch, Timeout
from seawall.policies.registry import Registry
from seawall.policy.caller import Caller
from tests.policies.worlds import World, fail, in_both_worlds

SHAPES = {
    "breaker": lambda: (CircuitBreaker(min_calls=4, open_for=2, probes=2),),
    "count window": lambda: (CircuitBreaker(window_calls=6, min_calls=4, open_for=2, consecutive=3),),
    "slow": lambda: (CircuitBreaker(min_calls=4, open_for=2, slow_after="500ms", slow_rate=0.5),),
    "bulkhead": lambda: (Bulkhead(1, queue=1, max_wait=1), CircuitBreaker(min_calls=4, open_for=2)),
    "retry": lambda: (Retry(on=OSError, delay=0), CircuitBreaker(min_calls=4, open_for=2), Bulkhead(2)),
    "all": lambda: (
        Fallback("cached", on=LookupError, when=Switch("off", names=Registry())),
        Timeout(60),
        Retry(on=OSError, delay=0, until=lambda end: end != "again"),
        CircuitBreaker(min_calls=4, open_for=2, ok=lambda end: end != "bad"),
        Bulkhead(2),
        Timeout(None, name="each"),
        Policy(CircuitBreaker(min_calls=8, open_for=3), Bulkhead(1), name="nested"),
    ),
}


def three_alike(shape: str) -> list[Policy]:
    """The same policy with a generated frame, with a frame of locked layers, and without one."""
    framed, locked, careful = (Policy(*SHAPES[shape](), name="stock") for _ in range(3))
    locked.caller = Caller("stock", locked.layers, locked=True)
    careful.layers[0].fused = False
    return [framed, locked, careful]


def shown(policy: Policy) -> dict[str, object]:
    """The snapshot without what depends on the jitter."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items() if key != "retry_after"}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    return plain(policy.snapshot())  # type: ignore[return-value]


STEPS = ("well", "well", "well", "again", "bad", OSError, OSError, LookupError, TypeError, asyncio.CancelledError)


@pytest.mark.parametrize("shape", SHAPES)
@in_both_worlds
async def test_three_ways_one_behaviour(world: World, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from seawall.runtime import chance

    monkeypatch.setattr(chance, "random", lambda: 0.5)
    for seed in range(6):
        policies, random = three_alike(shape), Random(seed)
        for _ in range(40):
            step, pause = random.choice(STEPS), random.choice([0, 0, 0, 0.3, 1, 4])
            ends = []
            for policy in policies:
                try:
                    ends.append(await world.call(policy, (lambda: step) if isinstance(step, str) else fail(step)))
                except BaseException as error:
                    ends.append(type(error))
            assert ends[0] == ends[1] == ends[2], (seed, step)
            await world.passes(pause)
            first, second, third = map(shown, policies)
            assert first == second == third, (seed, step)


def test_policies_of_one_shape_share_one_compiled_frame() -> None:
    first, second = Policy(CircuitBreaker(), Bulkhead(1)), Policy(CircuitBreaker(), Bulkhead(99))
    assert first.call.__code__ is second.call.__code__
    assert first.call is not second.call


def test_tracebacks_show_the_lines_of_the_frame() -> None:
    with pytest.raises(ConnectionError) as caught:
        Policy(CircuitBreaker()).call(fail())
    (line,) = [entry for entry in traceback.extract_tb(caught.value.__traceback__) if "seawall frame" in entry.filename]
    assert "function(*args" in line.line
    assert linecache.getline(line.filename, 1).startswith("def make(")


def test_each_kind_of_call_is_built_at_its_first_use_only() -> None:
    policy = Policy(Timeout(1))
    assert "call" not in vars(policy)
    policy.call(str)
    assert ("call" in vars(policy), "acall" in vars(policy)) == (True, False)
    assert Policy.call.__doc__.startswith("Call a function under the policy.")
