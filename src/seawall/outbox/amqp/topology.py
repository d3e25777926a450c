"""Which exchanges and queues one outbox has in RabbitMQ, and why each is as it is.

    <prefix>             topic exchange. Its key says the band: `now.high`; a record that waited bears `4000.high`.
    <prefix>.high        records that may be due, of priority 7 to 9; `.normal` 4 to 6; `.low` 0 to 3
    <prefix>.delay       topic exchange, by milliseconds: `4000.*`
    <prefix>.delay.4000  one queue for each step of delay. All in it wait for the same time, so none blocks another;
                         when it is over, the broker itself takes it to <prefix>, under the key it has.
    <prefix>.dead        fanout exchange and queue: dead letters with their causes
    <prefix>.dropped     traces of what was thrown away, the last 1,000

Quorum queues, all of them, for three things that classic queues have not: they count deliveries that ended without an
answer (so an attempt is counted whose worker died), they move what has waited *at least once* (a classic queue forgets
a message if the broker dies while it moves it), and they write to disk before they confirm. What they have not is
priorities: hence the three bands, each a queue.
"""

from __future__ import annotations

import re
from typing import Any

from seawall.errors import ConfigError

__all__ = ["BANDS", "STEPS_MS", "Topology", "band_of", "step_ms"]

BANDS = ("high", "normal", "low")
STEPS_MS = tuple(250 << power for power in range(15))
"""A quarter of a second to 68 minutes. Longer delays go through several, one after another."""
MOST_DROPPED_LISTED = 1_000
MOST_DEATHS = 50
"""Deliveries of one copy that may end without an answer before the broker makes it a dead letter: also a message that
the client library cannot read, over which it gives up the connection each time, must stop nobody for ever."""
NO_LIMIT = 1_000_000
"""Newer brokers end a message after 20 deliveries by themselves, but a dead letter may be looked at more often."""
OTHER_LENGTH = re.compile(r"'x-max-length'.* but current is '(\d{1,12})'")


def band_of(priority: int) -> str:
    """The band of a priority from 0 to 9."""
    return "high" if priority >= 7 else "normal" if priority >= 4 else "low"


def step_ms(left_ns: int) -> int:
    """The step of delay that comes next for a record that is due in `left_ns`: the longest that is not too long."""
    fitting = [step for step in STEPS_MS if step * 1_000_000 <= left_ns]
    return fitting[-1] if fitting else STEPS_MS[0]


class Topology:
    """The names of one outbox, and how they are declared."""

    def __init__(self, name: str, backlog: int) -> None:
        self.prefix = f"seawall.{name}"
        self.main = self.prefix
        self.delay = f"{self.prefix}.delay"
        self.dead = f"{self.prefix}.dead"
        self.dropped = f"{self.prefix}.dropped"
        self._backlog = backlog

    def ready(self, band: str) -> str:
        """The queue of a band."""
        return f"{self.prefix}.{band}"

    def waiting(self, step: int) -> str:
        """The queue of a step of delay."""
        return f"{self.delay}.{step}"

    @property
    def held(self) -> list[str]:
        """The queues of what waits."""
        return [*map(self.ready, BANDS), *map(self.waiting, STEPS_MS)]

    def exchanges(self) -> dict[str, str]:
        """The kind of each exchange."""
        return {self.main: "topic", self.delay: "topic", self.dead: "fanout"}

    def queues(self) -> dict[str, dict[str, Any]]:
        """The arguments of each queue."""
        # Without this overflow that strategy is not kept.
        safely = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        full: dict[str, Any] = {**safely, "x-dead-letter-exchange": self.dead, "x-max-length": self._backlog}
        full["x-delivery-limit"] = MOST_DEATHS
        moved = {**safely, "x-dead-letter-exchange": self.main}
        last = {"x-max-length": MOST_DROPPED_LISTED, "x-overflow": "drop-head"}
        found = {self.ready(band): full for band in BANDS}
        found |= {self.waiting(step): {**moved, "x-message-ttl": ttl_ms(step)} for step in STEPS_MS}
        found |= {self.dead: {}, self.dropped: last}
        common = {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}
        return {queue: {**common, **arguments} for queue, arguments in found.items()}

    def bindings(self) -> list[tuple[str, str, str]]:
        """Queue, exchange and key."""
        found = [(self.ready(band), self.main, f"*.{band}") for band in BANDS]
        found += [(self.waiting(step), self.delay, f"{step}.*") for step in STEPS_MS]
        return [*found, (self.dead, self.dead, "")]

    async def declare(self, connection: Any) -> None:
        """Make what is not there. Raises `ConfigError` if something is there that is not ours."""
        import aiormq  # noqa: PLC0415  # an extra

        channel = await connection.channel()
        for exchange, kind in self.exchanges().items():
            await channel.exchange_declare(exchange, exchange_type=kind, durable=True)
        for queue, arguments in self.queues().items():
            try:
                await channel.queue_declare(queue, durable=True, arguments=arguments)
            except aiormq.ChannelPreconditionFailed as error:
                # Another backlog in an earlier release: ours is counted by clients too, so the queue may keep its own.
                other = OTHER_LENGTH.search(str(error))
                if other is None or "x-max-length" not in arguments:
                    raise ConfigError(f"AmqpStore: the broker has another {queue!r}: {error}") from None
                channel = await connection.channel()
                await channel.queue_declare(queue, durable=True, arguments={**arguments, "x-max-length": int(other[1])})
        for queue, exchange, key in self.bindings():
            await channel.queue_bind(queue, exchange, routing_key=key)
        await channel.close()


def ttl_ms(step: int) -> int:
    """How long the broker keeps what lies in a step. Tests, whose clocks are quicker, put theirs in place."""
    return step
