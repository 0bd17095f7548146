"""How the channels' sources are, told by whichever process runs them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from storage.tables import ChannelHealth, table
from storage.types import AnyRow

channel_health = table(ChannelHealth)

#: a source that said nothing for longer is not running
SILENT = timedelta(seconds=60)
_FORGOTTEN = timedelta(days=2)
#: names of what is told only while it lasts (`sms out`, `telegram silence`) or by a process that may be away for good
PASSING = re.compile(r" (out|out \(.*\)|silence|account)$")


def tell(connection: Connection, rows: Sequence[tuple[str, bool, str]], now: datetime) -> None:
    """Write what sources say of themselves: (name, ok, detail)."""
    if not rows:
        return
    insert: Any = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = insert(channel_health)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=[channel_health.c.name], set_={"ok": new.ok, "detail": new.detail, "at": new.at}
    )
    connection.execute(statement, [{"name": name, "ok": ok, "detail": detail, "at": now} for name, ok, detail in rows])
    # A mailbox that was taken out of the settings is not shown for ever.
    connection.execute(sa.delete(channel_health).where(channel_health.c.at < now - _FORGOTTEN))


def told(connection: Connection) -> Sequence[AnyRow]:
    """What was last said, by name."""
    return connection.execute(sa.select(channel_health).order_by(channel_health.c.name)).all()
