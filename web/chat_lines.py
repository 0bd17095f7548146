"""What a visitor says, by whichever way it comes: stored, numbered, and only then acknowledged (promise P1)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import cast

from fastapi import Request, WebSocket

from channels.webchat import parse
from domain import Attachment, InvalidInput
from storage import chat
from web.chat_files import Scanner
from web.chat_guard import Brake
from web.chat_hub import POLL, Hub
from web.chat_token import BadToken, Tokens, Visitor
from web.chat_words import CHAT
from web.context import Web

_CONTACT = re.compile(r"[^@\s]{1,128}@[^@\s.]+(?:\.[^@\s.]+)+|\+?[\d\s()./-]{6,32}")


class Chat:
    """The web chat of one process: made once by the wiring, kept in `app.state.chat`."""

    def __init__(self, web: Web, *, scanner: Scanner | None = None, poll: float = POLL) -> None:
        self.web = web
        self.settings = web.settings.chat
        self.tokens = Tokens(web.secret, self.settings.token_lasts)
        self.brake = Brake(self.settings.per_minute)
        self.hub = Hub(web.database, web.desk, self.tokens.make, poll=poll)
        self.scanner = scanner

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the hub; at the end every client is told to come back."""
        task = asyncio.create_task(self.hub.run(), name="chat-hub")
        try:
            yield
        finally:
            await self.hub.drain()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def check_open(self, visitor: Visitor) -> int:
        """The newest number of the conversation; 0 for one that has not begun. Raises `BadToken` when it was ended."""
        row = await self.web.database.read(lambda connection: chat.get(connection, visitor.session))
        if row is None:
            return 0
        if row.ended_at is not None:
            raise BadToken
        return int(row.last_seq)

    async def say(
        self,
        visitor: Visitor,
        client_id: str,
        text: str,
        *,
        address: str,
        language: str,
        attachments: Sequence[Attachment] = (),
    ) -> int:
        """Take one line; its number, after both commits. The same client id again gives the same number.

        Raises `InvalidInput`, `TooMany`, `BadToken` for an ended conversation, `Unavailable` when nothing was stored.
        """
        self.brake.line(visitor.session, address)
        now = datetime.now(UTC)
        message = parse(visitor.session, client_id, text, now, longest=self.settings.longest, attachments=attachments)
        await self._open(visitor, language, now)
        # The workers wait for the number, so that the bot's answer cannot come before the question.
        [stored] = await self.web.flow.receive([message], hold=True)
        try:
            return await self.hub.number(visitor.session, stored.message_id)
        finally:
            if stored.new:
                await self.web.flow.let_go([stored.message_id])

    async def _open(self, visitor: Visitor, language: str, now: datetime) -> None:
        row = await self.web.database.read(lambda connection: chat.get(connection, visitor.session))
        if row is not None:
            if row.ended_at is not None:
                raise BadToken
            return
        await self.web.database.write(
            lambda connection: chat.open_session(
                connection, visitor.session, site=visitor.site, language=language, now=now
            )
        )

    async def leave_contact(
        self, visitor: Visitor, contact: str, text: str, client_id: str, *, address: str, language: str
    ) -> int:
        """An e-mail address or phone number for when nobody answers here. It joins the conversation's ticket.

        Raises what `say` raises; `InvalidInput` names `contact` or `text`.
        """
        contact = " ".join(contact.split())
        if not _CONTACT.fullmatch(contact):
            raise InvalidInput("contact", "An e-mail address or a phone number.")
        if text.strip():
            await self.say(visitor, client_id, text, address=address, language=language)
        elif await self.check_open(visitor) == 0:
            # A contact alone would be a ticket without a matter.
            raise InvalidInput("text", "Write your message first.")
        session = visitor.session
        await self.web.database.write(lambda connection: chat.change(connection, session, contact=contact))
        line = CHAT[language]["contact_line"].format(contact=contact)
        digest = hashlib.sha256(contact.encode()).hexdigest()[:16]
        return await self.say(visitor, f"contact-{digest}", line, address=address, language=language)


def chat_of(connection: Request | WebSocket) -> Chat:
    return cast(Chat, connection.app.state.chat)
