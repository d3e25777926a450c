"""Stores by URL: which module knows a scheme, and the settings that every store has."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from seawall.errors import ConfigError
from seawall.outbox.store import Store
from seawall.units import count_of, given

__all__ = ["BACKLOG", "POLICIES", "check_limits", "store_of"]

BACKLOG = 100_000
"""How many records a store holds, dead letters included, if nobody says otherwise."""
POLICIES = ("reject", "drop-oldest")

_VALKEY = ("seawall.outbox.valkey", "ValkeyStore")
_AMQP = ("seawall.outbox.amqp", "AmqpStore")
_HOMES = {
    "memory": ("seawall.outbox.memory.store", "MemoryStore"),
    "sqlite": ("seawall.outbox.sqlite", "SqliteStore"),
    **dict.fromkeys(("valkey", "valkeys", "redis", "rediss", "unix"), _VALKEY),
    **dict.fromkeys(("amqp", "amqps"), _AMQP),
}


def store_of(store: object, name: str, limits: dict[str, Any]) -> Store:
    """The store that a URL names, with those of `limits` that are given; or `store` itself, which has its own.

    A store class has `from_url(url, *, name, **limits)`; `name` is the outbox's, for stores that hold several.
    """
    chosen = {field: value for field, value in limits.items() if value is not None}
    if not isinstance(store, str):
        if chosen:
            field = next(iter(chosen))
            raise ConfigError(f"Outbox({field}): a store that was made before has its own; give it to the store")
        if not all(callable(getattr(store, name, None)) for name in ("open", "listen", "snapshot")):
            raise ConfigError(f"{given('Outbox(store)', store)}: expected a URL or a store; {_known()}")
        return cast("Store", store)
    scheme, colon, _ = store.partition("://")
    base, plus, _ = scheme.partition("+")  # valkey+sentinel, valkey+cluster
    home = _HOMES.get(base)
    if not colon and store.endswith((".db", ".sqlite", ".sqlite3")):
        raise ConfigError(f"{given('Outbox(store)', store)}: a path is no URL; write sqlite:///{store}")
    if home is None or not colon or (plus and home is not _VALKEY):
        # Never the whole URL: there may be a password in it.
        raise ConfigError(f"{given('Outbox(store)', scheme if colon else '...')}: no URL of a store; {_known()}")
    module, kind = home
    return cast("Store", getattr(import_module(module), kind).from_url(store, name=name, **chosen))


def _known() -> str:
    return "such as sqlite:///var/outbox.db, valkey://host:6379, amqp://host, or memory://"


def check_limits(owner: str, backlog: int, when_full: str) -> tuple[int, bool]:
    """The two settings every store has: how many records at most, and whether the oldest make room."""
    most = count_of(backlog, f"{owner}(backlog)", most=10_000_000)
    if when_full not in POLICIES:
        raise ConfigError(f"{given(f'{owner}(when_full)', when_full)}: expected 'reject' or 'drop-oldest'")
    return most, when_full == "drop-oldest"
