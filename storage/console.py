"""What the console reads: rows of lists, counts for the rail, the small windows of live pages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from domain import TRIAGE, Message, NotFound
from storage import events, messages, notes, tickets
from storage.database import insert_new
from storage.tables import Idempotency, Person, Quarantine, SignIn, table
from storage.types import AnyRow, literal

ticket = tickets.ticket
message = tickets.message
person = table(Person)
quarantine = table(Quarantine)
idempotency = table(Idempotency)
sign_in = table(SignIn)
event = events.event

_ACTIVE = ticket.c.state.in_([str(state) for state in tickets.ACTIVE])
#: what waits for a supervisor's eye at the triage desk
_REVIEW = sa.and_(_ACTIVE, sa.or_(ticket.c.look_first, ticket.c.department == TRIAGE))


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers beside the rail's entries."""

    queues: dict[str, int]
    mine: int
    review: int
    quarantined: int
    #: the newest event that these numbers include
    newest: int

    def visible(self, departments: Collection[str] | None) -> dict[str, int]:
        """Queues of these departments, all for None, and their sum."""
        seen = {name: n for name, n in self.queues.items() if departments is None or name in departments}
        return seen | {"all": sum(seen.values())}


def counts(connection: Connection, person_id: int | None) -> Counts:
    mine = sa.select(sa.func.count()).select_from(ticket).where(_ACTIVE, ticket.c.owner_id == person_id)
    review = sa.select(sa.func.count()).select_from(ticket).where(_REVIEW)
    held = sa.select(sa.func.count()).select_from(message).where(message.c.state == literal("quarantined"))
    held = held.where(sa.exists().where(quarantine.c.message_id == message.c.id, quarantine.c.outcome.is_(None)))
    return Counts(
        tickets.counts(connection),
        (connection.scalar(mine) or 0) if person_id is not None else 0,
        connection.scalar(review) or 0,
        connection.scalar(held) or 0,
        events.newest(connection),
    )


def person_named(connection: Connection, name: str) -> AnyRow | None:
    """An active person by name, or None."""
    return connection.execute(sa.select(person).where(person.c.name == name, person.c.active)).first()


def rows(connection: Connection, ids: Collection[int]) -> Sequence[AnyRow]:
    """Tickets as a queue lists them, by id."""
    if not ids:
        return []
    query = tickets.LISTED.add_columns(tickets.DUE.label("due_at")).where(ticket.c.id.in_(sorted(ids)))
    return connection.execute(query).all()


def review(connection: Connection, *, why: str = "", offset: int = 0, limit: int = 50) -> Sequence[AnyRow]:
    """What a person must look at, most urgent first. `why`: transferred, risk, or "" for all that is unsure."""
    condition: ColumnElement[bool] = _REVIEW
    if why == "risk":
        condition = sa.and_(_ACTIVE, sa.cast(ticket.c.risk, sa.Text) != "[]")
    elif why == "transferred":
        moved = sa.exists().where(
            event.c.ticket_id == ticket.c.id, event.c.kind == "transferred", event.c.actor.like("person:%")
        )
        condition = sa.and_(_ACTIVE, moved)
    query = (
        tickets.LISTED.add_columns(tickets.DUE.label("due_at"))
        .where(condition)
        .order_by(tickets.PINNED, tickets.RANK.desc(), tickets.DUE.asc().nulls_last(), ticket.c.id)
        .offset(offset)
        .limit(limit)
    )
    return connection.execute(query).all()


def of_customer(connection: Connection, customer_id: int, *, but: int, limit: int = 5) -> Sequence[AnyRow]:
    """A customer's other tickets, newest first."""
    query = (
        tickets.LISTED.add_columns(tickets.DUE.label("due_at"))
        .where(ticket.c.customer_id == customer_id, ticket.c.id != but)
        .order_by(ticket.c.id.desc())
        .limit(limit)
    )
    return connection.execute(query).all()


def automatic_kinds(connection: Connection) -> dict[str, int]:
    """Kept automatic mail by kind."""
    query = (
        sa.select(message.c.automatic, sa.func.count())
        .where(message.c.state == literal("automatic"))
        .group_by(message.c.automatic)
    )
    return {str(kind): n for kind, n in connection.execute(query)}


def newest_message(connection: Connection, ticket_id: int) -> int:
    """The newest message's id of a ticket, notes included; 0 when there is none."""
    query = sa.select(sa.func.max(message.c.id)).where(message.c.ticket_id == ticket_id)
    return connection.scalar(query) or 0


def events_at(connection: Connection, ids: Collection[int]) -> Sequence[AnyRow]:
    """Events by id: those that were not visible yet when later ones were."""
    if not ids:
        return []
    query = (
        sa.select(
            event.c.id, event.c.ticket_id, event.c.kind, event.c.actor, event.c.at, event.c.data,
            ticket.c.department, ticket.c.version,
        )
        .outerjoin(ticket, ticket.c.id == event.c.ticket_id)
        .where(event.c.id.in_(sorted(ids)))
        .order_by(event.c.id)
    )  # fmt: skip
    return connection.execute(query).all()


def held(connection: Connection, quarantine_id: int) -> AnyRow:
    """One entry of the quarantine that nobody dealt with. Raises `NotFound`."""
    query = sa.select(quarantine).where(quarantine.c.id == quarantine_id, quarantine.c.outcome.is_(None))
    row = connection.execute(query).first()
    if row is None:
        raise NotFound("It is no longer in quarantine.")
    return row


def still_unread(connection: Connection, quarantine_id: int, reason: str, actor: str) -> None:
    """A second reading failed as well: it stays, with what was wrong this time. Raises `NotFound`."""
    message_id = held(connection, quarantine_id).message_id
    reason, now = messages.tidy(reason), datetime.now(UTC)
    entry = sa.update(quarantine).where(quarantine.c.id == quarantine_id, quarantine.c.outcome.is_(None))
    connection.execute(entry.values(reason=reason, at=now))
    item = sa.update(message).where(message.c.id == message_id, message.c.state == literal("quarantined"))
    connection.execute(item.values(reason=reason, tries=message.c.tries + 1))
    events.append(connection, [events.row("quarantine_retried", actor, now, message=message_id, step="read")])


def reread(connection: Connection, message_id: int, item: Message) -> None:
    """Write what a second reading of a message's raw found: it could not be read the first time."""
    found = messages.as_row(item, datetime.now(UTC))
    kept = ("address", "name", "subject", "text", "clean", "key", "thread", "extra", "answerable", "automatic")
    notes.rewrite(connection, message_id, **{name: found[name] for name in kept})
    known = messages.attachments(connection, [message_id])
    if item.attachments and not known:
        connection.execute(sa.insert(messages.attachment), messages.as_files(message_id, item))


def first_use(connection: Connection, caller: str, key: str, ticket_id: int) -> bool:
    """True the first time that this form's key is used; a double click has one effect."""
    values = {"caller": caller, "key": key, "request": f"say {ticket_id}", "answer": {}, "at": datetime.now(UTC)}
    # RETURNING, not the row count: PostgreSQL's driver does not say how many rows such an insert made.
    query = insert_new(connection, idempotency).values(**values).returning(idempotency.c.key)
    return connection.scalar(query) is not None


def close_sessions(connection: Connection, person_id: int) -> None:
    """Sign a person out everywhere."""
    connection.execute(sa.delete(sign_in).where(sign_in.c.person_id == person_id, sign_in.c.kind == "session"))


def owned(connection: Connection, person_ids: Collection[int]) -> dict[int, int]:
    """Active tickets by owner."""
    query = (
        sa.select(ticket.c.owner_id, sa.func.count())
        .where(_ACTIVE, ticket.c.owner_id.in_(sorted(person_ids)))
        .group_by(ticket.c.owner_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}
