"""Who calls the API, and how much of a body is read of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from domain import Forbidden, InvalidInput, Role, SluiceError
from router.tickets import Actor
from storage import people
from web.context import Web, web_of

_bearer = HTTPBearer(auto_error=False, description="A token made by `bot.py token add NAME --role ROLE`.")
_REMEMBERED = 5.0  # seconds that a token is believed without a look into the database


class Unauthorized(SluiceError):
    """Give a valid token: Authorization: Bearer <token>."""

    status = 401


class TooLarge(SluiceError):
    """The body is too large."""

    status = 413


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    role: Role

    @property
    def actor(self) -> Actor:
        return Actor(f"token:{self.name}", self.role)

    def needs(self, *roles: Role) -> None:
        """Raises `Forbidden`."""
        if self.role not in roles:
            wanted = ", ".join(role.value for role in roles)
            raise Forbidden(f"The token {self.name!r} has the role {self.role}; this needs {wanted}.")


class Tokens:
    """Token holders, remembered for a few seconds: the hot path asks the database once, not with each message."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Caller]] = {}

    async def caller(self, web: Web, secret: str) -> Caller:
        now = time.monotonic()
        digest = people.digest(secret)
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        found = await web.database.read(lambda connection: people.token_holder(connection, secret))
        if found is None:
            self._known.pop(digest, None)
            raise Unauthorized
        if len(self._known) > 1000:
            self._known.clear()
        caller = Caller(*found)
        self._known[digest] = (now + _REMEMBERED, caller)
        return caller


async def calling(request: Request) -> Caller:
    """Who holds the request's token. Raises `Unauthorized`."""
    scheme, _space, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise Unauthorized
    tokens: Tokens = request.app.state.tokens
    return await tokens.caller(web_of(request), secret)


async def _caller(
    request: Request, _described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    return await calling(request)


Asking = Annotated[Caller, Depends(_caller)]


async def body_of(request: Request) -> bytes:
    """The body. Raises `TooLarge` before more of it is in memory than the settings allow."""
    most = web_of(request).settings.body_most
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def json_of(raw: bytes) -> Any:
    """Raises `InvalidInput`."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("", "The body is no JSON.") from error


class ApiRoute(APIRoute):
    """FastAPI reads a body whole before it asks who sent it: here the token comes first, then no more than allowed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            await calling(request)
            raw = await body_of(request)
            if raw:
                json_of(raw)
            # Where `request.body` looks first.
            request._body = raw
            return await handler(request)

        return handle
