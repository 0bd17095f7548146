"""Numbers that people and /metrics read; above all the reconciliation of promise P3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import public_number
from storage.tables import Address, Event, Message, Outbox, Ticket, table
from storage.tickets import iso
from storage.types import literal

message = table(Message)
outbox = table(Outbox)
event = table(Event)
ticket = table(Ticket)
address = table(Address)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of a channel's accepted messages. `accepted` is counted apart from its parts."""

    channel: str
    accepted: int = 0
    received: int = 0
    ticketed: int = 0
    appended: int = 0
    automatic: int = 0
    quarantined: int = 0
    last_in: datetime | None = None
    last_out: datetime | None = None

    @property
    def missing(self) -> int:
        """Accepted messages that are in no state at all. Anything but 0 is a fault of ours."""
        ends = self.ticketed + self.appended + self.automatic + self.quarantined
        return self.accepted - ends - self.received


def ledgers(connection: Connection) -> list[Ledger]:
    """One `Ledger` a channel that ever received or sent, by name."""
    # One statement, so one moment: two would differ by what came in between.
    query = (
        sa.select(
            message.c.channel,
            message.c.state,
            sa.func.count().label("n"),
            sa.func.max(message.c.stored_at).label("last"),
        )
        .where(message.c.direction == literal("in"))
        .group_by(message.c.channel, message.c.state)
    )
    totals: dict[str, int] = {}
    newest: dict[str, datetime] = {}
    states: dict[str, dict[str, int]] = {}
    for row in connection.execute(query):
        totals[row.channel] = totals.get(row.channel, 0) + row.n
        newest[row.channel] = max(newest.get(row.channel, row.last), row.last)
        states.setdefault(row.channel, {})[row.state] = row.n
    sent = {
        row[0]: row[1]
        for row in connection.execute(
            sa.select(outbox.c.channel, sa.func.max(outbox.c.updated_at))
            .where(outbox.c.state.in_(["sent", "delivered"]))
            .group_by(outbox.c.channel)
        )
    }
    return [
        Ledger(
            channel=channel,
            accepted=totals.get(channel, 0),
            received=states.get(channel, {}).get("received", 0),
            ticketed=states.get(channel, {}).get("ticketed", 0),
            appended=states.get(channel, {}).get("appended", 0),
            automatic=states.get(channel, {}).get("automatic", 0),
            quarantined=states.get(channel, {}).get("quarantined", 0),
            last_in=newest.get(channel),
            last_out=sent.get(channel),
        )
        for channel in sorted(totals.keys() | sent.keys())
    ]


def ended(connection: Connection, ids: Iterable[int]) -> dict[str, int]:
    """How many of these messages are in which state."""
    found: dict[str, int] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), 500):
        query = (
            sa.select(message.c.state, sa.func.count())
            .where(message.c.id.in_(wanted[start : start + 500]))
            .group_by(message.c.state)
        )
        for state, count in connection.execute(query):
            found[state] = found.get(state, 0) + count
    return found


def export_messages(connection: Connection) -> Iterable[dict[str, Any]]:
    """Every message in the export's form: incoming and outgoing, not the internal notes."""
    state = sa.func.coalesce(outbox.c.state, message.c.state).label("state")
    query = (
        sa.select(
            message.c.channel, message.c.account, message.c.external_id, message.c.direction, state,
            message.c.ticket_id, message.c.stored_at, outbox.c.kind,
        )
        .outerjoin(outbox, outbox.c.message_id == message.c.id)
        .where(message.c.direction != "note")
        .order_by(message.c.id)
        .execution_options(yield_per=1000)
    )  # fmt: skip
    for row in connection.execute(query):
        exported = {
            "channel": row.channel,
            "account": row.account,
            "external_id": row.external_id,
            "direction": row.direction,
            "state": row.state,
            "ticket": public_number(row.ticket_id) if row.ticket_id else None,
            "at": iso(row.stored_at),
        }
        if row.kind is not None:
            exported["kind"] = row.kind
        yield exported


def export_events(connection: Connection) -> Iterable[dict[str, Any]]:
    """Every event in the export's form."""
    for row in connection.execute(sa.select(event).order_by(event.c.id).execution_options(yield_per=1000)):
        yield {
            "id": row.id,
            "ticket": public_number(row.ticket_id) if row.ticket_id else None,
            "kind": row.kind,
            "actor": row.actor,
            "at": iso(row.at),
            "data": row.data,
        }
