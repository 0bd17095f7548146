"""What messages refer to is fetched: pictures, voice, recordings. A slow or dead provider holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from tenacity import RetryCallState, wait_random_exponential

from channels import Clears, Fetcher
from domain import Attachment, ChannelError, Unavailable
from router.flow import pause
from storage import events, messages, parts
from storage.database import Database
from storage.types import AnyRow, tidy

log = structlog.get_logger("media")

_T = TypeVar("_T")

_LOOK_EVERY = 1.0
_DEADLINE = 60.0  # seconds for one file
_HOLD = timedelta(seconds=_DEADLINE + 15)
_TOGETHER = 8
_TRIES = 30
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
        fetcher = self._fetchers[row.channel]
        clears = fetcher if isinstance(fetcher, Clears) else None
        if row.attachment_id is None:
            result = await _tried(fetcher.fetch(row.reference), row.channel)
            more = clears is not None
            await self._database.write(lambda connection: _settle(connection, row, result, more=more))
            if isinstance(result, ChannelError):
                return
        # Only now, after the commit, is there a copy of ours. Who dies before this finds it due again.
        left = await _tried(clears.clear(row.reference), row.channel) if clears is not None else None
        if row.attachment_id is not None or clears is not None:
            await self._database.write(lambda connection: _finish(connection, row, left))


async def _tried(call: Awaitable[_T], channel: str) -> _T | ChannelError:
    try:
        async with asyncio.timeout(_DEADLINE):
            return await call
    except ChannelError as error:
        return error
    except TimeoutError:
        return ChannelError(f"no answer within {_DEADLINE:.0f} s")
    except Exception as error:
        log.exception("fetch_failed", channel=channel, error=type(error).__name__)
        return ChannelError(f"{type(error).__name__} in {channel}")


def _settle(connection: Connection, row: AnyRow, result: Attachment | ChannelError, *, more: bool) -> None:
    now = datetime.now(UTC)
    if isinstance(result, Attachment):
        file: dict[str, Any] = messages.file_row(row.message_id, result)
        if parts.fetched(connection, row.id, file, more=more):
            ticket_id = messages.get(connection, row.message_id).ticket_id
            data = {"message": row.message_id, "part": row.part}
            events.append(connection, [events.row("media_fetched", "bot", now, ticket_id=ticket_id, **data)])
        return
    last = result.permanent or row.tries >= _TRIES
    parts.put_off(connection, row.id, tidy(str(result)), None if last else now + _wait(row.tries, result.retry_after))


def _finish(connection: Connection, row: AnyRow, left: ChannelError | None) -> None:
    """`left`: why the provider still has its copy."""
    if left is None:
        parts.finish(connection, row.id)
        return
    reason = tidy(f"It is here, and still at the provider: {left}")
    if left.permanent or row.tries >= 2 * _TRIES:
        log.warning("not_cleared", channel=row.channel, medium=row.id)
        parts.finish(connection, row.id, reason)
    else:
        parts.put_off(connection, row.id, reason, datetime.now(UTC) + _wait(row.tries, left.retry_after))


def _wait(tries: int, retry_after: float | None) -> timedelta:
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = max(1, tries)
    return timedelta(seconds=max(_backoff(state), retry_after or 0.0))
