"""The work queue: a bell that carries ids. The database is the truth.

Two implementations of one port: `EmbeddedQueue` (the database itself) and `storage.redis_queue.RedisQueue` (Redis
Streams). Both may ring twice for one message, and both may lose a ring: processing is conditional on the message's
state, and the sweeper rings again for what was stored and not processed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import Connection

from storage import messages
from storage.database import Database
from storage.types import literal

message = messages.message


@dataclass(frozen=True, slots=True)
class Ring:
    message_id: int
    #: what `done` needs to know it by
    token: str
    #: another worker had it and did not finish in time
    again: bool = False


class WorkQueue(Protocol):
    """How workers hear of stored messages."""

    async def ring(self, message_ids: Sequence[int]) -> None:
        """Tell the workers, after the commit. Never raises for a server that is away: the sweeper rings again."""
        ...

    async def take(self, most: int, wait: float) -> list[Ring]:
        """Up to `most` rings for this worker alone; an empty list after `wait` seconds. Raises `Unavailable`."""
        ...

    async def done(self, rings: Sequence[Ring]) -> None:
        """These are finished (or to be swept up again later); nobody else needs to hear of them."""
        ...

    async def give_back(self, rings: Sequence[Ring]) -> None:
        """This worker stops in order and has not begun these: another one takes them at once, and blames nobody."""
        ...

    async def depth(self) -> int:
        """How many rings wait or are being worked on. Raises `Unavailable`."""
        ...

    async def close(self) -> None: ...


class EmbeddedQueue:
    """The database as queue: a worker claims stored messages for a while.

    In one process the bell is an `asyncio.Event`. Between processes (a web and a worker on one database without Redis)
    `take` looks every `poll` seconds.
    """

    def __init__(self, database: Database, *, deadline: float = 60.0, poll: float = 0.25) -> None:
        self._database = database
        self._deadline = timedelta(seconds=deadline)
        self._poll = poll
        self._bell = asyncio.Event()

    async def ring(self, message_ids: Sequence[int]) -> None:
        if message_ids:
            self._bell.set()

    async def take(self, most: int, wait: float) -> list[Ring]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            self._bell.clear()
            # Looking costs no commit; only where something waits is there a write.
            if await self._database.read(self._waiting):
                rings = await self._database.write(lambda connection: self._claim(connection, most))
                if rings:
                    if len(rings) == most:
                        self._bell.set()
                    return rings
            left = until - loop.time()
            if left <= 0:
                return []
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), min(left, self._poll))

    @staticmethod
    def _free(now: datetime) -> sa.ColumnElement[bool]:
        return sa.and_(
            message.c.state == literal("received"),
            sa.or_(message.c.held_until.is_(None), message.c.held_until < now),
        )

    def _waiting(self, connection: Connection) -> bool:
        query = sa.select(message.c.id).where(self._free(datetime.now(UTC))).limit(1)
        return connection.scalar(query) is not None

    def _claim(self, connection: Connection, most: int) -> list[Ring]:
        now = datetime.now(UTC)
        free = sa.select(message.c.id, message.c.held_until).where(self._free(now)).order_by(message.c.id).limit(most)
        if connection.dialect.name != "sqlite":
            free = free.with_for_update(skip_locked=True)
        found = connection.execute(free).all()
        if found:
            connection.execute(
                sa.update(message)
                .where(message.c.id.in_([row.id for row in found]))
                .values(held_until=now + self._deadline)
            )
        return [Ring(row.id, str(row.id), again=row.held_until is not None) for row in found]

    async def done(self, rings: Sequence[Ring]) -> None:
        """Nothing to do: a finished message is no longer `received`, and a failed try gives its claim back."""

    async def give_back(self, rings: Sequence[Ring]) -> None:
        ids = [ring.message_id for ring in rings]
        free = sa.update(message).where(message.c.id.in_(ids), message.c.state == literal("received"))
        await self._database.write(lambda connection: connection.execute(free.values(held_until=None)) and None)

    async def depth(self) -> int:
        return await self._database.read(messages.count_received)

    async def close(self) -> None:
        self._bell.set()
