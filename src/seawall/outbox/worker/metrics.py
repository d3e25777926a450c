"""The numbers of a worker and its backlog as Prometheus reads them: `metrics_text(worker.snapshot())`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["METRICS_TYPE", "metrics_text"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text."""

_BACKLOG = (
    ("waiting", "seawall_outbox_pending", "gauge", "Records that wait, due now or later."),
    ("leased", "seawall_outbox_leased", "gauge", "Records in the hands of workers."),
    ("dead", "seawall_outbox_dead", "gauge", "Dead letters."),
    ("dropped", "seawall_outbox_dropped_total", "counter", "Records thrown away to make room."),
    ("oldest_age", "seawall_outbox_oldest_age_seconds", "gauge", "Age of the oldest record that is not dead."),
    ("most", "seawall_outbox_backlog_limit", "gauge", "Records that the store holds at most."),
    ("seen_before", "seawall_outbox_seen_seconds", "gauge", "How long ago the backlog was counted."),
)
_WORKER = (
    ("done", "seawall_outbox_done_total", "counter", "Records done by this worker."),
    ("retried", "seawall_outbox_retried_total", "counter", "Attempts that failed and will be repeated."),
    ("refused", "seawall_outbox_refused_total", "counter", "Records given back because a guard or limit refused."),
    ("died", "seawall_outbox_died_total", "counter", "Records that became dead letters."),
    ("lost", "seawall_outbox_lost_total", "counter", "Ends that the store did not take from this worker."),
    ("program_errors", "seawall_outbox_program_errors_total", "counter", "Attempts that met an error of the program."),
    ("store_failures", "seawall_outbox_store_failures_total", "counter", "Steps at which the store failed."),
    ("store_answers", "seawall_outbox_store_up", "gauge", "Whether the store answered when it was last asked."),
    ("in_work", "seawall_outbox_in_work", "gauge", "Records in work."),
    ("concurrency", "seawall_outbox_concurrency", "gauge", "Records that may be in work at once."),
)
_TARGETS = (
    ("running", "seawall_outbox_target_running", "Attempts under way towards a target."),
    (
        "allowed",
        "seawall_outbox_target_allowed",
        "Attempts that may be under way towards it: 1 while it is in trouble.",
    ),
    ("rests_for", "seawall_outbox_target_rest_seconds", "How long nothing begins because it is in trouble."),
    ("limited_for", "seawall_outbox_target_limited_seconds", "How long nothing begins because of a limit."),
)
_ALARMS = ("depth", "age", "drops")


def metrics_text(snapshot: Mapping[str, Any]) -> str:
    """What `worker.snapshot()` gave, in the text format of Prometheus.

    Labels are the names of the outbox and of its targets; nothing that a user of the service wrote is in them. The
    numbers of the backlog are missing before the worker has counted it for the first time, and the age of the oldest
    where the store does not know it.

    >>> from seawall.outbox import MemoryOutbox, metrics_text
    >>> text = metrics_text(MemoryOutbox(name="mails").worker().snapshot())
    >>> print(text.splitlines()[2])
    seawall_outbox_done_total{outbox="mails"} 0
    """
    return "\n".join(_lines(snapshot)) + "\n"


def _lines(snapshot: Mapping[str, Any]) -> Iterator[str]:
    outbox = str(snapshot["outbox"])
    backlog: Mapping[str, Any] = snapshot["backlog"] or {}
    for values, table in ((backlog, _BACKLOG), (snapshot, _WORKER)):
        for field, name, kind, words in table:
            if values.get(field) is not None:
                yield from _family(name, kind, words, [({"outbox": outbox}, values[field])])
    state = [({"outbox": outbox, "state": each}, each == snapshot["state"]) for each in ("idle", "working", "stopping")]
    yield from _family("seawall_outbox_worker_state", "gauge", "1 for the state that the worker is in.", state)
    alarms = [({"outbox": outbox, "alarm": each}, each in snapshot["alarms"]) for each in _ALARMS]
    yield from _family("seawall_outbox_alarm", "gauge", "1 while an alarm is on.", alarms)
    targets: Iterable[Mapping[str, Any]] = snapshot["targets"]
    for field, name, words in _TARGETS:
        by_name: dict[str, float] = {}
        for target in targets:
            # A policy and an operation may bear one name; a series may stand here once.
            by_name[str(target["target"])] = by_name.get(str(target["target"]), 0) + target[field]
        samples = [({"outbox": outbox, "target": key}, value) for key, value in by_name.items()]
        yield from _family(name, "gauge", words, samples)


def _family(name: str, kind: str, words: str, samples: list[tuple[dict[str, str], Any]]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{shown}}} {int(value) if isinstance(value, bool) else value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
