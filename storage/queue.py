"""The work queue: a bell that carries ids. The database is the truth.

Two implementations of one port: `EmbeddedQueue` (the database itself) and `storage.redis_queue.RedisQueue` (Redis
Streams). Both may ring twice for one message, and both may lose a ring: processing is conditional on the message's
state, and the sweeper rings again for what was stored and not processed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from domain import Unavailable
from storage import messages
from storage.database import Database
from storage.types import literal

message = messages.message


_IS_FREE = sa.and_(
    message.c.state == literal("received"),
    sa.or_(message.c.held_until.is_(None), message.c.held_until < bindparam("now")),
)
_ONE_FREE = sa.select(message.c.id).where(_IS_FREE).limit(1)
_FREE = sa.select(message.c.id, message.c.held_until).where(_IS_FREE).order_by(message.c.id).limit(bindparam("most"))
_FREE_LOCKED = _FREE.with_for_update(skip_locked=True)
_HOLD = (
    sa.update(message).where(message.c.id.in_(bindparam("ids", expanding=True))).values(held_until=bindparam("until"))
)

_MOST_HANDED = 512  # messages that wait in memory for this process's worker: seconds of work, well under the deadline


@dataclass(frozen=True, slots=True)
class Ring:
    message_id: int
    #: what `done` needs to know it by
    token: str
    #: another worker had it and did not finish in time
    again: bool = False


class WorkQueue(Protocol):
    """How workers hear of stored messages."""

    #: seconds that processing may take before another worker may have the message
    deadline: float

    async def ring(self, message_ids: Sequence[int]) -> None:
        """Tell the workers, after the commit. Never raises for a server that is away: the sweeper rings again."""
        ...

    def room(self) -> bool:
        """Whether what this process stores next may be stored as held, for `hand`."""
        ...

    def hand(self, message_ids: Sequence[int]) -> None:
        """Give this process's own worker, after the commit, what was stored as held."""
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

    A process that both stores and works stores its messages as claimed and hands them on in memory, which spares each
    of them a look and a transaction; the claim is the same, and so is what becomes of it after a crash. Beyond
    `_MOST_HANDED` they are stored free, for any worker. In one process the bell is an `asyncio.Event`. Between
    processes (a web and a worker on one database without Redis) `take` looks every `poll` seconds.
    """

    def __init__(self, database: Database, *, deadline: float = 60.0, poll: float = 0.25) -> None:
        self._database = database
        self.deadline = deadline
        self._poll = poll
        self._bell = asyncio.Event()
        self._handed: deque[int] = deque()
        self._works = False
        #: when to look in the database although messages were handed over
        self._look_at = 0.0

    def room(self) -> bool:
        return self._works and len(self._handed) < _MOST_HANDED

    def hand(self, message_ids: Sequence[int]) -> None:
        self._handed.extend(message_ids)
        self._bell.set()

    async def ring(self, message_ids: Sequence[int]) -> None:
        if message_ids:
            self._look_at = 0.0
            self._bell.set()

    async def take(self, most: int, wait: float) -> list[Ring]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        self._works = True
        while True:
            self._bell.clear()
            own = [self._handed.popleft() for _ in range(min(most, len(self._handed)))]
            rings = [Ring(each, str(each)) for each in own]
            # Looking costs no commit; only where something waits is there a write.
            if len(rings) < most and (not rings or loop.time() >= self._look_at):
                self._look_at = loop.time() + self._poll
                try:
                    rings += await self._claimed(most - len(rings))
                except BaseException:
                    self._handed.extendleft(reversed(own))
                    raise
            if rings:
                if len(rings) == most:
                    self._look_at = 0.0
                    self._bell.set()
                return rings
            left = until - loop.time()
            if left <= 0:
                return []
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), min(left, self._poll))

    async def _claimed(self, most: int) -> list[Ring]:
        if not await self._database.read(self._waiting):
            return []
        return await self._database.write(lambda connection: self._claim(connection, most))

    @staticmethod
    def _waiting(connection: Connection) -> bool:
        return connection.scalar(_ONE_FREE, {"now": datetime.now(UTC)}) is not None

    def _claim(self, connection: Connection, most: int) -> list[Ring]:
        now = datetime.now(UTC)
        free = _FREE if connection.dialect.name == "sqlite" else _FREE_LOCKED
        found = connection.execute(free, {"now": now, "most": most}).all()
        if found:
            connection.execute(
                _HOLD, {"ids": [row.id for row in found], "until": now + timedelta(seconds=self.deadline)}
            )
        return [Ring(row.id, str(row.id), again=row.held_until is not None) for row in found]

    async def done(self, rings: Sequence[Ring]) -> None:
        """Nothing to do: a finished message is no longer `received`, and a failed try gives its claim back."""

    async def give_back(self, rings: Sequence[Ring]) -> None:
        ids = [ring.message_id for ring in rings]
        await self._database.write(lambda connection: messages.release(connection, ids))

    async def depth(self) -> int:
        return await self._database.read(messages.count_received)

    async def close(self) -> None:
        self._works = False
        self._bell.set()
        if self._handed:
            with suppress(Unavailable):  # then the claims end by themselves
                await self.give_back([Ring(each, str(each)) for each in self._handed])
            self._handed.clear()
