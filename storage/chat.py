"""Web chat: sessions and their numbered lines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import NotFound
from storage.database import Database, insert_new
from storage.tables import ChatLine, ChatSession, Message, Outbox, Person, Ticket, table
from storage.types import AnyRow

session = table(ChatSession)
line = table(ChatLine)
message = table(Message)
outbox = table(Outbox)
person = table(Person)
ticket = table(Ticket)

_TOGETHER = 500  # ids in one query


def open_session(connection: Connection, session_id: str, *, site: str, language: str, now: datetime) -> None:
    """Make the session's row; one that exists stays as it is."""
    connection.execute(
        insert_new(connection, session).values(
            id=session_id, site=site[:256], language=language[:16], created_at=now, seen_at=now, last_seq=0
        )
    )


def get(connection: Connection, session_id: str) -> AnyRow | None:
    return connection.execute(sa.select(session).where(session.c.id == session_id)).first()


def change(connection: Connection, session_id: str, **values: Any) -> None:
    connection.execute(sa.update(session).where(session.c.id == session_id).values(**values))


def end(connection: Connection, session_id: str, now: datetime) -> bool:
    """The visitor ended the conversation: no token opens it again. False for one that never began."""
    ended_at = sa.func.coalesce(session.c.ended_at, sa.bindparam("now", now, session.c.ended_at.type))
    return (
        connection.execute(sa.update(session).where(session.c.id == session_id).values(ended_at=ended_at)).rowcount == 1
    )


def number(connection: Connection, session_id: str, message_id: int, now: datetime) -> int:
    """Give a stored message the next sequence number of its session. The same message keeps the number it has.

    Raises `NotFound` for a session that does not exist.
    """
    # The row lock is what makes the numbers follow one another without a gap, and the look below final.
    locked = sa.select(session.c.last_seq).where(session.c.id == session_id).with_for_update()
    last = connection.scalar(locked)
    if last is None:
        raise NotFound("There is no such chat.")
    known = connection.scalar(sa.select(line.c.seq).where(line.c.message_id == message_id))
    if known is not None:
        return int(known)
    seq = int(last) + 1
    change(connection, session_id, last_seq=seq, seen_at=now)
    connection.execute(sa.insert(line).values(session_id=session_id, seq=seq, message_id=message_id))
    return seq


class Log:
    """Numbers lines, each in a write of its own: what the channel's `send` commits by."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, session_id: str, message_id: int) -> int:
        """See `number`. Returns after the commit."""
        now = datetime.now(UTC)
        return await self._database.write(lambda connection: number(connection, session_id, message_id, now))


def _portions(session_ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(session_ids)
    for start in range(0, len(ordered), _TOGETHER):
        yield ordered[start : start + _TOGETHER]


def last_seqs(connection: Connection, session_ids: Collection[str]) -> dict[str, int]:
    """The newest sequence number of each session: what every web process polls for the sockets that it holds."""
    found: dict[str, int] = {}
    for some in _portions(session_ids):
        query = sa.select(session.c.id, session.c.last_seq).where(session.c.id.in_(some))
        found.update({row.id: row.last_seq for row in connection.execute(query)})
    return found


def lines(connection: Connection, session_id: str, after: int = 0, *, limit: int = 200) -> Sequence[AnyRow]:
    """Lines after a sequence number, oldest first: seq, id, direction, text, external_id, at, author, automatic."""
    query = (
        sa.select(
            line.c.seq, message.c.id, message.c.direction, message.c.text, message.c.external_id,
            message.c.stored_at.label("at"), person.c.name.label("author"), outbox.c.automatic,
        )
        .join(message, message.c.id == line.c.message_id)
        .outerjoin(person, person.c.id == message.c.author_id)
        .outerjoin(outbox, outbox.c.message_id == message.c.id)
        .where(line.c.session_id == session_id, line.c.seq > after)
        .order_by(line.c.seq)
        .limit(limit)
    )  # fmt: skip
    return connection.execute(query).all()


def _newest_ticket_id() -> sa.ScalarSelect[Any]:
    # From the newest line backwards: the primary key leads there, however long the conversation and the desk are.
    return (
        sa.select(message.c.ticket_id)
        .join(line, line.c.message_id == message.c.id)
        .where(line.c.session_id == session.c.id, message.c.ticket_id.is_not(None))
        .order_by(line.c.seq.desc())
        .limit(1)
        .correlate(session)
        .scalar_subquery()
    )


def overviews(connection: Connection, session_ids: Collection[str]) -> dict[str, AnyRow]:
    """What visitors may know of their conversations besides the lines.

    Of each session: id, last_seq, ended_at, and of its newest ticket (or None): ticket_id, token, state, department,
    owner.
    """
    found: dict[str, AnyRow] = {}
    for some in _portions(session_ids):
        about = (
            sa.select(session.c.id, session.c.last_seq, session.c.ended_at, _newest_ticket_id().label("ticket_id"))
            .where(session.c.id.in_(some))
            .subquery()
        )
        query = (
            sa.select(about, ticket.c.token, ticket.c.state, ticket.c.department, person.c.name.label("owner"))
            .outerjoin(ticket, ticket.c.id == about.c.ticket_id)
            .outerjoin(person, person.c.id == ticket.c.owner_id)
        )
        found.update({row.id: row for row in connection.execute(query)})
    return found


def newest_ticket(connection: Connection, session_id: str) -> AnyRow | None:
    """The ticket that the chat is about now: ticket_id, token, state, department, owner."""
    row = overviews(connection, [session_id]).get(session_id)
    return row if row is not None and row.ticket_id is not None else None
