"""/api/v1: what programs may do. Tokens are `Authorization: Bearer ...`, made by `bot.py token add`."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection

from channels import api
from domain import Conflict, InvalidInput, NotFound, Role, TicketState
from router.tickets import Actor
from storage import events, tickets
from storage.database import insert_new
from storage.tables import Idempotency, table
from storage.types import AnyRow
from web.api_access import ApiRoute, Asking, Caller, Tokens, body_of, calling, json_of
from web.context import Web, web_of

__all__ = ["Tokens", "accept", "routes"]

routes = APIRouter(prefix="/api/v1", tags=["api"], route_class=ApiRoute)
_idempotency = table(Idempotency)
_PAGE = 50
_DESK = (Role.AGENT, Role.SUPERVISOR, Role.ADMIN)


# --- messages ---------------------------------------------------------------------------------------------------------


class Posted(BaseModel):
    """A customer's message. The same external_id again is the same message."""

    external_id: str = Field(min_length=1, max_length=512)
    sender: str = Field(min_length=1, max_length=512, description="the customer's address or id")
    text: str = Field(min_length=1, max_length=200_000)
    subject: str = ""
    thread: str = Field(default="", description="messages of one thread and sender join one ticket")
    sender_name: str = ""
    received_at: str | None = Field(default=None, description="ISO 8601 with zone")


class Accepted(BaseModel):
    message_id: str


_POSTED = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Posted.model_json_schema()}},
    }
}


@routes.post("/messages", status_code=202, openapi_extra=_POSTED, responses={202: {"model": Accepted}})
async def post_message(request: Request, caller: Asking) -> Response:
    """Accept a message: 202 once it is stored, 200 when it was known already."""
    return await _accept(request, caller)


async def accept(request: Request) -> Response:
    """The same without FastAPI's machinery, which cost as much as all the rest: the route that is really served."""
    return await _accept(request, await calling(request))


async def _accept(request: Request, caller: Caller) -> Response:
    caller.needs(Role.CHANNEL, Role.ADMIN)
    web = web_of(request)
    raw = await body_of(request)
    record = json_of(raw)
    message = api.parse(record, caller.name, raw, datetime.now(UTC))
    [stored] = await web.flow.receive([message])
    return Response(
        content=f'{{"message_id":"{stored.message_id}"}}',
        status_code=202 if stored.new else 200,
        media_type="application/json",
    )


# --- tickets ----------------------------------------------------------------------------------------------------------


def _cursor(value: int) -> str:
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def _from_cursor(text: str | None) -> int | None:
    if not text:
        return None
    try:
        value = int(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        value = -1
    if not 0 <= value < 2**62:
        raise InvalidInput("cursor", "This is no cursor of ours; take `next` of the page before.")
    return value


@routes.get("/tickets")
async def list_tickets(
    request: Request,
    caller: Asking,
    department: str | None = None,
    state: Annotated[TicketState | None, Query(), BeforeValidator(lambda given: given or None)] = None,
    q: str = "",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = _PAGE,
) -> dict[str, Any]:
    """Tickets, newest first. `q` matches number, sender, subject and text."""
    caller.needs(*_DESK)
    before = _from_cursor(cursor)

    def query(connection: Connection) -> list[AnyRow]:
        return list(
            tickets.listed(
                connection,
                departments=[department] if department else None,
                states=[state] if state else None,
                q=q,
                before=before,
                limit=limit + 1,
            )
        )

    rows = await web_of(request).database.read(query)
    return {
        "items": [tickets.as_exported(row) for row in rows[:limit]],
        "next": _cursor(rows[limit - 1].id) if len(rows) > limit else None,
    }


@routes.get("/queues/{department}")
async def list_queue(
    request: Request,
    caller: Asking,
    department: str,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = _PAGE,
) -> dict[str, Any]:
    """A department's unclosed tickets, most urgent first."""
    caller.needs(*_DESK)
    web = web_of(request)
    if department not in web.desk.taxonomy.departments:
        raise NotFound(f"There is no department {department!r}.")
    offset = _from_cursor(cursor) or 0
    rows = await web.database.read(
        lambda connection: tickets.queue(
            connection, department=department, states=tickets.UNCLOSED, offset=offset, limit=limit + 1
        )
    )
    return {
        "items": [tickets.as_exported(row) for row in rows[:limit]],
        "next": _cursor(offset + limit) if len(rows) > limit else None,
    }


@routes.get("/tickets/{number}")
async def get_ticket(request: Request, caller: Asking, number: str) -> dict[str, Any]:
    """A ticket with its messages, events and tracking link."""
    caller.needs(*_DESK)
    web = web_of(request)
    ticket_id = tickets.id_of(number)
    return await web.database.read(lambda connection: _whole(connection, web, ticket_id))


def _whole(connection: Connection, web: Web, ticket_id: int) -> dict[str, Any]:
    row = tickets.get(connection, ticket_id)
    return tickets.as_exported(row) | {
        "messages": [_message(each) for each in tickets.messages(connection, ticket_id)],
        "events": [_event(each) for each in events.of_ticket(connection, ticket_id)],
        "tracking_url": web.desk.tracking_url(row.token),
    }


def _message(row: AnyRow) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": str(row.id),
        "direction": row.direction,
        "channel": row.channel,
        "at": tickets.iso(row.stored_at),
        "text": row.text,
        "subject": row.subject,
        "state": row.out_state or row.state,
    }
    if parts := (row.extra or {}).get("parts"):
        message["parts"] = parts
    if row.direction == "in":
        message |= {"sender": row.address, "sender_name": row.name, "external_id": row.external_id, "tags": row.tags}
    else:
        message |= {"author": row.author or row.name, "kind": row.out_kind or row.direction}
        if row.out_error:
            message["error"] = row.out_error
    return message


def _event(row: AnyRow) -> dict[str, Any]:
    return {"id": row.id, "kind": row.kind, "actor": row.actor, "at": tickets.iso(row.at), "data": row.data}


# --- verbs ------------------------------------------------------------------------------------------------------------


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextBody(Body):
    text: str = Field(min_length=1)


class ReplyBody(TextBody):
    channel: str = Field(default="", description="another channel of the same customer; the ticket's own without")
    address: str = Field(default="", description="the customer's address there; needed only where they have several")

    @property
    def by(self) -> tuple[str, str] | None:
        """Raises `InvalidInput`."""
        if self.address and not self.channel:
            raise InvalidInput("channel", "An address needs its channel.")
        return (self.channel, self.address) if self.channel else None


class TransferBody(Body):
    department: str
    reason: str = Field(min_length=1)


class AssignBody(Body):
    user: str | None = None


class CodeBody(Body):
    code: str = ""


class EmptyBody(Body):
    pass


Verb = Callable[[Connection, int, Actor], None]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]


async def _do(request: Request, caller: Caller, number: str, key: str | None, body: Body, verb: Verb) -> Response:
    """Run a verb once for its Idempotency-Key, and answer with the ticket."""
    caller.needs(*_DESK)
    web = web_of(request)
    ticket_id = tickets.id_of(number)
    asked = hashlib.sha256(f"{request.url.path}\0{body.model_dump_json()}".encode()).hexdigest()

    def unit(connection: Connection) -> dict[str, Any]:
        if key:
            known = _answered(connection, caller.name, key, asked)
            if known is not None:
                return known
        verb(connection, ticket_id, caller.actor)
        answer = tickets.as_exported(tickets.get(connection, ticket_id))
        if key:
            mine = _idempotency.c.caller == caller.name, _idempotency.c.key == key
            connection.execute(sa.update(_idempotency).where(*mine).values(answer=answer))
        return answer

    answer = await web.database.write(unit)
    web.nudge()
    return JSONResponse(answer)


def _answered(connection: Connection, caller: str, key: str, asked: str) -> dict[str, Any] | None:
    """The answer that a key was given, or None when it is ours now. Raises `Conflict` for another request's key.

    The key is taken before anything else happens: whoever sends it at the same time waits here for our commit.
    """
    values = {"caller": caller, "key": key, "request": asked, "answer": {}, "at": datetime.now(UTC)}
    if connection.execute(insert_new(connection, _idempotency).values(**values)).rowcount == 1:
        return None
    query = sa.select(_idempotency).where(_idempotency.c.caller == caller, _idempotency.c.key == key)
    row = connection.execute(query).one()
    if row.request != asked:
        raise Conflict("This Idempotency-Key was used for something else.")
    answer: dict[str, Any] = row.answer
    return answer


@routes.post("/tickets/{number}/reply")
async def reply(request: Request, caller: Asking, number: str, body: ReplyBody, key: Key = None) -> Response:
    verb = web_of(request).verbs.reply(body.text, by=body.by)
    return await _do(request, caller, number, key, body, verb)


@routes.post("/tickets/{number}/note")
async def note(request: Request, caller: Asking, number: str, body: TextBody, key: Key = None) -> Response:
    return await _do(request, caller, number, key, body, web_of(request).verbs.note(body.text))


@routes.post("/tickets/{number}/transfer")
async def transfer(request: Request, caller: Asking, number: str, body: TransferBody, key: Key = None) -> Response:
    verb = web_of(request).verbs.transfer(body.department, body.reason)
    return await _do(request, caller, number, key, body, verb)


@routes.post("/tickets/{number}/assign")
async def assign(request: Request, caller: Asking, number: str, body: AssignBody, key: Key = None) -> Response:
    return await _do(request, caller, number, key, body, web_of(request).verbs.assign(body.user))


@routes.post("/tickets/{number}/pending")
async def pending(
    request: Request, caller: Asking, number: str, body: EmptyBody | None = None, key: Key = None
) -> Response:
    return await _do(request, caller, number, key, body or EmptyBody(), web_of(request).verbs.pending)


@routes.post("/tickets/{number}/resolve")
async def resolve(
    request: Request, caller: Asking, number: str, body: CodeBody | None = None, key: Key = None
) -> Response:
    given = body or CodeBody()
    return await _do(request, caller, number, key, given, web_of(request).verbs.resolve(given.code))


@routes.post("/tickets/{number}/close")
async def close(
    request: Request, caller: Asking, number: str, body: EmptyBody | None = None, key: Key = None
) -> Response:
    return await _do(request, caller, number, key, body or EmptyBody(), web_of(request).verbs.close)


@routes.post("/tickets/{number}/reopen")
async def reopen(
    request: Request, caller: Asking, number: str, body: EmptyBody | None = None, key: Key = None
) -> Response:
    return await _do(request, caller, number, key, body or EmptyBody(), web_of(request).verbs.reopen)
