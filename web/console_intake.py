"""What did not become a ticket, and whether the counts of each channel add up (promise P3)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from channels import Health, mail_parse
from domain import Message, Unavailable
from storage import console, counts, messages, outbox, rates
from storage.types import AnyRow
from web import console_labels as labels
from web.auth import Posted, Visit, leading, leading_posted
from web.console_page import ConsoleRoute, done, page
from web.console_queue import rail
from web.words import N_

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

_MOST = 50
#: an accepted message that waits longer for its ticket is late
_LATE = timedelta(minutes=1)
_UNREADABLE = N_("It still cannot be read. It stays in quarantine, with the new reason.")


# --- automatic mail ---------------------------------------------------------------------------------------------------


@routes.get("/console/intake/mail")
async def show_mail(
    request: Request,
    visit: Annotated[Visit, Depends(leading)],
    kind: Annotated[str, Query(max_length=16)] = "",
    before: int | None = None,
) -> Response:
    kind = kind if kind in labels.AUTOMATIC_KINDS else ""

    def query(connection: Connection) -> tuple[list[AnyRow], dict[str, int], console.Counts]:
        rows = list(messages.automatic(connection, kind=kind, before=before, limit=_MOST + 1))
        return rows, console.automatic_kinds(connection), console.counts(connection, visit.person.id)

    rows, kinds, tally = await visit.web.database.read(query)
    return page(
        request, "mail.html", visit=visit, rows=rows[:_MOST], more=len(rows) > _MOST, kind=kind, kinds=kinds,
        active="intake", part="mail", **rail(visit, tally),
    )  # fmt: skip


@routes.post("/console/intake/mail/{message_id}")
async def make_ticket(message_id: int, form: Annotated[Posted, Depends(leading_posted)]) -> Response:
    """One click makes a ticket of kept automatic mail."""
    web, actor = form.visit.web, form.visit.actor
    await web.database.write(lambda connection: web.verbs.ticket_from_automatic(connection, message_id, actor))
    await web.queue.ring([message_id])
    return done("/console/intake/mail", "revived")


# --- quarantine -------------------------------------------------------------------------------------------------------


@routes.get("/console/intake/quarantine")
async def show_quarantine(
    request: Request, visit: Annotated[Visit, Depends(leading)], before: int | None = None
) -> Response:
    return await quarantine_page(request, visit, before=before)


async def quarantine_page(
    request: Request, visit: Visit, *, before: int | None = None, status: int = 200, problem: str = ""
) -> Response:
    def query(connection: Connection) -> tuple[list[AnyRow], console.Counts]:
        rows = list(messages.quarantined(connection, before=before, limit=_MOST + 1))
        return rows, console.counts(connection, visit.person.id)

    rows, tally = await visit.web.database.read(query)
    return page(
        request, "quarantine.html", visit=visit, status=status, problem=problem, rows=rows[:_MOST],
        more=len(rows) > _MOST, active="intake", part="quarantine", **rail(visit, tally),
    )  # fmt: skip


@routes.post("/console/intake/quarantine/{quarantine_id}/retry")
async def retry(request: Request, quarantine_id: int, form: Annotated[Posted, Depends(leading_posted)]) -> Response:
    """Try again. What could not be read the first time is read anew from its raw."""
    web, actor = form.visit.web, form.visit.actor

    def query(connection: Connection) -> tuple[AnyRow, AnyRow, bytes]:
        entry = console.held(connection, quarantine_id)
        unread = entry.step == "read"
        body = messages.body(connection, entry.message_id) if unread else b""
        return entry, messages.get(connection, entry.message_id), body

    entry, row, body = await web.database.read(query)
    item: Message | None = None
    if entry.step == "read":
        try:
            item = await asyncio.to_thread(_read_again, row, body)
        except Exception as error:  # whatever a strange mail makes a parser raise
            reason = f"it cannot be parsed: {type(error).__name__}"
            await web.database.write(lambda c: console.still_unread(c, quarantine_id, reason, actor.name))
            problem = form.visit.words.gettext(_UNREADABLE)
            return await quarantine_page(request, form.visit, status=422, problem=problem)

    def unit(connection: Connection) -> int:
        message_id = web.verbs.retry_quarantined(connection, quarantine_id, actor)
        if item is not None:
            console.reread(connection, message_id, item)
        return message_id

    await web.queue.ring([await web.database.write(unit)])
    return done("/console/intake/quarantine", "retried")


def _read_again(row: AnyRow, body: bytes) -> Message:
    """A mail as mail; of any other channel the payload is shown as text, so that a person can sort it."""
    if row.channel == "mail":
        return mail_parse.parse(body, received_at=row.received_at, account=row.account)
    return Message(
        channel=row.channel,
        account=row.account,
        external_id=row.external_id,
        sender=row.address or "unknown",
        received_at=row.received_at,
        text=body.decode("utf-8", "replace")[:50_000],
        subject=row.subject,
    )


@routes.post("/console/intake/quarantine/{quarantine_id}/discard")
async def discard(quarantine_id: int, form: Annotated[Posted, Depends(leading_posted)]) -> Response:
    web, actor = form.visit.web, form.visit.actor
    verb = web.verbs.discard_quarantined(form.text("reason"))
    await web.database.write(lambda connection: verb(connection, quarantine_id, actor))
    return done("/console/intake/quarantine", "discarded")


# --- channel health ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel's ledger, what it says of itself, and its outbox."""

    ledger: counts.Ledger
    healths: tuple[Health, ...]
    outgoing: bool
    outbox: dict[str, int]
    #: what became of what went out in the last hour
    results: rates.Results
    #: when the oldest message was stored that is accepted and not yet ticketed
    oldest: datetime | None
    #: requests on this machine's disk, which came while the database was down
    spooled: int
    #: requests without a valid signature since this process started
    refused: int

    @property
    def shape(self) -> str:
        """ok, warn or bad: the worst of what is known."""
        if self.ledger.missing or any(not health.ok for health in self.healths):
            return "bad"
        late = self.oldest is not None and datetime.now(UTC) - self.oldest > _LATE
        return "warn" if self.stuck or late or self.results.errors or self.spooled or self.refused else "ok"

    @property
    def stuck(self) -> bool:
        """Answers wait, and the channel has no way out."""
        return not self.outgoing and bool(self.outbox.get("queued"))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the page reads of the database, in one transaction."""

    ledgers: list[counts.Ledger]
    states: dict[tuple[str, str], int]
    results: dict[str, rates.Results]
    oldest: dict[str, datetime]
    tally: console.Counts


@routes.get("/console/intake/health")
async def show_health(request: Request, visit: Annotated[Visit, Depends(leading)]) -> Response:
    web = visit.web

    def query(connection: Connection) -> _Seen:
        return _Seen(
            counts.ledgers(connection),
            outbox.states(connection),
            rates.results(connection, datetime.now(UTC)),
            rates.oldest_waiting(connection),
            console.counts(connection, visit.person.id),
        )

    seen = await web.database.read(query)
    ledgers = seen.ledgers
    depth: int | None = None
    with suppress(Unavailable):
        depth = await web.queue.depth()
    healths = await web.all_healths()
    hooks = web.hooks
    spooled = await asyncio.to_thread(hooks.spooled) if hooks is not None else {}
    refused = hooks.refused if hooks is not None else {}
    known = {ledger.channel for ledger in ledgers}
    on = {_channel(each) for each in healths} | (set(hooks.known) if hooks is not None else set())
    ledgers += [counts.Ledger(name) for name in sorted(on - known)]
    outgoing = set(web.outgoing())
    rows = [
        ChannelRow(
            ledger,
            tuple(each for each in healths if _channel(each) == ledger.channel),
            ledger.channel in outgoing,
            {state: n for (channel, state), n in seen.states.items() if channel == ledger.channel},
            seen.results.get(ledger.channel, rates.Results(0, 0)),
            seen.oldest.get(ledger.channel),
            spooled.get(ledger.channel, 0),
            refused.get(ledger.channel, 0),
        )
        for ledger in ledgers
    ]
    return page(
        request, "health.html", visit=visit, rows=rows, depth=depth, checked_at=datetime.now(UTC),
        missing=sum(abs(row.ledger.missing) for row in rows), active="intake", part="health",
        **rail(visit, seen.tally),
    )  # fmt: skip


def _channel(health: Health) -> str:
    """`mail:claims` and `mail claims` are mailboxes of the channel `mail`."""
    return health.name.replace(":", " ").replace("/", " ").split()[0]
