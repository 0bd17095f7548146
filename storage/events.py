"""The trail: append-only facts of ids, labels and states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from storage.tables import Event, Ticket, table
from storage.types import AnyRow

event = table(Event)
ticket = table(Ticket)


def row(kind: str, actor: str, at: datetime, /, *, ticket_id: int | None = None, **data: Any) -> dict[str, Any]:
    """An event to be appended. `data` must hold no customer's text and no address."""
    return {"ticket_id": ticket_id, "kind": kind, "actor": actor, "at": at, "data": data}


_APPEND = sa.insert(event)


def append(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_APPEND, list(rows))


def of_ticket(connection: Connection, ticket_id: int) -> Sequence[AnyRow]:
    return connection.execute(sa.select(event).where(event.c.ticket_id == ticket_id).order_by(event.c.id)).all()


def since(connection: Connection, after: int, *, limit: int = 500) -> Sequence[AnyRow]:
    """Events after an id, with the department that their ticket is in now."""
    query = (
        sa.select(event.c.id, event.c.ticket_id, event.c.kind, event.c.actor, event.c.at, event.c.data,
                  ticket.c.department, ticket.c.version)
        .outerjoin(ticket, ticket.c.id == event.c.ticket_id)
        .where(event.c.id > after)
        .order_by(event.c.id)
        .limit(limit)
    )  # fmt: skip
    return connection.execute(query).all()


def newest(connection: Connection) -> int:
    """The newest event's id; 0 when there is none."""
    return connection.scalar(sa.select(sa.func.max(event.c.id))) or 0


def settled(rows: Iterable[AnyRow], after: int, now: datetime, patience: float) -> list[AnyRow]:
    """The leading rows that no unseen event can still precede.

    PostgreSQL gives ids before the commit, so id 8 may become visible before id 7. A hole in front of an event younger
    than `patience` seconds is waited for; an older hole is a transaction that was rolled back.
    """
    ready: list[AnyRow] = []
    expected = after + 1
    for each in rows:
        if each.id != expected and (now - each.at).total_seconds() < patience:
            break
        ready.append(each)
        expected = each.id + 1
    return ready
