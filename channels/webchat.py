"""Web chat: a visitor's line -> `Message`, and the way back as numbered lines of the conversation.

The session is the address, the thread and the sender at once: who holds its token is the visitor. There is no provider:
`send` is the commit of the line's number, so its result is never unknown, and trying again finds the number given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from channels import Limits
from domain import Attachment, ChannelError, InvalidInput, Message, NotFound, Receipt, Reply, Unavailable

CHANNEL = "chat"
ACCOUNT = "web"

_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: control characters but tab and line feed
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ChatLog(Protocol):
    """Where the lines of conversations are numbered."""

    async def number(self, session: str, message_id: int) -> int:
        """Commit the message's sequence number in its session; the same message keeps its number.

        Raises `NotFound` for an unknown session, `Unavailable` when nothing could be stored.
        """
        ...


def parse(
    session: str,
    client_id: str,
    text: str,
    received_at: datetime,
    *,
    longest: int,
    name: str = "",
    attachments: Sequence[Attachment] = (),
) -> Message:
    """A visitor's line as a `Message`. Pure. Raises `InvalidInput`: the visitor is there and can be told."""
    if not _CLIENT_ID.fullmatch(client_id):
        raise InvalidInput("id", "1 to 64 characters of A-Z a-z 0-9 _ -")
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not text:
        raise InvalidInput("text", "There is no text.")
    if len(text) > longest:
        raise InvalidInput("text", f"{longest} characters at most; this has {len(text)}.")
    raw = {"id": client_id, "text": text, "files": [each.name for each in attachments]}
    return Message(
        channel=CHANNEL,
        account=ACCOUNT,
        external_id=f"{session}:{client_id}",
        sender=session,
        sender_name=name,
        received_at=received_at,
        text=text,
        thread=session,
        attachments=tuple(attachments),
        raw=json.dumps(raw, ensure_ascii=True).encode(),
    )


def client_id_of(external_id: str) -> str:
    """The client's own id of a line, out of the stored one."""
    return external_id.rpartition(":")[2]


class WebChatSender:
    """The way out: commit the number, then ring the sockets of this process. Other processes poll."""

    name = CHANNEL
    limits = Limits(deadline=10.0)

    def __init__(self, log: ChatLog, ring: Callable[[str], None] = lambda _session: None) -> None:
        self._log = log
        self._ring = ring

    async def send(self, reply: Reply) -> Receipt:
        session = reply.thread or reply.to
        try:
            seq = await self._log.number(session, reply.message_id)
        except NotFound as error:
            raise ChannelError(str(error), permanent=True) from error
        except Unavailable as error:
            raise ChannelError(str(error), retry_after=error.retry_after) from error
        self._ring(session)
        return Receipt(provider_id=str(seq))

    async def close(self) -> None:
        """Nothing is held."""
