"""What the bot says by itself, and when it must not (promise P4: no loops).

An automatic answer is held back from: machines, lists, our own addresses, addresses that bounced, an address that had
its share today, a domain that sends automatic mail by the dozen, and everybody while the breaker is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection

from domain import public_number
from router.desk import Desk
from storage import customers, outbox, tallies
from storage.customers import Known
from storage.types import AnyRow

_DAY = timedelta(days=1)
_TEN_MINUTES = timedelta(minutes=10)


@dataclass(slots=True)
class Answer:
    row: AnyRow
    kind: str
    language: str
    #: why it is not sent; "" = it is
    held: str = ""
    #: not to where the message asks for answers, but to who wrote
    to_sender: bool = False

    @property
    def address(self) -> str:
        return str(self.row.address if self.to_sender else _wanted(self.row))


class _Ticket(Protocol):
    def get(self, name: str) -> Any: ...


def _wanted(row: AnyRow) -> str:
    """Where a message asks that answers go."""
    return str((row.extra or {}).get("reply_to") or row.address)


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower() if "@" in address else ""


class Answers:
    """The automatic answers of one batch. Counts are read once and kept up while the batch decides."""

    def __init__(self, connection: Connection, desk: Desk, rows: Sequence[AnyRow], now: datetime) -> None:
        self._connection = connection
        self._desk = desk
        self._now = now
        asked = [row for row in rows if row.answerable]
        addresses = {address for row in asked for address in (row.address, _wanted(row))}
        self._given = outbox.automatic_since(connection, addresses, now - _DAY)
        others = {(row.channel, str(row.extra["reply_to"])) for row in asked if (row.extra or {}).get("reply_to")}
        found = customers.find(connection, others) if others else {}
        self._suppressed = {place for place, known in found.items() if known.suppressed}
        domains = {domain for address in addresses if (domain := domain_of(address))}
        public = set(desk.limits.public_domains)
        self._domains = tallies.read(connection, [f"domain:{each}" for each in domains - public], now, _DAY)
        self._open = tallies.read(connection, ["automatic"], now, _TEN_MINUTES).get("automatic", 0)
        self._new = 0
        self._automatic: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def to(
        self, row: AnyRow, kind: str, known: Known, language: str, ticket_id: int = 0, *, place: str | None = None
    ) -> Answer:
        """An answer to a message. `ticket_id`: the existing ticket that the message joins.

        `place`: where that ticket's answers go. Anybody can write a mail in another's name that wants its answer
        elsewhere, so that nothing of a ticket goes to a Reply-To that the ticket does not know.
        """
        answer = Answer(row, kind, language, to_sender=place is not None and _wanted(row) != place)
        answer.held = self._held(answer, known)
        if not answer.held and ticket_id:
            given = outbox.automatic_on(self._connection, ticket_id)
            answer.held = "thread_limit" if given >= self._desk.limits.automatic_per_thread else ""
        if answer.held:
            self._held_back[f"held:{answer.held}"] = self._held_back.get(f"held:{answer.held}", 0) + 1
        else:
            to = (row.channel, answer.address)
            self._given[to] = self._given.get(to, 0) + 1
            self._new += 1
        return answer

    def _held(self, answer: Answer, known: Known) -> str:
        limits = self._desk.limits
        if not answer.row.answerable:
            return "not_answerable"
        if answer.address in self._desk.own_addresses:
            return "own_address"
        if known.suppressed or (answer.row.channel, answer.address) in self._suppressed:
            return "suppressed"
        if answer.kind == "care":
            return ""  # who speaks of harming themselves is answered however much they wrote today
        if self._given.get((answer.row.channel, answer.address), 0) >= limits.automatic_per_address:
            return "address_limit"
        if self._domains.get(f"domain:{domain_of(answer.address)}", 0) >= limits.automatic_mail_per_domain:
            return "domain_limit"
        if self._open + self._new >= limits.breaker:
            return "breaker"
        return ""

    def note_automatic(self, address: str) -> None:
        """A machine wrote from there."""
        if domain := domain_of(address):
            name = f"domain:{domain}"[:300]
            self._automatic[name] = self._automatic.get(name, 0) + 1

    def count(self, others: Mapping[str, int], *more: tuple[Mapping[str, int], timedelta]) -> None:
        """Write the counters, others that never start anew, and more by time bucket."""
        tallies.add(
            self._connection,
            {**self._held_back, **others},
            self._now,
            tallies.FOREVER,
            ({"automatic": self._new} if self._new else {}, _TEN_MINUTES),
            (self._automatic, _DAY),
            *more,
        )

    def _text(self, kind: str) -> Mapping[str, str]:
        texts = self._desk.texts
        return {"care": texts.care, "status": texts.status}.get(kind, texts.acknowledgement)

    def compose(self, answer: Answer, ticket_id: int, ticket: _Ticket, customer_id: int | None) -> dict[str, Any]:
        """The outbox row of an answer; see `storage.outbox.queue`."""
        desk, row = self._desk, answer.row
        number = public_number(ticket_id)
        holes = {
            "number": number,
            "department": desk.department_name(ticket.get("department"), answer.language),
            "link": desk.tracking_url(ticket.get("token")),
        }
        if answer.kind == "status":
            holes |= desk.progress(ticket, answer.language, self._now)
        text = desk.says(self._text(answer.kind), answer.language, **holes)
        subject = row.subject or desk.says(desk.texts.subject, answer.language, number=number)
        keys = [*(row.extra or {}).get("keys", []), *([row.key] if row.key else [])]
        return {
            "channel": row.channel,
            "account": row.account,
            "address": answer.address,
            "name": row.name,
            "subject": subject[:500],
            "text": text,
            "key": desk.message_key(row.channel, number),
            "thread": row.thread,
            "extra": {"keys": keys[-20:]} if keys else None,
            "ticket_id": ticket_id,
            "customer_id": customer_id,
            "author_id": None,
            "kind": answer.kind,
            "automatic": True,
        }
