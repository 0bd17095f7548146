"""Telegram by the Bot API: the parts of the channel put together, its webhook, and the question whether it works."""

from __future__ import annotations

import hmac
import json

from aiogram.methods import GetMe

from channels import Answer, Channel, Health, Parsed, Request, Source, Surroundings
from channels.settings import TelegramSettings, open_secrets
from channels.telegram_call import CHANNEL, call, open_bot
from channels.telegram_listen import Pace, TelegramRegistration, TelegramSource, answer_to
from channels.telegram_parse import Found, parked, read
from channels.telegram_send import TelegramFetcher, TelegramSender
from domain import ChannelError, Forbidden

_HEADER = "x-telegram-bot-api-secret-token"
_PACE = Pace()


def channel(name: str, settings: TelegramSettings, around: Surroundings, pace: Pace = _PACE) -> Channel:
    """Raises `SettingsError`. `pace`: other waits, for tests."""
    bot = open_bot(settings)
    source: Source
    if settings.mode == "webhook":
        url = f"{around.public_url}/hooks/{name}"
        source = TelegramRegistration(bot, settings, around.leases, pace, url)
    else:
        source = TelegramSource(bot, settings, around.leases, pace)
    return Channel(
        name=name,
        sender=TelegramSender(bot, settings),
        hook=TelegramHook(settings, str(bot.id)) if settings.mode == "webhook" else None,
        sources=(source,),
        fetcher=TelegramFetcher(bot, settings),
        probe=TelegramProbe(settings),
    )


class TelegramHook:
    """`/hooks/telegram`. Telegram tries again until it hears 2xx, so nothing is spooled."""

    name = CHANNEL
    patience: float | None = None

    def __init__(self, settings: TelegramSettings, bot: str) -> None:
        self._secrets = [each.encode() for each in open_secrets(settings.webhook_secrets)]
        self._groups = settings.groups
        self._bot = bot

    def challenge(self, request: Request) -> Answer:
        raise Forbidden("Telegram calls this address by POST.")

    def verify(self, request: Request) -> None:
        given = request.headers.get(_HEADER, "").encode()
        # All are compared, so that the time taken does not tell which one it was.
        matches = [hmac.compare_digest(given, each) for each in self._secrets]
        if not any(matches):
            raise Forbidden("The secret is missing or wrong.")

    def parse(self, request: Request) -> Parsed:
        now = request.received_at
        try:
            update = json.loads(request.body)
            raw = json.dumps(update).encode()  # as when asking, where updates come in lists
        except (ValueError, RecursionError):
            item = parked(request.body, self._bot, "The body is no JSON, or nested too deeply.", now)
            return Parsed((item,))
        found = read(update, raw, bot=self._bot, groups=self._groups, now=now)
        return Parsed(found.items, found.notices, _answer(found))

    def spooled(self, request: Request) -> Answer | None:
        return None


def _answer(found: Found) -> Answer:
    """A pressed button is answered in the same breath (Bot API, "Making requests when getting updates")."""
    if found.pressed is None:
        return Answer()
    method = answer_to(found.pressed)
    told = {"method": method.__api_method__} | method.model_dump(exclude_none=True)
    return Answer(json.dumps(told).encode(), "application/json")


class TelegramProbe:
    """`getMe`."""

    def __init__(self, settings: TelegramSettings) -> None:
        self._settings = settings

    async def probe(self) -> Health:
        bot = open_bot(self._settings)
        try:
            told = await call(bot, GetMe(), self._settings.timeout)
        except ChannelError as error:
            return Health(CHANNEL, ok=False, detail=str(error))
        finally:
            await bot.session.close()
        if not isinstance(told, dict) or not told.get("username"):
            return Health(CHANNEL, ok=False, detail="Telegram's answer cannot be read. Is telegram.api_url right?")
        return Health(CHANNEL, ok=True, detail=_described(told, self._settings))


def _described(me: dict[str, object], settings: TelegramSettings) -> str:
    words = f"@{me['username']}, bot {me.get('id')}, by {settings.mode}"
    if settings.groups and not me.get("can_read_all_group_messages"):
        words += "; in groups it sees only what is said to it (BotFather: /setprivacy)"
    return words
