"""The request that both fronts make, counted where it is really sent."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

Answer = Mapping[str, Any]
NO_ANSWER: Final = "no answer in time"


class CallFailed(Exception):
    """A service did not answer, or answered 5xx. `service` is whose fault it was, `why` says it in few words."""

    def __init__(self, service: str, why: str) -> None:
        super().__init__(f"{service}: {why}")
        self.service = service
        self.why = why


class NotReached(CallFailed, ConnectionRefusedError):
    """Nobody listened there, so the request never left. Seawall then asks another replica without a pause."""


class Client:
    """Sends requests; `sent` counts them by service."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session: Final = session
        self.sent: Counter[str] = Counter()

    async def get(self, service: str, url: str, timeout: float | None = None) -> Answer:  # noqa: ASYNC109  # aiohttp's own, which closes the connection
        """One GET. Raises `CallFailed`."""
        return await self._send(service, "GET", url, timeout)

    async def post(self, service: str, url: str, timeout: float | None = None) -> Answer:  # noqa: ASYNC109  # as above
        """One POST. Raises `CallFailed`."""
        return await self._send(service, "POST", url, timeout)

    async def _send(self, service: str, method: str, url: str, timeout: float | None) -> Answer:  # noqa: ASYNC109  # as above
        self.sent[service] += 1
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.request(method, url, timeout=limit) as reply:
                if reply.status >= 500:
                    raise CallFailed(service, f"answered {reply.status}")
                answer: Answer = await reply.json()
                return answer
        except aiohttp.ClientConnectorError as error:
            raise NotReached(service, "not reached") from error
        except TimeoutError as error:
            raise CallFailed(service, NO_ANSWER) from error
        except (aiohttp.ClientError, OSError, json.JSONDecodeError) as error:
            if isinstance(error, CallFailed):
                raise
            raise CallFailed(service, "broke off") from error


def session() -> aiohttp.ClientSession:
    """A session as everybody here uses it: no limit on connections, which would act as a hidden bulkhead."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
