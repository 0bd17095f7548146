"""What Twilio took in for us, compared with what reached us.

Twilio calls a webhook once and forgets (unless its connection overrides say more), so that an hour of ours without a
network is an hour of messages. They are asked for afterwards.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from channels import Health, Leases, Take
from channels.settings import SmsSettings
from channels.sms_parse import MEDIA_MOST, SmsHook, Text
from channels.sms_text import Keyword, keyword
from channels.twilio import Twilio, asked
from domain import ChannelError, Incoming, Unavailable

_LEASE = "sms:reconcile"
_LEASE_LASTS = 180.0
_TICK = 60.0
#: a webhook may still be on its way
_SETTLED = timedelta(minutes=2)
_BATCH = 100


class Comparison:
    """Asks Twilio every hour what it took in for us, and brings what did not reach us. One process of all does it."""

    def __init__(self, name: str, settings: SmsSettings, leases: Leases, twilio: Twilio, hook: SmsHook) -> None:
        self.name = f"{name} comparison"
        self.health = Health(self.name)
        self._settings = settings
        self._leases = leases
        self._twilio = twilio
        self._hook = hook
        #: what is known to be stored, with its time, so that it is not brought every hour again
        self._stored: dict[str, datetime] = {}
        self.missed = 0

    async def run(self, receive: Take) -> None:
        due = 0.0
        while True:
            now = asyncio.get_running_loop().time()
            try:
                if not await self._leases.hold(_LEASE, _LEASE_LASTS):
                    self.health.ok, self.health.detail = True, "another process does it"
                    due = 0.0  # what that one leaves undone is looked for at once
                elif now >= due:
                    await self.compare(receive, datetime.now(UTC))
                    due = now + self._settings.reconcile
            except ChannelError as error:
                self.health.ok, self.health.detail = False, f"not compared: {error}"
            except Unavailable:
                self.health.ok, self.health.detail = False, "not compared: the database does not answer"
            await asyncio.sleep(min(_TICK, self._settings.reconcile))

    async def compare(self, receive: Take, now: datetime) -> int:
        """How many had not reached us. Raises `ChannelError` and `Unavailable`; then the rest comes next time."""
        since = now - timedelta(seconds=self._settings.reconcile_back)
        self._stored = {sid: at for sid, at in self._stored.items() if at >= since}
        seen, missed, last = 0, 0, dict[str, tuple[Text, bool]]()
        for number in self._settings.numbers or [""]:
            batch: list[Text] = []
            async for record in self._records(number, since):
                at = record.date_sent or record.date_created
                known_time = isinstance(at, datetime) and since <= at <= now - _SETTLED
                if record.direction != "inbound" or not known_time:
                    continue
                seen += 1
                batch.append(await self._text(record, at))
                if len(batch) == _BATCH:
                    missed += await self._bring(receive, batch, last)
                    batch = []
            missed += await self._bring(receive, batch, last)
        # Only somebody's last word counts, and only where it is news: what came later may have come by the webhook.
        notices = list(self._hook.standing(text for text, new in last.values() if new))
        if notices:
            await receive([], notices)
        self.missed += missed
        words = f"{seen} of the last {_span(self._settings.reconcile_back)}, {missed} had not reached us"
        self.health.ok = True
        self.health.detail = f"compared at {now:%Y-%m-%d %H:%M} UTC: {words}; {self.missed} since the start"
        return missed

    async def _records(self, number: str, since: datetime) -> AsyncIterator[Any]:
        given = {"to": number} if number else {}
        found = self._twilio.client.messages.stream_async(date_sent_after=since, page_size=1000, **given)
        pages = aiter(await asked(found))
        while True:
            try:
                record = await asked(anext(pages))
            except StopAsyncIteration:
                return
            yield record

    async def _text(self, record: Any, at: datetime) -> Text:
        media: list[tuple[str, str]] = []
        if record.sid not in self._stored and record.num_media not in (None, "", "0"):
            files = await asked(self._twilio.client.messages(record.sid).media.list_async(limit=MEDIA_MOST))
            base = self._settings.api_url
            media = [(f"{base}{each.uri.removesuffix('.json')}", str(each.content_type)) for each in files]
        told = {name: getattr(record, name) for name in ("sid", "from_", "to", "body", "num_media", "direction")}
        return Text(
            sid=str(record.sid),
            sender=str(record.from_ or ""),
            to=str(record.to or ""),
            body=str(record.body or "").replace("\0", ""),
            media=media,
            at=at,
            raw=json.dumps(told | {"date_sent": at.isoformat()}, ensure_ascii=True).encode(),
        )

    async def _bring(self, receive: Take, batch: Sequence[Text], last: dict[str, tuple[Text, bool]]) -> int:
        fresh = [each for each in batch if each.sid not in self._stored and each.sender]
        items: list[Incoming] = [self._hook.message(each) for each in fresh]
        stored = await receive(items) if items else []
        new = {text.sid for text, each in zip(fresh, stored, strict=True) if each.new}
        self._stored |= {each.sid: each.at for each in fresh}
        for text in batch:
            if keyword(text.body) in (Keyword.STOP, Keyword.START):
                known_one = last.get(text.sender)
                if known_one is None or text.at > known_one[0].at:
                    last[text.sender] = (text, text.sid in new)
        return len(new)


def _span(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds >= 86400 else f"{seconds / 3600:g} hours"
