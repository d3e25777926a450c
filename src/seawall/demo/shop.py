"""One side's shop: its front, the replicas behind it, and its ledger; each a process of its own."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiohttp

from seawall.demo.layout import SERVICES, Side
from seawall.demo.ledger import Ledger
from seawall.demo.phases import Step
from seawall.demo.processes import Process, StartError, all_of

CONTROL_SECONDS: Final = 5.0


class Shop:
    """The processes of one side. Whoever opens it has to `close` it."""

    def __init__(self, side: Side, seed: str, pids: list[int], http: aiohttp.ClientSession) -> None:
        self.side: Final = side
        self.ledger = Ledger()
        self._seed = seed
        self._pids = pids
        self._http = http
        self.replicas: Mapping[str, list[Process]] = {
            service: [self._replica(service, number) for number in range(plan.replicas)]
            for service, plan in SERVICES.items()
        }
        self.front: Process | None = None

    def _replica(self, service: str, number: int) -> Process:
        seed = f"{self._seed}:{service}:{number}"  # not the side's: both are to meet the same errors
        arguments = ["--service", service, "--seed", seed, "--ledger", str(self.ledger.fileno)]
        return Process(f"{self.side} {service} {number + 1}", "service", arguments, self._pids, (self.ledger.fileno,))

    @property
    def everything(self) -> Iterable[tuple[str, int]]:
        """All replicas: service and number."""
        return [(service, number) for service, group in self.replicas.items() for number in range(len(group))]

    @property
    def url(self) -> str:
        """Where its users go."""
        return "" if self.front is None else self.front.url

    async def open(self) -> None:
        """Start everything. Raises `StartError`."""
        await all_of(replica.start() for replicas in self.replicas.values() for replica in replicas)
        addresses = json.dumps({service: [each.url for each in group] for service, group in self.replicas.items()})
        arguments = ["--side", self.side, "--replicas", addresses, "--seed", f"{self._seed}:front"]
        self.front = Process(f"the {self.side} front", "door", arguments, self._pids)
        await self.front.start()

    async def renew(self, touched: Iterable[tuple[str, int]]) -> None:
        """Start the touched replicas anew, and the front, so that the next phase owes nothing to the last."""
        processes = [self.replicas[service][number] for service, number in touched]
        if self.front is not None:
            processes.append(self.front)
        await all_of(process.restart() for process in processes)

    async def close(self) -> None:
        """End everything at once."""
        fronts = [] if self.front is None else [self.front]
        try:
            await all_of(
                process.kill() for process in [*fronts, *(each for some in self.replicas.values() for each in some)]
            )
        finally:
            self.ledger.close()

    async def obey(self, step: Step) -> None:
        """Carry out one step of a phase."""
        replica = self.replicas[step.service][step.number]
        if step.order == "kill":
            await replica.kill()
        elif step.order == "start":
            await replica.start()
        else:
            await self._control("PUT", f"{replica.url}/mode/{step.order}")

    async def stats(self) -> Any:
        """What the front counted since it was started."""
        return await self._control("GET", f"{self.url}/stats")

    async def _control(self, method: str, url: str) -> Any:
        try:
            timeout = aiohttp.ClientTimeout(total=CONTROL_SECONDS)
            async with self._http.request(method, url, timeout=timeout) as reply:
                reply.raise_for_status()
                return await reply.json()
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise StartError(f"a process of the {self.side} shop does not take orders: {why}") from error

    def check(self) -> None:
        """Raises `StartError` if a process has ended by itself."""
        for process in [
            *(each for some in self.replicas.values() for each in some),
            *([self.front] if self.front else []),
        ]:
            process.check()
