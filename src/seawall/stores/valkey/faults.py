"""What an error of the server or of the connection means: the store is out, or something is wrong with it.

Only an outage is answered by `on_outage`. Whatever a person has to put right (a password, a right, a key of another
type, a script that does not run) is raised, in every mode: a limiter that lets everything through because somebody
changed a password is worse than an error.
"""

from __future__ import annotations

import ssl

from redis import exceptions as redis_errors

from seawall.errors import BackendUnavailable

__all__ = ["LEFT_ALONE", "Outage", "Redirect", "code_of", "explained", "is_outage", "redirect_of", "remedy"]

OUTAGES = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)
"""Codes with which a server says that it cannot serve now."""
BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.MovedError, "MOVED"),
    (redis_errors.AskError, "ASK"),
    (redis_errors.NoScriptError, "NOSCRIPT"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.OutOfMemoryError, "OOM"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.AuthenticationError, "WRONGPASS"),
    (redis_errors.AuthenticationWrongNumberOfArgsError, "WRONGPASS"),
    (redis_errors.AuthorizationError, "WRONGPASS"),
    (redis_errors.ClusterCrossSlotError, "CROSSSLOT"),
    (redis_errors.ClusterDownError, "CLUSTERDOWN"),
    (redis_errors.TryAgainError, "TRYAGAIN"),
    (redis_errors.MasterDownError, "MASTERDOWN"),
)
REMEDIES = {
    "NOAUTH": "the server wants a password: give one in the URL, valkey://user:password@host",
    "WRONGPASS": "user or password is wrong: see the URL, and ACL LIST on the server",
    "NOPERM": "the user lacks rights: `seawall doctor` shows the ACL rule that it needs",
    "WRONGTYPE": "other data lies under the prefix of these keys: choose another prefix",
    "MOVED": "the server is part of a cluster: write valkey+cluster://host in the URL",
    "CROSSSLOT": "the server is part of a cluster: write valkey+cluster://host in the URL",
}


LEFT_ALONE = "the server is left alone for a while, since it did not answer"


class Outage(Exception):  # it says what happened
    """The store cannot be asked now. `on_outage` decides what becomes of the call; this is never raised to a user."""

    def __init__(self, why: str, error: BaseException | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.error = error


class Redirect:
    """Another node has the slot: for good, or `asking` only for this once."""

    __slots__ = ("address", "asking", "slot")

    def __init__(self, slot: int, address: tuple[str, int], *, asking: bool) -> None:
        self.slot = slot
        self.address = address
        self.asking = asking


def code_of(error: BaseException | str) -> str:
    """The word with which the server begins an error, such as `"NOSCRIPT"`; empty if it has none."""
    if not isinstance(error, str):
        for kind, code in BY_CLASS:
            if isinstance(error, kind):
                return code
    word = str(error).partition(" ")[0]
    return word if word.isupper() else ""


def redirect_of(error: BaseException, asked: tuple[str, int]) -> Redirect | None:
    """Where MOVED and ASK point to. An empty host means the one that was asked."""
    code = code_of(error)
    if code not in ("MOVED", "ASK"):
        return None
    words = str(error).removeprefix(code).split()
    try:
        host, _, port = words[1].rpartition(":")
        return Redirect(int(words[0]), (host.strip("[]") or asked[0], int(port)), asking=code == "ASK")
    except (IndexError, ValueError):
        return None


def is_outage(error: BaseException | str) -> bool:
    """Whether the store is out; otherwise something is wrong with it."""
    code = code_of(error)
    if code in OUTAGES:
        return True
    if isinstance(error, str):
        return "max number of clients" in error
    if code or _is_refused_certificate(error):
        return False
    kinds = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError, EOFError, TimeoutError)
    return isinstance(error, kinds)


def _is_refused_certificate(error: BaseException | None) -> bool:
    """A server that cannot show who it is may be anybody."""
    for _ in range(10):
        if error is None:
            return False
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def remedy(error: BaseException | str) -> str:
    """What to do about it, if that is known."""
    if not isinstance(error, str) and _is_refused_certificate(error):
        return "its certificate is not trusted: give ssl_ca_certs, and the host by the name in the certificate"
    text = str(error)
    if "ACL failure" in text or "permission" in text.lower():
        return REMEDIES["NOPERM"]
    if "unauthenticated" in text:  # so it answers a long command before it is given a password
        return REMEDIES["NOAUTH"]
    return REMEDIES.get(code_of(error), "")


def explained(store: str, error: BaseException | str) -> BackendUnavailable:
    """What a caller gets for something that is wrong with the store."""
    advice = remedy(error)
    hint = f" ({advice})" if advice else ""
    text = f"{store}: {str(error).strip() or type(error).__name__}{hint}; nothing is let through for that"
    raised = BackendUnavailable(text)
    raised.__cause__ = error if isinstance(error, BaseException) else None
    return raised
