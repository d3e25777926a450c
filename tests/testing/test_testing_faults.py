"""Fakes fail to order, in threads and in asyncio alike, and keep account of their calls."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from seawall.errors import ConfigError
from seawall.testing import CannotHang, Flaky, Script, VirtualClock, hang, returns, run, slow


def sync(fake: Script | Flaky, *args: Any, **kwargs: Any) -> Any:
    with VirtualClock():
        return fake(*args, **kwargs)


def in_loop(fake: Script | Flaky, *args: Any, **kwargs: Any) -> Any:
    return run(lambda: fake.aio(*args, **kwargs))


@pytest.mark.parametrize("call", [sync, in_loop])
def test_a_script_plays_its_steps_and_repeats_the_last(call: Any) -> None:
    mine = ConnectionError("mine")
    script = Script(TimeoutError, mine, "value", None)
    with pytest.raises(TimeoutError):
        call(script, 1, two=2)
    with pytest.raises(ConnectionError) as caught:
        call(script)
    assert caught.value is mine
    assert [call(script) for _ in range(3)] == ["value", None, None]
    assert script.calls[:2] == [((1,), {"two": 2}), ((), {})]
    assert (script.running, script.most_running) == (0, 1)


def test_after_the_last_step_it_may_begin_anew_or_fail() -> None:
    cycle = Script(1, 2, then="cycle")
    assert [cycle() for _ in range(5)] == [1, 2, 1, 2, 1]
    once = Script(1, then="fail")
    once()
    with pytest.raises(AssertionError, match="call 2 of a script of 1"):
        once()


def test_an_error_raised_again_does_not_grow_its_traceback() -> None:
    script = Script(KeyError("again"))
    depths: list[int] = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            script()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_returns_hands_over_what_would_else_be_a_step() -> None:
    error = KeyError()
    assert Script(returns(error))() is error
    assert Script(returns(hang))() is hang


def test_slow_steps_take_virtual_time() -> None:
    script = Script(slow("200ms", "late"), slow(1, slow(1, KeyError)), "prompt")
    with VirtualClock() as time:
        assert script() == "late"
        with pytest.raises(KeyError):
            script()
        script()
        assert time.now == 2.2
    assert script.times == [0.0, 0.2, 2.2]

    async def main() -> float:
        await Script(slow("200ms")).aio()
        return asyncio.get_running_loop().time()

    assert run(main) == 0.2


def test_a_hang_ends_by_cancellation_and_is_counted() -> None:
    script = Script(hang, "then")

    async def main() -> Any:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await script.aio()
        return await script.aio()

    assert run(main) == "then"
    assert (script.cancelled, script.running) == (1, 0)


def test_a_hang_in_a_thread_is_refused_by_what_no_fallback_catches() -> None:
    with pytest.raises(CannotHang, match="cannot be interrupted"):
        Script(slow("1ms", hang))()
    assert not issubclass(CannotHang, Exception)


def test_the_most_calls_at_once_are_counted() -> None:
    script = Script(slow(1, "x"))

    async def main() -> None:
        await asyncio.gather(*(script.aio() for _ in range(7)))

    run(main)
    assert (script.running, script.most_running) == (0, 7)


def test_aio_is_seen_as_a_coroutine_function_and_the_call_as_a_plain_one() -> None:
    script = Script("x")
    assert inspect.iscoroutinefunction(script.aio)
    assert not inspect.iscoroutinefunction(script)


def outcomes(flaky: Flaky) -> list[bool]:
    seen: list[bool] = []
    for _ in range(1_000):
        try:
            seen.append(flaky() == "ok")
        except TimeoutError:
            seen.append(False)
    return seen


def test_flaky_fails_at_its_rate_by_its_seed() -> None:
    first, again, other = (outcomes(Flaky(0.3, error=TimeoutError, seed=seed, value="ok")) for seed in (1, 1, 2))
    assert first == again != other
    assert 600 < sum(first) < 800
    assert all(outcomes(Flaky(0, error=TimeoutError, value="ok")))
    assert not any(outcomes(Flaky(1, error=TimeoutError, value="ok")))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "0.3", True])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ConfigError, match="rate="):
        Flaky(rate)


def test_wrong_scripts_are_refused() -> None:
    unknown: Any = "again"
    for wrong in (Script, lambda: Script(1, then=unknown), lambda: slow(-1), lambda: slow("soon")):
        with pytest.raises(ConfigError):
            wrong()
