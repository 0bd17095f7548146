"""The web's assembly: routes, headers, and what an error looks like from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain import InvalidInput, SluiceError, TooMany, Unavailable
from web import api, chat, console, docs, health, hooks, public
from web.api_access import TooLarge
from web.chat_lines import Chat
from web.console_static import KeptFiles
from web.context import Web
from web.paths import STATIC

log = structlog.get_logger("web")

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self';"
    " img-src 'self' data:"
)
_FAULT = "Something went wrong on our side. It was written down."
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}


class Guard:
    """Around all routes: security headers that a route has not set itself, a bound on every body, and an answer for
    faults of ours that quotes nothing. Plain ASGI: it is on the hot path.
    """

    def __init__(self, app: ASGIApp, *, body_most: int) -> None:
        self._app = app
        self._body_most = body_most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = False
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._body_most:
                raise TooLarge(f"The body is larger than {self._body_most} bytes.")
            return message

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _value in headers}
                headers.extend((name, value) for name, value in _HEADERS.items() if name not in present)
            await send(message)

        try:
            await self._app(scope, bounded, with_headers)
        except Exception as error:
            # Left to the server, its traceback would stand in the log, with whatever the exception quotes.
            answer = await _unknown_error(Request(scope), error)
            if begun:
                raise ConnectionAbortedError("the answer broke off") from None
            await answer(scope, receive, with_headers)


def create_app(web: Web) -> FastAPI:
    """The application over one `Web`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if web.settings.chat.enabled:
                await stack.enter_async_context(app.state.chat.running())
            yield

    app = FastAPI(title="Sluice", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.web = web
    if web.settings.chat.enabled:
        app.state.chat = Chat(web)
    app.state.tokens = api.Tokens()
    app.add_middleware(Guard, body_most=max(web.settings.body_most, web.settings.chat.upload_most) + 1_000_000)
    app.router.routes.append(Route("/api/v1/messages", api.accept, methods=["POST"], include_in_schema=False))
    app.router.routes.extend(hooks.routes)
    app.include_router(health.routes, include_in_schema=False)
    app.include_router(api.routes)
    app.include_router(docs.routes, include_in_schema=False)
    app.include_router(public.routes, include_in_schema=False)
    app.include_router(console.routes, include_in_schema=False)
    if web.settings.chat.enabled:
        app.include_router(chat.routes, include_in_schema=False)
    app.mount("/static", KeptFiles(directory=STATIC), name="static")
    app.add_exception_handler(SluiceError, _known_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _wants_page(request: Request) -> bool:
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


async def _known_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SluiceError)
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable | TooMany):
        headers["Retry-After"] = str(round(error.retry_after))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if _wants_page(request):
        return console.error_page(request, error, headers)
    body: dict[str, Any] = {"error": str(error)}
    if isinstance(error, InvalidInput):
        body["field"] = error.field
    return JSONResponse(body, error.status, headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {"field": ".".join(str(part) for part in each["loc"][1:]), "message": each["msg"]} for each in error.errors()
    ]
    first = found[0] if found else {"field": "", "message": "invalid"}
    return JSONResponse({"error": first["message"], "field": first["field"], "errors": found}, 422)


async def _unknown_error(request: Request, error: Exception) -> Response:
    # The path may hold a tracking token; the route's pattern does not.
    route = request.scope.get("route")
    log.error("request_failed", route=getattr(route, "path", "?"), error=type(error).__name__)
    if _wants_page(request):
        return console.error_page(request, SluiceError(_FAULT))
    return JSONResponse({"error": _FAULT}, 500)
