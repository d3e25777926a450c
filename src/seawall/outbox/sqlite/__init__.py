"""The embedded store: an SQLite file. `Outbox("sqlite:///var/outbox.db")` uses it."""

from seawall.outbox.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
