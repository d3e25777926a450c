"""`Valkey`: the states of limits on a server that all processes share."""

from seawall.stores.valkey.store import Valkey

__all__ = ["Valkey"]
