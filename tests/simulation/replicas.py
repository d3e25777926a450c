"""A network of replicas: they crash and restart, hang, slow down, flap and lose answers, and links to them are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

__all__ = ["MOODS", "Network", "Replica", "ReplicaFailed"]

MOODS = ("well", "well", "slow", "lossy", "hung", "down", "flapping")
PROMPT = 0.01


class ReplicaFailed(ConnectionError):
    """A replica reset, lost or refused a call."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Replica:
    """One replica. What it does is drawn from `random`, so a run is decided by its seed."""

    def __init__(self, address: str, random: Random) -> None:
        self.address = address
        self.mood = "well"
        self.is_cut = False
        self.running = 0
        self._random = random
        self._life = 0
        self._calls = 0
        self._freed = asyncio.Event()

    def change(self, mood: str) -> None:
        """Take on a mood. Going down resets the calls under way."""
        self.mood = mood
        if mood == "down":
            self._life += 1
        if mood != "hung":
            self.free()

    def cut(self, is_cut: bool) -> None:
        """Cut or mend the link: while it is cut nothing comes through, neither calls nor answers."""
        self.is_cut = is_cut
        if not is_cut:
            self.free()

    def free(self) -> None:
        """Whoever hangs here gets an error."""
        self._freed.set()
        self._freed = asyncio.Event()

    async def serve(self, number: int) -> int:
        """Answer `number` with itself; or fail as the mood has it."""
        self._calls += 1
        self.running += 1
        try:
            await self._trouble()
            return number
        finally:
            self.running -= 1

    async def _trouble(self) -> None:
        random, mood, life = self._random, self.mood, self._life
        if mood == "down":
            raise ConnectionRefusedError(f"{self.address} is down")
        if mood == "flapping" and self._calls % 2:
            raise ReplicaFailed(f"{self.address} flaps", random.choice((None, 0.2)))
        if mood == "well" and not self.is_cut:
            await asyncio.sleep(PROMPT)
        else:
            await asyncio.sleep(random.lognormvariate(-4.0, 0.6) * (40 if mood == "slow" else 1))
        if self._life != life:
            raise ReplicaFailed(f"{self.address} was restarted")
        if self.is_cut or self.mood == "hung":
            await self._freed.wait()
            raise ReplicaFailed(f"{self.address} did not answer")
        if mood == "lossy" and random.random() < 0.5:
            raise ReplicaFailed(f"{self.address} lost it")


class Network:
    """All replicas that ever were."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.replicas: dict[str, Replica] = {}

    def add(self, address: str) -> None:
        self.replicas.setdefault(address, Replica(address, self._random))

    def all(self) -> Iterable[Replica]:
        return self.replicas.values()

    def shake(self) -> None:
        """Something happens."""
        random, replicas = self._random, list(self.replicas.values())
        kind = random.random()
        if kind < 0.25:
            share = random.choice((0.1, 0.5, 0.9))
            for replica in replicas:
                replica.cut(random.random() < share)
        elif kind < 0.4:
            for replica in replicas:
                replica.cut(False)
        else:
            mood = random.choice(MOODS)
            for replica in random.sample(replicas, min(random.choice((1, 5, 50)), len(replicas))):
                replica.change(mood)

    def heal(self) -> None:
        """All is well from now on; what hangs ends with an error."""
        for replica in self.replicas.values():
            replica.change("well")
            replica.cut(False)

    @property
    def running(self) -> int:
        return sum(replica.running for replica in self.replicas.values())
