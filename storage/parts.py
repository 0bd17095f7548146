"""A message's typed parts, and what of them a worker has yet to fetch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import Message
from storage import search
from storage.database import insert_new
from storage.tables import Attachment, Medium, Raw, Sighting, table
from storage.tables import Message as Table
from storage.types import AnyRow, literal, tidy

medium = table(Medium)
attachment = table(Attachment)
message = table(Table)
raw = table(Raw)
sighting = table(Sighting)


def as_json(item: Message) -> list[dict[str, str]]:
    """The parts as kept with the message: kind and words; what is fetched is in `Medium`."""
    return [
        {
            name: tidy(value)
            for name, value in (("kind", each.kind.value), ("text", each.text), ("name", each.name))
            if value
        }
        for each in item.parts
    ]


def media(message_id: int, item: Message, now: datetime, *, first: int = 0) -> list[dict[str, Any]]:
    """The rows of what is to be fetched. `first`: the number of the message's parts that are stored already."""
    return [
        {
            "message_id": message_id,
            "part": number,
            "channel": item.channel,
            "reference": {"account": item.account} | {name: tidy(value) for name, value in each.reference.items()},
            "state": "waiting",
            "next_at": now,
        }
        for number, each in enumerate(item.parts, first)
        if each.reference is not None
    ]


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(medium), list(rows))


def merge(connection: Connection, message_id: int, item: Message, now: datetime) -> bool:
    """Add a later delivery's words, parts and raw payload to the message that it belongs to. False: it has them."""
    query = sa.select(message.c.text, message.c.extra).where(message.c.id == message_id)
    row = connection.execute(query.with_for_update()).one()
    if item.seen_at is not None:
        place, mark = item.seen_at
        seen = {"channel": item.channel, "place": place, "mark": mark, "message_id": message_id}
        if connection.execute(insert_new(connection, sighting), [seen]).rowcount != 1:
            return False
    extra = dict(row.extra or {})
    known = list(extra.get("parts", []))
    extra["parts"] = [*known, *as_json(item)]
    text = "\n".join(each for each in (row.text, tidy(item.text)) if each)
    connection.execute(sa.update(message).where(message.c.id == message_id).values(text=text, extra=extra))
    add(connection, media(message_id, item, now, first=len(known)))
    body = connection.scalar(sa.select(raw.c.body).where(raw.c.message_id == message_id)) or b""
    connection.execute(sa.update(raw).where(raw.c.message_id == message_id).values(body=body + b"\n" + item.raw))
    return True


def withdraw(connection: Connection, row: AnyRow, at: datetime) -> None:
    """The customer took a message back: its words, what was read in them, files and payload go; that there was one
    stays."""
    extra = {key: value for key, value in (row.extra or {}).items() if key != "parts"}
    extra["withdrawn"] = at.isoformat()
    connection.execute(
        sa.update(message).where(message.c.id == row.id).values(text="", clean=None, subject="", tags=None, extra=extra)
    )
    search.remove(connection, [row.id])
    connection.execute(sa.delete(medium).where(medium.c.message_id == row.id))
    connection.execute(sa.delete(attachment).where(attachment.c.message_id == row.id))
    connection.execute(sa.update(raw).where(raw.c.message_id == row.id).values(body=b""))


# --- fetching ---------------------------------------------------------------------------------------------------------


def claim(
    connection: Connection, channels: Collection[str], now: datetime, hold: timedelta, limit: int
) -> Sequence[AnyRow]:
    """Take what is due. Whoever dies with it leaves it to be due again when the hold is over."""
    due = (
        sa.select(medium.c.id)
        .where(medium.c.state == literal("waiting"), medium.c.next_at <= now, medium.c.channel.in_(sorted(channels)))
        .order_by(medium.c.next_at)
        .limit(limit)
    )
    if connection.dialect.name != "sqlite":
        due = due.with_for_update(skip_locked=True)
    taken = sa.update(medium).where(medium.c.id.in_(due.scalar_subquery()), medium.c.state == literal("waiting"))
    return connection.execute(
        taken.values(next_at=now + hold, tries=medium.c.tries + 1).returning(
            medium.c.id,
            medium.c.message_id,
            medium.c.part,
            medium.c.channel,
            medium.c.reference,
            medium.c.tries,
            medium.c.attachment_id,
        )
    ).all()


def fetched(connection: Connection, medium_id: int, file: dict[str, Any], *, more: bool = False) -> bool:
    """Keep the content. False: somebody else did, or the message was erased or withdrawn meanwhile.

    `more`: something is still to be done (the provider's copy goes), until `finish`; it is due again after the hold.
    """
    mine = sa.update(medium).where(
        medium.c.id == medium_id, medium.c.state == literal("waiting"), medium.c.attachment_id.is_(None)
    )
    if connection.execute(mine.values(state="waiting" if more else "fetched", reason="")).rowcount != 1:
        return False
    attachment_id = connection.scalar(sa.insert(attachment).values(**file).returning(attachment.c.id))
    connection.execute(sa.update(medium).where(medium.c.id == medium_id).values(attachment_id=attachment_id))
    return True


def finish(connection: Connection, medium_id: int, reason: str = "") -> None:
    """Nothing more is to be done with what was fetched; `reason`: what could not be."""
    mine = sa.update(medium).where(medium.c.id == medium_id, medium.c.state == literal("waiting"))
    connection.execute(mine.values(state="fetched", reason=reason[:1000]))


def put_off(connection: Connection, medium_id: int, reason: str, next_at: datetime | None) -> None:
    """It could not be fetched: again at `next_at`, or never (None)."""
    values: dict[str, Any] = {"reason": reason[:1000]}
    values |= {"state": "failed"} if next_at is None else {"next_at": next_at}
    connection.execute(
        sa.update(medium).where(medium.c.id == medium_id, medium.c.state == literal("waiting")).values(**values)
    )


def of_messages(connection: Connection, ids: Collection[int]) -> Sequence[AnyRow]:
    """What the parts of these messages refer to, for whoever shows them."""
    query = sa.select(medium).where(medium.c.message_id.in_(sorted(ids))).order_by(medium.c.message_id, medium.c.part)
    return connection.execute(query).all() if ids else []
