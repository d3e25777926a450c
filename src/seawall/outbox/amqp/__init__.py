"""`AmqpStore`: an outbox in RabbitMQ."""

from seawall.outbox.amqp.store import AmqpStore

__all__ = ["AmqpStore"]
