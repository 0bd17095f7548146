"""Coming in and going out: sign-in, one-time links, the first account, sign-out, the language of a browser."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from domain import Forbidden, InvalidInput, Role, SluiceError
from storage import people
from web import auth
from web.auth import Posted, posted
from web.console_page import ConsoleRoute, done, error_page, page
from web.context import web_of
from web.words import COOKIE, LANGUAGES

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

_NAME = re.compile(r"[\w.-]{1,64}")


@routes.get("/console/signin")
async def show_sign_in(request: Request, next: Annotated[str, Query(max_length=2000)] = "/console") -> Response:
    target = auth.local_path(next)
    if await auth.visitor(request) is not None:
        return done(target)
    return page(request, "signin.html", target=target, name="", wrong="")


@routes.post("/console/signin")
async def do_sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=auth.LONGEST)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/console",
) -> Response:
    auth.check_origin(request)
    target = auth.local_path(next)
    found = await auth.sign_in(request, name.strip(), password)
    if found is None:
        return page(request, "signin.html", status=401, target=target, name=name, wrong="credentials")
    response = done(target)
    auth.set_cookie(response, web_of(request), found[0])
    return response


@routes.post("/console/signout")
async def sign_out(request: Request, form: Annotated[Posted, Depends(posted)]) -> Response:
    web = form.visit.web
    secret = request.cookies.get(auth.COOKIE, "")
    await web.database.write(lambda connection: people.close_session(connection, secret))
    response = done("/console/signin")
    auth.drop_cookie(response, web)
    return response


@routes.get("/console/language/{language}")
async def choose_language(
    request: Request, language: str, next: Annotated[str, Query(max_length=2000)] = "/console"
) -> Response:
    """For browsers where nobody is signed in; a person's own setting is stronger."""
    response = done(auth.local_path(next))
    if language in LANGUAGES:
        response.set_cookie(
            COOKIE, language, max_age=31536000, path="/", secure=web_of(request).secure, httponly=True, samesite="lax"
        )
    return response


# --- one-time links ---------------------------------------------------------------------------------------------------


@routes.get("/console/link/{secret}")
async def show_link(request: Request, secret: str) -> Response:
    """Shows a form: programs that look into links must not use them up."""
    now = datetime.now(UTC)
    link = await web_of(request).database.read(lambda connection: people.link_is_good(connection, secret, now))
    if link is None:
        return page(request, "link.html", status=403, secret=secret, kind="spent", name="", wrong="")
    kind = "found" if link.person_id is None else "enter"
    return page(request, "link.html", secret=secret, kind=kind, name="", wrong="")


@routes.post("/console/link/{secret}")
async def use_link(
    request: Request,
    secret: str,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=auth.LONGEST)] = "",
) -> Response:
    auth.check_origin(request)
    auth.brake(request, "link")
    web, now = web_of(request), datetime.now(UTC)
    link = await web.database.read(lambda connection: people.link_is_good(connection, secret, now))
    hashed = ""
    if link is not None and (link.person_id is None or password):
        name = name.strip()
        kind = "found" if link.person_id is None else "enter"
        try:
            if link.person_id is None:
                check_name(name)
            hashed = await asyncio.to_thread(auth.hash_password, password)
        except InvalidInput as error:
            return page(request, "link.html", status=422, secret=secret, kind=kind, name=name, wrong=error.field)

    def unit(connection: Connection) -> int:
        person_id = people.use_link(connection, secret, now)
        if person_id is not None:
            if hashed:
                people.set_password(connection, person_id, hashed)
            return person_id
        if not hashed or people.any_at_all(connection):
            raise Forbidden
        return people.add(connection, name, Role.ADMIN, [], hashed, now)

    try:
        person_id = await web.database.write(unit)
    except Forbidden:
        return page(request, "link.html", status=403, secret=secret, kind="spent", name="", wrong="")
    except SluiceError as error:
        return error_page(request, error)
    response = done("/console")
    auth.set_cookie(response, web, await auth.open_session(web, person_id))
    return response


def check_name(name: str) -> None:
    """Raises `InvalidInput`."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("name", "1 to 64 letters, digits, dots or hyphens.")
