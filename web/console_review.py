"""The triage desk: a supervisor says what a message really is; the ticket moves, and the label is kept for training."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from domain import OUT_OF_SCOPE, InvalidInput, NotFound, public_number
from storage import console, tickets
from web import console_views as views
from web.auth import Posted, Visit, leading, leading_posted
from web.console_page import FIELDS, ConsoleRoute, done, page
from web.console_queue import rail
from web.console_ticket import context, loaded
from web.console_verbs import carry_out
from web.words import N_

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

REASONS = {"": N_("To be looked at"), "transferred": N_("Transferred by people"), "risk": N_("Risk")}
_MOST = 50


def checked_reason(why: str) -> str:
    if why not in REASONS:
        raise NotFound
    return why


@routes.get("/console/review")
async def show_list(
    request: Request,
    visit: Annotated[Visit, Depends(leading)],
    why: Annotated[str, Query(max_length=16)] = "",
    page_number: Annotated[int, Query(alias="page", ge=1, le=10000)] = 1,
) -> Response:
    checked_reason(why)

    def query(connection: Connection) -> tuple[list[views.Row], bool, console.Counts]:
        found = console.review(connection, why=why, offset=(page_number - 1) * _MOST, limit=_MOST + 1)
        now = datetime.now(UTC)
        rows = [views.row_of(row, visit.web.desk, visit.words, now, visit.person.name) for row in found[:_MOST]]
        return rows, len(found) > _MOST, console.counts(connection, visit.person.id)

    rows, more, counts = await visit.web.database.read(query)
    return page(
        request, "review.html", visit=visit, rows=rows, more=more, page_number=page_number, why_shown=why,
        reasons=REASONS, active="review", **rail(visit, counts),
    )  # fmt: skip


@routes.get("/console/review/{number}")
async def show_item(
    request: Request,
    number: str,
    visit: Annotated[Visit, Depends(leading)],
    why: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    return await item_page(request, visit, number, checked_reason(why))


async def item_page(
    request: Request, visit: Visit, number: str, why: str, *, status: int = 200, problem: str = ""
) -> Response:
    """One message to be judged: left what was said, right the decision."""
    found = await loaded(visit, number)
    taxonomy, words = visit.web.desk.taxonomy, visit.words
    grouped = [
        (
            name,
            visit.web.desk.department_name(name, words.language),
            [i for i, d in taxonomy.intents.items() if d == name],
        )
        for name in taxonomy.departments
    ]
    said = next((each for each in found.messages if each.direction == "in"), None)
    return page(
        request, "review_item.html", visit=visit, status=status, why_shown=why, problem=problem, first_message=said,
        grouped=[each for each in grouped if each[2]], out_of_scope=OUT_OF_SCOPE, active="review",
        **context(visit, found), **rail(visit, found.counts),
    )  # fmt: skip


@routes.post("/console/review/{number}")
async def label(request: Request, number: str, form: Annotated[Posted, Depends(leading_posted)]) -> Response:
    """Intent, sentiment and department in one form; then on to the next."""
    visit, why = form.visit, checked_reason(form.text("why"))
    intent = form.text("intent")
    department = form.text("department") or visit.web.desk.taxonomy.owner(intent)
    try:
        await carry_out(form, number, visit.web.verbs.label(intent, form.text("sentiment"), department))
    except InvalidInput as error:
        problem = visit.words.gettext(FIELDS.get(error.field, ""))
        return await item_page(request, visit, number, why, status=error.status, problem=problem)
    done_id = tickets.id_of(number)
    rest = await visit.web.database.read(lambda connection: console.review(connection, why=why, limit=2))
    after = next((row for row in rest if row.id != done_id), None)
    suffix = f"?why={why}" if why else ""
    path = f"/console/review/{public_number(after.id)}{suffix}" if after is not None else f"/console/review{suffix}"
    return done(path, "labelled")
