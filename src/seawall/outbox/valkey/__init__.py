"""`ValkeyStore`: an outbox in Valkey or Redis."""

from seawall.outbox.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
