"""Who is who: merges of customers and how they are undone, codes, what suggests that two customers are one person.

Nothing here decides: see `router.identity`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from storage import search, tickets
from storage.customers import Place, address, customer
from storage.tables import ChatSession, IdentityCode, IdentityMerge, Message, Outbox, Person, Thread, Ticket, table
from storage.types import AnyRow

merge = table(IdentityMerge)
code = table(IdentityCode)
message = table(Message)
ticket = table(Ticket)
thread = table(Thread)
outbox = table(Outbox)
person = table(Person)
session = table(ChatSession)

#: channels whose address is a phone number
PHONES = ("phone", "sms", "whatsapp")
#: those of them whose provider vouches for the sender; a caller's number can be made up by whoever calls
VOUCHED = frozenset({"sms", "whatsapp"})
#: types of entity that belong to one person for life: where two customers named different ones, they are two people
STRONG = frozenset({"identity_number"})
_NUMBER = re.compile(r"(?:whatsapp:)?\+?([1-9]\d{7,14})", re.A)
_TOGETHER = 500  # ids in one statement


def number_of(channel: str, where: str) -> str:
    """The phone number behind an address in E.164 form, or "": short codes, names and hidden callers have none."""
    found = _NUMBER.fullmatch(where) if channel in PHONES else None
    return f"+{found[1]}" if found is not None else ""


def _forms(number: str) -> list[str]:
    """How channels write it: Twilio with a plus, WhatsApp's `wa_id` without."""
    return [number, number[1:], f"whatsapp:{number}"]


def having_number(connection: Connection, numbers: Collection[str], channels: Collection[str]) -> Sequence[AnyRow]:
    """The addresses on these channels that are these phone numbers, oldest first."""
    if not numbers:
        return []
    forms = sorted({form for number in numbers for form in _forms(number)})
    query = sa.select(address).where(address.c.channel.in_(sorted(channels)), address.c.address.in_(forms))
    return connection.execute(query.order_by(address.c.id)).all()


# --- merges -----------------------------------------------------------------------------------------------------------


def absorbed(connection: Connection, customer_id: int) -> set[int]:
    """All customers that are part of this one now, directly or through another."""
    found: set[int] = set()
    ask = {customer_id}
    while ask:
        query = sa.select(merge.c.absorbed_id).where(merge.c.kept_id.in_(sorted(ask)), merge.c.undone_at.is_(None))
        ask = set(connection.scalars(query)) - found - {customer_id}
        found |= ask
    return found


def lock_customers(connection: Connection, ids: Collection[int]) -> dict[int, AnyRow]:
    """Customers, locked in the order of their ids until the transaction ends."""
    query = sa.select(customer).where(customer.c.id.in_(sorted(ids))).order_by(customer.c.id).with_for_update()
    return {row.id: row for row in connection.execute(query)}


def strong(connection: Connection, customer_id: int) -> set[str]:
    """The numbers in a customer's own messages that belong to one person for life."""
    query = sa.select(message.c.tags).where(
        message.c.customer_id == customer_id,
        message.c.direction == "in",
        sa.or_(*(sa.cast(message.c.tags, sa.Text).contains(kind) for kind in sorted(STRONG))),
    )
    return {number for tags in connection.scalars(query) for number in strong_of(tags)}


def strong_of(tags: Mapping[str, Any] | None) -> set[str]:
    """The same of one message's tags."""
    entities = (tags or {}).get("entities", [])
    return {str(each["normal"]) for each in entities if each["type"] in STRONG and each["normal"]}


def move(connection: Connection, kept: AnyRow, gone: AnyRow) -> dict[str, Any]:
    """Let all that is a customer's be another's; what moved. A name goes over where the other has none."""
    moved: dict[str, Any] = {"name": bool(gone.name and not kept.name)}
    if moved["name"]:
        connection.execute(sa.update(customer).where(customer.c.id == kept.id).values(name=gone.name))
    for name, each in (("addresses", address), ("tickets", ticket), ("messages", message)):
        ids = sa.select(each.c.id).where(each.c.customer_id == gone.id).order_by(each.c.id)
        # In order, as everybody locks them who changes several.
        moved[name] = list(connection.scalars(ids.with_for_update() if each is not message else ids))
        connection.execute(sa.update(each).where(each.c.customer_id == gone.id).values(customer_id=kept.id))
    waiting = sa.update(code).where(code.c.customer_id == gone.id, code.c.ended_at.is_(None))
    connection.execute(waiting.values(customer_id=kept.id))
    return moved


def add(
    connection: Connection,
    kept_id: int,
    absorbed_id: int,
    evidence: Mapping[str, Any],
    moved: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> int:
    """Write a merge; its id."""
    values = {"evidence": dict(evidence), "moved": dict(moved), "actor": actor, "at": now}
    query = sa.insert(merge).values(kept_id=kept_id, absorbed_id=absorbed_id, **values).returning(merge.c.id)
    return int(connection.scalar(query) or 0)


def get(connection: Connection, merge_id: int) -> AnyRow | None:
    return connection.execute(sa.select(merge).where(merge.c.id == merge_id).with_for_update()).first()


def of_customer(connection: Connection, customer_id: int) -> Sequence[AnyRow]:
    """The merges that made this customer what it is, and those that were undone, oldest first."""
    ids = sorted({customer_id, *absorbed(connection, customer_id)})
    query = sa.select(merge).where(sa.or_(merge.c.kept_id.in_(ids), merge.c.absorbed_id.in_(ids)))
    return connection.execute(query.order_by(merge.c.id)).all()


def undo(connection: Connection, row: AnyRow, holder_id: int, actor: str, now: datetime) -> bool:
    """Give back what a merge moved, and what came later from an address that goes back. False: it was undone before."""
    mine = sa.update(merge).where(merge.c.id == row.id, merge.c.undone_at.is_(None))
    if connection.execute(mine.values(undone_at=now, undone_by=actor)).rowcount != 1:
        return False
    back = row.absorbed_id
    for each, name in ((address, "addresses"), (ticket, "tickets"), (message, "messages")):
        for some in _chunks(row.moved.get(name, [])):
            theirs = sa.update(each).where(each.c.id.in_(some), each.c.customer_id == holder_id)
            connection.execute(theirs.values(customer_id=back))
    query = sa.select(address.c.channel, address.c.address).where(address.c.customer_id == back)
    places = {(each.channel, each.address) for each in connection.execute(query)}
    _give_later(connection, holder_id, back, places)
    if row.moved.get("name"):
        name_back = sa.select(customer.c.name).where(customer.c.id == back).scalar_subquery()
        named = sa.update(customer).where(customer.c.id == holder_id, customer.c.name == name_back)
        connection.execute(named.values(name=""))
    return True


def _give_later(connection: Connection, holder_id: int, back: int, places: Collection[Place]) -> None:
    """What came after a merge: a ticket goes with the address that opened it, a message with its own address, and
    what has none of the two customers' (a note, an answer to a Reply-To) with its ticket."""
    first: dict[int, Place] = {}
    query = sa.select(message.c.ticket_id, message.c.channel, message.c.address).join(
        ticket, ticket.c.id == message.c.ticket_id
    )
    query = query.where(ticket.c.customer_id == holder_id, message.c.direction == "in").order_by(message.c.id)
    for each in connection.execute(query):
        first.setdefault(each.ticket_id, (each.channel, each.address))
    _set(connection, ticket, [each for each, place in first.items() if place in places], back)
    theirs = set(connection.scalars(sa.select(ticket.c.id).where(ticket.c.customer_id == back)))
    query = sa.select(address.c.channel, address.c.address).where(address.c.customer_id == holder_id)
    kept = {(each.channel, each.address) for each in connection.execute(query)}
    later = []
    columns = message.c.id, message.c.direction, message.c.channel, message.c.address, message.c.ticket_id
    for row in connection.execute(sa.select(*columns).where(message.c.customer_id == holder_id)):
        place = (row.channel, row.address)
        with_ticket = row.direction == "note" or place not in kept
        with_address = row.direction != "note" and place in places
        if with_address or (with_ticket and row.ticket_id in theirs):
            later.append(row.id)
    _set(connection, message, later, back)


def _set(connection: Connection, each: sa.Table, ids: Sequence[int], customer_id: int) -> None:
    for some in _chunks(ids):
        connection.execute(sa.update(each).where(each.c.id.in_(some)).values(customer_id=customer_id))


def _chunks(ids: Sequence[int]) -> list[list[int]]:
    return [list(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)]


def strangers(connection: Connection, one: int, other: int) -> Sequence[AnyRow]:
    """Messages from or to one of two customers on a ticket of the other's."""
    ids = [one, other]
    query = (
        sa.select(message)
        .join(ticket, ticket.c.id == message.c.ticket_id)
        .join(address, sa.and_(address.c.channel == message.c.channel, address.c.address == message.c.address))
        .where(
            ticket.c.customer_id.in_(ids), address.c.customer_id.in_(ids), address.c.customer_id != ticket.c.customer_id
        )
    )
    return connection.execute(query).all()


def cut(connection: Connection, keys: Mapping[int, Collection[str]]) -> None:
    """Let thread keys no longer lead to these tickets."""
    for ticket_id, some in keys.items():
        connection.execute(sa.delete(thread).where(thread.c.ticket_id == ticket_id, thread.c.key.in_(sorted(some))))


# --- codes ------------------------------------------------------------------------------------------------------------


def add_code(connection: Connection, **values: Any) -> int:
    return int(connection.scalar(sa.insert(code).values(**values).returning(code.c.id)) or 0)


def codes(connection: Connection, customer_id: int, now: datetime) -> Sequence[AnyRow]:
    """The codes that this customer may say now, newest first."""
    query = sa.select(code).where(code.c.customer_id == customer_id, code.c.ended_at.is_(None), code.c.expires_at > now)
    return connection.execute(query.order_by(code.c.id.desc()).with_for_update()).all()


def count_try(connection: Connection, code_id: int, most: int, now: datetime) -> None:
    """One more wrong number; the last that is allowed ends the code."""
    ended = sa.case((code.c.tries + 1 >= most, sa.bindparam("now", now, code.c.ended_at.type)), else_=None)
    connection.execute(sa.update(code).where(code.c.id == code_id).values(tries=code.c.tries + 1, ended_at=ended))


def end_code(connection: Connection, code_id: int, now: datetime) -> None:
    connection.execute(sa.update(code).where(code.c.id == code_id).values(ended_at=now))


def sent_codes(
    connection: Connection, since: datetime, *, place: Place | None = None, customer_id: int | None = None
) -> int:
    """How many codes went to a place, or were asked of a customer, since a time."""
    query = sa.select(sa.func.count()).select_from(code).where(code.c.created_at > since)
    if place is not None:
        query = query.where(code.c.channel == place[0], code.c.address == place[1])
    if customer_id is not None:
        query = query.where(code.c.customer_id == customer_id)
    return connection.scalar(query) or 0


def forget_codes(connection: Connection, before: datetime) -> int:
    """Remove codes that are older than the limits look back."""
    return connection.execute(sa.delete(code).where(code.c.created_at < before)).rowcount


def forget(connection: Connection, ids: Collection[int], places: Collection[Place]) -> None:
    """Customers are erased: of why they were joined the kind stays alone, and their codes go."""
    theirs = sa.or_(merge.c.kept_id.in_(sorted(ids)), merge.c.absorbed_id.in_(sorted(ids)))
    for row in connection.execute(sa.select(merge.c.id, merge.c.evidence).where(theirs)).all():
        kind = {"kind": row.evidence.get("kind", "")}
        connection.execute(sa.update(merge).where(merge.c.id == row.id).values(evidence=kind))
    connection.execute(sa.delete(code).where(code.c.customer_id.in_(sorted(ids))))
    for channel, where in places:
        connection.execute(sa.delete(code).where(code.c.channel == channel, code.c.address == where))


# --- what may suggest it ----------------------------------------------------------------------------------------------


def undone_with(connection: Connection, customer_id: int) -> set[int]:
    """Those with whom a merge was undone: somebody said that they are others."""
    query = sa.select(merge.c.kept_id, merge.c.absorbed_id).where(
        merge.c.undone_at.is_not(None), sa.or_(merge.c.kept_id == customer_id, merge.c.absorbed_id == customer_id)
    )
    return {each for row in connection.execute(query) for each in row} - {customer_id}


def at_address(connection: Connection, wheres: Collection[str], channels: Collection[str]) -> Sequence[AnyRow]:
    """Addresses on these channels that are written so."""
    if not wheres or not channels:
        return []
    query = sa.select(address).where(address.c.channel.in_(sorted(channels)), address.c.address.in_(sorted(wheres)))
    return connection.execute(query.order_by(address.c.id)).all()


def contacts(connection: Connection, sessions: Collection[str]) -> dict[str, str]:
    """What visitors of the chat left as their contact, by session."""
    query = sa.select(session.c.id, session.c.contact).where(
        session.c.id.in_(sorted(sessions)), session.c.contact != ""
    )
    return {row.id: row.contact for row in connection.execute(query)} if sessions else {}


def leaving_contact(connection: Connection, wheres: Collection[str]) -> Sequence[AnyRow]:
    """The chat addresses of visitors who left one of these as their contact; `contact` beside them."""
    left = sa.literal_column("''", sa.String)
    query = (
        sa.select(address, session.c.contact)
        .join(session, session.c.id == address.c.address)
        .where(address.c.channel == "chat", session.c.contact != left, session.c.contact.in_(sorted(wheres)))
    )
    return connection.execute(query.order_by(address.c.id)).all() if wheres else []


def naming(connection: Connection, number: str, *, but: int, limit: int = 5) -> list[int]:
    """Customers who named this strong number too."""
    found = search.matching(connection, number)
    if found is None:
        return []
    query = sa.select(ticket.c.customer_id).distinct().where(ticket.c.id.in_(found), ticket.c.customer_id != but)
    return [each for each in connection.scalars(query.limit(limit)) if number in strong(connection, each)]


def names(connection: Connection, ids: Collection[int]) -> dict[int, AnyRow]:
    """Customers by id, with their first address."""
    each = sa.select(address.c.customer_id, sa.func.min(address.c.id).label("first"))
    first = each.where(address.c.customer_id.in_(sorted(ids))).group_by(address.c.customer_id).subquery()
    query = (
        sa.select(customer, address.c.channel, address.c.address)
        .outerjoin(first, first.c.customer_id == customer.c.id)
        .outerjoin(address, address.c.id == first.c.first)
        .where(customer.c.id.in_(sorted(ids)))
    )
    return {row.id: row for row in connection.execute(query)} if ids else {}


# --- where an answer may go, and what was said ------------------------------------------------------------------------


def newest(connection: Connection, customer_id: int | None, channel: str, where: str) -> AnyRow | None:
    """The newest message from an address, else to it: it knows the account and the conversation."""
    query = (
        sa.select(message.c.account, message.c.thread, message.c.name)
        .where(
            message.c.customer_id == customer_id,
            message.c.channel == channel,
            message.c.address == where,
            message.c.direction != "note",
        )
        .order_by(sa.case((message.c.direction == "in", 0), else_=1), message.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).first()


def any_account(connection: Connection, channel: str) -> str:
    """The account of the newest message on a channel: for an address that never wrote."""
    query = sa.select(message.c.account).where(message.c.channel == channel, message.c.direction == "in")
    return connection.scalar(query.order_by(message.c.id.desc()).limit(1)) or ("mail" if channel == "mail" else "")


def all_tickets(connection: Connection, customer_id: int) -> Sequence[AnyRow]:
    """A customer's tickets, newest first, as a list shows them."""
    query = tickets.LISTED.add_columns(tickets.DUE.label("due_at")).where(ticket.c.customer_id == customer_id)
    return connection.execute(query.order_by(ticket.c.id.desc())).all()


def said(connection: Connection, customer_id: int, *, before: int | None, limit: int) -> Sequence[AnyRow]:
    """A customer's messages over all channels, newest first, with what the outbox says; without codes."""
    query = (
        sa.select(
            message, person.c.name.label("author"), ticket.c.department,
            outbox.c.state.label("out_state"), outbox.c.error.label("out_error"), outbox.c.kind.label("out_kind"),
            outbox.c.automatic.label("out_automatic"), outbox.c.repeated.label("out_repeated"),
        )
        .outerjoin(person, person.c.id == message.c.author_id)
        .outerjoin(outbox, outbox.c.message_id == message.c.id)
        .outerjoin(ticket, ticket.c.id == message.c.ticket_id)
        .where(message.c.customer_id == customer_id, sa.func.coalesce(outbox.c.kind, "") != "code")
        .order_by(message.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if before is not None:
        query = query.where(message.c.id < before)
    return connection.execute(query).all()
