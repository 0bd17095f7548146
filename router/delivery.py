"""The way back: takes outbox rows and hands them to their channel. Nothing else calls a channel's `send`.

A row found in `sending` whose sender is gone becomes `unknown`: an automatic answer stays so, a person's answer is sent
once more under the same key, and both are shown as such (promise P2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from tenacity import RetryCallState, wait_random_exponential

from channels import Health, Sender, pieces, too_long
from domain import ChannelError, OutState, Receipt, Reply, SluiceError, Unavailable, public_number
from router.desk import Desk
from router.standing import standing_of
from storage import customers, events, outbox, rates, told
from storage.database import Database
from storage.types import AnyRow, tidy

log = structlog.get_logger("delivery")

_T = TypeVar("_T")

_LOOK_EVERY = 1.0  # seconds; a nudge in the same process is heard at once
_LOST_EVERY = 5.0
_BROKEN_REST = 60.0  # seconds after which refused credentials are tried again
_MARGIN = timedelta(seconds=15)  # between a send's own deadline and the moment when others may call it lost


class Delivery:
    """Sends what is due on the channels that have a way out."""

    def __init__(self, database: Database, desk: Desk, senders: Mapping[str, Sender]) -> None:
        self._database = database
        self._desk = desk
        self._senders = dict(senders)
        self._bells = {name: asyncio.Event() for name in senders}
        #: (channel, account) -> until when nothing goes out there, on the event loop's clock
        self._paused: dict[tuple[str, str], float] = {}
        #: how the channels' ways out are, where one is known to be broken
        self.healths: dict[str, Health] = {}
        self._backoff = wait_random_exponential(
            multiplier=desk.delivery.backoff.total_seconds(), max=desk.delivery.backoff_most.total_seconds()
        )

    @property
    def channels(self) -> list[str]:
        return sorted(self._senders)

    def nudge(self, channels: Iterable[str] | None = None) -> None:
        """Something was queued in this process, for some channels or for any."""
        for name in self._bells.keys() if channels is None else self._bells.keys() & set(channels):
            self._bells[name].set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_lost(stop))
            for name in self._bells:
                group.create_task(self._channel(name, stop))

    async def _channel(self, name: str, stop: asyncio.Event) -> None:
        """One channel's own loop, so that a slow or dead one holds up no other (promise P5)."""
        while not stop.is_set():
            sent = 0
            try:
                sent = await self.send_due(name)
            except Unavailable:
                log.warning("database_unavailable", channel=name)
            except Exception as error:
                log.exception("delivery_failed", channel=name, error=type(error).__name__)
            if sent == 0:
                await _either(stop, self._bells[name], _LOOK_EVERY)
                self._bells[name].clear()

    async def _watch_lost(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Unavailable):
                await self.recover()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOST_EVERY)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send_due(self, channel: str) -> int:
        """Send a channel's due rows; how many were taken."""
        sender = self._senders[channel]
        settings = self._desk.delivery
        deadline = min(settings.deadline.total_seconds(), sender.limits.deadline)
        # Rows of one claim are sent side by side, so the hold covers them all; a channel with a rate gets them singly.
        hold = timedelta(seconds=deadline) + _MARGIN
        # What is claimed beyond what the channel can carry would only wait, and be in doubt after a crash.
        most = min(settings.together, sender.limits.together or settings.together) if sender.limits.rate is None else 1
        paused = [account for (name, account), until in self._paused.items() if name == channel and until > _now()]
        rows = await self._database.write(
            lambda connection: outbox.claim(
                connection, [channel], datetime.now(UTC), hold, most, ordered=sender.limits.ordered, but=paused
            )
        )
        if not rows:
            return 0
        await asyncio.gather(*(self._send(sender, row, deadline) for row in rows))
        if sender.limits.rate is not None:
            await asyncio.sleep(1 / sender.limits.rate)
        return len(rows)

    async def _send(self, sender: Sender, row: AnyRow, deadline: float) -> None:
        result: Receipt | ChannelError | None
        try:
            result = await self._sent(sender, row, deadline)
        except ChannelError as error:
            result = error
        except TimeoutError:
            result = ChannelError(f"no answer within {deadline:.0f} s", unknown=True)
        except Unavailable as error:
            result = ChannelError(str(error), retry_after=error.retry_after)
        except Exception as error:
            # A fault of ours inside a channel: what it did is not known, and its text may quote the customer.
            log.exception("send_failed", channel=sender.name, error=type(error).__name__)
            result = ChannelError(f"{type(error).__name__} in {sender.name}", unknown=True)
        if result is None:
            log.error("row_lost", channel=sender.name, outbox=row.id)
            return
        self._mind(sender.name, row.account, result)
        await self._settle(sender, row, result)

    async def _sent(self, sender: Sender, row: AnyRow, deadline: float) -> Receipt | None:
        """Hand over all messages that a text needs, from where an earlier try stopped, each with the whole deadline.

        None: this process was taken for dead in between, so that the rest is another's.
        """
        limits = sender.limits
        reply = self._reply(row)
        if limits.ordered or limits.window is not None:
            standing = await self._database.read(
                lambda connection: standing_of(
                    connection, row.customer_id, row.channel, row.address, limits, automatic=row.automatic
                )
            )
            if standing.refusal:
                raise ChannelError(standing.refusal, permanent=True)
            reply = replace(reply, heard_at=standing.heard_at)
        texts = pieces(reply.text, limits)
        if len(texts) > limits.parts:
            raise ChannelError(too_long(reply.text, limits), permanent=True)
        receipt = Receipt()
        for number in range(min(row.done, len(texts) - 1), len(texts)):
            part = replace(reply, text=texts[number], part=number, parts=len(texts))
            async with asyncio.timeout(deadline):
                receipt = await sender.send(part if len(texts) == 1 else replace(part, key=f"{part.key}.{number}"))
            if number < len(texts) - 1:
                hold = timedelta(seconds=deadline) + _MARGIN
                if not await self._surely(partial(self._write_progress, sender, row, receipt, number + 1, hold)):
                    return None
        return receipt

    def _write_progress(
        self, sender: Sender, row: AnyRow, receipt: Receipt, done: int, hold: timedelta, connection: Connection
    ) -> bool:
        now = datetime.now(UTC)
        if not outbox.progress(connection, row, done, now + hold):
            return False
        if sender.limits.receipts and receipt.provider_id:
            told.sent(connection, row.channel, row.account, receipt.provider_id, row.id, now)
        return True

    def _mind(self, channel: str, account: str, result: Receipt | ChannelError) -> None:
        """What a result says of the whole account: it rests, or shows red until something went out again."""
        name = _way(channel, account)
        if isinstance(result, Receipt):
            self._paused.pop((channel, account), None)
            self.healths.pop(name, None)
        elif result.pause:
            rest = max(result.retry_after or 0.0, _BROKEN_REST if result.broken else 1.0)
            self._paused[channel, account] = _now() + rest
            if result.broken:
                self.healths[name] = Health(name, ok=False, detail=tidy(str(result)[:500]))
                log.error("channel_broken", channel=channel, account=account)

    def _forget_rests(self) -> None:
        """What rested and was not tried here again works by now, or another process is the one that tries it."""
        for (channel, account), until in list(self._paused.items()):
            if until + _BROKEN_REST < _now():
                del self._paused[channel, account]
                self.healths.pop(_way(channel, account), None)

    def _reply(self, row: AnyRow) -> Reply:
        return Reply(
            to=row.address,
            text=row.text,
            key=row.key,
            account=row.account,
            to_name=row.name,
            subject=row.subject,
            thread_keys=tuple((row.extra or {}).get("keys", [])),
            thread=row.thread,
            automatic=row.automatic,
            kind=row.kind,
            ticket_number=public_number(row.ticket_id) if row.ticket_id else "",
            message_id=row.message_id,
            author=row.author or "",
            language=row.language or "",
            again=row.repeated or row.tries > 1,
        )

    async def _settle(self, sender: Sender, row: AnyRow, result: Receipt | ChannelError) -> None:
        """Write what became of it."""
        try:
            await self._surely(lambda connection: self._write_result(connection, sender, row, result))
        except SluiceError as error:
            log.error("settle_failed", outbox=row.id, error=type(error).__name__)

    async def _surely(self, unit: Callable[[Connection], _T]) -> _T:
        """Tried until the database takes it, since what is not known to be sent would be sent again."""
        while True:
            try:
                return await self._database.write(unit)
            except Unavailable:
                await asyncio.sleep(1.0)

    def _write_result(
        self, connection: Connection, sender: Sender, row: AnyRow, result: Receipt | ChannelError
    ) -> None:
        now = datetime.now(UTC)
        values: dict[str, Any]
        error = tidy(str(result)[:1000])
        if isinstance(result, Receipt):
            state = OutState.DELIVERED if result.delivered else OutState.SENT
            values = {"state": state.value, "provider_id": told.named_so(result.provider_id), "error": ""}
        elif result.unknown:
            values = self._unknown(row, error, now)
        elif result.pause:  # it is not this message's fault, so that the try does not count
            wait = max(result.retry_after or 0.0, _BROKEN_REST if result.broken else 1.0)
            values = {
                "state": OutState.QUEUED.value,
                "next_at": now + timedelta(seconds=wait),
                "tries": max(0, row.tries - 1),
                "error": error,
            }
        elif result.permanent or row.tries >= self._desk.delivery.tries:
            values = {"state": OutState.FAILED.value, "error": error}
        else:
            values = {
                "state": OutState.QUEUED.value,
                "next_at": now + timedelta(seconds=self.wait(row.tries, result.retry_after)),
                "error": error,
            }
        if not outbox.settle(connection, row.id, now, **values):
            return
        if isinstance(result, ChannelError) and result.refused:
            customers.stand(connection, row.channel, row.address, result.refused, now)
        if isinstance(result, Receipt) and sender.limits.receipts and result.provider_id:
            told.sent(connection, row.channel, row.account, result.provider_id, row.id, now)
            told.settle(connection, row.id, now)
        if values["state"] != OutState.QUEUED.value:
            rates.went(connection, row.channel, values["state"], now)
        if values["state"] != OutState.QUEUED.value or values.get("repeated"):
            self._note(connection, row, values, now)

    def _unknown(self, row: AnyRow, reason: str, now: datetime) -> dict[str, Any]:
        """A person's answer is sent once more under its key; an automatic one never."""
        if row.automatic or row.repeated:
            return {"state": OutState.UNKNOWN.value, "error": reason}
        wait = timedelta(seconds=self.wait(1, None))
        return {"state": OutState.QUEUED.value, "repeated": True, "next_at": now + wait, "error": reason}

    def _note(self, connection: Connection, row: AnyRow, values: dict[str, Any], now: datetime) -> None:
        kind = "repeated" if values.get("repeated") else values["state"]
        data = {"message": row.message_id, "kind": row.kind, "tries": row.tries}
        events.append(connection, [events.row(kind, "bot", now, ticket_id=row.ticket_id, **data)])

    def wait(self, tries: int, retry_after: float | None) -> float:
        """Seconds until the next try: exponential with full jitter, and never sooner than the channel asked for."""
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = max(1, tries)
        return max(self._backoff(state), retry_after or 0.0, 0.5)

    # --- after a crash ------------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Rows whose sender is gone: how many were found."""
        self._forget_rests()

        def unit(connection: Connection) -> int:
            now = datetime.now(UTC)
            rows = outbox.lost(connection, now)
            for row in rows:
                values = self._unknown(row, "the process that was sending it stopped", now)
                if outbox.settle(connection, row.id, now, **values):
                    self._note(connection, row, values, now)
            return len(rows)

        return await self._database.write(unit)

    async def close(self) -> None:
        for sender in self._senders.values():
            await sender.close()


def _way(channel: str, account: str) -> str:
    """The name under which people read how an account's way out is."""
    return f"{channel} out" + (f" ({account[:80]})" if account else "")


def _now() -> float:
    return time.monotonic()


async def _either(stop: asyncio.Event, bell: asyncio.Event, seconds: float) -> None:
    """Until one of the two rings, or the time is over."""
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(bell.wait())]
    _done, left = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in left:
        each.cancel()
