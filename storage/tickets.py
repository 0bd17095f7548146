"""Tickets, the threads that lead to them, and the lists of them that people look at."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, bindparam

from domain import Conflict, NotFound, Priority, TicketState, public_number, ticket_id_of
from storage import search
from storage.database import insert_new
from storage.tables import Attachment, Customer, Message, Outbox, Person, Thread, Ticket, table
from storage.types import AnyRow, UtcTime

ticket = table(Ticket)
thread = table(Thread)
message = table(Message)
outbox = table(Outbox)
person = table(Person)
customer = table(Customer)
attachment = table(Attachment)

UNCLOSED = (TicketState.NEW, TicketState.OPEN, TicketState.PENDING, TicketState.RESOLVED)
ACTIVE = (TicketState.NEW, TicketState.OPEN, TicketState.PENDING)

#: a priority as a number, the most urgent highest
RANK = sa.case({each.value: each.rank for each in Priority}, value=ticket.c.priority, else_=1)


def thread_key(channel: str, address: str, key: str) -> str:
    """The digest under which a thread key of one customer's address is found."""
    return hashlib.blake2b(f"{channel}\0{address}\0{key}".encode("utf-8", "replace"), digest_size=16).hexdigest()


_THREADS = sa.select(thread.c.key, thread.c.ticket_id).where(thread.c.key.in_(bindparam("keys", expanding=True)))


def by_threads(connection: Connection, keys: Collection[str]) -> dict[str, int]:
    """Which of the thread keys lead to which tickets."""
    if not keys:
        return {}
    return {row.key: row.ticket_id for row in connection.execute(_THREADS, {"keys": sorted(keys)})}


def add_threads(connection: Connection, keys: Mapping[str, int], *, known: Mapping[str, int]) -> None:
    """Let keys lead to tickets. `known`: what they led to when this was decided.

    Raises `Conflict` when somebody else led a key elsewhere meanwhile: then the decision must be made anew.
    """
    new = [{"key": key, "ticket_id": keys[key]} for key in sorted(keys) if key not in known]
    if new:
        made = connection.execute(insert_new(connection, thread, thread.c.key), new).all()
        if len(made) != len(new):
            raise Conflict("Another message of the thread was faster.")
    for key in sorted(key for key in keys if key in known and known[key] != keys[key]):
        moved = connection.execute(
            sa.update(thread).where(thread.c.key == key, thread.c.ticket_id == known[key]).values(ticket_id=keys[key])
        )
        if moved.rowcount != 1:
            raise Conflict("Another message of the thread was faster.")


_LOCK = sa.select(ticket).where(ticket.c.id.in_(bindparam("ids", expanding=True))).order_by(ticket.c.id)


_LOCK_ROWS = _LOCK.with_for_update()


def lock(connection: Connection, ids: Iterable[int]) -> dict[int, AnyRow]:
    """Tickets as they are, locked until the transaction ends (SQLite's writer is alone anyway)."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    query = _LOCK if connection.dialect.name == "sqlite" else _LOCK_ROWS
    return {row.id: row for row in connection.execute(query, {"ids": wanted})}


def lock_one(connection: Connection, ticket_id: int) -> AnyRow:
    """One ticket, locked. Raises `NotFound`."""
    found = lock(connection, [ticket_id]).get(ticket_id)
    if found is None:
        raise NotFound("There is no such ticket.")
    return found


# Ids asked for in the rows' order would be fetched row by row on SQLite; a unique column tells which is whose as well.
_INSERT = sa.insert(ticket).returning(ticket.c.token, ticket.c.id)


def insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Make tickets; their ids in order."""
    if not rows:
        return []
    ids = {row.token: row.id for row in connection.execute(_INSERT, list(rows))}
    return [ids[row["token"]] for row in rows]


def update(connection: Connection, ticket_id: int, version: int, **values: Any) -> None:
    """Change a ticket on condition of its version. Raises `Conflict` when somebody was faster."""
    changed = connection.execute(
        sa.update(ticket)
        .where(ticket.c.id == ticket_id, ticket.c.version == version)
        .values(version=version + 1, **values)
    )
    if changed.rowcount != 1:
        raise Conflict


def claim_alarms(connection: Connection, now: datetime, *, limit: int = 200) -> Sequence[AnyRow]:
    """Tickets whose next alarm is due."""
    query = sa.select(ticket).where(ticket.c.next_alarm_at <= now).order_by(ticket.c.next_alarm_at).limit(limit)
    return connection.execute(query).all()


# --- reading ----------------------------------------------------------------------------------------------------------


def id_of(number: str) -> int:
    """The row id behind a public number as people type it. Raises `NotFound`."""
    found = ticket_id_of(number)
    if found is None or found > 2**62:
        raise NotFound(f"There is no ticket {number[:20]}.")
    return found


#: a ticket with `owner` (name or None) and `customer_name`
LISTED = (
    sa.select(ticket, person.c.name.label("owner"), customer.c.name.label("customer_name"))
    .outerjoin(person, person.c.id == ticket.c.owner_id)
    .join(customer, customer.c.id == ticket.c.customer_id)
)


def get(connection: Connection, ticket_id: int) -> AnyRow:
    """A ticket with `owner` (name or None) and `customer_name`. Raises `NotFound`."""
    row = connection.execute(LISTED.where(ticket.c.id == ticket_id)).first()
    if row is None:
        raise NotFound("There is no such ticket.")
    return row


def by_token(connection: Connection, token: str) -> AnyRow:
    """The ticket behind a tracking link. Raises `NotFound`."""
    row = connection.execute(LISTED.where(ticket.c.token == token)).first()
    if row is None:
        raise NotFound("This link leads nowhere. Is it complete?")
    return row


#: The nearest open promise: what is due first decides the place in a queue.
DUE = sa.case(
    (ticket.c.state == TicketState.RESOLVED.value, None),
    (ticket.c.paused_at.is_not(None), None),
    (ticket.c.first_response_at.is_(None), ticket.c.first_due_at),
    else_=ticket.c.resolve_due_at,
)

#: People in danger stand above everything else; then priority, then what is due next.
_RISK = sa.cast(ticket.c.risk, sa.Text)
PINNED = sa.case((_RISK.like("%self_harm%"), 0), (_RISK.like("%injury%"), 1), else_=2)


def _late(now: datetime) -> ColumnElement[int]:
    return sa.case((sa.type_coerce(DUE, UtcTime) < now, 0), else_=1)


def _found(connection: Connection, q: str) -> ColumnElement[bool]:
    """What `q` finds: a public number, or words of sender, subject and text."""
    clauses: list[ColumnElement[bool]] = []
    number = ticket_id_of(q)
    if number is not None and number < 2**62:
        clauses.append(ticket.c.id == number)
    matching = search.matching(connection, q)
    if matching is not None:
        clauses.append(ticket.c.id.in_(matching))
    return sa.or_(*clauses) if clauses else sa.false()


def listed(
    connection: Connection,
    *,
    departments: Collection[str] | None = None,
    states: Collection[str] | None = None,
    owner_id: int | None = None,
    alarmed: bool = False,
    look_first: bool = False,
    q: str = "",
    before: int | None = None,
    limit: int = 50,
) -> Sequence[AnyRow]:
    """Tickets, newest first, as pages: `before` is the last id of the page before."""
    query = LISTED.order_by(ticket.c.id.desc()).limit(limit)
    if departments is not None:
        query = query.where(ticket.c.department.in_(list(departments)))
    if states is not None:
        query = query.where(ticket.c.state.in_(list(states)))
    if owner_id is not None:
        query = query.where(ticket.c.owner_id == owner_id)
    if alarmed:
        query = query.where(ticket.c.alarm != "")
    if look_first:
        query = query.where(ticket.c.look_first)
    if q:
        query = query.where(_found(connection, q))
    if before is not None:
        query = query.where(ticket.c.id < before)
    return connection.execute(query).all()


def queue(
    connection: Connection,
    *,
    department: str | None = None,
    departments: Collection[str] | None = None,
    states: Collection[str] = ACTIVE,
    owner_id: int | None = None,
    alarmed: bool = False,
    look_first: bool = False,
    q: str = "",
    offset: int = 0,
    limit: int = 50,
) -> Sequence[AnyRow]:
    """A queue, most urgent first: people in danger, over due, priority, due soonest, waiting longest."""
    query = (
        LISTED.add_columns(DUE.label("due_at"))
        .where(ticket.c.state.in_([str(state) for state in states]))
        .order_by(PINNED, _late(datetime.now(UTC)), RANK.desc(), DUE.asc().nulls_last(), ticket.c.id)
        .offset(offset)
        .limit(limit)
    )
    if department is not None:
        query = query.where(ticket.c.department == department)
    if departments is not None:
        query = query.where(ticket.c.department.in_(list(departments)))
    if owner_id is not None:
        query = query.where(ticket.c.owner_id == owner_id)
    if alarmed:
        query = query.where(ticket.c.alarm != "")
    if look_first:
        query = query.where(ticket.c.look_first)
    if q:
        query = query.where(_found(connection, q))
    return connection.execute(query).all()


def counts(connection: Connection) -> dict[str, int]:
    """Active tickets by department."""
    query = (
        sa.select(ticket.c.department, sa.func.count())
        .where(ticket.c.state.in_([str(state) for state in ACTIVE]))
        .group_by(ticket.c.department)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def messages(connection: Connection, ticket_id: int) -> Sequence[AnyRow]:
    """All that was said on a ticket, notes included, oldest first; outgoing ones with their outbox state."""
    query = (
        sa.select(
            message,
            person.c.name.label("author"),
            outbox.c.state.label("out_state"),
            outbox.c.error.label("out_error"),
            outbox.c.kind.label("out_kind"),
            outbox.c.automatic.label("out_automatic"),
            outbox.c.repeated.label("out_repeated"),
            outbox.c.tries.label("out_tries"),
        )
        .outerjoin(person, person.c.id == message.c.author_id)
        .outerjoin(outbox, outbox.c.message_id == message.c.id)
        .where(message.c.ticket_id == ticket_id)
        .order_by(message.c.stored_at, message.c.id)
    )
    return connection.execute(query).all()


def forget_words(connection: Connection, ticket_id: int, *, snippet: str, subject: str) -> None:
    """A message was taken back: what its ticket's row shows of it goes, unless other words stand there by now."""
    for column, words in ((ticket.c.snippet, snippet), (ticket.c.subject, subject)):
        if words:
            shown = sa.update(ticket).where(ticket.c.id == ticket_id, column == words)
            connection.execute(shown.values({column: "", ticket.c.version: ticket.c.version + 1}))


def is_party(connection: Connection, ticket_id: int, customer_id: int) -> bool:
    """Whether a ticket is this customer's."""
    query = sa.select(ticket.c.id).where(ticket.c.id == ticket_id, ticket.c.customer_id == customer_id)
    return connection.scalar(query) is not None


def first_message(connection: Connection, ticket_id: int) -> AnyRow | None:
    """The customer's message that opened the ticket: what a label is about."""
    query = (
        sa.select(message)
        .where(message.c.ticket_id == ticket_id, message.c.direction == "in")
        .order_by(message.c.id)
        .limit(1)
    )
    return connection.execute(query).first()


def last_key(connection: Connection, ticket_id: int, channel: str) -> tuple[str, list[str]]:
    """The own key of the customer's newest message on a channel, and the keys that it named: for In-Reply-To and
    References."""
    query = (
        sa.select(message.c.key, message.c.extra)
        .where(
            message.c.ticket_id == ticket_id,
            message.c.direction == "in",
            message.c.channel == channel,
            message.c.key != "",
        )
        .order_by(message.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return "", []
    return row.key, list((row.extra or {}).get("keys", []))


def export(connection: Connection) -> Iterable[dict[str, Any]]:
    """Every ticket in the export's form, in order of opening."""
    query = LISTED.order_by(ticket.c.id).execution_options(yield_per=1000)
    for row in connection.execute(query):
        yield as_exported(row)


def as_exported(row: AnyRow) -> dict[str, Any]:
    """The public form of a ticket: the contract's fields."""
    return {
        "number": public_number(row.id),
        "state": row.state,
        "department": row.department,
        "priority": row.priority,
        "intent": row.intent,
        "sentiment": row.sentiment,
        "risk": row.risk,
        "channel": row.channel,
        "customer": row.address,
        "created_at": iso(row.created_at),
        "first_response_due_at": iso(row.first_due_at),
        "first_response_at": iso(row.first_response_at),
        "resolution_due_at": iso(row.resolve_due_at),
        "resolved_at": iso(row.resolved_at),
        "closed_at": iso(row.closed_at),
        "subject": row.subject,
        "language": row.language,
        "tags": row.tags,
        "owner": row.owner,
        "look_first": row.look_first,
        "linked": public_number(row.linked_id) if row.linked_id else None,
    }


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 with Z."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
