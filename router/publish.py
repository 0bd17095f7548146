"""The department streams: events published to Redis by a stored cursor, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from domain import Unavailable, public_number
from router.flow import pause
from storage import events
from storage.database import Database, insert_new
from storage.tables import Cursor, table
from storage.tickets import iso
from storage.types import AnyRow

log = structlog.get_logger("publish")

_NAME = "departments"
_EVERY = 0.5
_PATIENCE = 30.0  # seconds to wait for an event whose id is missing: longer than a statement may take
_cursor = table(Cursor)


class Streams(Protocol):
    async def publish(self, entries: Sequence[tuple[str, Mapping[str, str | int]]]) -> None: ...


class Publisher:
    """Moves the cursor only after the stream has the entries; two publishers may repeat one, never skip one."""

    def __init__(self, database: Database, streams: Streams) -> None:
        self._database = database
        self._streams = streams

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            published = 0
            try:
                published = await self.publish_once()
            except Unavailable as error:
                log.warning("not_published", error=str(error))
                await pause(stop, 1.0)
            if published == 0:
                await pause(stop, _EVERY)

    async def publish_once(self) -> int:
        """How many events were published."""
        after = await self._database.read(_read)
        rows = await self._database.read(lambda connection: events.since(connection, after))
        ready = events.settled(rows, after, datetime.now(UTC), _PATIENCE)
        if not ready:
            return 0
        await self._streams.publish([(row.department, _entry(row)) for row in ready if row.ticket_id is not None])
        await self._database.write(lambda connection: _move(connection, after, ready[-1].id))
        return len(ready)


def _entry(row: AnyRow) -> dict[str, str | int]:
    return {"event_id": row.id, "ticket": public_number(row.ticket_id), "kind": row.kind, "at": iso(row.at) or ""}


def _read(connection: Connection) -> int:
    return connection.scalar(sa.select(_cursor.c.value).where(_cursor.c.name == _NAME)) or 0


def _move(connection: Connection, after: int, to: int) -> None:
    connection.execute(insert_new(connection, _cursor), [{"name": _NAME, "value": 0}])
    connection.execute(sa.update(_cursor).where(_cursor.c.name == _NAME, _cursor.c.value == after).values(value=to))
