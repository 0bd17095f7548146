"""Small writes on messages that people cause: notes, second lives, collisions."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import Conflict, InState, NotFound
from storage import search
from storage.messages import message, quarantine
from storage.types import AnyRow


def add(connection: Connection, ticket: AnyRow, author_id: int | None, author: str, text: str, now: datetime) -> int:
    """An internal note on a ticket; its message id."""
    message_id = connection.scalar(
        sa.insert(message)
        .values(
            direction="note", channel=ticket.channel, account=ticket.account,
            external_id=f"note.{secrets.token_hex(10)}", address=ticket.address, name=author, text=text,
            answerable=False, ticket_id=ticket.id, customer_id=ticket.customer_id, author_id=author_id,
            received_at=now, stored_at=now,
        )
        .returning(message.c.id)
    )  # fmt: skip
    return int(message_id or 0)


def check_newest(connection: Connection, ticket_id: int, seen: int) -> None:
    """Raises `Conflict` when the customer wrote after the message `seen`."""
    query = (
        sa.select(message.c.id)
        .where(message.c.ticket_id == ticket_id, message.c.direction == "in", message.c.id > seen)
        .limit(1)
    )
    if connection.scalar(query) is not None:
        raise Conflict("The customer wrote again since you opened the ticket. Read it, then send.")


def revive(connection: Connection, message_id: int, was: str) -> None:
    """Let a kept message be processed again, as written by a person. Raises `Conflict` when its state has changed."""
    changed = connection.execute(
        sa.update(message)
        .where(message.c.id == message_id, message.c.state == was)
        .values(
            state=InState.RECEIVED.value, automatic=None, answerable=False, tries=0, held_until=None, ticket_id=None,
            stored_at=datetime.now(UTC),
        )
    )  # fmt: skip
    if changed.rowcount != 1:
        raise Conflict("Somebody was faster, or it is no longer there.")
    search.remove(connection, [message_id])  # it was found on the ticket that it concerned


def leave_quarantine(connection: Connection, quarantine_id: int, outcome: str) -> int:
    """Mark a quarantine entry as dealt with; its message id. Raises `NotFound` when it is none any more."""
    message_id = connection.scalar(
        sa.update(quarantine)
        .where(quarantine.c.id == quarantine_id, quarantine.c.outcome.is_(None))
        .values(outcome=outcome)
        .returning(quarantine.c.message_id)
    )
    if message_id is None:
        raise NotFound("It is no longer in quarantine.")
    return int(message_id)


def rewrite(connection: Connection, message_id: int, **values: object) -> None:
    """What a second reading of the raw found."""
    connection.execute(sa.update(message).where(message.c.id == message_id).values(**values))
