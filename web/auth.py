"""Who is at the console: sessions, passwords, the CSRF check, the brake on guessing, roles.

A session is a row; the cookie carries its secret, the row its digest and its CSRF token.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, cast
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import FormData
from starlette.responses import Response

from domain import Forbidden, Role, SluiceError, TooMany
from router.tickets import Actor
from storage import console, people
from storage.types import AnyRow
from web import passwords
from web.context import Web, web_of
from web.words import Words, negotiated

COOKIE = "sluice_session"
LONGEST = 1000

# Argon2 takes 64 MiB a check: two at a time keep a flood of sign-ins from eating the machine.
_together = threading.BoundedSemaphore(2)


class SignedOut(SluiceError):
    """Nobody is signed in here."""

    status = 401


class BadToken(Forbidden):
    """The form is too old or came from another site. Load the page again."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is signed in."""

    web: Web
    person: AnyRow
    actor: Actor
    csrf: str
    words: Words

    @property
    def role(self) -> Role:
        return self.actor.role

    @property
    def leads(self) -> bool:
        """Supervisors and administrators see all departments and everything that came in."""
        return self.role in (Role.SUPERVISOR, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Posted:
    """A checked form of somebody who is signed in."""

    visit: Visit
    form: FormData

    def text(self, name: str) -> str:
        value = self.form.get(name, "")
        return value if isinstance(value, str) else ""


# --- passwords --------------------------------------------------------------------------------------------------------


def hash_password(password: str) -> str:
    """Takes some 50 ms: off the event loop. Raises `InvalidInput`."""
    with _together:
        return passwords.hashed(password)


def check_password(stored: str, password: str) -> bool:
    """As long for a missing account as for a wrong password. Off the event loop."""
    with _together:
        return passwords.fits(stored, password)


async def sign_in(request: Request, name: str, password: str) -> tuple[str, AnyRow] | None:
    """A new session's secret and the person, or None. Raises `TooMany`."""
    web = web_of(request)
    brake(request, name)
    row = await web.database.read(lambda connection: console.person_named(connection, name))
    good = await asyncio.to_thread(check_password, row.password if row is not None else "", password)
    if row is None or not good:
        return None
    return await open_session(web, row.id), row


async def open_session(web: Web, person_id: int) -> str:
    """A new session's secret, for the cookie."""
    now, lasts = datetime.now(UTC), web.settings.session_lasts
    secret, _csrf = await web.database.write(lambda c: people.open_session(c, person_id, now, lasts))
    return secret


def set_cookie(response: Response, web: Web, secret: str) -> None:
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(web.settings.session_lasts.total_seconds()),
        path="/console",
        secure=web.secure,
        httponly=True,
        samesite="lax",
    )


def drop_cookie(response: Response, web: Web) -> None:
    response.delete_cookie(COOKIE, path="/console", secure=web.secure, httponly=True, samesite="lax")


# --- the brake --------------------------------------------------------------------------------------------------------


class _Brake:
    """Attempts to sign in, by name and by client address."""

    def __init__(self, per_minute: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(per_minute)

    def take(self, *keys: str) -> float:
        """Seconds to wait, 0 when the attempt may go on. Each attempt counts for all keys."""
        allowed = [self._limiter.hit(self._item, key) for key in keys]
        if all(allowed):
            return 0
        resets = [self._limiter.get_window_stats(self._item, key).reset_time for key in keys]
        return max(1.0, max(resets) - datetime.now(UTC).timestamp())


def brake(request: Request, name: str) -> None:
    """Count one attempt. Raises `TooMany`."""
    state = request.app.state
    if not hasattr(state, "sign_in_brake"):
        state.sign_in_brake = _Brake(web_of(request).settings.sign_ins_per_minute)
    held = cast(_Brake, state.sign_in_brake)
    client = request.client.host if request.client else "?"
    if wait := held.take(f"name:{name.strip().lower()[:64]}", f"from:{client}"):
        raise TooMany(wait)


# --- requests ---------------------------------------------------------------------------------------------------------


def local_path(path: str) -> str:
    """A place of the console to go on to, never another site; the front page where it is none."""
    parts = urlsplit(path)
    safe = (
        path.startswith("/console")
        and path[8:9] in ("", "/", "?")
        and not parts.netloc
        and not parts.scheme
        and "\\" not in path
        and path.isprintable()
    )
    return path if safe else "/console"


def check_origin(request: Request) -> None:
    """A browser says which site a form came from: it must be ours. Raises `BadToken`."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise BadToken
    origin = request.headers.get("origin")
    if origin is None:
        return
    ours = {request.headers.get("host", ""), urlsplit(web_of(request).desk.public_url).netloc}
    if urlsplit(origin).netloc not in ours - {""}:
        raise BadToken


async def visitor(request: Request) -> Visit | None:
    """Who is signed in here, or None."""
    secret = request.cookies.get(COOKIE, "")
    if not secret:
        return None
    web = web_of(request)
    now = datetime.now(UTC)
    row = await web.database.read(lambda connection: people.session(connection, secret, now))
    if row is None:
        return None
    actor = Actor(f"person:{row.name}", Role(row.role), row.id, tuple(row.departments))
    visit = Visit(web, row, actor, row.csrf, negotiated(request, row.language))
    request.state.visit = visit
    return visit


async def signed_in(request: Request) -> Visit:
    """The visit. Raises `SignedOut`, which pages answer with the way to the sign-in."""
    visit = await visitor(request)
    if visit is None:
        raise SignedOut
    return visit


async def posted(request: Request) -> Posted:
    """The form of a visit, with its token and origin checked. Raises `SignedOut` or `BadToken`."""
    visit = await signed_in(request)
    check_origin(request)
    form = await request.form(max_files=0, max_fields=50)
    given = request.headers.get("x-csrf-token") or form.get("csrf", "")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), visit.csrf.encode()):
        raise BadToken
    return Posted(visit, form)


async def leading(visit: Annotated[Visit, Depends(signed_in)]) -> Visit:
    """The visit of a supervisor or administrator. Raises `Forbidden`."""
    if not visit.leads:
        raise Forbidden
    return visit


async def leading_posted(form: Annotated[Posted, Depends(posted)]) -> Posted:
    """The form of a supervisor or administrator. Raises `Forbidden`."""
    if not form.visit.leads:
        raise Forbidden
    return form


def sign_in_path(request: Request) -> str:
    """Where to sign in, and to come back from there."""
    path = request.url.path
    if request.method == "GET":
        back = f"{path}?{request.url.query}" if request.url.query else path
    else:
        # A form cannot be repeated by a link: the page that it stood on can.
        back = path.rpartition("/")[0] if path.startswith("/console/t/") else "/console"
    return "/console/signin" if back == "/console" else f"/console/signin?next={quote(back, safe='/')}"
