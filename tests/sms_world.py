"""A Twilio that answers as told: for what the stand-in of `tests.twilio_server` cannot be brought to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.server_base import HOST

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Heard:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class ToldTwilio:
    """Answers by the paths that it was given answers for, and keeps what it heard."""

    url: str = ""
    #: (method, path without the base of the account's) -> what happens
    answers: dict[tuple[str, str], Answering] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    #: set when a request that gets no answer was taken
    taken: asyncio.Event = field(default_factory=asyncio.Event)

    def json(self, method: str, path: str, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answers[method, path] = answer

    def body(self, path: str, body: bytes, media_type: str, **more: Any) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, headers={"Content-Type": media_type} | more.get("headers", {}))

        self.answers["GET", path] = answer

    def silent(self, method: str, path: str) -> None:
        """The request is taken, and nothing comes back."""

        async def answer(_request: web.Request) -> web.StreamResponse:
            self.taken.set()
            await asyncio.Event().wait()
            raise AssertionError

        self.answers[method, path] = answer

    def cut(self, method: str, path: str) -> None:
        """The request is taken, and the line goes dead."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.taken.set()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self.answers[method, path] = answer

    def redirect(self, path: str, location: str) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": location})

        self.answers["GET", path] = answer

    def paths(self, method: str) -> list[str]:
        return [each.path for each in self.heard if each.method == method]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        heard = Heard(request.method, request.path, dict(request.query), form, dict(request.headers))
        self.heard.append(heard)
        answer = self.answers.get((request.method, request.path))
        return (
            web.json_response({"code": 20404, "status": 404}, status=404) if answer is None else await answer(request)
        )


@asynccontextmanager
async def told_twilio() -> AsyncIterator[ToldTwilio]:
    made = ToldTwilio()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        made.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
