"""The way back: outgoing messages, queued, claimed, sent, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from domain import OutState
from storage import events
from storage.tables import Customer, Message, Outbox, Person, ProviderMessage, Ticket, table
from storage.types import AnyRow, literal

outbox = table(Outbox)
message = table(Message)
ticket = table(Ticket)
customer = table(Customer)
person = table(Person)
provider_message = table(ProviderMessage)

_MESSAGES = sa.insert(message).returning(message.c.external_id, message.c.id)
_ROWS = sa.insert(outbox)


def queue(
    connection: Connection, rows: Sequence[Mapping[str, Any]], now: datetime, *, pulled: Collection[str] = ()
) -> list[int]:
    """Write outgoing messages and their outbox rows; the message ids in order.

    A row: channel, account, address, name, subject, text, key, thread, extra, ticket_id, customer_id, author_id, kind,
    automatic. `pulled`: channels whose answers are fetched; theirs are `sent` with this commit.
    """
    if not rows:
        return []
    made = connection.execute(
        _MESSAGES,
        [
            {
                "direction": "out",
                "channel": row["channel"],
                "account": row["account"],
                "external_id": row["key"],
                "state": "",
                "address": row["address"],
                "name": row["name"],
                "subject": row["subject"],
                "text": row["text"],
                "key": row["key"],
                "thread": row["thread"],
                "extra": row["extra"],
                "answerable": False,
                "ticket_id": row["ticket_id"],
                "customer_id": row["customer_id"],
                "author_id": row["author_id"],
                "received_at": now,
                "stored_at": now,
                "tries": 0,
            }
            for row in rows
        ],
    )
    by_key = {each.external_id: each.id for each in made}
    ids = [by_key[row["key"]] for row in rows]
    connection.execute(
        _ROWS,
        [
            {
                "message_id": message_id,
                "ticket_id": row["ticket_id"],
                "channel": row["channel"],
                "account": row["account"],
                "address": row["address"],
                "kind": row["kind"],
                "automatic": row["automatic"],
                "state": (OutState.SENT if row["channel"] in pulled else OutState.QUEUED).value,
                "next_at": now,
                "created_at": now,
                "updated_at": now,
            }
            for message_id, row in zip(ids, rows, strict=True)
        ],
    )
    return ids


def sent_event(message_id: int, ticket_id: int | None, kind: str, now: datetime) -> dict[str, Any]:
    """An answer of a pulled channel went out: it was written, and no try was needed."""
    return events.row("sent", "bot", now, ticket_id=ticket_id, message=message_id, kind=kind, tries=0)


_AUTOMATIC = (
    sa.select(outbox.c.channel, outbox.c.address, sa.func.count())
    .where(
        outbox.c.automatic,
        outbox.c.address.in_(bindparam("addresses", expanding=True)),
        outbox.c.created_at > bindparam("since"),
    )
    .group_by(outbox.c.channel, outbox.c.address)
)


def automatic_since(connection: Connection, addresses: Collection[str], since: datetime) -> dict[tuple[str, str], int]:
    """How many automatic answers each (channel, address) was given since a time."""
    if not addresses:
        return {}
    rows = connection.execute(_AUTOMATIC, {"addresses": sorted(addresses), "since": since})
    return {(channel, address): count for channel, address, count in rows}


def automatic_on(connection: Connection, ticket_id: int) -> int:
    """How many automatic answers a ticket was given."""
    query = sa.select(sa.func.count()).where(outbox.c.ticket_id == ticket_id, outbox.c.automatic)
    return connection.scalar(query) or 0


def claim(
    connection: Connection,
    channels: Collection[str],
    now: datetime,
    hold: timedelta,
    limit: int,
    *,
    ordered: bool = False,
    but: Collection[str] = (),
) -> Sequence[AnyRow]:
    """Take due rows for sending: `queued` -> `sending`, on condition that nobody else took them.

    `ordered`: of the rows from one account to one address only the first that is unfinished. `but`: accounts that rest.
    """
    due = (
        sa.select(outbox.c.id)
        .where(outbox.c.state == literal("queued"), outbox.c.next_at <= now, outbox.c.channel.in_(sorted(channels)))
        .order_by(outbox.c.next_at)
        .limit(limit)
    )
    if but:
        due = due.where(outbox.c.account.not_in(sorted(but)))
    if ordered:
        earlier = outbox.alias("earlier")
        unfinished = sa.or_(earlier.c.state == literal("queued"), earlier.c.state == literal("sending"))
        due = due.where(
            ~sa.exists().where(
                earlier.c.address == outbox.c.address,
                earlier.c.id < outbox.c.id,
                unfinished,
                earlier.c.channel == outbox.c.channel,
                earlier.c.account == outbox.c.account,
            )
        )
    if connection.dialect.name != "sqlite":
        due = due.with_for_update(skip_locked=True)
    taken = connection.scalars(
        sa.update(outbox)
        .where(outbox.c.id.in_(due.scalar_subquery()), outbox.c.state == literal("queued"))
        .values(state=OutState.SENDING.value, held_until=now + hold, tries=outbox.c.tries + 1, updated_at=now)
        .returning(outbox.c.id)
    ).all()
    if not taken:
        return []
    query = (
        sa.select(
            outbox, message.c.text, message.c.subject, message.c.key, message.c.thread, message.c.extra, message.c.name,
            message.c.customer_id, person.c.name.label("author"), ticket.c.language,
        )
        .join(message, message.c.id == outbox.c.message_id)
        .outerjoin(ticket, ticket.c.id == outbox.c.ticket_id)
        .outerjoin(person, person.c.id == message.c.author_id)
        .where(outbox.c.id.in_(taken))
        .order_by(outbox.c.next_at, outbox.c.id)
    )  # fmt: skip
    return connection.execute(query).all()


def settle(connection: Connection, outbox_id: int, now: datetime, **values: Any) -> bool:
    """Write what became of a row that this process holds. False when it is no longer `sending`."""
    changed = connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == outbox_id, outbox.c.state == literal("sending"))
        .values(held_until=None, updated_at=now, **values)
    )
    return changed.rowcount == 1


def progress(connection: Connection, row: AnyRow, done: int, held_until: datetime) -> bool:
    """The channel has so many of the messages that a claimed row's text was cut into, and the next one begins.

    False: the hold was over and the row is somebody else's.
    """
    mine = outbox.c.id == row.id, outbox.c.state == literal("sending"), outbox.c.tries == row.tries
    changed = connection.execute(sa.update(outbox).where(*mine).values(done=done, held_until=held_until))
    return changed.rowcount == 1


def heard(connection: Connection, customer_id: int | None, channel: str, address: str) -> datetime | None:
    """When the customer last wrote from an address: what a machine or somebody of ours wrote there does not count."""
    if customer_id is None:
        return None
    query = sa.select(sa.func.max(message.c.received_at)).where(
        message.c.customer_id == customer_id,
        message.c.direction == "in",
        message.c.automatic.is_(None),
        message.c.channel == channel,
        message.c.address == address,
    )
    found: datetime | None = connection.scalar(query)
    return found


def lost(connection: Connection, now: datetime, *, limit: int = 200) -> Sequence[AnyRow]:
    """Rows found in `sending` whose sender is gone: the hold is over."""
    query = (
        sa.select(outbox)
        .where(outbox.c.state == literal("sending"), outbox.c.held_until < now)
        .order_by(outbox.c.held_until)
        .limit(limit)
    )
    return connection.execute(query).all()


def by_keys(connection: Connection, channel: str, account: str, keys: Collection[str]) -> Sequence[AnyRow]:
    """Outbox rows of our own messages by their keys (mail: Message-IDs), for bounces and receipts."""
    if not keys:
        return []
    query = (
        sa.select(outbox, message.c.key, message.c.customer_id)
        .join(message, message.c.id == outbox.c.message_id)
        .where(
            message.c.channel == channel,
            message.c.account == account,
            message.c.external_id.in_(sorted(keys)),
            message.c.direction == "out",
        )
    )
    return connection.execute(query).all()


def bounced(connection: Connection, row: AnyRow, reason: str, now: datetime) -> None:
    """The other side says that our message did not arrive."""
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == row.id)
        .values(state=OutState.FAILED.value, error=reason, held_until=None, updated_at=now)
    )
    events.append(connection, [events.row("bounced", "bot", now, ticket_id=row.ticket_id, message=row.message_id)])


def requeue(connection: Connection, message_id: int, now: datetime) -> bool:
    """A person sends a failed answer again: from its first message on, where it was several."""
    mine = sa.select(outbox.c.id).where(outbox.c.message_id == message_id)
    connection.execute(
        sa.update(provider_message)
        .where(provider_message.c.outbox_id.in_(mine.scalar_subquery()))
        .values(outbox_id=None)
    )
    changed = connection.execute(
        sa.update(outbox)
        .where(
            outbox.c.message_id == message_id,
            outbox.c.state.in_([OutState.FAILED.value, OutState.UNKNOWN.value]),
            outbox.c.automatic.is_(False),
        )
        .values(state=OutState.QUEUED.value, next_at=now, tries=0, done=0, error="", updated_at=now)
    )
    return changed.rowcount == 1


def states(connection: Connection) -> dict[tuple[str, str], int]:
    """Rows by (channel, state)."""
    query = sa.select(outbox.c.channel, outbox.c.state, sa.func.count()).group_by(outbox.c.channel, outbox.c.state)
    return {(channel, state): count for channel, state, count in connection.execute(query)}
