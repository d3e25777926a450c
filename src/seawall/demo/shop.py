"""The request both sides make, counted where it is really sent."""

from collections.abc import Mapping
from typing import Final

import aiohttp

from seawall.demo.measure import Tally

Answer = Mapping[str, object]
USER_TIMEOUT_SECONDS: Final = 1.0
"""How long a user is kept waiting at most, on both sides."""


class ServerError(Exception):
    """The service answered 5xx."""


FAILURES: Final = (aiohttp.ClientError, OSError, ServerError)
"""What one request can end with (`TimeoutError` is an `OSError`)."""


class Shop:
    """The service as a client sees it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tally: Tally) -> None:
        self._session: Final = session
        self._url: Final = url
        self._tally: Final = tally

    async def fetch(self, user: int) -> Answer:
        """One attempt; raises one of `FAILURES`."""
        self._tally.attempts += 1
        async with self._session.get(f"{self._url}/recommendations/{user}") as reply:
            if reply.status >= 500:
                raise ServerError(f"the service answered {reply.status}")
            answer: Answer = await reply.json()
            return answer


def session() -> aiohttp.ClientSession:
    """A session as both sides use it: the same timeout, and no limit of its own that would act as a hidden bulkhead."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=USER_TIMEOUT_SECONDS),
        connector=aiohttp.TCPConnector(limit=0),
    )
