"""Failback: work that failed, or may be late, is stored and done later, at least once.

- `MemoryOutbox()`: operations by name, and the work that waits for them;
- `Failback(outbox)`: a strategy that queues a call when it fails, and answers `Queued`. (`Fallback`, by contrast,
  gives another answer now.)
- `outbox.worker()`: does what waits; `HealthServer(worker)` and `metrics_text(...)` tell how it is;
- `idempotency_key()`: what a handler makes its effect once by;
- `Store`: the contract of stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox
    from seawall.outbox.failback import Failback
    from seawall.outbox.memory.store import MemoryOutbox, MemoryStore
    from seawall.outbox.operations import Operation
    from seawall.outbox.payloads.codec import Arguments, Codec, Json, Parameters
    from seawall.outbox.payloads.typed import Typed
    from seawall.outbox.record import Queued, Work
    from seawall.outbox.running import Run, current, idempotency_key
    from seawall.outbox.store import Lease, OpenStore, Stats, Store
    from seawall.outbox.worker.health import HealthServer
    from seawall.outbox.worker.metrics import metrics_text
    from seawall.outbox.worker.worker import Worker

__all__ = [
    "Arguments",
    "Codec",
    "Failback",
    "HealthServer",
    "Json",
    "Lease",
    "MemoryOutbox",
    "MemoryStore",
    "OpenStore",
    "Operation",
    "Outbox",
    "Parameters",
    "Queued",
    "Run",
    "Stats",
    "Store",
    "Typed",
    "Work",
    "Worker",
    "current",
    "idempotency_key",
    "metrics_text",
]

_HOMES = {
    "box": ("Outbox",),
    "payloads.codec": ("Arguments", "Codec", "Json", "Parameters"),
    "failback": ("Failback",),
    "worker.health": ("HealthServer",),
    "memory.store": ("MemoryOutbox", "MemoryStore"),
    "worker.metrics": ("metrics_text",),
    "operations": ("Operation",),
    "record": ("Queued", "Work"),
    "running": ("Run", "current", "idempotency_key"),
    "store": ("Lease", "OpenStore", "Stats", "Store"),
    "payloads.typed": ("Typed",),
    "worker.worker": ("Worker",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


# Imported at first use: transports only want to know the key in effect, and `inspect` and `json` are none of theirs.
def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # as above

    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
