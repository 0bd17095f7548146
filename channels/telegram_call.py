"""One call of the Bot API, and its errors in our words.

The bot's token is a part of every URL, and what aiogram and aiohttp raise may quote the URL: no error of theirs leaves
this file, neither as a text nor as the cause of another.
"""

from __future__ import annotations

import math
import re
from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    RestartingTelegram,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.methods import Response, TelegramMethod
from aiogram.utils.token import TokenValidationError
from aiohttp import ClientConnectorError, ClientResponseError

from channels.settings import TelegramSettings
from domain import ChannelError, SettingsError

CHANNEL = "telegram"

#: seconds until a next try where Telegram names none
_LATER = 5.0
_TOKEN = re.compile(r"\d{3,}:[A-Za-z0-9_-]{10,}")


class _Anything(TelegramMethod[Any]):
    """Stands for a method whose result is not read as one of aiogram's types."""

    __returning__ = Any
    __api_method__ = ""


class _Session(AiohttpSession):
    """Gives results as they came.

    A result in a form that the library does not know yet would look like a failure after the message was sent, and one
    strange update would hide all those that came with it.
    """

    def check_response(self, bot: Bot, method: TelegramMethod[Any], status_code: int, content: str) -> Response[Any]:
        return super().check_response(bot, _Anything(), status_code, content)


class Moved(ChannelError):
    """A group became a supergroup, with another id. Nothing was sent."""

    def __init__(self, chat: int) -> None:
        self.chat = chat
        super().__init__(f"The group has a new id, {chat}. Set it in telegram.groups.", permanent=True)


class Taken(ChannelError):
    """Somebody else asks for this bot's messages."""


def open_bot(settings: TelegramSettings) -> Bot:
    """Nothing is connected yet. Raises `SettingsError`."""
    token = settings.token.get_secret_value() if settings.token else ""
    session = _Session(api=TelegramAPIServer.from_base(settings.api_url), timeout=settings.timeout)
    try:
        return Bot(token, session)
    except TokenValidationError:
        problem = SettingsError("telegram.token is no bot token: they look like 123456789:AAF... (from @BotFather)")
    raise problem


async def call(bot: Bot, method: TelegramMethod[Any], timeout: float) -> Any:
    """The `result` of the answer, as it came. `timeout`: seconds for all of it. Raises `ChannelError`."""
    try:
        return await bot(method, request_timeout=math.ceil(timeout))
    except Exception as error:
        problem = explained(error)
    raise problem


def explained(error: Exception) -> ChannelError:
    """What a failed call means. Where nobody can know whether Telegram has it, `unknown`."""
    match error:
        case TelegramRetryAfter():
            return ChannelError(f"Telegram asks to wait {error.retry_after} s.", retry_after=float(error.retry_after))
        case TelegramMigrateToChat():
            return Moved(error.migrate_to_chat_id)
        case TelegramForbiddenError():
            return _forbidden(error.message or "")
        case TelegramConflictError():
            return Taken(f"Another program asks for this bot's messages ({_said(error)}). Stop it.", retry_after=_LATER)
        case TelegramUnauthorizedError() | TelegramNotFound():
            return ChannelError("Telegram refuses the token. Get one from @BotFather and set it.", broken=True)
        case TelegramEntityTooLarge():
            return ChannelError("Telegram finds it too large.", permanent=True)
        case TelegramBadRequest():
            return _bad(error.message or "")
        case RestartingTelegram():
            return ChannelError("Telegram restarts.", retry_after=_LATER)
        case TelegramServerError():
            return ChannelError(f"Telegram has a fault: {_said(error)}", unknown=True)
        case TelegramNetworkError():
            return _network(error.__cause__)
        case TelegramAPIError():
            return ChannelError(f"Telegram did not take it: {_said(error)}", retry_after=_LATER)
        case ClientDecodeError():
            return ChannelError("Telegram's answer cannot be read.", unknown=True)
        case ClientResponseError():
            return ChannelError(f"Telegram gave no file ({error.status}).", retry_after=_LATER)
        case ClientConnectorError():
            return _network(error)
    return ChannelError(f"The line to Telegram failed ({type(error).__name__}).", unknown=True)


def _said(error: TelegramAPIError) -> str:
    return _TOKEN.sub("...", error.message or "no reason given")[:200]


def _network(cause: BaseException | None) -> ChannelError:
    if isinstance(cause, ClientConnectorError):  # no connection, so nothing was handed over
        return ChannelError("Telegram cannot be reached from here.", retry_after=_LATER)
    if isinstance(cause, TimeoutError):
        return ChannelError("Telegram did not answer in time.", unknown=True)
    return ChannelError("The line to Telegram broke.", unknown=True)


def _forbidden(said: str) -> ChannelError:
    if "blocked" in said:
        return ChannelError("The customer has blocked the bot. Use another channel.", permanent=True, refused="blocked")
    if "deactivated" in said:
        words = "The customer's Telegram account no longer exists. Use another channel."
        return ChannelError(words, permanent=True, refused="blocked")
    if "initiate" in said:
        return ChannelError("In Telegram the customer must write first. Use another channel.", permanent=True)
    return ChannelError("The bot may not write to this chat. Use another channel.", permanent=True)


#: what Telegram says of a request that it does not take -> words for an agent
_BAD = {
    "chat not found": "Telegram does not know this chat, or the customer never wrote to the bot. Use another channel.",
    "too long": "This is too long for Telegram. Write it shorter.",
    "text is empty": "Telegram takes no message without words.",
    "not enough rights": "The bot may not write in this group.",
    "file is too big": "Telegram gives bots files of 20 MB at most. Ask the customer for it another way.",
    "wrong file_id": "Telegram no longer has this file. Ask the customer to send it again.",
    "file is temporarily unavailable": "Telegram no longer has this file. Ask the customer to send it again.",
}


def _bad(said: str) -> ChannelError:
    words = next((words for part, words in _BAD.items() if part in said.lower()), "")
    return ChannelError(words or f"Telegram did not take it: {_TOKEN.sub('...', said)[:200]}", permanent=True)
