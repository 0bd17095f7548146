"""WS /chat/ws: the widget's line to us. Frames are JSON; `type` says what each is.

From the widget: hello (token, site, lang, seen) comes first; then say (id, text), after (seq), typing, end, ping.
To the widget: welcome (token, last, limits), lines (after, lines), ack (id, seq), nack (id, error, retry_after), state,
token, ended, ping, pong. Nothing is in the URL: addresses end up in logs.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from domain import Forbidden, InvalidInput, TooMany, Unavailable
from web.chat_files import ACCEPT
from web.chat_guard import address_of, check_origin, may_embed
from web.chat_hub import ENDED, EXPIRED, RESTART, SLOW, Socket
from web.chat_lines import Chat, chat_of
from web.chat_token import BadToken, Visitor, new_visitor

log = structlog.get_logger("chat")
routes = APIRouter()

BEAT = 20.0  # seconds between two pings of ours
QUIET = 60.0  # seconds without a word of the widget, after which its line counts as dead
_HELLO = 10.0
_TABS = 20  # of one conversation
_FRAME_MOST = 64_000  # characters

BAD = 4400
ELSEWHERE = 4003
BUSY = 1013


class _Refused(Exception):
    """The connection ends, with a code that tells the widget what to do."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@routes.websocket("/chat/ws")
async def connect(websocket: WebSocket) -> None:
    chat = chat_of(websocket)
    try:
        check_origin(websocket)
    except Forbidden:
        await websocket.close()  # before `accept` this refuses the handshake: 403
        return
    await websocket.accept()
    try:
        await _converse(websocket, chat)
    except _Refused as refused:
        with suppress(RuntimeError):
            await websocket.close(refused.code, refused.reason)
    except (WebSocketDisconnect, RuntimeError):
        pass  # gone; what was not acknowledged comes again
    except Exception as error:
        # The type alone: its text may quote the visitor.
        log.error("chat_failed", error=type(error).__name__)
        with suppress(RuntimeError):
            await websocket.close(1011)


async def _converse(websocket: WebSocket, chat: Chat) -> None:
    if chat.hub.draining or not chat.settings.enabled:
        raise _Refused(RESTART, "restart")
    try:
        chat.brake.knock(address_of(websocket))
    except TooMany as error:
        raise _Refused(BUSY, "too many") from error
    socket = await _greet(websocket, chat)
    tasks = [asyncio.create_task(socket.pump()), asyncio.create_task(_beat(socket))]
    chat.hub.add(socket)
    socket.wake.set()
    try:
        if chat.hub.draining:  # it began while we greeted
            raise _Refused(RESTART, "restart")
        while True:
            frame = await _frame(websocket, QUIET)
            await _handle(frame, socket, chat, address_of(websocket))
    finally:
        chat.hub.remove(socket)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beat(socket: Socket) -> None:
    while True:
        await asyncio.sleep(BEAT)
        await socket.send({"type": "ping"})


async def _frame(websocket: WebSocket, wait: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(wait):
            message = await websocket.receive()
    except TimeoutError as error:
        raise _Refused(SLOW, "quiet") from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    text = message.get("text")
    if text is None:
        raise _Refused(BAD, "text frames only")
    if len(text) > _FRAME_MOST:
        raise _Refused(1009, "too long")
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise _Refused(BAD, "not JSON") from error
    if not isinstance(frame, dict):
        raise _Refused(BAD, "not a frame")
    return frame


async def _greet(websocket: WebSocket, chat: Chat) -> Socket:
    hello = await _frame(websocket, _HELLO)
    if hello.get("type") != "hello":
        raise _Refused(BAD, "hello comes first")
    site = _text(hello, "site")
    if not may_embed(websocket, site):
        raise _Refused(ELSEWHERE, "site")
    visitor, last = await _visitor(chat, _text(hello, "token"), site)
    if chat.hub.count(visitor.session) >= _TABS:
        raise _Refused(BUSY, "too many tabs")
    now = datetime.now(UTC)
    # A number that we never gave belongs to a conversation that was erased: the widget clears and begins at 0.
    seen = _number(hello, "seen")
    seen = seen if seen <= last else 0
    socket = Socket(chat.hub, visitor, _text(hello, "lang"), seen, websocket)
    await socket.send(
        {
            "type": "welcome",
            "token": chat.tokens.make(visitor, now),
            "seen": seen,
            "last": last,
            "longest": chat.settings.longest,
            "upload_most": chat.settings.upload_most,
            "accept": ACCEPT,
        }
    )
    return socket


async def _visitor(chat: Chat, token: str, site: str) -> tuple[Visitor, int]:
    if not token:
        return new_visitor(site), 0
    try:
        visitor = chat.tokens.read(token, site=site)
        return visitor, await chat.check_open(visitor)
    except BadToken as error:
        raise _Refused(EXPIRED, "token") from error
    except Unavailable as error:
        raise _Refused(BUSY, "unavailable") from error


async def _handle(frame: dict[str, Any], socket: Socket, chat: Chat, address: str) -> None:
    kind = frame.get("type")
    if kind == "say":
        await _say(frame, socket, chat, address)
    elif kind == "ping":
        await socket.send({"type": "pong"})
    elif kind == "after":
        # The widget misses something: it says from where.
        socket.seen = min(socket.seen, _number(frame, "seq"))
        socket.wake.set()
    elif kind == "typing":
        chat.hub.visitor_types(socket.visitor.session)
    elif kind == "end":
        await _end(socket, chat)
    elif kind != "pong":
        raise _Refused(BAD, "unknown frame")


async def _end(socket: Socket, chat: Chat) -> None:
    try:
        begun = await chat.hub.end(socket.visitor.session)
    except Unavailable:
        await socket.send({"type": "nack", "id": "", "error": "later", "retry_after": Unavailable.retry_after})
        return
    if not begun:  # nothing was said, so there is no row that the pump could read the end from
        await socket.send({"type": "ended"})
        await socket.close(ENDED)


async def _say(frame: dict[str, Any], socket: Socket, chat: Chat, address: str) -> None:
    client_id = _text(frame, "id")
    nack: dict[str, Any] = {"type": "nack", "id": client_id}
    try:
        seq = await chat.say(socket.visitor, client_id, _text(frame, "text"), address=address, language=socket.language)
    except TooMany as error:
        await socket.send({**nack, "error": "too_fast", "retry_after": round(error.retry_after)})
    except InvalidInput as error:
        await socket.send({**nack, "error": "id" if error.field == "id" else "too_long"})
    except Unavailable as error:
        await socket.send({**nack, "error": "later", "retry_after": error.retry_after})
    except BadToken as error:
        raise _Refused(EXPIRED, "token") from error
    else:
        await socket.send({"type": "ack", "id": client_id, "seq": seq})


def _text(frame: dict[str, Any], name: str) -> str:
    value = frame.get(name, "")
    if not isinstance(value, str):
        raise _Refused(BAD, f"{name} is not a text")
    return value


def _number(frame: dict[str, Any], name: str) -> int:
    value = frame.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise _Refused(BAD, f"{name} is not a number")
    return value
