"""What a channel brings is stored: messages by the river's own door, and what providers tell beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from domain import (
    Incoming,
    Message,
    Notice,
    OutState,
    Rating,
    Standing,
    Status,
    Stored,
    Unavailable,
    Withdrawal,
    ticket_id_of,
)
from router.flow import Flow
from router.intake_values import snippet
from storage import customers, events, messages, parts, tickets, told
from storage.database import Database

log = structlog.get_logger("arrivals")

#: seconds for which the rest of an album is waited for
_ALBUM = 1.5
_SCORES = range(1, 6)


class Arrivals:
    """The door for channels: returns after the commit, and only then may a provider hear that all is well."""

    def __init__(self, database: Database, flow: Flow) -> None:
        self._database = database
        self._flow = flow
        self._waiting: set[asyncio.Task[None]] = set()

    async def take(self, items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]:
        """One `Stored` for each item, in order. The same delivery again stores nothing again.

        Raises `Unavailable`: then what was not stored comes again with the provider's next try.
        """
        stored = await self.receive(items)
        if notices:
            await self._database.write(partial(note, notices=notices))
        return stored

    async def receive(self, items: Sequence[Incoming]) -> list[Stored]:
        """As `take`, of messages alone: what sources are given."""
        whole = [each for each in items if not _comes_apart(each)]
        if len(whole) == len(items):
            return await self._flow.receive(items)
        stored = dict(zip(map(id, whole), await self._flow.receive(whole), strict=True))
        apart = [each for each in items if _comes_apart(each)]
        held = await self._flow.receive(apart, hold=True)
        stored |= dict(zip(map(id, apart), held, strict=True))
        self._wait([each.message_id for each in held if each.new])
        return [stored[id(each)] for each in items]

    def _wait(self, ids: Collection[int]) -> None:
        """Let the rest of an album come before anybody reads its first picture."""

        async def later() -> None:
            await asyncio.sleep(_ALBUM)
            with suppress(Unavailable):  # the sweeper rings for them then
                await self._flow.let_go(list(ids))

        if ids:
            task = asyncio.create_task(later())
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """What still waits for its album is processed by whoever runs next."""
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


def _comes_apart(item: Incoming) -> bool:
    return isinstance(item, Message) and item.merges


def note(connection: Connection, notices: Sequence[Notice]) -> None:
    """Write what providers told beside messages. A unit; the same again changes nothing."""
    now = datetime.now(UTC)
    statuses = [each for each in notices if isinstance(each, Status)]
    told.apply(connection, statuses, now)
    for each in notices:
        if isinstance(each, Standing):
            _stand(connection, each, now)
        elif isinstance(each, Withdrawal):
            _withdraw(connection, each, now)
        elif isinstance(each, Rating):
            _rate(connection, each, now)
    failed = sum(each.state is OutState.FAILED for each in statuses)
    if failed:
        log.info("provider_failures", count=failed, channel=statuses[0].channel)


def _stand(connection: Connection, standing: Standing, now: datetime) -> None:
    place = (standing.channel, standing.address)
    known = customers.find(connection, [place]).get(place)
    if known is None and standing.refused is None:
        return
    if known is not None and known.suppressed == standing.refused:
        return
    customer_id = customers.stand(connection, standing.channel, standing.address, standing.refused, now)
    row = events.row(
        "standing", "customer", now, channel=standing.channel, refused=standing.refused, customer=customer_id
    )
    events.append(connection, [row])


def _withdraw(connection: Connection, withdrawal: Withdrawal, now: datetime) -> None:
    row = messages.by_key(connection, withdrawal.channel, withdrawal.account, withdrawal.external_id)
    if row is None or "withdrawn" in (row.extra or {}):
        return
    for each in [row, *messages.revisions(connection, row)]:
        parts.withdraw(connection, each, withdrawal.at)
        if each.ticket_id is not None:
            tickets.forget_words(connection, each.ticket_id, snippet=snippet(each), subject=each.subject[:500])
    events.append(connection, [events.row("withdrawn", "customer", now, ticket_id=row.ticket_id, message=row.id)])


def _rate(connection: Connection, rating: Rating, now: datetime) -> None:
    ticket_id = ticket_id_of(rating.ticket_number)
    place = (rating.channel, rating.address)
    known = customers.find(connection, [place]).get(place)
    if ticket_id is None or known is None or rating.score not in _SCORES:
        return
    if not tickets.is_party(connection, ticket_id, known.customer_id):
        return
    if any(each.kind == "rated" and each.data.get("score") == rating.score
           for each in events.of_ticket(connection, ticket_id)):  # fmt: skip
        return
    data = {"score": rating.score, "channel": rating.channel}
    events.append(connection, [events.row("rated", "customer", now, ticket_id=ticket_id, **data)])
