"""Under every order of threads a job runs once, tells its end once, and is never forgotten between two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall.runtime import jobs
from seawall.runtime.jobs import Job, Workers
from tests.support.threads import as_many, explore
from tests.threads.frames import World, expect

SEEDS = as_many(200)


def test_every_on_end_is_called_once_however_it_meets_the_end() -> None:
    def build() -> World:
        job, ends = Job(lambda: "value"), list[int]()

        def asks(number: int) -> Callable[[], None]:
            return lambda: job.on_end(lambda: ends.append(number))

        def check() -> None:
            expect(sorted(ends) == [1, 2, 3], f"told {ends}")
            expect((job.done, job.value, job.error) == (True, "value", None), "the result is lost")

        return [job.run, asks(1), asks(2), asks(3)], check

    assert explore(build, trace=[jobs, __file__], seeds=range(SEEDS)) == SEEDS


class NewThread:
    """In place of `threading.Thread`: notes what it would have run."""

    started: list[Job] = []  # noqa: RUF012  # emptied for each run

    def __init__(self, *, args: tuple[Job], **_settings: Any) -> None:
        self.job = args[0]

    def start(self) -> None:
        NewThread.started.append(self.job)


def test_a_job_goes_to_an_idle_thread_or_to_a_new_one_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> World:
        workers, NewThread.started, made, ran = Workers("test"), [], list[Job](), list[int]()
        monkeypatch.setattr(threading, "Thread", NewThread)

        def idle() -> None:
            while (job := workers._next()) is not None:
                job.run()

        def submits(number: int) -> Callable[[], None]:
            return lambda: made.append(workers.submit(lambda: ran.append(number)))

        def check() -> None:
            by_new = len(NewThread.started)
            expect(len(made) == 3 and len(ran) + by_new == 3, f"{ran} ran, {by_new} got a thread")
            expect(len(set(ran)) == len(ran), "a job ran twice")
            expect(not workers._jobs and workers._idle == 0, "a job waits for nobody")

        return [idle, idle, submits(1), submits(2), submits(3)], check

    try:
        assert explore(build, trace=[jobs, __file__], seeds=range(SEEDS), hasty=True) == SEEDS
    finally:
        monkeypatch.undo()
