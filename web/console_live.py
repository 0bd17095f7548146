"""Live pages: one poller a process tells all open pages what changed. Ids, versions and counts; never text.

It reads the events table, so that it hears of what other processes did. PostgreSQL may show event 8 before event 7:
holes are looked at again until they are filled or older than any transaction.

A page hears `hello` once the poller follows the events, with the number of the newest that it will not be told any
more. A page that was made before that event asks for what it missed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from domain import SluiceError, public_number
from storage import console, events, people
from storage.database import Database
from storage.types import AnyRow
from web import auth
from web.auth import Visit, signed_in
from web.console_page import HEADERS, ConsoleRoute

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)
log = structlog.get_logger("live")

_EVERY = 0.5  # seconds between two looks
_COUNT_EVERY = 2.0
_HEARTBEAT = 15.0
_PATIENCE = 30.0  # seconds that a hole in the ids may still be filled
_MOST = 1000  # events in one look; a page that is further behind is told to load again
_MOST_HOLES = 500
_WAITING = 50  # messages that a slow page may be behind


@dataclass(slots=True)
class Trail:
    """Follows the events table without missing or repeating one."""

    newest: int
    holes: dict[int, float] = field(default_factory=dict)

    def read(self, connection: Connection, clock: float) -> tuple[list[AnyRow], bool]:
        """New events, and whether there were more than one look can hold."""
        found = list(events.since(connection, self.newest, limit=_MOST))
        late = list(console.events_at(connection, self.holes)) if self.holes else []
        for row in late:
            del self.holes[row.id]
        expected = self.newest + 1
        for row in found:
            for missing in range(expected, min(row.id, expected + _MOST_HOLES)):
                self.holes[missing] = clock + _PATIENCE
            expected = row.id + 1
        self.newest = expected - 1
        self.holes = {hole: until for hole, until in self.holes.items() if until > clock}
        return late + found, len(found) >= _MOST


@dataclass(eq=False, slots=True)
class _Page:
    """One open page: who reads it and what waits to be told."""

    visit: Visit
    waiting: asyncio.Queue[dict[str, Any] | None] = field(default_factory=lambda: asyncio.Queue(_WAITING))

    def tell(self, said: dict[str, Any] | None) -> None:
        try:
            self.waiting.put_nowait(said)
        except asyncio.QueueFull:
            # Too slow to follow: it loads again instead of replaying what it missed.
            while not self.waiting.empty():
                self.waiting.get_nowait()
            self.waiting.put_nowait({"reset": True})


class Live:
    """The poller of one process. It runs while a page is open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: set[_Page] = set()
        self._task: asyncio.Task[None] | None = None
        self._trail: Trail | None = None
        self._uncounted = True
        self._closed = False

    async def follow(self, visit: Visit) -> AsyncIterator[dict[str, Any]]:
        """What changes, for one page, until it goes; `{}` is a heartbeat."""
        page = _Page(visit)
        self._pages.add(page)
        self._uncounted = True
        if self._task is None or self._task.done():
            self._trail = None
            self._task = asyncio.create_task(self._poll())
            self._task.add_done_callback(self._ended)
        elif self._trail is not None:
            page.tell(_hello(self._trail))
        try:
            while not self._closed:
                try:
                    said = await asyncio.wait_for(page.waiting.get(), _HEARTBEAT)
                except TimeoutError:
                    said = {}
                if said is None:
                    return
                yield said
        finally:
            self._pages.discard(page)

    def close(self) -> None:
        """End all streams: the process stops, and the pages come back by themselves."""
        self._closed = True
        self._end_all()
        if self._task is not None:
            self._task.cancel()

    def _end_all(self) -> None:
        for page in self._pages:
            page.tell(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        # No page may wait for a poller that is gone: it comes back by itself and starts another.
        log.error("live_failed", error=type(task.exception()).__name__)
        self._end_all()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        counted = 0.0
        while self._pages:
            with suppress(SluiceError):
                if self._trail is None:
                    self._trail = Trail(await self._database.read(events.newest))
                    for page in self._pages:
                        page.tell(_hello(self._trail))
                clock = loop.time()
                rows, more = await self._database.read(partial(self._trail.read, clock=clock))
                if rows:
                    self._uncounted = True
                    self._tell(rows, more)
                if self._uncounted and clock - counted >= _COUNT_EVERY:
                    counted, self._uncounted = clock, False
                    await self._count()
            await asyncio.sleep(_EVERY)

    def _tell(self, rows: list[AnyRow], more: bool) -> None:
        changes: dict[int, dict[str, Any]] = {}
        for row in rows:
            if row.ticket_id is None:
                continue
            change = changes.setdefault(
                row.ticket_id, {"n": public_number(row.ticket_id), "v": row.version, "d": row.department, "k": []}
            )
            change["v"] = max(change["v"], row.version)
            if row.kind not in change["k"]:
                change["k"].append(row.kind)
        for page in self._pages:
            seen = [each for each in changes.values() if page.visit.actor.may_see(each["d"])]
            if more:
                page.tell({"reset": True})
            elif seen:
                page.tell({"tickets": seen})

    async def _count(self) -> None:
        tally = await self._database.read(lambda connection: console.counts(connection, None))
        owners = {page.visit.person.id for page in self._pages}
        mine = await self._database.read(lambda connection: console.owned(connection, owners))
        for page in self._pages:
            actor = page.visit.actor
            own = [name for name in page.visit.web.desk.taxonomy.departments if actor.may_see(name)]
            said: dict[str, Any] = tally.visible(None if page.visit.leads else own)
            said["mine"] = mine.get(page.visit.person.id, 0)
            if page.visit.leads:
                said |= {"review": tally.review, "quarantined": tally.quarantined}
            page.tell({"counts": said})


def _hello(trail: Trail) -> dict[str, Any]:
    return {"hello": True, "at": trail.newest}


def live_of(app: FastAPI) -> Live:
    """The poller of this process; `close` it when the process stops."""
    if not hasattr(app.state, "live"):
        app.state.live = Live(app.state.web.database)
    found: Live = app.state.live
    return found


@routes.get("/console/events")
async def stream(request: Request, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """Server-sent events. The stream ends with the session, at the next heartbeat."""
    secret = request.cookies.get(auth.COOKIE, "")
    live = live_of(request.app)

    async def lines() -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        async for said in live.follow(visit):
            if said:
                yield f"data: {json.dumps(said, separators=(',', ':'))}\n\n".encode()
                continue
            yield b": still here\n\n"
            with suppress(SluiceError):
                now = datetime.now(UTC)
                row = await visit.web.database.read(partial(people.session, secret=secret, now=now))
                if row is None or (row.role, tuple(row.departments)) != (visit.role, visit.actor.departments):
                    return

    headers = {**HEADERS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
