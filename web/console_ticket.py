"""One ticket: its timeline, why it is here, the customer behind it, and its files."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import nh3
from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from channels import mail_parse
from domain import MOVES, Forbidden, TicketState, public_number
from nlu.entities_numbers import PERSONAL, masked
from router.identity import mask
from router.replies import Replies, Way
from storage import console, customers, events, messages, parts, people, tickets
from storage.types import AnyRow
from web import console_parts
from web import console_views as views
from web.auth import Visit, signed_in
from web.console_customer import Kin, answering, kin_of
from web.console_page import HEADERS, ConsoleRoute, page
from web.console_queue import check_queue, listing, place_of, queue_name, rail

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

_TAGS = frozenset(
    (
        *("a", "abbr", "b", "blockquote", "br", "code", "dd", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5"),
        *("h6", "hr", "i", "li", "ol", "p", "pre", "small", "span", "strong", "sub", "sup", "table", "tbody", "td"),
        *("tfoot", "th", "thead", "tr", "u", "ul"),
    )
)
_SHOWN = 50  # of a timeline at once; "earlier" shows all


@dataclass(slots=True)
class Entry:
    """One item of the timeline: a message with its files, or some events folded together."""

    message: AnyRow | None = None
    files: list[AnyRow] = field(default_factory=list)
    parts: list[console_parts.Shown] = field(default_factory=list)
    events: list[tuple[AnyRow, str]] = field(default_factory=list)

    @property
    def id(self) -> int:
        return int(self.message.id) if self.message is not None else 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that a ticket's page reads, in one transaction."""

    row: AnyRow
    messages: Sequence[AnyRow]
    files: Sequence[AnyRow]
    media: Sequence[AnyRow]
    events: Sequence[AnyRow]
    others: Sequence[AnyRow]
    addresses: Sequence[AnyRow]
    people: Sequence[AnyRow]
    counts: console.Counts


def load(connection: Connection, ticket_id: int, person_id: int) -> Loaded:
    row = tickets.get(connection, ticket_id)
    said = tickets.messages(connection, ticket_id)
    return Loaded(
        row,
        said,
        messages.attachments(connection, [each.id for each in said]) if said else [],
        parts.of_messages(connection, [each.id for each in said if (each.extra or {}).get("parts")]),
        events.of_ticket(connection, ticket_id),
        console.of_customer(connection, row.customer_id, but=ticket_id),
        customers.addresses(connection, row.customer_id),
        people.everybody(connection),
        console.counts(connection, person_id),
    )


class Foreign(Forbidden):
    """A ticket of another department: its number, department and state may be known, no more."""

    def __init__(self, row: AnyRow) -> None:
        super().__init__()
        self.row = row


async def loaded(visit: Visit, number: str) -> Loaded:
    """Raises `NotFound` or `Foreign`."""
    ticket_id = tickets.id_of(number)
    found = await visit.web.database.read(lambda connection: load(connection, ticket_id, visit.person.id))
    if not visit.actor.may_see(found.row.department):
        raise Foreign(found.row)
    return found


def said(found: Loaded, *, after: int = 0) -> list[Entry]:
    """The messages, each with its parts and the files that are no part's content."""
    files: dict[int, list[AnyRow]] = {}
    for each in found.files:
        files.setdefault(each.message_id, []).append(each)
    media: dict[int, list[AnyRow]] = {}
    for each in found.media:
        media.setdefault(each.message_id, []).append(each)
    entries = []
    for each in found.messages:
        if each.id <= after:
            continue
        mine, fetched = files.get(each.id, []), media.get(each.id, [])
        of_parts = {medium.attachment_id for medium in fetched}
        rest = [file for file in mine if file.id not in of_parts]
        entries.append(Entry(message=each, files=rest, parts=console_parts.shown(each, fetched, mine)))
    return entries


def timeline(visit: Visit, found: Loaded) -> list[Entry]:
    """Messages in order, with the events between them folded."""
    moments: list[tuple[datetime, int, Entry]] = [
        (each.message.stored_at, each.id, each) for each in said(found) if each.message is not None
    ]
    for each in found.events:
        if each.kind not in views.SHOWN_BY_MESSAGES:
            sentence = views.event_sentence(each, visit.web.desk, visit.words)
            moments.append((each.at, each.id, Entry(events=[(each, sentence)])))
    # What a message caused stands below it.
    moments.sort(key=lambda item: (item[0], item[2].message is None, item[1]))
    entries: list[Entry] = []
    for _at, _id, entry in moments:
        if entry.events and entries and entries[-1].events:
            entries[-1].events.extend(entry.events)
        else:
            entries.append(entry)
    return entries


def entities(found: Loaded) -> list[tuple[str, str, bool]]:
    """What the customer's messages name, each once: (type, value, whether it belongs to one person). Such a number is
    masked here: who needs it reads it in the message itself."""
    seen: dict[tuple[str, str], tuple[str, str, bool]] = {}
    for each in found.messages:
        if each.direction == "in" and each.tags:
            for entity in each.tags.get("entities", []):
                kind, value = str(entity["type"]), str(entity["value"])
                personal = kind in PERSONAL
                shown = masked(value) if personal else views.mask(value)
                seen.setdefault((kind, entity["normal"] or value), (kind, shown, personal))
    return list(seen.values())[:20]


def context(visit: Visit, found: Loaded) -> dict[str, Any]:
    """What the ticket's templates need, of the ticket itself."""
    row, desk, words, now = found.row, visit.web.desk, visit.words, datetime.now(UTC)
    moves = MOVES[TicketState(row.state)]
    first = next((each for each in found.messages if each.direction == "in"), None)
    said = first.tags if first is not None and first.tags else {}
    return {
        "found": found,
        "row": row,
        "number": public_number(row.id),
        "shown": views.row_of(row, desk, words, now, visit.person.name),
        "first": views.first_due(row, desk, words, now),
        "resolve": views.resolve_due(row, desk, words, now),
        "why": views.why_here(row, desk, words),
        "runners_up": views.runners_up(row),
        "tags": said,
        "entities": entities(found),
        "others": [views.row_of(each, desk, words, now, visit.person.name) for each in found.others
                   if visit.actor.may_see(each.department)],
        "seen": max((each.id for each in found.messages if each.direction == "in"), default=0),
        "last": max((each.id for each in found.messages), default=0),
        "moves": {str(state) for state in moves},
        "closed": row.state == "closed",
        "departments": desk.taxonomy.departments,
        "linked": public_number(row.linked_id) if row.linked_id else "",
        "mask": mask,
        "mail_originals": {each.id for each in found.messages if each.channel == "mail" and each.direction == "in"},
    }  # fmt: skip


async def ticket_page(
    request: Request,
    visit: Visit,
    number: str,
    *,
    origin: str = "",
    all_shown: bool = False,
    status: int = 200,
    typed: str = "",
    mode: str = "reply",
    problem: str = "",
    key: str = "",
    by: str = "",
    who_problem: str = "",
) -> Response:
    """The whole page; `typed`, `by` and the problems after a form that could not be taken."""
    try:
        found = await loaded(visit, number)
    except Foreign as error:
        return page(
            request, "foreign.html", visit=visit, status=403, row=error.row, number=public_number(error.row.id),
            **rail(visit, await visit.web.database.read(lambda c: console.counts(c, visit.person.id))), active="queue",
        )  # fmt: skip
    place = place_of(origin)
    rows: list[views.Row] = []
    if place is not None:
        check_queue(visit, place.queue)
        rows, _more, _counts = await listing(visit, place)
    entries = timeline(visit, found)
    hidden = 0 if all_shown else max(0, len(entries) - _SHOWN)
    kin, ways = await visit.web.database.read(lambda connection: _around(connection, visit, found))
    return page(
        request,
        "ticket.html",
        visit=visit,
        status=status,
        active="queue",
        origin=origin if place is not None else "",
        place_of=place,
        list_title=queue_name(visit, place.queue) if place is not None else "",
        rows=rows,
        current=public_number(found.row.id),
        entries=entries[hidden:],
        hidden_entries=hidden,
        conflict=status == 409 and not who_problem,
        typed=typed,
        mode=mode,
        problem=problem,
        # One key a form: a double click or a reload after sending has one effect.
        key=key or secrets.token_urlsafe(12),
        kin=kin,
        answer=answering(visit, found.row, ways, by),
        customer_id=found.row.customer_id,
        back=public_number(found.row.id),
        who_problem=who_problem,
        **context(visit, found),
        **rail(visit, found.counts),
    )


def _around(connection: Connection, visit: Visit, found: Loaded) -> tuple[Kin, Sequence[Way]]:
    """Who the customer may be, and by which of their addresses they could be answered."""
    desk, row = visit.web.desk, found.row
    return kin_of(connection, desk, row.customer_id, found.addresses), Replies(desk).ways(connection, row)


@routes.get("/console/t/{number}")
async def show_ticket(
    request: Request,
    number: str,
    visit: Annotated[Visit, Depends(signed_in)],
    from_: Annotated[str, Query(alias="from", max_length=80)] = "",
    earlier: bool = False,
) -> Response:
    return await ticket_page(request, visit, number, origin=from_, all_shown=earlier)


@routes.get("/console/t/{number}/live")
async def show_changes(
    request: Request,
    number: str,
    visit: Annotated[Visit, Depends(signed_in)],
    after: int = 0,
    from_: Annotated[str, Query(alias="from", max_length=80)] = "",
) -> Response:
    """What is new on an open ticket: messages to append, and the small parts that changed, out of band."""
    found = await loaded(visit, number)
    entries = said(found, after=after)
    # What was being fetched when the page was made may be here by now.
    fetched = [each for each in said(found) if 0 < each.id <= after and any(part.media for part in each.parts)]
    origin = from_ if place_of(from_) is not None else ""
    return page(
        request, "_live.html", visit=visit, entries=entries, fetched=fetched, origin=origin, **context(visit, found)
    )


# --- originals and files ----------------------------------------------------------------------------------------------


async def _message(visit: Visit, message_id: int) -> AnyRow:
    """A message that this person may read. Raises `NotFound` or `Forbidden`."""

    def query(connection: Connection) -> tuple[AnyRow, str | None]:
        row = messages.get(connection, message_id)
        return row, tickets.get(connection, row.ticket_id).department if row.ticket_id else None

    row, department = await visit.web.database.read(query)
    if not (visit.leads if department is None else visit.actor.may_see(department)):
        raise Forbidden
    return row


@routes.get("/console/m/{message_id}/original")
async def show_original(request: Request, message_id: int, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """The whole message as it came; a mail's HTML sanitised, its pictures and styles left out."""
    row = await _message(visit, message_id)
    if row.direction != "in" or row.channel != "mail":
        return page(
            request, "original.html", visit=visit, message=row, original=None, html="", active="queue",
            **rail(visit, await visit.web.database.read(lambda c: console.counts(c, visit.person.id))),
        )  # fmt: skip
    body = await visit.web.database.read(lambda connection: messages.body(connection, message_id))
    original, html = await asyncio.to_thread(_readable, body)
    return page(
        request, "original.html", visit=visit, message=row, original=original, html=html, active="queue",
        **rail(visit, await visit.web.database.read(lambda c: console.counts(c, visit.person.id))),
    )  # fmt: skip


def _readable(body: bytes) -> tuple[mail_parse.Original, str]:
    original = mail_parse.full_text(body)
    return original, clean_html(original.html)


def clean_html(html: str) -> str:
    """Only words and their order: no script, style, picture, form or anything that loads."""
    return nh3.clean(
        html[:500_000],
        tags=set(_TAGS),
        clean_content_tags={"script", "style", "title", "template"},
        attributes={"a": {"href", "title"}, "td": {"colspan", "rowspan"}, "th": {"colspan", "rowspan"}},
        url_schemes={"http", "https", "mailto", "tel"},
        link_rel="noopener noreferrer nofollow",
    )


@routes.get("/console/m/{message_id}/raw")
async def show_raw(message_id: int, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """The untouched payload, as plain text."""
    await _message(visit, message_id)
    body = await visit.web.database.read(lambda connection: messages.body(connection, message_id))
    return Response(
        body, media_type="text/plain; charset=utf-8", headers={**HEADERS, "Content-Security-Policy": _SEALED}
    )


_SEALED = "default-src 'none'; sandbox"


@routes.get("/console/a/{attachment_id}")
async def download(attachment_id: int, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """An attachment, always as a download and never opened by the browser here."""
    row = await visit.web.database.read(lambda connection: messages.attachment_of(connection, attachment_id))
    await _message(visit, row.message_id)
    name = "".join(char for char in row.name if char.isprintable() and char not in '/\\"') or "attachment"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    headers = {**HEADERS, "Content-Disposition": disposition, "Content-Security-Policy": _SEALED}
    return Response(bytes(row.content), media_type="application/octet-stream", headers=headers)
