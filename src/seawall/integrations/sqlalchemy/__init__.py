"""The transactional outbox for SQLAlchemy 2: work is stored in the transaction that it belongs to, or not at all.

from seawall.integrations.sqlalchemy import TransactionalOutbox
from seawall.outbox import Outbox

outbox = Outbox("sqlite:///var/outbox.db")
transactional = TransactionalOutbox(outbox)
mailbox = transactional.table(Base.metadata)          # for migrations

with Session(engine) as session, session.begin():
    session.add(order)
    transactional.put(session, ship, order.number)    # both, or neither

with transactional.relay(engine): ...                 # after the commit: from the table into the outbox's store

The table is a mailbox, the store is the queue: docs/transactional-outbox.md.
"""

try:
    from sqlalchemy import __version__ as _version
except ImportError as error:
    raise ImportError(
        'seawall.integrations.sqlalchemy needs SQLAlchemy 2: pip install "seawall[sqlalchemy]"'
    ) from error
if _version.startswith("1."):
    raise ImportError(f"seawall.integrations.sqlalchemy needs SQLAlchemy 2, and this is {_version}")

from seawall.integrations.sqlalchemy._relay import Relay
from seawall.integrations.sqlalchemy._transactional import TransactionalOutbox

__all__ = ["Relay", "TransactionalOutbox"]
