"""The chat sockets that this process holds, and the one loop that tells them what is new.

The database is the truth: an answer is a numbered line there, whoever wrote it. Each web process looks twice a second
at the newest number of the sessions that it holds; in one process with delivery a nudge makes it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from channels.webchat import client_id_of
from domain import Unavailable, public_number
from router.desk import Desk
from storage import chat, messages
from storage.database import Database
from storage.types import AnyRow
from web.chat_token import Visitor
from web.chat_words import LANGUAGES, STATES

log = structlog.get_logger("chat")

POLL = 0.5  # seconds between two looks at the newest numbers
_LOOKS = 4  # every so many looks the tickets' states are read too
_TYPING = 6.0  # seconds that "is typing" holds after the last key
_TOKEN_AGE = timedelta(hours=1)  # a held socket gets a new token after it
PAGE = 200  # lines in one frame

RESTART = 1012  # close codes: come back, jittered
EXPIRED = 4001  # forget the token and begin anew
ENDED = 4009  # the visitor ended the conversation
SLOW = 4008  # nothing was heard, or nothing was read


def line_frame(row: AnyRow, files: Sequence[AnyRow]) -> dict[str, Any]:
    """A line as the widget gets it: text is text, never HTML."""
    mine = row.direction == "in"
    return {
        "seq": row.seq,
        "from": "visitor" if mine else "bot" if row.automatic else "agent",
        "id": client_id_of(row.external_id) if mine else "",
        "text": row.text,
        "at": row.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "author": "" if mine or row.automatic else row.author or "",
        "files": [{"name": each.name, "size": each.size} for each in files if each.message_id == row.id],
    }


class Socket:
    """One tab of a visitor. `pump` sends what it has not seen; `send` is safe from several tasks."""

    def __init__(self, hub: Hub, visitor: Visitor, language: str, seen: int, websocket: Any) -> None:
        self.hub = hub
        self.visitor = visitor
        self.language = language if language in LANGUAGES else LANGUAGES[0]
        self.seen = seen
        self.token_at = datetime.now(UTC)
        self.wake = asyncio.Event()
        self._websocket = websocket
        self._state: dict[str, Any] | None = None
        self._lock = asyncio.Lock()
        self._closing = False

    async def send(self, frame: dict[str, Any]) -> None:
        """One frame. A client that reads nothing for ten seconds is let go."""
        async with self._lock:
            if self._closing:
                return
            try:
                # Not `wait_for`: in 3.11 it may swallow a cancellation that comes as the send ends.
                async with asyncio.timeout(10):
                    await self._websocket.send_json(frame)
            except TimeoutError:
                self._closing = True
                await self._websocket.close(SLOW)

    async def close(self, code: int, reason: str = "") -> None:
        async with self._lock:
            if not self._closing:
                self._closing = True
                with suppress(RuntimeError):  # the other side was faster
                    await self._websocket.close(code, reason)

    async def push(self) -> None:
        """Send the lines and the state that this tab does not have."""
        session = self.visitor.session
        overview, rows, files = await self.hub.read(session, self.seen)
        while rows:
            frames = [line_frame(row, files) for row in rows]
            await self.send({"type": "lines", "after": self.seen, "lines": frames})
            self.seen = frames[-1]["seq"]
            if len(rows) < PAGE:
                break
            overview, rows, files = await self.hub.read(session, self.seen)
        state = self.hub.state_of(overview, session, self.language)
        if state != self._state:
            self._state = state
            await self.send({"type": "state", **state})
        if overview is not None and overview.ended_at is not None:
            await self.send({"type": "ended", **state})
            await self.close(ENDED)

    async def pump(self) -> None:
        """Push whenever woken, until cancelled."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            try:
                await self.push()
            except Unavailable:
                # The poller wakes us again when the database is back.
                self.hub.forget_seqs(self.visitor.session)
            now = datetime.now(UTC)
            if now - self.token_at > _TOKEN_AGE:
                self.token_at = now
                await self.send({"type": "token", "token": self.hub.make_token(self.visitor, now)})


class Hub:
    """All sockets of this process. `run` in the web process' loop; `nudge` from anywhere in it."""

    def __init__(
        self, database: Database, desk: Desk, make_token: Callable[[Visitor, datetime], str], *, poll: float = POLL
    ) -> None:
        self._database = database
        self._desk = desk
        self.make_token = make_token
        self._poll = poll
        self._sockets: dict[str, set[Socket]] = {}
        self._seqs: dict[str, int] = {}
        self._overviews: dict[str, AnyRow] = {}
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._typing: dict[str, float] = {}
        self._agents: dict[str, float] = {}
        self.draining = False

    # --- sockets ------------------------------------------------------------------------------------------------------

    def add(self, socket: Socket) -> None:
        self._sockets.setdefault(socket.visitor.session, set()).add(socket)

    def remove(self, socket: Socket) -> None:
        session = socket.visitor.session
        held = self._sockets.get(session, set())
        held.discard(socket)
        if not held:
            for known in (self._sockets, self._seqs, self._overviews, self._typing, self._agents):
                known.pop(session, None)

    def count(self, session: str) -> int:
        return len(self._sockets.get(session, ()))

    async def read(self, session: str, after: int) -> tuple[AnyRow | None, Sequence[AnyRow], Sequence[AnyRow]]:
        """One look: the overview, the lines after a number, their files."""

        def query(connection: Any) -> tuple[AnyRow | None, Sequence[AnyRow], Sequence[AnyRow]]:
            overview = chat.overviews(connection, [session]).get(session)
            rows = chat.lines(connection, session, after, limit=PAGE)
            mine = [row.id for row in rows if row.direction == "in"]
            return overview, rows, messages.attachments(connection, mine) if mine else []

        return await self._database.read(query)

    def state_of(self, overview: AnyRow | None, session: str, language: str) -> dict[str, Any]:
        """What a visitor may know besides the lines, in their language."""
        typing = self._now() < self._agents.get(session, 0.0)
        if overview is None or overview.ticket_id is None:
            return {"number": "", "state": "", "department": "", "agent": "", "url": "", "typing": typing}
        return {
            "number": public_number(overview.ticket_id),
            "state": STATES[language].get(overview.state, overview.state),
            "department": self._desk.department_name(overview.department, language),
            "agent": overview.owner or "",
            "url": self._desk.tracking_url(overview.token),
            "typing": typing,
        }

    # --- typing -------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def visitor_types(self, session: str) -> None:
        self._typing[session] = self._now() + _TYPING

    def is_typing(self, session: str) -> bool:
        """The visitor is typing, as far as this process knows."""
        return self._now() < self._typing.get(session, 0.0)

    def agent_types(self, session: str) -> None:
        """Somebody of ours writes an answer: shown for a few seconds in the tabs that this process holds."""
        if session in self._sockets:
            self._agents[session] = self._now() + _TYPING
            self._wake(session)
            asyncio.get_running_loop().call_later(_TYPING + 0.1, self._wake, session)

    # --- what is new --------------------------------------------------------------------------------------------------

    def nudge(self, _session: str = "") -> None:
        """A line was numbered in this process: look now. Safe from other threads."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._bell.set)

    def forget_seqs(self, session: str) -> None:
        self._seqs.pop(session, None)
        self._overviews.pop(session, None)

    def _wake(self, session: str) -> None:
        for socket in self._sockets.get(session, ()):
            socket.wake.set()

    async def look(self, *, states: bool) -> None:
        """Wake the sockets whose sessions have something new. `states`: also tickets that changed without a line."""
        held = list(self._sockets)
        if not held:
            return
        if states:
            overviews = await self._database.read(lambda connection: chat.overviews(connection, held))
            seqs = {session: row.last_seq for session, row in overviews.items()}
        else:
            overviews = {}
            seqs = await self._database.read(lambda connection: chat.last_seqs(connection, held))
        changed = {session for session, seq in seqs.items() if self._seqs.get(session) != seq}
        changed |= {session for session, row in overviews.items() if self._overviews.get(session) != row}
        for session in held:
            if session in self._sockets:
                self._seqs.update({session: seqs[session]} if session in seqs else {})
                self._overviews.update({session: overviews[session]} if session in overviews else {})
        for session in changed:
            self._wake(session)

    async def run(self) -> None:
        """Look, until cancelled. A database that is away is waited for."""
        self._loop = asyncio.get_running_loop()
        looks = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._bell.wait()
            self._bell.clear()
            looks += 1
            try:
                await self.look(states=looks % _LOOKS == 0)
            except Unavailable:
                await asyncio.sleep(self._poll)
            except Exception as error:
                # One bad look must not end all conversations of this process.
                log.error("look_failed", error=type(error).__name__)
                await asyncio.sleep(self._poll)

    async def drain(self) -> None:
        """Take no new sockets and tell all clients to come back: the server restarts."""
        self.draining = True
        for socket in [each for held in self._sockets.values() for each in held]:
            await socket.close(RESTART, "restart")

    async def end(self, session: str) -> bool:
        """The visitor ended the conversation: every tab hears it, no token opens it again.

        False when there is no conversation yet. Raises `Unavailable`.
        """
        now = datetime.now(UTC)
        begun = await self._database.write(lambda connection: chat.end(connection, session, now))
        self._wake(session)
        return begun

    async def number(self, session: str, message_id: int) -> int:
        """Number a stored line of the visitor, then tell the other tabs. Raises `NotFound`, `Unavailable`."""
        now = datetime.now(UTC)
        seq = await self._database.write(lambda connection: chat.number(connection, session, message_id, now))
        self.nudge(session)
        return seq
