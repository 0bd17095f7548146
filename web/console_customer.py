"""One customer over all channels: addresses and how they stand, who was joined and why, tickets, all that was said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from domain import Forbidden, InvalidInput, NotFound, SluiceError, TooMany, public_number, ticket_id_of
from router.desk import Desk
from router.identity import Identity, Refused, mask
from router.replies import NoWay, Replies, Way
from router.suggestions import Suggestion, suggestions, unconfirmed
from router.tickets import Actor
from storage import customers, identity, tickets
from storage.customers import Place
from storage.types import AnyRow
from web import console_labels as labels
from web import console_views as views
from web.auth import Posted, Visit, posted, signed_in
from web.console_page import HEADERS, ConsoleRoute, done, page
from web.console_queue import place_of, rail_of
from web.words import Words

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

_SHOWN = 100  # messages at once


@dataclass(frozen=True, slots=True)
class Kin:
    """What is known and guessed of who a customer is."""

    suggested: Sequence[Suggestion]
    merges: Sequence[AnyRow]
    names: Mapping[int, AnyRow]
    #: contacts that a code would confirm
    contacts: Sequence[Place]
    #: the addresses that merges moved, by id
    moved: Mapping[int, AnyRow]

    def called(self, customer_id: int, words: Words) -> str:
        """A name, else the first address so that nobody is reached by it."""
        row = self.names.get(customer_id)
        if row is None or row.erased_at is not None:
            return words.gettext("Erased customer")
        if row.name:
            return views.mask(str(row.name))
        return mask(row.channel, row.address) if row.address else words.gettext("Customer %(id)s", id=customer_id)

    def absorbed(self, merge: AnyRow, words: Words) -> str:
        """The same of who was joined: their addresses are another's now."""
        row = self.names.get(merge.absorbed_id)
        first = next((self.moved[each] for each in merge.moved["addresses"] if each in self.moved), None)
        if row is not None and not row.name and not row.address and row.erased_at is None and first is not None:
            return mask(first.channel, first.address)
        return self.called(merge.absorbed_id, words)


def kin_of(connection: Connection, desk: Desk, customer_id: int, addresses: Sequence[AnyRow]) -> Kin:
    found = suggestions(connection, desk, customer_id)
    merges = identity.of_customer(connection, customer_id)
    ids = {each.customer_id for each in found} | {part for each in merges for part in (each.kept_id, each.absorbed_id)}
    moved = {each.id: each for each in addresses}
    return Kin(found, merges, identity.names(connection, ids), unconfirmed(connection, desk, addresses), moved)


@dataclass(frozen=True, slots=True)
class Found:
    """All that a customer's page reads, in one transaction."""

    row: AnyRow
    addresses: Sequence[tuple[AnyRow, str]]
    kin: Kin
    tickets: Sequence[AnyRow]
    said: Sequence[AnyRow]


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline: a message, a ticket's opening, a merge, or a message of a ticket that is not shown."""

    at: datetime
    kind: str
    row: AnyRow


def _visible(actor: Actor, theirs: Collection[AnyRow]) -> bool:
    """Who may see one of a customer's tickets may see who the customer is; leaders see everybody."""
    return actor.may_see("") or any(actor.may_see(each.department) for each in theirs)


def _load(visit: Visit, customer_id: int, before: int | None) -> Callable[[Connection], Found]:
    def query(connection: Connection) -> Found:
        row = customers.get(connection, customer_id)
        theirs = identity.all_tickets(connection, customer_id)
        if not _visible(visit.actor, theirs):
            raise Forbidden
        known = customers.addresses(connection, customer_id)
        desk = visit.web.desk
        replies = Replies(desk)
        return Found(
            row,
            [(each, replies.problem(connection, each)[0]) for each in known],
            kin_of(connection, desk, customer_id, known),
            theirs,
            identity.said(connection, customer_id, before=before, limit=_SHOWN + 1),
        )

    return query


def _timeline(visit: Visit, found: Found) -> list[Moment]:
    """Oldest first. What is of another department's ticket is a line without words."""
    shown = found.said[:_SHOWN]
    moments = []
    for each in shown:
        seen = visit.leads if each.department is None else visit.actor.may_see(each.department)
        moments.append(Moment(each.stored_at, "said" if seen else "foreign", each))
    whole = len(found.said) <= _SHOWN
    since = None if whole else min((each.at for each in moments), default=None)
    lines = [Moment(each.created_at, "opened", each) for each in found.tickets]
    lines += [Moment(each.at, "merged", each) for each in found.kin.merges]
    lines += [Moment(each.undone_at, "parted", each) for each in found.kin.merges if each.undone_at is not None]
    moments += [each for each in lines if since is None or each.at >= since]
    return sorted(moments, key=lambda each: (each.at, each.kind != "opened"))


async def customer_page(
    request: Request, visit: Visit, customer_id: int, *, before: int | None = None, problem: str = "", status: int = 200
) -> Response:
    """The whole page; `problem` after a form that could not be taken. Who was joined is shown with whom."""
    database = visit.web.database
    stays = await database.read(lambda connection: customers.holder(connection, customer_id))
    if stays != customer_id and not problem:
        return RedirectResponse(f"/console/c/{stays}", status_code=303, headers=HEADERS)
    found = await database.read(_load(visit, stays, before))
    return page(
        request,
        "customer.html",
        visit=visit,
        status=status,
        active="queue",
        found=found,
        kin=found.kin,
        customer_id=stays,
        name=found.row.name and views.mask(found.row.name),
        moments=_timeline(visit, found),
        earlier=found.said[_SHOWN - 1].id if len(found.said) > _SHOWN else None,
        latest=before is None,
        problem=problem,
        back="",
        origin="",
        may_see=visit.actor.may_see,
        **await rail_of(visit),
    )


@routes.get("/console/c/{customer_id}")
async def show_customer(
    request: Request, customer_id: int, visit: Annotated[Visit, Depends(signed_in)], before: int | None = None
) -> Response:
    return await customer_page(request, visit, customer_id, before=before)


# --- joining and parting ----------------------------------------------------------------------------------------------


def _meant(connection: Connection, visit: Visit, form: Posted, customer_id: int) -> int:
    """Whom a form means: a suggested customer, or one of whom a ticket or an address is named.

    Raises `InvalidInput` with the refusal's name, and `Forbidden` for somebody of whom this person may know nothing.
    """
    given = form.text("other")
    if given.isdecimal() and len(given) < 18:
        other = int(given)
        if any(each.customer_id == other for each in suggestions(connection, visit.web.desk, customer_id)):
            return other
    else:
        other = _named(connection, form.text("who").strip())
    if not _visible(visit.actor, identity.all_tickets(connection, other)):
        raise Forbidden
    return other


def _named(connection: Connection, who: str) -> int:
    ticket_id = ticket_id_of(who)
    if ticket_id is not None and ticket_id < 2**62 and who[:1] in "sS":
        try:
            return int(tickets.get(connection, ticket_id).customer_id)
        except NotFound as error:
            raise InvalidInput("unknown", "There is no such ticket.") from error
    found = [] if who.isdecimal() and len(who) < 7 else customers.named(connection, who)
    if len(found) != 1:
        raise InvalidInput("several" if found else "unknown", "No one customer is meant.")
    return found[0]


def why(error: SluiceError) -> str:
    """A refusal as a sentence to be translated."""
    if isinstance(error, NoWay):
        return labels.NO_WAY[error.kind]
    if isinstance(error, TooMany):
        return labels.IDENTITY_REFUSALS["enough"]
    name = error.why if isinstance(error, Refused) else error.field if isinstance(error, InvalidInput) else ""
    return labels.IDENTITY_REFUSALS.get(name, labels.IDENTITY_REFUSALS["unknown"])


#: what the forms of this page may be refused with, and what the page then says
REFUSED = (InvalidInput, Refused, NoWay, TooMany)


async def _carry_out(
    request: Request, form: Posted, customer_id: int, verb: Callable[[Connection], int], said: str
) -> Response:
    visit = form.visit

    def unit(connection: Connection) -> int:
        if not _visible(visit.actor, identity.all_tickets(connection, customer_id)):
            raise Forbidden
        return verb(connection)

    try:
        await visit.web.database.write(unit)
    except REFUSED as error:
        problem = visit.words.gettext(why(error))
        return await customer_page(request, visit, customer_id, problem=problem, status=error.status)
    number, origin = form.text("back"), form.text("from")
    if ticket_id_of(number) is None:
        return done(f"/console/c/{customer_id}", said)
    path = f"/console/t/{public_number(tickets.id_of(number))}"
    return done(f"{path}?from={origin}" if place_of(origin) is not None else path, said)


@routes.post("/console/c/{customer_id}/join")
async def join(request: Request, customer_id: int, form: Annotated[Posted, Depends(posted)]) -> Response:
    """This customer and another are one person: a decision with its reason."""
    visit = form.visit

    def verb(connection: Connection) -> int:
        decide = Identity(visit.web.desk).decide
        hint = form.text("hint") if form.text("hint") in labels.HINTS else ""
        unit = decide(_meant(connection, visit, form, customer_id), form.text("reason"), hint=hint,
                      ticket_id=ticket_of(connection, form, customer_id))  # fmt: skip
        return unit(connection, customer_id, visit.actor)

    return await _carry_out(request, form, customer_id, verb, "joined")


@routes.post("/console/c/{customer_id}/part/{merge_id}")
async def part(request: Request, customer_id: int, merge_id: int, form: Annotated[Posted, Depends(posted)]) -> Response:
    """Undo a merge."""
    visit = form.visit

    def verb(connection: Connection) -> int:
        unit = Identity(visit.web.desk).part(merge_id, ticket_id=ticket_of(connection, form, customer_id))
        return unit(connection, customer_id, visit.actor)

    return await _carry_out(request, form, customer_id, verb, "parted")


def ticket_of(connection: Connection, form: Posted, customer_id: int) -> int | None:
    """The ticket on whose page a form was, if it is this customer's."""
    ticket_id = ticket_id_of(form.text("back"))
    if ticket_id is None or ticket_id >= 2**62 or not tickets.is_party(connection, ticket_id, customer_id):
        return None
    return ticket_id


@dataclass(frozen=True, slots=True)
class Choice:
    """An address that an answer may go to, as a list shows it; the ticket's own has no value."""

    value: str
    name: str
    channel: str
    problem: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Answering:
    """How a ticket can be answered: where to, and what cannot carry it."""

    choices: Sequence[Choice]
    #: why the ticket's own address cannot carry an answer now; "" = it can
    own_problem: str
    #: nothing can be sent at all: only notes
    silent: bool

    @property
    def possible(self) -> bool:
        return any(not each.problem for each in self.choices)

    @property
    def instead(self) -> Choice | None:
        """What is chosen where the ticket's own address cannot carry an answer."""
        return next((each for each in self.choices if each.chosen and each.value), None)


def answering(visit: Visit, row: AnyRow, ways: Sequence[Way], wanted: str = "") -> Answering:
    """`wanted`: what was chosen in a form that could not be taken."""
    values = ["" if each.own else f"{each.channel} {each.address}" for each in ways]
    free = [value for each, value in zip(ways, values, strict=True) if not each.problem]
    chosen = wanted if wanted in free else free[0] if free else ""
    found = [
        Choice(value, _way_name(visit, each), each.channel, each.problem, value == chosen)
        for each, value in zip(ways, values, strict=True)
    ]
    own = next((each.problem for each in ways if each.own), "")
    return Answering(found, own, row.state == "closed" or (own == "mute" and not free))


def _way_name(visit: Visit, way: Way) -> str:
    named = visit.web.desk.channel_names.get(way.channel)
    channel = named[visit.words.language] if named else labels.label(visit.words, labels.CHANNELS, way.channel)
    return channel if way.channel == "chat" else f"{channel} {views.mask(way.address)}"
