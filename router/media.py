"""What messages refer to is fetched: pictures, voice, recordings. A slow or dead provider holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection
from tenacity import RetryCallState, wait_random_exponential

from channels import Fetcher
from domain import Attachment, ChannelError, Unavailable
from router.flow import pause
from storage import events, messages, parts
from storage.database import Database
from storage.types import AnyRow

log = structlog.get_logger("media")

_LOOK_EVERY = 1.0
_DEADLINE = 60.0  # seconds for one file
_HOLD = timedelta(seconds=_DEADLINE + 15)
_TOGETHER = 8
_TRIES = 8
_backoff = wait_random_exponential(multiplier=5, max=900)


class Media:
    """Fetches what is due, on the channels that have something to fetch with."""

    def __init__(self, database: Database, fetchers: Mapping[str, Fetcher]) -> None:
        self._database = database
        self._fetchers = dict(fetchers)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            fetched = 0
            try:
                fetched = await self.fetch_due()
            except Unavailable:
                log.warning("database_unavailable")
            if fetched == 0:
                await pause(stop, _LOOK_EVERY)

    async def fetch_due(self) -> int:
        """How many were taken."""
        rows = await self._database.write(
            lambda connection: parts.claim(connection, self._fetchers.keys(), datetime.now(UTC), _HOLD, _TOGETHER)
        )
        await asyncio.gather(*(self._fetch(row) for row in rows))
        return len(rows)

    async def _fetch(self, row: AnyRow) -> None:
        result: Attachment | ChannelError
        try:
            async with asyncio.timeout(_DEADLINE):
                result = await self._fetchers[row.channel].fetch(row.reference)
        except ChannelError as error:
            result = error
        except TimeoutError:
            result = ChannelError(f"no answer within {_DEADLINE:.0f} s")
        except Exception as error:
            log.exception("fetch_failed", channel=row.channel, error=type(error).__name__)
            result = ChannelError(f"{type(error).__name__} in {row.channel}")
        await self._database.write(lambda connection: _settle(connection, row, result))


def _settle(connection: Connection, row: AnyRow, result: Attachment | ChannelError) -> None:
    now = datetime.now(UTC)
    if isinstance(result, Attachment):
        file: dict[str, Any] = messages.file_row(row.message_id, result)
        if parts.fetched(connection, row.id, file):
            ticket_id = messages.get(connection, row.message_id).ticket_id
            data = {"message": row.message_id, "part": row.part}
            events.append(connection, [events.row("media_fetched", "bot", now, ticket_id=ticket_id, **data)])
        return
    last = result.permanent or row.tries >= _TRIES
    parts.put_off(connection, row.id, str(result), None if last else now + _wait(row.tries, result.retry_after))


def _wait(tries: int, retry_after: float | None) -> timedelta:
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = max(1, tries)
    return timedelta(seconds=max(_backoff(state), retry_after or 0.0))
