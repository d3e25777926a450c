"""A service that is well, slow, lossy, hung, down or flapping, as a seed decides, and can be healed."""

from __future__ import annotations

import asyncio
from random import Random

__all__ = ["MOODS", "Endpoint", "EndpointDown"]

MOODS = ("well", "well", "slow", "lossy", "hung", "down", "flapping")


class EndpointDown(ConnectionError):
    """The endpoint refused, reset or lost a call."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Endpoint:
    """One simulated service. Its latency is drawn from `random`, so a run is decided by its seed."""

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self._random = random
        self._healed = asyncio.Event()
        self.mood = "well"
        self.running = 0
        self.served = 0
        self._calls = 0

    def change(self, mood: str) -> None:
        """Take on a mood; whoever hangs stays hung until `heal`."""
        self.mood = mood

    def heal(self) -> None:
        """Be well for ever; calls that hang end with an error."""
        self.mood = "well"
        self._healed.set()

    async def serve(self, number: int) -> int:
        """Answer `number` with itself; or fail as the mood has it."""
        self._calls += 1
        self.running += 1
        try:
            await self._trouble()
            self.served += 1
            return number
        finally:
            self.running -= 1

    async def _trouble(self) -> None:
        random, mood = self._random, self.mood
        if self._healed.is_set():
            await asyncio.sleep(0.01)
            return
        if mood == "hung":
            await self._healed.wait()
            raise EndpointDown(f"{self.name} was hung")
        if mood == "down" or (mood == "flapping" and self._calls % 2):
            raise EndpointDown(f"{self.name} is down", random.choice((None, None, 0.2)))
        latency = random.lognormvariate(-4.0, 0.6)
        await asyncio.sleep(latency * 40 if mood == "slow" else latency)
        if mood == "lossy" and random.random() < 0.5:
            raise EndpointDown(f"{self.name} lost it")

    async def serve_numbered(self, _endpoint: Endpoint, number: int) -> int:
        """`serve`, with the arguments of every call of the world."""
        return await self.serve(number)
