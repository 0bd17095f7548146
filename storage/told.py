"""What providers say of our messages (sent, delivered, failed): in any order, twice, at times before we know them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import OutState, Status
from storage import events, rates
from storage.database import insert_new
from storage.tables import Outbox, ProviderMessage, table
from storage.types import tidy

told = table(ProviderMessage)
outbox = table(Outbox)

#: what was said later never takes back what was said before; a failure beats a success
_RANK = {OutState.SENT.value: 1, OutState.DELIVERED.value: 2, OutState.FAILED.value: 3}


def sent(connection: Connection, channel: str, account: str, provider_id: str, outbox_id: int, now: datetime) -> None:
    """The channel took a message of ours and calls it so. What was already said of it is applied."""
    provider_id = named_so(provider_id)
    row = {
        "channel": channel,
        "account": account,
        "provider_id": provider_id,
        "outbox_id": outbox_id,
        "state": OutState.SENT.value,
        "reason": "",
        "at": now,
    }
    if connection.execute(insert_new(connection, told), [row]).rowcount == 1:
        return
    connection.execute(sa.update(told).where(*_named(channel, account, provider_id)).values(outbox_id=outbox_id))


def apply(connection: Connection, statuses: Sequence[Status], now: datetime) -> list[int]:
    """Keep what providers said and let the outbox follow; the tickets that it concerns."""
    concerned: set[int] = set()
    # In one order, so that two workers never wait for one another crosswise.
    for status in sorted(statuses, key=lambda each: (each.channel, each.account, each.provider_id)):
        provider_id = named_so(status.provider_id)
        new = {
            "channel": status.channel,
            "account": status.account,
            "provider_id": provider_id,
            "outbox_id": None,
            "state": status.state.value,
            "reason": tidy(status.reason[:1000]),
            "at": status.at,
        }
        named = _named(status.channel, status.account, provider_id)
        if connection.execute(insert_new(connection, told), [new]).rowcount != 1:
            row = connection.execute(sa.select(told).where(*named).with_for_update()).first()
            if row is None:  # its customer was erased at this very moment
                continue
            if _RANK[status.state.value] > _RANK.get(row.state, 0):
                changed = {"state": new["state"], "reason": new["reason"], "at": status.at}
                connection.execute(sa.update(told).where(*named).values(**changed))
            if row.outbox_id is not None and (ticket_id := settle(connection, row.outbox_id, now)) is not None:
                concerned.add(ticket_id)
    return sorted(concerned)


def settle(connection: Connection, outbox_id: int, now: datetime) -> int | None:
    """Bring an outbox row to what is known of its messages; the ticket's id where that changed something.

    A row that is on its way is left to its sender, which asks again when it is done.
    """
    row = connection.execute(sa.select(outbox).where(outbox.c.id == outbox_id).with_for_update()).one()
    if row.state in (OutState.QUEUED, OutState.SENDING):
        return None
    known = connection.execute(sa.select(told.c.state, told.c.reason).where(told.c.outbox_id == outbox_id)).all()
    if not known:
        return None
    # Of a text in several messages, one that failed makes it failed, and all must have arrived for it to have.
    worst = next((each for each in known if each.state == OutState.FAILED.value), None)
    state = worst.state if worst else min((each.state for each in known), key=_RANK.__getitem__)
    if state == row.state or (worst is None and _RANK.get(row.state, 0) > _RANK[state]):
        return None
    if row.state == OutState.UNKNOWN and worst is None and row.done:
        return None  # the messages that are known arrived; the one after them is what nobody knows of
    values: dict[str, Any] = {"state": state, "error": worst.reason if worst else "", "updated_at": now}
    connection.execute(sa.update(outbox).where(outbox.c.id == outbox_id).values(**values))
    if worst is not None:
        rates.went(connection, row.channel, state, now)
    data = {"message": row.message_id, "kind": row.kind, "by": "provider"}
    events.append(connection, [events.row(state, "bot", now, ticket_id=row.ticket_id, **data)])
    ticket_id: int | None = row.ticket_id
    return ticket_id


def forget(connection: Connection, before: datetime) -> int:
    """Remove what was said of messages that are not ours, or no more: other programs may send for the same account."""
    return connection.execute(sa.delete(told).where(told.c.outbox_id.is_(None), told.c.at < before)).rowcount


def named_so(provider_id: str) -> str:
    """A provider's name for a message, as stored."""
    return tidy(provider_id[:512])


def _named(channel: str, account: str, provider_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return told.c.channel == channel, told.c.account == account, told.c.provider_id == provider_id
