"""What tests look at: rows of the tables, events by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from storage.database import Database
from storage.tables import Event, Message, Outbox, Ticket, table


def rows(database: Database, model: type[SQLModel], **values: Any) -> list[Any]:
    """All rows of a table with these values, in the order of their making."""
    found = table(model)
    query = sa.select(found).order_by(*found.primary_key.columns)
    for name, value in values.items():
        query = query.where(found.c[name] == value)
    with database.reading() as connection:
        return list(connection.execute(query))


def tickets(database: Database) -> list[Any]:
    return rows(database, Ticket)


def ticket(database: Database, ticket_id: int | None = None) -> Any:
    """A ticket by id; without one, the only ticket there is."""
    found = tickets(database) if ticket_id is None else rows(database, Ticket, id=ticket_id)
    assert len(found) == 1
    return found[0]


def incoming(database: Database, message_id: int) -> Any:
    [row] = rows(database, Message, id=message_id)
    return row


def answers(database: Database) -> list[Any]:
    """The outbox."""
    return rows(database, Outbox)


def trail(database: Database, ticket_id: int) -> list[str]:
    """The kinds of a ticket's events, in order."""
    return [row.kind for row in rows(database, Event, ticket_id=ticket_id)]


def event(database: Database, kind: str, **values: Any) -> Any:
    """The only event of a kind."""
    [row] = rows(database, Event, kind=kind, **values)
    return row


async def on(database: Database, verb: Callable[..., Any], *arguments: Any) -> Any:
    """Run a verb as a unit."""
    return await database.write(lambda connection: verb(connection, *arguments))
