"""The console over a small world: its app, its people, and a browser that keeps cookies and sends its form's token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from domain import Role, public_number
from router.tickets import Actor
from storage import people
from tests.worlds import World, message
from web.app import create_app
from web.context import Web

PASSWORD = "correct horse"
# As cheap as the library allows: a hash names its own cost, and the console's is tried where a test sets a password.
_HASHED = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
BASE = "http://sluice.test"
_CSRF = re.compile(r'<meta name="csrf" content="([^"]+)">')

#: a test that runs on both databases
both = pytest.mark.parametrize("console_url", ["sqlite", "postgresql"], indirect=True)

PEOPLE: tuple[tuple[str, Role, tuple[str, ...]], ...] = (
    ("li", Role.AGENT, ("claims",)),
    ("zhao", Role.AGENT, ("billing",)),
    ("sun", Role.SUPERVISOR, ()),
    ("root", Role.ADMIN, ()),
)


@dataclass
class Console:
    """The console and the world behind it."""

    world: World
    web: Web
    app: FastAPI
    nudges: list[int]

    def browser(self, **options: Any) -> Browser:
        transport = httpx.ASGITransport(self.app, client=options.pop("client", ("127.0.0.1", 5000)))
        headers = {"Accept-Language": "en", "Accept": "text/html"} | options.pop("headers", {})
        return Browser(httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers, **options))

    async def signed_in(self, name: str) -> Browser:
        browser = self.browser()
        answer = await browser.client.post("/console/signin", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        await browser.learn_token()
        return browser

    async def ticket(self, text: str = "#claim_status where is my money", **values: Any) -> str:
        """A ticket's public number, as the river makes it."""
        [outcome] = await self.world.come_in(message(text, **values))
        assert outcome.ticket_id is not None
        return public_number(outcome.ticket_id)

    def actor(self, name: str) -> Actor:
        place, (_name, role, departments) = next((i, each) for i, each in enumerate(PEOPLE) if each[0] == name)
        return Actor(f"person:{name}", role, place + 1, departments)


@dataclass
class Browser:
    """What a browser without script does: it follows no link by itself and sends the hidden token back."""

    client: httpx.AsyncClient
    csrf: str = ""

    async def learn_token(self) -> None:
        found = _CSRF.search((await self.client.get("/console/me")).text)
        assert found is not None
        self.csrf = found[1]

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, *, fragment: bool = False, origin: str = "", **fields: str) -> httpx.Response:
        headers = {"HX-Request": "true"} if fragment else {}
        if origin:
            fields["from"] = origin
        return await self.client.post(path, data={"csrf": self.csrf, **fields}, headers=headers)


async def make_console(world: World, *, public_url: str = BASE) -> Console:
    nudges: list[int] = []
    web = Web(
        settings=world.settings.web,
        database=world.database,
        queue=world.queue,
        flow=world.flow,
        desk=world.desk,
        verbs=world.verbs,
        secret="s" * 40,
        outgoing=lambda: ["api", "mail"],
        nudge=lambda: nudges.append(1),
    )
    now = datetime.now(UTC)
    for name, role, departments in PEOPLE:
        await world.database.write(
            partial(people.add, name=name, role=role, departments=departments, password=_HASHED, now=now)
        )
    return Console(world, web, create_app(web), nudges)
