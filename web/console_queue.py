"""The queues: lists of tickets, most urgent first, and single rows for live pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from domain import Forbidden, NotFound, Role, TicketState, public_number, ticket_id_of
from storage import console, tickets
from storage.types import AnyRow
from web import console_labels as labels
from web.auth import Visit, signed_in
from web.console_page import HEADERS, ConsoleRoute, is_fragment, page
from web.console_views import Row, row_of

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

PAGE = 50
_ALL_STATES = [str(state) for state in TicketState]


@dataclass(frozen=True, slots=True)
class Place:
    """Which list: a department's, `mine`, or `all` for those who lead."""

    queue: str
    view: str = "active"
    q: str = ""
    page: int = 1

    @property
    def url(self) -> str:
        return f"/console/q/{self.queue}"

    @property
    def origin(self) -> str:
        """As carried by the ticket's `from`."""
        return f"q/{self.queue}" + (f"/{self.view}" if self.view != "active" else "")


def departments_of(visit: Visit) -> list[str]:
    """The departments whose queues this person sees, in the taxonomy's order."""
    return [name for name in visit.web.desk.taxonomy.departments if visit.actor.may_see(name)]


def front(visit: Visit) -> str:
    """The first page of a role."""
    if visit.role is Role.ADMIN:
        return "/console/intake/health"
    if visit.role is Role.SUPERVISOR:
        return "/console/review"
    return f"/console/q/{(departments_of(visit) or ['mine'])[0]}"


def check_queue(visit: Visit, queue: str) -> None:
    """Raises `NotFound` or `Forbidden`."""
    if queue == "mine" or (queue == "all" and visit.leads):
        return
    if queue != "all" and queue not in visit.web.desk.taxonomy.departments:
        raise NotFound
    if queue == "all" or not visit.actor.may_see(queue):
        raise Forbidden


def queue_name(visit: Visit, queue: str) -> str:
    if queue == "mine":
        return visit.words.gettext("My tickets")
    if queue == "all":
        return visit.words.gettext("All departments")
    return visit.web.desk.department_name(queue, visit.words.language)


def load(connection: Connection, visit: Visit, place: Place, limit: int) -> Sequence[AnyRow]:
    """The rows of a list."""
    states: Sequence[str] = [str(state) for state in tickets.ACTIVE]
    if place.view == "pending":
        states = [TicketState.PENDING.value]
    elif place.view == "resolved":
        states = [TicketState.RESOLVED.value]
    elif place.q:
        states = _ALL_STATES
    only: dict[str, Any] = {}
    if place.queue == "mine":
        only["owner_id"] = visit.person.id
    elif place.queue == "all":
        only["departments"] = None
    else:
        only["department"] = place.queue
    if place.view == "mine":
        only["owner_id"] = visit.person.id
    if place.queue == "mine" and not visit.leads:
        # A ticket that moved on to another department is no longer theirs to read.
        only["departments"] = departments_of(visit)
    return tickets.queue(
        connection,
        states=states,
        alarmed=place.view == "due",
        look_first=place.view == "look",
        q=place.q,
        offset=(place.page - 1) * PAGE,
        limit=limit,
        **only,
    )


async def listing(visit: Visit, place: Place) -> tuple[list[Row], bool, console.Counts]:
    """The rows of one page, whether there are more, and the counts for the rail."""

    def query(connection: Connection) -> tuple[Sequence[AnyRow], console.Counts]:
        return load(connection, visit, place, PAGE + 1), console.counts(connection, visit.person.id)

    found, counts = await visit.web.database.read(query)
    now = datetime.now(UTC)
    rows = [row_of(row, visit.web.desk, visit.words, now, visit.person.name) for row in found[:PAGE]]
    return rows, len(found) > PAGE, counts


def rail(visit: Visit, counts: console.Counts) -> dict[str, Any]:
    """What the frame of every page shows: departments and counts where somebody must act."""
    own = departments_of(visit)
    return {"counts": counts.visible(None if visit.leads else own), "tally": counts, "own": own, "front": front(visit)}


async def rail_of(visit: Visit) -> dict[str, Any]:
    person_id = visit.person.id
    return rail(visit, await visit.web.database.read(lambda connection: console.counts(connection, person_id)))


@routes.get("/console")
async def home(visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    return RedirectResponse(front(visit), status_code=303, headers=HEADERS)


@routes.get("/console/q/{queue}")
async def show_queue(
    request: Request,
    queue: str,
    visit: Annotated[Visit, Depends(signed_in)],
    view: Annotated[str, Query(max_length=16)] = "active",
    q: Annotated[str, Query(max_length=200)] = "",
    page_number: Annotated[int, Query(alias="page", ge=1, le=10000)] = 1,
) -> Response:
    check_queue(visit, queue)
    if view not in labels.VIEWS:
        raise NotFound
    q = q.strip()
    number = ticket_id_of(q)
    if number is not None and await visit.web.database.read(lambda c: bool(console.rows(c, [number]))):
        return _go(request, f"/console/t/{public_number(number)}?from=q/{queue}")
    place = Place(queue, view, q if not too_short(q) else "", page_number)
    rows, more, counts = await listing(visit, place)
    template = "_list.html" if is_fragment(request) else "queue.html"
    return page(
        request,
        template,
        visit=visit,
        place_of=place,
        q=q,
        hint=too_short(q),
        rows=[] if too_short(q) else rows,
        more=more and not too_short(q),
        active="queue",
        current="",
        title=queue_name(visit, queue),
        **rail(visit, counts),
    )


def _go(request: Request, path: str) -> Response:
    if is_fragment(request):
        return Response(headers={**HEADERS, "HX-Redirect": path})
    return RedirectResponse(path, status_code=303, headers=HEADERS)


def too_short(q: str) -> bool:
    """One Han character finds nothing: the index is of pairs."""
    return len(q) == 1


@routes.get("/console/rows")
async def show_rows(
    request: Request,
    visit: Annotated[Visit, Depends(signed_in)],
    ids: Annotated[str, Query(max_length=2000)] = "",
    from_: Annotated[str, Query(alias="from", max_length=80)] = "",
) -> Response:
    """Changed rows for a page that shows them already; those that left the list come back marked as gone."""
    place = place_of(from_) or Place("mine")
    check_queue(visit, place.queue)
    wanted = [each for number in ids.split(",")[:100] if (each := ticket_id_of(number)) is not None]
    found = await visit.web.database.read(lambda connection: console.rows(connection, wanted))
    now = datetime.now(UTC)
    rows = []
    for row in found:
        shown = row_of(row, visit.web.desk, visit.words, now, visit.person.name)
        if not visit.actor.may_see(row.department):
            continue
        rows.append((shown, not belongs(row, place, visit.person.id)))
    return page(request, "_rows.html", visit=visit, rows=rows, place_of=place, current="")


def belongs(row: AnyRow, place: Place, person_id: int) -> bool:
    """A ticket is still one of the list that shows it."""
    wanted = {"pending": ("pending",), "resolved": ("resolved",)}.get(place.view, ("new", "open", "pending"))
    return bool(
        row.state in wanted
        and place.queue in ("mine", "all", row.department)
        and (row.owner_id == person_id or (place.queue != "mine" and place.view != "mine"))
        and (row.alarm or place.view != "due")
        and (row.look_first or place.view != "look")
    )


def place_of(origin: str) -> Place | None:
    """`q/claims/due` -> the list that a ticket was opened from."""
    parts = origin.split("/")
    if len(parts) not in (2, 3) or parts[0] != "q":
        return None
    view = parts[2] if len(parts) == 3 else "active"
    return Place(parts[1], view) if view in labels.VIEWS else None
