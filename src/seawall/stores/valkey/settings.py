"""What connections of redis-py are given: never a retry, never a word that the handshake can do without."""

from __future__ import annotations

from inspect import signature
from typing import Any

__all__ = ["settings_for"]

OURS: dict[str, Any] = {
    "decode_responses": False,
    "health_check_interval": 0,
    "protocol": 2,
    "retry": None,
    "socket_connect_timeout": None,
    "socket_timeout": None,
}
"""Times are kept by those who use the connection: redis-py has one for each read, not for a command."""


def settings_for(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings for a class of connections, of redis-py 5 to 8."""
    known = {
        name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for name in signature(vars(base)["__init__"]).parameters
    }
    # How a client is told not to introduce itself, which is a trip of its own, has changed in redis-py 7.
    silent = {"driver_info": None} if "driver_info" in known else {"lib_name": None, "lib_version": None}
    return {**settings, **OURS, **silent}
