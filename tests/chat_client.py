"""A visitor of the web chat as tests play them: the widget's side of the line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import sqlalchemy as sa
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed

from storage.tables import ChatSession, Outbox, Ticket, table
from storage.tables import Message as MessageTable
from tests.chat_world import ChatWorld

message = table(MessageTable)
ticket = table(Ticket)
outbox = table(Outbox)
session_table = table(ChatSession)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


class Client:
    """The widget's side of the line."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    @property
    def session(self) -> str:
        return str(jwt.decode(self.welcome["token"], options={"verify_signature": False})["sub"])

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 15))
        if frame["type"] == "lines":
            self.lines.extend(frame["lines"])
        self.frames.append(frame)
        return frame

    async def until(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not good(frame := await self.frame()):
            pass
        return frame

    async def kind(self, kind: str) -> dict[str, Any]:
        return await self.until(lambda frame: frame["type"] == kind)

    async def line(self, **wanted: Any) -> dict[str, Any]:
        def fits(line: dict[str, Any]) -> bool:
            return all(line[name] == value for name, value in wanted.items())

        while not (found := [each for each in self.lines if fits(each)]):
            await self.frame()
        return found[0]

    async def closed(self) -> int:
        with suppress(ConnectionClosed):
            while True:
                await self.frame()
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def dial(world: ChatWorld, origin: str) -> AsyncIterator[ClientConnection]:
    """A bare socket. Closing one that the server closed meanwhile is no fault."""
    url = world.url.replace("http", "ws") + "/chat/ws"
    socket = await ws_connect(url, origin=origin, open_timeout=15)  # type: ignore[arg-type]
    try:
        yield socket
    finally:
        with suppress(ConnectionClosed):
            await socket.close()


@asynccontextmanager
async def visit(
    world: ChatWorld, token: str = "", *, seen: int = 0, lang: str = "zh", site: str = "", origin: str = ""
) -> AsyncIterator[Client]:
    async with dial(world, origin or world.url) as socket:
        client = Client(socket)
        await client.send(type="hello", token=token, site=site or world.url, lang=lang, seen=seen)
        client.welcome = {"token": token}
        client.welcome = await client.frame()
        assert client.welcome["type"] == "welcome"
        yield client


def stored(world: ChatWorld, direction: str = "in") -> list[Any]:
    query = sa.select(message).where(message.c.direction == direction).order_by(message.c.id)
    return list(world.read(lambda connection: connection.execute(query).all()))


async def posted(world: ChatWorld, path: str, token: str = "", **more: Any) -> httpx.Response:
    headers = {"Origin": world.url, **more.pop("headers", {})}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(base_url=world.url) as client:
        return await client.post(path, headers=headers, **more)


async def refused(world: ChatWorld, **hello: Any) -> int:
    async with dial(world, world.url) as socket:
        with suppress(ConnectionClosed):  # some are refused before they say hello
            await socket.send(json.dumps({"type": "hello", "site": world.url, "lang": "zh", "seen": 0} | hello))
        return await Client(socket).closed()
