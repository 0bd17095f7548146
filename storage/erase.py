"""Forgetting: a customer who asks for it, and what is older than the settings keep."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, delete, select, update

from domain import public_number
from storage import events, identity, search
from storage.database import Database
from storage.tables import (
    Address,
    Attachment,
    ChatLine,
    ChatSession,
    Customer,
    Idempotency,
    Label,
    Medium,
    Message,
    Outbox,
    ProviderMessage,
    Quarantine,
    Raw,
    Sighting,
    Thread,
    Ticket,
    table,
)  # fmt: skip
from storage.types import literal

_T: Any = {
    model: table(model)
    for model in (
        Address, Attachment, ChatLine, ChatSession, Customer, Idempotency, Label, Medium, Message, Outbox,
        ProviderMessage, Quarantine, Raw, Sighting, Thread, Ticket,
    )
}  # fmt: skip


def customer(connection: Connection, customer_id: int, now: datetime, actor: str) -> dict[str, int]:
    """Remove all that a customer said and was told, and where they can be reached. The trail stays whole.

    Tickets and events stay, without words and addresses: they hold ids, labels and states only. Returns the number of
    rows removed by kind.
    """
    ticket, address = _T[Ticket], _T[Address]
    tickets = select(ticket.c.id).where(ticket.c.customer_id == customer_id)
    places = connection.execute(
        select(address.c.channel, address.c.address).where(address.c.customer_id == customer_id)
    ).all()
    message = _T[Message]
    mine = sa.or_(message.c.customer_id == customer_id, message.c.ticket_id.in_(tickets))
    # What is in quarantine or still on its way has no customer yet: its address tells whose it is.
    for channel, where in places:
        mine = sa.or_(mine, sa.and_(message.c.channel == channel, message.c.address == where))
    ids = list(connection.scalars(select(message.c.id).where(mine)))
    removed = {"messages": len(ids), "addresses": len(places)}
    removed["attachments"] = _forget_messages(connection, ids)
    for channel, where in places:
        if channel == "chat":
            connection.execute(delete(_T[ChatSession]).where(_T[ChatSession].c.id == where))
    connection.execute(delete(_T[Thread]).where(_T[Thread].c.ticket_id.in_(tickets)))
    connection.execute(delete(address).where(address.c.customer_id == customer_id))
    changed = connection.execute(
        update(ticket)
        .where(ticket.c.customer_id == customer_id)
        .values(address="", subject="", snippet="", resolution_code="", version=ticket.c.version + 1, updated_at=now)
    )
    removed["tickets_blanked"] = changed.rowcount
    # Remembered answers of the API hold the ticket as it was.
    answer = _T[Idempotency].c.answer["number"].as_string()
    numbers = [public_number(ticket_id) for ticket_id in connection.scalars(tickets)]
    for start in range(0, len(numbers), 500):
        connection.execute(delete(_T[Idempotency]).where(answer.in_(numbers[start : start + 500])))
    joined = [customer_id, *sorted(identity.absorbed(connection, customer_id))]
    identity.forget(connection, joined, places)
    connection.execute(update(_T[Customer]).where(_T[Customer].c.id.in_(joined)).values(name="", erased_at=now))
    events.append(connection, [events.row("erased", actor, now, customer=customer_id)])
    return removed


def _forget_messages(connection: Connection, ids: list[int]) -> int:
    """Remove messages and all that hangs on them; the number of attachments."""
    attachments = 0
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        sighting = _T[Sighting]
        connection.execute(update(sighting).where(sighting.c.message_id.in_(some)).values(message_id=None))
        outbox, told = _T[Outbox], _T[ProviderMessage]
        sent = select(outbox.c.id).where(outbox.c.message_id.in_(some))
        # Not only parted from them: a provider's name for a message may hold the number that it went to.
        connection.execute(delete(told).where(told.c.outbox_id.in_(sent)))
        for model in (Raw, Quarantine, Label, Medium, Outbox, ChatLine):
            connection.execute(delete(_T[model]).where(_T[model].c.message_id.in_(some)))
        attachments += connection.execute(delete(_T[Attachment]).where(_T[Attachment].c.message_id.in_(some))).rowcount
        search.remove(connection, some)
        connection.execute(delete(_T[Message]).where(_T[Message].c.id.in_(some)))
    return attachments


def compact(database: Database) -> None:
    """After erasing: rewrite the search index without the words that were removed, in steps that let others write."""
    begin = True
    while database.submit(partial(search.compact, begin=begin)).result():
        begin = False


def old_raw(connection: Connection, before: datetime, *, limit: int = 500) -> int:
    """Blank untouched payloads that are older than the settings keep; the digest stays for dedupe."""
    raw, message = _T[Raw], _T[Message]
    old = (
        select(raw.c.message_id)
        .join(message, message.c.id == raw.c.message_id)
        .where(message.c.stored_at < before, sa.func.length(raw.c.body) > 0, message.c.state != "quarantined")
        .limit(limit)
    )
    changed = connection.execute(update(raw).where(raw.c.message_id.in_(old.scalar_subquery())).values(body=b""))
    return changed.rowcount


def old_automatic(connection: Connection, before: datetime, *, limit: int = 500) -> int:
    """Remove kept automatic mail that is older than the settings keep and concerns no ticket."""
    message = _T[Message]
    ids = list(
        connection.scalars(
            select(message.c.id)
            .where(message.c.state == "automatic", message.c.ticket_id.is_(None), message.c.stored_at < before)
            .limit(limit)
        )
    )
    _forget_messages(connection, ids)
    return len(ids)


def closed_customers(
    connection: Connection, before: datetime, *, only: int | None = None, limit: int = 50
) -> list[int]:
    """Customers all of whose tickets were closed before a time: their words may go.

    Not those of whom something is still on its way or lies in quarantine, which belongs to no ticket yet.
    """
    ticket, customer_table, address, message = _T[Ticket], _T[Customer], _T[Address], _T[Message]
    waiting = (
        select(address.c.customer_id)
        .join(message, sa.and_(message.c.channel == address.c.channel, message.c.address == address.c.address))
        .where(sa.or_(message.c.state == literal("received"), message.c.state == literal("quarantined")))
    )
    query = (
        select(ticket.c.customer_id)
        .join(customer_table, customer_table.c.id == ticket.c.customer_id)
        .where(customer_table.c.erased_at.is_(None), ticket.c.customer_id.not_in(waiting))
        .group_by(ticket.c.customer_id)
        .having(sa.func.count() == sa.func.count(ticket.c.closed_at), sa.func.max(ticket.c.closed_at) < before)
        .limit(limit)
    )
    if only is not None:
        query = query.where(ticket.c.customer_id == only)
    return list(connection.scalars(query))


def customer_if_closed(connection: Connection, customer_id: int, before: datetime, now: datetime, actor: str) -> None:
    """Forget a customer unless a message came in since `closed_customers` was asked."""
    if closed_customers(connection, before, only=customer_id):
        customer(connection, customer_id, now, actor)


def old_answers(connection: Connection, before: datetime) -> int:
    """Remove remembered Idempotency-Keys."""
    return connection.execute(delete(_T[Idempotency]).where(_T[Idempotency].c.at < before)).rowcount
