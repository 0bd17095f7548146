"""One's own settings: language, password, and the way out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from domain import InvalidInput, NotFound
from storage import console, people
from web import auth
from web.auth import Posted, Visit, local_path, posted, signed_in
from web.console_page import FIELDS, HEADERS, ConsoleRoute, done, page
from web.console_queue import rail_of
from web.words import COOKIE, LANGUAGES

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)


@routes.get("/console/me")
async def show_me(request: Request, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    return await me_page(request, visit)


async def me_page(request: Request, visit: Visit, *, status: int = 200, wrong: str = "") -> Response:
    problem = visit.words.gettext(FIELDS.get(wrong, ""))
    frame = await rail_of(visit)
    return page(request, "me.html", visit=visit, status=status, wrong=wrong, problem=problem, active="more", **frame)


@routes.get("/console/me/csrf")
async def renewed(visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """For a page that was open while its reader signed in anew."""
    return JSONResponse({"csrf": visit.csrf, "person": visit.person.id}, headers=HEADERS)


@routes.post("/console/me/language")
async def set_language(form: Annotated[Posted, Depends(posted)]) -> Response:
    web, person_id, language = form.visit.web, form.visit.person.id, form.text("language")
    if language not in LANGUAGES:
        raise NotFound
    await web.database.write(lambda connection: people.set_language(connection, person_id, language))
    response = done(local_path(form.text("next")), "language")
    response.set_cookie(COOKIE, language, max_age=31536000, path="/", secure=web.secure, httponly=True, samesite="lax")
    return response


@routes.post("/console/me/password")
async def set_password(request: Request, form: Annotated[Posted, Depends(posted)]) -> Response:
    """The other browsers of this person are signed out; this one gets a new session."""
    visit, web, person = form.visit, form.visit.web, form.visit.person
    auth.brake(request, person.name)
    # Who came by a link and has no password yet has none to prove.
    if person.password and not await asyncio.to_thread(auth.check_password, person.password, form.text("old")):
        return await me_page(request, visit, status=422, wrong="old")
    try:
        hashed = await asyncio.to_thread(auth.hash_password, form.text("password"))
    except InvalidInput as error:
        return await me_page(request, visit, status=422, wrong=error.field)

    def unit(connection: Connection) -> None:
        people.set_password(connection, person.id, hashed)
        console.close_sessions(connection, person.id)

    await web.database.write(unit)
    response = done("/console/me", "password")
    auth.set_cookie(response, web, await auth.open_session(web, person.id))
    return response
