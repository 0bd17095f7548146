"""What only one process of all may do at a time: a lease in the database, which ends by itself."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from storage.database import insert_new
from storage.tables import Lease, table

lease = table(Lease)


def hold(connection: Connection, name: str, holder: str, now: datetime, seconds: float) -> bool:
    """Take or renew a lease. False: somebody else has it."""
    until = now + timedelta(seconds=seconds)
    made = connection.execute(insert_new(connection, lease), [{"name": name, "holder": holder, "until": until}])
    if made.rowcount == 1:
        return True
    mine = sa.or_(lease.c.holder == holder, lease.c.until < now)
    taken = connection.execute(sa.update(lease).where(lease.c.name == name, mine).values(holder=holder, until=until))
    return taken.rowcount == 1


def give_back(connection: Connection, holder: str) -> None:
    """A process that stops leaves what it held to the others at once."""
    connection.execute(sa.delete(lease).where(lease.c.holder == holder))
