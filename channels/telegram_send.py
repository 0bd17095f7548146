"""The way out to Telegram: plain text, with buttons under what the bot says by itself; and files from there."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import Mapping

from aiogram import Bot
from aiogram.methods import GetFile, SendMessage
from aiogram.types import LinkPreviewOptions

from channels import Limits
from channels.settings import TelegramSettings
from channels.telegram_buttons import keyboard
from channels.telegram_call import CHANNEL, Moved, call, explained
from domain import Attachment, ChannelError, Receipt, Reply

#: longest text of a message (Bot API, sendMessage)
_LONGEST = 4096
#: messages a second that a bot may send in all (Bots FAQ: about 30)
_RATE = 28.0
#: bytes of a file that a bot may fetch (Bot API, getFile)
MOST = 20_000_000
_PLACE = re.compile(r"(-?[0-9]{1,18})(?:/([0-9]{1,18}))?")


def utf16(text: str) -> int:
    """Telegram counts in UTF-16: an emoji is two or more."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class TelegramSender:
    """`sendMessage`, one after another within a chat, and slower where Telegram says so."""

    name = CHANNEL
    limits = Limits(text=_LONGEST, measure=utf16, parts=10, ordered=True, deadline=60.0)

    def __init__(self, bot: Bot, settings: TelegramSettings) -> None:
        self._bot = bot
        self._groups = frozenset(settings.groups)
        self._timeout = settings.timeout
        #: chat -> until when Telegram wants nothing for it, on the monotonic clock
        self._resting: dict[int, float] = {}
        self._next = 0.0

    async def send(self, reply: Reply) -> Receipt:
        chat, topic = self._place(reply)
        left = self._resting.get(chat, 0.0) - time.monotonic()
        if left > 0:
            raise ChannelError("Telegram asked to wait with messages to this chat.", retry_after=left)
        await self._turn()
        try:
            told = await call(self._bot, _message(reply, chat, topic), self._timeout)
        except Moved as moved:  # nothing was sent yet
            told = await call(self._bot, _message(reply, moved.chat, topic), self._timeout)
        except ChannelError as error:
            if error.retry_after is not None and not error.pause:
                self._rest(chat, error)
            raise
        number = told.get("message_id") if isinstance(told, Mapping) else None
        if not isinstance(number, int):
            raise ChannelError("Telegram's answer does not say what became of the message.", unknown=True)
        return Receipt(provider_id=f"{chat}:{number}")

    def _place(self, reply: Reply) -> tuple[int, int | None]:
        """The chat and the topic in it.

        A private chat has its customer's id. Another thread is believed only when it is a group that is served: it may
        be one of another channel, and its number a stranger's.
        """
        thread = _PLACE.fullmatch(reply.thread)
        if thread is not None and (thread[1] == reply.to or int(thread[1]) in self._groups):
            return int(thread[1]), int(thread[2]) if thread[2] else None
        address = _PLACE.fullmatch(reply.to)
        if address is None or address[2]:
            raise ChannelError("This is no Telegram address.", permanent=True)
        return int(address[1]), None

    def _rest(self, chat: int, error: ChannelError) -> None:
        """Telegram does not say whether the chat or the bot was too fast. Two chats at a time mean the bot."""
        now = time.monotonic()
        self._resting = {each: until for each, until in self._resting.items() if until > now and each != chat}
        everybody = bool(self._resting)
        self._resting[chat] = now + (error.retry_after or 0.0)
        if everybody:
            raise ChannelError(str(error), retry_after=error.retry_after, pause=True)

    async def _turn(self) -> None:
        """Wait until this process may send its next message."""
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + 1 / _RATE
        await asyncio.sleep(mine - now)

    async def close(self) -> None:
        await self._bot.session.close()


def _message(reply: Reply, chat: int, topic: int | None) -> SendMessage:
    """A preview would have Telegram open the customer's own tracking link."""
    buttons = None
    if reply.automatic and reply.ticket_number and reply.part == reply.parts - 1:
        buttons = keyboard(reply.kind, reply.ticket_number, reply.language)
    return SendMessage(
        chat_id=chat,
        message_thread_id=topic,
        text=reply.text,
        link_preview_options=LinkPreviewOptions(is_disabled=True),
        reply_markup=buttons,
    )


class _Full(Exception):
    """More bytes come than are taken."""


class _Bounded(io.BytesIO):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(data) > self._most:
            raise _Full
        return super().write(data)


class TelegramFetcher:
    """`getFile`, then its download."""

    def __init__(self, bot: Bot, settings: TelegramSettings) -> None:
        self._bot = bot
        self._timeout = settings.timeout
        self._most = settings.media_most

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        size = int(reference.get("size") or 0)
        if size > min(self._most, MOST):
            raise self._too_large(size)
        told = await call(self._bot, GetFile(file_id=reference["file_id"]), self._timeout)
        path = told.get("file_path") if isinstance(told, Mapping) else None
        if not isinstance(path, str) or path.startswith("/"):  # a server of one's own in local mode names its own disk
            raise ChannelError("Telegram does not say where the file is.", retry_after=60.0)
        content = await self._download(path)
        return Attachment(
            name=reference.get("name") or path.rpartition("/")[2],
            media_type=reference.get("media_type") or "application/octet-stream",
            content=content,
        )

    async def _download(self, path: str) -> bytes:
        into = _Bounded(self._most)
        try:
            await self._bot.download_file(path, into, timeout=30)
            return into.getvalue()
        except _Full:
            problem = self._too_large(into.tell())
        except Exception as error:
            problem = explained(error)
        raise problem

    def _too_large(self, size: int) -> ChannelError:
        most = min(self._most, MOST)
        words = f"The file is too large to be fetched from Telegram ({max(size, most) // 1_000_000} MB"
        return ChannelError(
            f"{words}; {most // 1_000_000} MB at most). Ask the customer for it another way.", permanent=True
        )
