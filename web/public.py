"""GET /t/{token}: what a customer may see of their ticket. Plain HTML, no script, no names, no risks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from domain import NotFound, OutState, TicketState, public_number
from router.desk import answer_language
from storage import messages, tickets
from storage.types import AnyRow
from web.chat import page
from web.chat_words import LANGUAGES, language_of, moment
from web.context import web_of
from web.words import text_tag

routes = APIRouter(include_in_schema=False)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STEPS = ("received", "working", "resolved", "closed")
_REACHED = {
    TicketState.NEW: 0,
    TicketState.OPEN: 1,
    TicketState.PENDING: 1,
    TicketState.RESOLVED: 2,
    TicketState.CLOSED: 3,
}


@routes.get("/t/{token}")
async def track(request: Request, token: str) -> Response:
    """The tracking page."""
    web = web_of(request)

    def query(connection: Connection) -> tuple[AnyRow, list[AnyRow], list[AnyRow]]:
        row = tickets.by_token(connection, token)
        public = [each for each in tickets.messages(connection, row.id) if is_public(each)]
        return row, public, list(messages.attachments(connection, [each.id for each in public]))

    try:
        if not _TOKEN.fullmatch(token):
            raise NotFound
        row, public, files = await web.database.read(query)
    except NotFound:
        answer = page("track_missing.html", request, language_of(request))
        answer.status_code = 404
        return _private(answer)
    language = language_of(request, answer_language(row.language))
    now = datetime.now(UTC)
    department = web.desk.department_name(row.department, language)
    state = TicketState(row.state)
    waiting = row.first_response_at is None and state in (TicketState.NEW, TicketState.OPEN)
    answer = page(
        "track.html",
        request,
        language,
        number=public_number(row.id),
        department=department,
        state=state.value,
        steps=[(name, place <= _REACHED[state], place == _REACHED[state]) for place, name in enumerate(_STEPS)],
        received=moment(row.created_at, language, now),
        # Only a promise that can still be kept is one.
        due=moment(row.first_due_at, language, now) if waiting and row.first_due_at and row.first_due_at > now else "",
        lines=[_line(each, files, language, now) for each in public],
        chat=web.settings.chat.enabled,
        other=next(each for each in LANGUAGES if each != language),
    )
    return _private(answer)


def _private(answer: Response) -> Response:
    """The address is the secret: no link that is followed from here may tell it."""
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def is_public(row: AnyRow) -> bool:
    """What the customer wrote or was sent: no note, no machine's mail, nothing that never left."""
    if row.direction == "in":
        return bool(row.automatic is None)
    return bool(row.direction == "out" and row.out_state != OutState.FAILED)


def _line(row: AnyRow, files: list[AnyRow], language: str, now: datetime) -> dict[str, Any]:
    mine = row.direction == "in"
    text = row.clean if mine and row.clean else row.text
    return {
        "from": "visitor" if mine else "bot" if row.out_automatic else "agent",
        "text": text,
        "tag": text_tag((row.tags or {}).get("language")) if mine else "",
        "iso": row.stored_at.isoformat(timespec="seconds"),
        "when": moment(row.stored_at, language, now),
        "names": [each.name for each in files if each.message_id == row.id],
    }
