"""What people do with a ticket: each is a form, answered by 303, or in place for a page with script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection
from starlette.responses import PlainTextResponse, Response

from channels import pieces, too_long
from channels.sms_text import segments
from domain import Conflict, ForbiddenMove, InvalidInput, NotFound, Priority, TicketState, public_number
from router.identity import Identity
from router.replies import NoWay
from router.tickets import Actor
from storage import console, tickets
from storage.customers import Place
from web import console_labels as labels
from web.auth import Posted, posted
from web.console_customer import REFUSED, why
from web.console_page import FIELDS, HEADERS, ConsoleRoute, done, is_fragment, page
from web.console_queue import place_of
from web.console_ticket import Foreign, ticket_page
from web.words import N_

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

Verb = Callable[[Connection, int, Actor], None]

_NEWER = N_("The customer wrote again. Read it, then send.")
_PIECES = N_("goes out as %(num)s messages")
_TOO_LONG = N_("This is longer than the channel carries. Shorten it, then send.")
_REFUSED = N_("The ticket cannot take this now. Somebody may have changed it.")


async def carry_out(form: Posted, number: str, verb: Verb) -> None:
    """One verb on one ticket that this person may see. Raises what the verb raises, `NotFound` or `Foreign`."""
    visit = form.visit
    ticket_id = tickets.id_of(number)

    def unit(connection: Connection) -> None:
        row = tickets.get(connection, ticket_id)
        if not visit.actor.may_see(row.department):
            raise Foreign(row)
        verb(connection, ticket_id, visit.actor)

    await visit.web.database.write(unit)


def back(form: Posted, number: str) -> str:
    """The ticket's page, with the list that it was opened from."""
    origin = form.text("from")
    path = f"/console/t/{public_number(tickets.id_of(number))}"
    return f"{path}?from={origin}" if place_of(origin) is not None else path


# --- the composer -----------------------------------------------------------------------------------------------------


@routes.post("/console/t/{number}/say")
async def say(request: Request, number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    """A reply or a note. What was typed comes back with every refusal."""
    visit, text = form.visit, form.text("text")
    mode = "note" if form.text("mode") == "note" else "reply"
    then = {"pending": TicketState.PENDING, "resolved": TicketState.RESOLVED}.get(form.text("then"))
    seen = form.text("anyway") or form.text("seen")
    key = form.text("key")[:100]
    said = "noted" if mode == "note" else "_".join(["replied", *([then.value] if then else [])])
    try:
        if mode == "note":
            verb = visit.web.verbs.note(text)
        else:
            verb = visit.web.verbs.reply(
                text, then=then, seen=int(seen) if seen.isdecimal() else None, by=_place(form.text("by"))
            )
        await carry_out(form, number, _once(verb, visit.actor.name, key) if key else verb)
    except (InvalidInput, Conflict, ForbiddenMove) as error:
        return await _again(request, form, number, error, mode)
    visit.web.nudge()
    if is_fragment(request):
        response = page(request, "_said.html", visit=visit, done_key=said)
        response.headers["HX-Trigger"] = "said"
        return response
    return done(back(form, number), said)


def _place(value: str) -> Place | None:
    """The address that was chosen to answer to; None: the ticket's own."""
    channel, _, where = value.partition(" ")
    return (channel, where) if where else None


def _once(verb: Verb, caller: str, key: str) -> Verb:
    """The same form sent twice has one effect."""

    def once(connection: Connection, ticket_id: int, actor: Actor) -> None:
        if console.first_use(connection, caller, key, ticket_id):
            verb(connection, ticket_id, actor)

    return once


async def _again(
    request: Request, form: Posted, number: str, error: InvalidInput | Conflict | ForbiddenMove, mode: str
) -> Response:
    """The form once more, with what was typed and what is wrong."""
    visit = form.visit
    if isinstance(error, NoWay):
        problem = labels.NO_WAY[error.kind]
    elif isinstance(error, InvalidInput):
        problem = _TOO_LONG if error.field == "text" and form.text("text").strip() else FIELDS["text"]
    else:
        problem = _NEWER if isinstance(error, Conflict) else _REFUSED
    if not is_fragment(request):
        return await ticket_page(
            request, visit, number, origin=form.text("from"), status=error.status, typed=form.text("text"),
            mode=mode, problem=visit.words.gettext(problem), key=form.text("key"), by=form.text("by"),
        )  # fmt: skip
    newer = []
    if isinstance(error, Conflict):
        ticket_id, seen = tickets.id_of(number), int(form.text("seen") or 0)
        every = await visit.web.database.read(lambda connection: tickets.messages(connection, ticket_id))
        newer = [each for each in every if each.direction == "in" and each.id > seen]
    return page(
        request, "_refused.html", visit=visit, status=error.status, problem=visit.words.gettext(problem), newer=newer,
        then=form.text("then"),
    )  # fmt: skip


# --- the small verbs --------------------------------------------------------------------------------------------------


@routes.post("/console/t/{number}/cost")
async def cost(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    """What a channel makes of the text that is being written: its segments or messages; nothing where it is one."""
    del number
    visit, place = form.visit, _place(form.text("by"))
    channel = place[0] if place is not None else form.text("channel")
    limits = visit.web.desk.carries.get(channel)
    text = form.text("text").strip()
    said = ""
    if limits is not None and too_long(text, limits):
        said = visit.words.gettext(_TOO_LONG)
    elif text and channel == "sms":
        found = segments(text)
        said = visit.words.ngettext(
            "%(num)s SMS segment (%(coding)s)", "%(num)s SMS segments (%(coding)s)",
            found.count, num=found.count, coding=found.encoding,
        )  # fmt: skip
    elif limits is not None and (n := len(pieces(text, limits))) > 1:
        said = visit.words.gettext(_PIECES, num=n)
    return PlainTextResponse(said, headers=HEADERS)


@routes.post("/console/t/{number}/assign")
async def assign(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    """To oneself, to somebody by name, or to nobody."""
    user = form.visit.person.name if form.text("to") == "me" else form.text("user").strip()
    await carry_out(form, number, form.visit.web.verbs.assign(user or None))
    return done(back(form, number), "assigned" if user else "freed")


@routes.post("/console/t/{number}/transfer")
async def transfer(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    visit = form.visit
    verb = visit.web.verbs.transfer(form.text("department"), form.text("reason"))
    await carry_out(form, number, verb)
    if visit.actor.may_see(form.text("department")):
        return done(back(form, number), "transferred")
    place = place_of(form.text("from"))
    return done(place.url if place is not None else "/console", "transferred")


@routes.post("/console/t/{number}/pending")
async def pending(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    await carry_out(form, number, form.visit.web.verbs.pending)
    return done(back(form, number), "pending")


@routes.post("/console/t/{number}/resolve")
async def resolve(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    await carry_out(form, number, form.visit.web.verbs.resolve(form.text("code")))
    return done(back(form, number), "resolved")


@routes.post("/console/t/{number}/close")
async def close(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    await carry_out(form, number, form.visit.web.verbs.close)
    return done(back(form, number), "closed")


@routes.post("/console/t/{number}/reopen")
async def reopen(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    await carry_out(form, number, form.visit.web.verbs.reopen)
    return done(back(form, number), "reopened")


@routes.post("/console/t/{number}/priority")
async def prioritise(number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    try:
        priority = Priority(form.text("priority"))
    except ValueError as error:
        raise NotFound from error
    await carry_out(form, number, form.visit.web.verbs.prioritise(priority))
    return done(back(form, number), "prioritised")


@routes.post("/console/t/{number}/again/{message_id}")
async def send_again(number: str, message_id: int, form: Annotated[Posted, Depends(posted)]) -> Response:
    """A person's answer that was not sent goes to the outbox once more."""
    await carry_out(form, number, form.visit.web.verbs.send_again(message_id))
    form.visit.web.nudge()
    return done(back(form, number), "again")


@routes.post("/console/t/{number}/code")
async def send_code(request: Request, number: str, form: Annotated[Posted, Depends(posted)]) -> Response:
    """A code goes to another address, to make sure that it is this customer's."""
    visit, where = form.visit, form.text("address").strip()
    channel = form.text("channel") or ("mail" if "@" in where else "sms")
    try:
        await carry_out(form, number, Identity(visit.web.desk).send_code(channel, where))
    except REFUSED as error:
        problem = visit.words.gettext(why(error))
        origin = form.text("from")
        return await ticket_page(request, visit, number, origin=origin, status=error.status, who_problem=problem)
    visit.web.nudge()
    return done(back(form, number), "code_sent")
