"""Where Telegram's messages come in: by asking (poll), or by being called (webhook).

The acknowledgement is ours. While asking, it is the offset of the next question, and that moves on only after the
commit: aiogram's dispatcher moves it before the message is stored, and also when storing failed. When Telegram calls,
it is HTTP 200.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiogram import Bot
from aiogram.methods import AnswerCallbackQuery, DeleteWebhook, GetUpdates, GetWebhookInfo, SetWebhook

from channels import Health, Leases, Take
from channels.settings import TelegramSettings, open_secrets
from channels.telegram_call import CHANNEL, Taken, call
from channels.telegram_parse import WANTED, Found, Pressed, parked, read
from domain import ChannelError, Unavailable

log = structlog.get_logger(__name__)

#: seconds for which a delivery that failed counts as the webhook's state, while updates wait: Telegram tries again by
#: and by, in longer and longer steps
_RECENT = 600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    #: for which Telegram may hold a question until there is news
    poll: int = 25
    #: after which another process may take over from one that is gone
    lease: float = 30.0
    #: between two looks at the webhook
    look: float = 60.0
    #: after a fault; doubled each time
    first: float = 1.0
    most: float = 60.0
    #: after what a person must mend
    slow: float = 30.0
    #: of silence after which it is time to wake somebody: Telegram keeps messages for 24 hours
    alarm: float = 3600.0


class _Alone:
    """What both ways have in common: one process of all does it, and says how it goes."""

    name = CHANNEL

    def __init__(self, bot: Bot, settings: TelegramSettings, leases: Leases, pace: Pace) -> None:
        self._bot = bot
        self._settings = settings
        self._leases = leases
        self._pace = pace
        self._lease = f"{CHANNEL}:{bot.id}"
        self.health = Health(CHANNEL)
        self._troubles = 0
        #: since when nothing works, on the monotonic clock
        self._silent: float | None = None
        self._alarmed = 0.0

    async def _in_turn(self, work: Awaitable[None]) -> None:
        """Work until it ends or the lease is lost."""
        working = asyncio.ensure_future(work)
        keeping = asyncio.create_task(self._keep())
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, keeping):
                task.cancel()
            await asyncio.gather(working, keeping, return_exceptions=True)

    async def _keep(self) -> None:
        """Renew the lease; returns when it is lost, or when nobody knows any more whose it is."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < self._pace.lease * 2 / 3:
            await asyncio.sleep(self._pace.lease / 4)
            with suppress(Unavailable):
                asked = time.monotonic()
                if not await self._leases.hold(self._lease, self._pace.lease):
                    return
                renewed = asked

    async def _taken(self) -> bool:
        """Take the lease, or wait a little."""
        try:
            if await self._leases.hold(self._lease, self._pace.lease):
                self.health.elsewhere = False
                return True
            self.health.ok, self.health.detail, self.health.elsewhere = True, "another process does it", True
        except Unavailable:
            self._say(False, "the database does not answer")
        await asyncio.sleep(self._pace.lease / 4)
        return False

    def _say(self, ok: bool, detail: str) -> None:
        self.health.ok, self.health.detail = ok, detail

    def _works(self, detail: str) -> None:
        self._troubles, self._silent = 0, None
        self._say(True, detail)

    async def _after(self, error: ChannelError | Unavailable) -> None:
        """Say what is wrong, and wait before the next try."""
        now = time.monotonic()
        self._silent = now if self._silent is None else self._silent
        silent = now - self._silent
        since = f"; nothing for {silent / 60:.0f} min, and Telegram keeps messages for 24 hours" if silent >= 60 else ""
        words = "the database does not answer" if isinstance(error, Unavailable) else str(error)
        self._say(False, words + since)
        if silent >= self._pace.alarm and now - self._alarmed >= self._pace.alarm:
            self._alarmed = now
            log.error("telegram_silent", minutes=round(silent / 60))
        elif self._troubles == 0:
            log.warning("telegram_trouble", error=words)
        await asyncio.sleep(self._wait(error))

    def _wait(self, error: ChannelError | Unavailable) -> float:
        pace = self._pace
        self._troubles += 1
        doubled: float = pace.first * 2 ** min(self._troubles - 1, 10)
        backoff = min(pace.most, doubled) * random.uniform(0.5, 1.0)
        if isinstance(error, Unavailable):
            return backoff
        if isinstance(error, Taken) or error.broken or error.permanent:
            return max(pace.slow, backoff)
        return max(backoff, error.retry_after or 0.0)


class TelegramSource(_Alone):
    """Asks Telegram for news."""

    async def run(self, receive: Take) -> None:
        while True:
            if await self._taken():
                await self._in_turn(self._ask(receive))

    @property
    def _asking(self) -> str:
        return f"asks Telegram as bot {self._bot.id}"

    async def _ask(self, receive: Take) -> None:
        """Store, commit, and only then move on."""
        began, offset = False, None
        answering: set[asyncio.Task[None]] = set()
        pace, timeout = self._pace, self._settings.timeout
        while True:
            try:
                if not began:  # a webhook that is still set would have every question refused
                    await call(self._bot, DeleteWebhook(drop_pending_updates=False), timeout)
                    began = True
                    if self._troubles == 0:  # the first answer to a question may take as long as Telegram holds it
                        self._works(self._asking)
                method = GetUpdates(offset=offset, timeout=pace.poll, allowed_updates=list(WANTED))
                asked = time.monotonic()
                updates = await call(self._bot, method, pace.poll + timeout)
                numbers = _numbers(updates)
                self._works(self._asking)
                if not updates:
                    # What was stored is confirmed by now. After a week of silence the next number is random, and may
                    # be lower than an offset kept until then, which would confirm it unread.
                    offset = None
                    if time.monotonic() - asked < pace.poll / 2:  # a server that does not hold questions open
                        await asyncio.sleep(pace.first)
                    continue
                for each in await self._store(updates, receive):
                    task = asyncio.create_task(self._answer(each))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
                offset = max(numbers) + 1
            except Taken as error:
                began = False
                await self._after(error)
            except (ChannelError, Unavailable) as error:
                await self._after(error)

    async def _store(self, updates: Sequence[Any], receive: Take) -> list[Pressed]:
        """Returns after the commit, with the buttons to be answered. Raises `Unavailable`: nothing moves on then."""
        now = datetime.now(UTC)
        found = [self._read(each, now) for each in updates]
        items = [item for each in found for item in each.items]
        notices = [notice for each in found for notice in each.notices]
        try:
            if items or notices:
                await receive(items, notices)
        except Unavailable:
            raise
        except Exception as error:
            log.exception("telegram_batch_failed", error=type(error).__name__, updates=len(updates))
            for update, each in zip(updates, found, strict=True):
                await self._store_one(update, each, receive, now)
        return [each.pressed for each in found if each.pressed is not None]

    async def _store_one(self, update: Any, found: Found, receive: Take, now: datetime) -> None:
        """What cannot be stored as what it is goes to quarantine: it must not hold up what comes behind it."""
        try:
            await receive(found.items, found.notices)
        except Unavailable:
            raise
        except Exception as error:
            reason = f"The update could not be stored ({type(error).__name__})."
            await receive([parked(json.dumps(update).encode(), str(self._bot.id), reason, now)])

    def _read(self, update: Any, now: datetime) -> Found:
        bot = str(self._bot.id)
        return read(update, json.dumps(update).encode(), bot=bot, groups=self._settings.groups, now=now)

    async def _answer(self, pressed: Pressed) -> None:
        """A courtesy: when it fails, the customer's button shows a clock for a while."""
        with suppress(ChannelError):
            await call(self._bot, answer_to(pressed), self._settings.timeout)


def answer_to(pressed: Pressed) -> AnswerCallbackQuery:
    return AnswerCallbackQuery(callback_query_id=pressed.query, text=pressed.text)


def _numbers(updates: Any) -> list[int]:
    """Raises `ChannelError`: what Telegram answers is not a list of numbered updates."""
    if isinstance(updates, list):
        numbers = [each.get("update_id") for each in updates if isinstance(each, dict)]
        if len(numbers) == len(updates) and all(type(each) is int for each in numbers):
            return [each for each in numbers if each is not None]
    raise ChannelError("Telegram's answer cannot be read.", unknown=True)


class TelegramRegistration(_Alone):
    """Tells Telegram once where to call, and looks by and by how that goes."""

    def __init__(self, bot: Bot, settings: TelegramSettings, leases: Leases, pace: Pace, url: str) -> None:
        super().__init__(bot, settings, leases, pace)
        self._url = url

    async def run(self, receive: Take) -> None:
        while True:
            if await self._taken():
                await self._in_turn(self._watch())

    async def _watch(self) -> None:
        told = False
        while True:
            try:
                info = await call(self._bot, GetWebhookInfo(), self._settings.timeout)
                info = info if isinstance(info, dict) else {}
                if not told or info.get("url") != self._url:
                    # Also at the start: Telegram does not say which secret it holds.
                    await call(self._bot, self._registration(), self._settings.timeout)
                    told = True
                self._judge(info)
                await asyncio.sleep(self._pace.look)
            except (ChannelError, Unavailable) as error:
                await self._after(error)

    def _registration(self) -> SetWebhook:
        secret = open_secrets(self._settings.webhook_secrets)[0]
        return SetWebhook(url=self._url, secret_token=secret, allowed_updates=list(WANTED), drop_pending_updates=False)

    def _judge(self, info: dict[str, Any]) -> None:
        waiting, failed = info.get("pending_update_count"), info.get("last_error_date")
        if isinstance(failed, int) and time.time() - failed < _RECENT and waiting:
            why = str(info.get("last_error_message") or "no reason given")[:200]
            self._say(False, f"Telegram cannot deliver to {self._url}: {why}; {waiting} updates wait")
            return
        self._works(f"Telegram calls {self._url} for bot {self._bot.id}")
