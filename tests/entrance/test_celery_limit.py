"""Tasks beyond a limit go back to their queue until it is worth trying; no worker waits, and no retry is spent."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, chain, chord
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject
from celery.worker.request import Request
from hypothesis import given
from hypothesis import strategies as st
from kombu import Queue

from seawall import ConfigError, Limiter, Memory, RateLimited, Rule, Rules, TokenBucket
from seawall.integrations.celery import _delay_ns, limited
from seawall.testing import VirtualClock
from tests.entrance.sites import bucket

names = itertools.count(1)


class Shop:
    """An application with a queue of its own in memory, and a worker in virtual time that takes message after message."""

    def __init__(self, clock: VirtualClock, **settings: Any) -> None:
        queue = f"entrance-{next(names)}"
        self.clock = clock
        self.app = Celery(queue, broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.update(task_default_queue=queue, task_always_eager=False, **settings)
        self.connection = self.app.connection_for_read()
        self.queue = Queue(queue)(self.connection.default_channel)
        self.queue.declare()
        self.waiting: list[tuple[int, int, Any]] = []
        self.taken: list[dict[str, Any]] = []
        """The headers of all messages, in the order in which they came."""
        self.delays: list[float] = []

    def task(self, function: Any, **options: Any) -> Any:
        if function.__name__ == "<lambda>":
            function.__name__ = options["name"]
        return self.app.task(shared=False, **options)(function)

    def receive(self) -> None:
        """Take what is in the queue; what has an ETA waits for it."""
        while (message := self.queue.get(no_ack=False)) is not None:
            self.taken.append(message.headers)
            delay_ns = 0
            if message.headers["eta"]:
                left = datetime.fromisoformat(message.headers["eta"]) - datetime.now(UTC)
                self.delays.append(left.total_seconds())
                delay_ns = max(0, round(left.total_seconds() * 1e9))
            heapq.heappush(self.waiting, (self.clock.now_ns + delay_ns, len(self.taken), message))

    def step(self) -> bool:
        """Serve one message, at its time; False if there is none."""
        self.receive()
        if not self.waiting:
            return False
        due, _, message = heapq.heappop(self.waiting)
        self.clock.advance(f"{max(0, due - self.clock.now_ns)}ns")
        request = Request(
            message,
            app=self.app,
            hostname="worker",
            task=self.app.tasks[message.headers["task"]],
            on_ack=lambda log, error: message.ack(),
            on_reject=lambda log, error, requeue: message.reject(),
        )
        request.execute()
        self.receive()
        return True

    def work(self, most: int = 100_000) -> int:
        return sum(1 for _ in itertools.takewhile(lambda _: self.step(), range(most)))


@pytest.fixture
def shop() -> Iterator[Shop]:
    with VirtualClock() as clock:
        it = Shop(clock)
        yield it
        it.connection.release()
        it.app.close()


def test_tasks_within_the_limit_run_at_once(shop: Shop) -> None:
    add = shop.task(limited(bucket())(lambda a, b: a + b), name="add")
    results = [add.delay(1, 2), add.delay(3, b=4)]
    assert shop.work() == 2
    assert [result.get(disable_sync_subtasks=False) for result in results] == [3, 7]
    assert shop.clock.now == 0


def test_a_task_beyond_the_limit_is_sent_again_with_the_right_delay(shop: Shop) -> None:
    served: list[float] = []
    send = shop.task(limited(bucket("1/min"))(lambda: served.append(shop.clock.now)), name="send")
    first, second = send.delay(), send.apply_async(headers={"x-trace": "t"}, priority=3)
    assert shop.step() and shop.step()
    assert (first.state, second.state) == ("SUCCESS", "RETRY")
    assert isinstance(second.result, RateLimited)
    assert 59 < shop.delays[0] <= 90, "the time until there is room, and up to half of it longer"
    before, again = shop.taken[1], shop.taken[2]
    assert (again["id"], again["task"], again["retries"], again["x-trace"]) == (before["id"], "send", 0, "t")
    assert again["seawall_requeues"] == 1
    assert shop.step()
    assert (second.state, len(served)) == ("SUCCESS", 2)
    assert served[1] >= 60


def test_it_is_none_of_the_retries_of_the_task(shop: Shop) -> None:
    attempts: list[int] = []

    def send(self: Any) -> str:
        attempts.append(self.request.retries)
        if len(attempts) < 3:
            raise self.retry(countdown=1)
        return "sent"

    task = shop.task(limited(bucket("1/min"))(send), name="send", bind=True, max_retries=2)
    blocking = [task.delay() for _ in range(1)]
    shop.work()
    assert (blocking[0].get(disable_sync_subtasks=False), attempts) == ("sent", [0, 1, 2])
    assert sum(bool(headers.get("seawall_requeues")) for headers in shop.taken) >= 2


def test_it_leaves_automatic_retries_alone(shop: Shop) -> None:
    attempts: list[Any] = []

    def send(self: Any) -> None:
        attempts.append(self.request.retries)
        raise LookupError("always")

    task = shop.task(
        limited(bucket("1/min"))(send),
        name="send",
        bind=True,
        autoretry_for=(Exception,),
        max_retries=2,
        default_retry_delay=1,
    )
    result = task.delay()
    shop.work()
    assert (attempts, result.state, type(result.result)) == ([0, 1, 2], "FAILURE", LookupError)


def test_links_chains_and_chords_go_on(shop: Shop) -> None:
    limit = limited(bucket("1/min"))
    double = shop.task(limit(lambda number: number * 2), name="double")
    total = shop.task(lambda numbers: sum(numbers), name="total")
    chained = chain(double.s(1), double.s(), double.s())()
    shop.work()
    assert chained.get(disable_sync_subtasks=False) == 8
    assert shop.clock.now >= 120
    gathered = chord([double.s(number) for number in range(4)])(total.s())
    shop.work()
    assert gathered.get(disable_sync_subtasks=False) == 12


def test_keys_and_costs_come_from_the_arguments(shop: Shop) -> None:
    limiter = bucket("2/min")
    task = shop.task(
        limited(limiter, key=lambda user, size=1: user, cost=lambda user, size=1: size)(lambda user, size=1: user),
        name="send",
    )
    for user, size in (("ann", 2), ("bob", 1), ("bob", 1), ("ann", 1)):
        task.delay(user, size=size)
    for _ in range(4):
        shop.step()
    assert [headers["argsrepr"] for headers in shop.taken if headers.get("seawall_requeues")] == ["('ann',)"]
    assert shop.work() >= 1


def test_rules_know_the_name_of_the_task(shop: Shop) -> None:
    rules = Rules(
        Rule(TokenBucket("1/min"), {"operation": "slow"}),
        Rule(TokenBucket("100/min"), {"role": "paid"}),
        store=Memory(),
    )
    done: list[str] = []
    limit = limited(rules, key=lambda role: {"role": role})
    for name in ("slow", "fast"):
        shop.task(limit(lambda role, name=name: done.append(name)), name=name)
    for name in ("slow", "slow", "fast", "fast"):
        shop.app.send_task(name, ["paid"])
    for _ in range(4):
        shop.step()
    assert done == ["slow", "fast", "fast"]


def test_what_no_rule_allows_fails(shop: Shop) -> None:
    rules = Rules(Rule(TokenBucket("1/min"), {"operation": "other"}), otherwise="refuse", store=Memory())
    result = shop.task(limited(rules)(lambda: 1), name="send").delay()
    assert shop.work() == 1
    assert (result.state, type(result.result)) == ("FAILURE", RateLimited)


def test_many_tasks_pass_at_the_rate(shop: Shop) -> None:
    served: list[float] = []
    limit = limited(Limiter(TokenBucket("10/min", burst=5), store=Memory()))
    task = shop.task(limit(lambda: served.append(shop.clock.now)), name="send")
    for _ in range(30):
        task.apply_async(ignore_result=True)
    messages = shop.work()
    assert len(served) == 30
    for earlier, later in zip(served, served[6:], strict=False):
        assert later - earlier > 5.9, "never more than five, and one each six seconds"
    assert shop.clock.now < 2.5 * 150
    assert messages < 30 * 15


@pytest.mark.parametrize(("count", "rate", "burst"), [(1_000, 10, 10), (300, 10, 1), (50, 1, 5)])
def test_a_crowd_neither_overruns_the_queue_nor_leaves_the_limit_unused(count: int, rate: int, burst: int) -> None:
    """The delays alone, for crowds that would take too long to send through Celery."""
    limiter, served, messages = Limiter(TokenBucket(f"{rate}/s", burst=burst), store=Memory()), 0, 0
    with VirtualClock() as clock:
        queue = [(0, number, 0) for number in range(count)]
        while queue:
            due, number, waited = heapq.heappop(queue)
            clock.advance(f"{max(0, due - clock.now_ns)}ns")
            messages += 1
            decision = limiter.hit()
            if decision:
                served += 1
                continue
            delay = _delay_ns(decision.retry_after_ns, waited, 600_000_000_000)
            assert decision.retry_after_ns <= delay
            heapq.heappush(queue, (clock.now_ns + delay, number, waited + delay))
        assert served == count
        assert clock.now < 3 * (count - burst) / rate
    assert messages < count * 30


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(1, 10**15))
def test_a_delay_is_never_longer_than_allowed(wait: int, waited: int, most: int) -> None:
    delay = _delay_ns(wait, waited, most)
    assert 0 <= delay <= most
    if wait <= most // 2:
        assert delay >= min(wait, most // 2)


def test_the_delay_is_capped_and_still_left_to_chance(shop: Shop) -> None:
    task = shop.task(limited(Limiter(TokenBucket("1/d"), store=Memory()), max_delay="10min")(lambda: None), name="send")
    for _ in range(20):
        task.delay()
    for _ in range(20):
        shop.step()
    assert len(shop.delays) == 19
    assert min(shop.delays) > 299 and max(shop.delays) <= 600
    assert max(shop.delays) - min(shop.delays) > 100, "what is cut off at a cap comes back all at once"


def test_expiry_ends_the_waiting(shop: Shop) -> None:
    task = shop.task(limited(bucket("1/d"))(lambda: None), name="send")
    task.delay()
    task.apply_async(expires=3_600)
    shop.step(), shop.step()
    assert shop.taken[-1]["expires"] == shop.taken[1]["expires"] is not None


def test_a_task_may_give_up(shop: Shop) -> None:
    task = shop.task(limited(Limiter(TokenBucket("1/d"), store=Memory()), max_requeues=3)(lambda: None), name="send")
    task.delay()
    result = task.delay()
    assert shop.work() == 1 + 4
    assert (result.state, type(result.result)) == ("FAILURE", RateLimited)


def test_a_header_that_is_nonsense_counts_as_none(shop: Shop) -> None:
    task = shop.task(limited(bucket("1/d"))(lambda: None), name="send")
    for nonsense in (7, -5, "9", True, 10**30):
        task.apply_async(headers={"seawall_requeues": nonsense, "seawall_waited_ms": nonsense})
        shop.step()
    assert [headers["seawall_requeues"] for headers in shop.taken if headers["eta"]] == [1, 1, 1, 1]
    assert max(shop.delays) <= 600


@pytest.mark.parametrize("late", [False, True])
def test_when_the_broker_is_gone_nothing_is_lost_in_silence(
    late: bool, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = shop.task(limited(bucket("1/d"))(lambda: None), name="send", acks_late=late)
    task.delay()
    result = task.delay()
    shop.step()

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionRefusedError("no broker")

    monkeypatch.setattr(shop.app.tasks["send"], "apply_async", gone)
    shop.step()
    if late:
        assert "reject requeue=True: no broker" in caplog.text, (
            "it is still the broker's, who gives it to another worker"
        )
    else:
        assert (result.state, type(result.result)) == ("FAILURE", ConnectionRefusedError)


def test_called_directly_or_eagerly_it_raises(shop: Shop) -> None:
    task = shop.task(limited(bucket("1/min"))(lambda: "done"), name="send")
    assert task() == "done"
    with pytest.raises(RateLimited, match="retry in 60 s"):
        task()
    eager = task.apply()
    assert (eager.state, type(eager.result)) == ("FAILURE", RateLimited)
    assert not shop.work()


def test_a_limited_function_inside_a_task_does_not_send_the_outer_one_away(shop: Shop) -> None:
    inner = limited(bucket("1/min"))(lambda: "inner")
    inner_task = shop.task(inner, name="inner")

    def outer() -> list[str]:
        ends = []
        for call in (inner, inner, inner_task, inner_task.run):
            try:
                ends.append(call())
            except RateLimited:
                ends.append("refused")
        return ends

    result = shop.task(outer, name="outer").delay()
    assert shop.work() == 1
    assert result.get(disable_sync_subtasks=False) == ["inner", "refused", "refused", "refused"]


def test_the_arguments_of_a_call_are_still_checked(shop: Shop) -> None:
    def send(mail: int, *, again: bool = False) -> None:
        """Sends it."""

    plain = shop.task(limited(bucket())(send), name="send")
    bound = shop.task(limited(bucket())(lambda self, mail: None), name="bound", bind=True)
    for task in (plain, bound):
        for wrong in ((), (1, 2)):
            with pytest.raises(TypeError):
                task.delay(*wrong)
    assert (plain.__doc__, plain.run.__name__) == ("Sends it.", "send")


def test_shadow_lets_every_task_run_and_counts(shop: Shop) -> None:
    limiter = bucket("1/d", shadow=True)
    task = shop.task(limited(limiter)(lambda: None), name="send")
    for _ in range(3):
        task.delay()
    assert (shop.work(), limiter.refused) == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": TokenBucket("1/s")}, r"limited\(limiter=TokenBucket"),
        ({"key": "user"}, r"limited\(key='user'\)"),
        ({"cost": "1", "key": 7}, r"limited\(key=7\)"),
        ({"max_delay": 0}, r"limited\(max_delay=0\)"),
        ({"max_requeues": -1}, r"limited\(max_requeues=-1\)"),
    ],
)
def test_settings_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        limited(**{"limiter": bucket(), **options})


def test_a_task_that_must_be_awaited_is_refused() -> None:
    async def send() -> None:
        pass

    with pytest.raises(ConfigError, match="does not await"):
        limited(bucket())(send)


def test_an_impossible_cost_fails(shop: Shop) -> None:
    result = shop.task(limited(bucket("1/min"), cost=2)(lambda: None), name="send").delay()
    shop.work()
    assert (result.state, type(result.result).__name__) == ("FAILURE", "ConfigError")
    assert issubclass(Reject, Exception)


def test_a_real_worker_does_other_work_while_a_task_waits() -> None:
    """One worker with one place: what is beyond the limit does not sit in it."""
    app = Celery("entrance-real", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(task_default_queue="entrance-real", worker_hijack_root_logger=False)
    done: list[str] = []

    @app.task(shared=False, name="paced")
    @limited(Limiter(TokenBucket("5/s", burst=1), store=Memory()))
    def paced() -> None:
        done.append("paced")

    @app.task(shared=False, name="other")
    def other() -> None:
        done.append("other")

    with start_worker(app, pool="solo", concurrency=1, perform_ping_check=False, shutdown_timeout=20):
        results = [paced.delay() for _ in range(3)] + [other.delay() for _ in range(5)]
        for result in results:
            result.get(timeout=20, interval=0.05)
    assert done[:1] == ["paced"] and done[-1] == "paced"
    assert (done.count("paced"), done.count("other")) == (3, 5)
    assert done.index("other") < len(done) - 1 - done[::-1].index("paced")
