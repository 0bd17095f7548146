"""The chat's pages and what they post: the loader, the widget's frame, the demo page, uploads, contacts."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from domain import Attachment, Forbidden, InvalidInput, NotFound, SluiceError, TooMany, Unavailable
from web.chat_files import attachment
from web.chat_guard import address_of, check_origin, headers, may_embed, own_origin
from web.chat_hub import line_frame
from web.chat_lines import Chat, chat_of
from web.chat_socket import routes as socket_routes
from web.chat_token import BadToken, Visitor, new_visitor
from web.chat_words import CHAT, LANGUAGES, PAGES, TAGS, language_of, moment
from web.context import web_of

routes = APIRouter(include_in_schema=False)
routes.include_router(socket_routes)

_HERE = Path(__file__).parent
_COOKIE = "sluice_chat"
_BODY_MOST = 64_000
_FORM_MOST = 200_000

pages = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep it."""
    digest = hashlib.sha256((_HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def page(template: str, request: Request, language: str, *, framed: bool = False, **values: Any) -> Response:
    """One of the customers' pages."""
    html = pages.get_template(template).render(
        words=PAGES[language], language=language, tag=TAGS[language], asset=asset, **values
    )
    return Response(html, media_type="text/html", headers=dict(headers(request, framed=framed)))


def _check_enabled(chat: Chat) -> None:
    if not chat.settings.enabled:
        raise NotFound("There is no web chat here.")


# --- pages ------------------------------------------------------------------------------------------------------------


@routes.get("/widget.js")
async def loader(request: Request) -> Response:
    """What a site embeds: a button, and the frame behind it."""
    _check_enabled(chat_of(request))
    kept = {
        "Cache-Control": "public, max-age=300",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return FileResponse(_HERE / "static" / "widget.js", media_type="text/javascript", headers=kept)


@routes.get("/chat/frame")
async def frame(request: Request) -> Response:
    """The widget itself, inside of the site's page."""
    chat = chat_of(request)
    _check_enabled(chat)
    language = language_of(request)
    origins = [own_origin(request), *chat.settings.origins]
    return page("chat_frame.html", request, language, framed=True, texts=CHAT[language], origins=origins)


@routes.get("/chat")
async def demo(request: Request) -> Response:
    """The demo page. Without script it is a form that shows the conversation."""
    chat = chat_of(request)
    _check_enabled(chat)
    return await _demo(request, chat)


async def _demo(request: Request, chat: Chat, *, error: str = "", text: str = "", status: int = 200) -> Response:
    language = language_of(request)
    visitor = _by_cookie(request, chat)
    lines: list[dict[str, Any]] = []
    now = datetime.now(UTC)
    if visitor is not None:
        _overview, rows, files = await chat.hub.read(visitor.session, 0)
        lines = [{**line_frame(row, files), "when": moment(row.at, language, now)} for row in rows]
    answer = page(
        "chat.html",
        request,
        language,
        lines=lines,
        error=error,
        text=text,
        client_id=secrets.token_urlsafe(12),
        longest=chat.settings.longest,
        other=next(each for each in LANGUAGES if each != language),
        origin=own_origin(request),
    )
    answer.status_code = status
    return answer


def _by_cookie(request: Request, chat: Chat) -> Visitor | None:
    try:
        return chat.tokens.read(request.cookies.get(_COOKIE, ""), site=own_origin(request))
    except BadToken:
        return None


@routes.post("/chat")
async def write(request: Request) -> Response:
    """The form without script. It answers with the page again, under its own address."""
    chat = chat_of(request)
    _check_enabled(chat)
    check_origin(request)
    await _bounded(request, _FORM_MOST)
    form = await request.form()
    text, client_id = (str(form.get(name, "")) for name in ("text", "id"))
    language = language_of(request)
    visitor = _by_cookie(request, chat) or new_visitor(own_origin(request))
    words = PAGES[language]
    try:
        await chat.say(visitor, client_id, text, address=address_of(request), language=language)
    except TooMany:
        return await _demo(request, chat, error=words["form_fast"], text=text, status=429)
    except InvalidInput:
        error = words["form_wrong"].format(n=chat.settings.longest)
        return await _demo(request, chat, error=error, text=text, status=422)
    answer = RedirectResponse(f"/chat?lang={language}#end", 303)
    answer.set_cookie(
        _COOKIE,
        chat.tokens.make(visitor, datetime.now(UTC)),
        max_age=int(chat.settings.token_lasts.total_seconds()),
        path="/chat",
        secure=web_of(request).secure,
        httponly=True,
        samesite="strict",
    )
    return answer


# --- what the frame posts ---------------------------------------------------------------------------------------------


@routes.post("/chat/contact")
async def contact(request: Request) -> Response:
    """{"contact", "text", "id"}: where to reach the visitor when nobody answers here."""
    chat = chat_of(request)
    try:
        visitor, language = _visitor(request, chat)
        body = await _bounded(request, _BODY_MOST)
        given = _fields(body)
        seq = await chat.leave_contact(
            visitor, given["contact"], given["text"], given["id"], address=address_of(request), language=language
        )
    except SluiceError as error:
        return _refusal(error)
    return JSONResponse({"seq": seq})


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        given = json.loads(body)
    except ValueError as error:
        raise InvalidInput("body", "not JSON") from error
    if not isinstance(given, dict):
        raise InvalidInput("body", "not an object")
    for name in ("contact", "text", "id"):
        if not isinstance(given.setdefault(name, ""), str):
            raise InvalidInput(name, "not a text")
    return given


@routes.post("/chat/upload")
async def upload(request: Request) -> Response:
    """One file as the body, its name and the client's id in headers. Refused with a word that the widget explains."""
    chat = chat_of(request)
    try:
        visitor, language = _visitor(request, chat)
        await chat.check_open(visitor)
        content = await _bounded(request, chat.settings.upload_most)
        file = attachment(unquote(request.headers.get("x-file-name", ""))[:300], content)
        await _scan(chat, file)
        seq = await chat.say(
            visitor,
            request.headers.get("x-client-id", ""),
            CHAT[language]["file"].format(name=file.name),
            address=address_of(request),
            language=language,
            attachments=[file],
        )
    except SluiceError as error:
        return _refusal(error)
    return JSONResponse({"seq": seq})


async def _scan(chat: Chat, file: Attachment) -> None:
    if chat.scanner is None:
        return
    try:
        found = await chat.scanner.scan(file.content, file.name)
    except Exception as error:
        # What could not be looked at is not let in; the widget keeps the file and tries again.
        raise Unavailable("The file could not be checked. Try again.") from error
    if found:
        raise InvalidInput("file", "unsafe")


def _visitor(request: Request, chat: Chat) -> tuple[Visitor, str]:
    """Who posts, by the token in the Authorization header: a cookie would let other sites post for them."""
    _check_enabled(chat)
    check_origin(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise BadToken
    visitor = chat.tokens.read(token)
    if not may_embed(request, visitor.site):
        raise BadToken
    return visitor, language_of(request)


async def _bounded(request: Request, most: int) -> bytes:
    """The body, never more of it in memory than allowed. Raises `InvalidInput` ("file": "size")."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise InvalidInput("file", "size")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise InvalidInput("file", "size")
        parts.append(part)
    body = b"".join(parts)
    # `request.form` reads what was read already.
    request._body = body
    return body


def _refusal(error: SluiceError) -> Response:
    """What the widget reads: a code that it has words for."""
    answer: dict[str, Any] = {"error": "later"}
    extra: dict[str, str] = {}
    status = error.status
    if isinstance(error, InvalidInput):
        answer = {"error": f"{error.field}_{error}" if error.field == "file" else error.field}
        status = 413 if str(error) == "size" else 422
    elif isinstance(error, BadToken):
        answer, status = {"error": "token"}, 401
    elif isinstance(error, Forbidden):
        answer = {"error": "origin"}
    elif isinstance(error, TooMany):
        answer = {"error": "too_fast", "retry_after": round(error.retry_after)}
        extra["Retry-After"] = str(round(error.retry_after))
    elif isinstance(error, Unavailable):
        answer["retry_after"] = error.retry_after
        extra["Retry-After"] = str(error.retry_after)
    return JSONResponse(answer, status, headers={"Cache-Control": "no-store", **extra})
