"""The API over a small world: its app, a token for each role, and a client for each token."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import sqlalchemy as sa
from fastapi import FastAPI

from channels import Hook
from domain import Role
from router.arrivals import Arrivals
from storage import people
from tests.worlds import World
from web.app import create_app
from web.context import Web
from web.hook_calls import Hooks

BASE = "http://sluice.test"
_numbers = itertools.count(1)


@dataclass
class Api:
    """The app and the world behind it."""

    world: World
    web: Web
    app: FastAPI
    tokens: dict[Role, str]
    nudges: list[int]

    def client(self, role: Role | None = None, **options: Any) -> httpx.AsyncClient:
        """A program with a token of that role, or without any."""
        headers = options.pop("headers", {})
        if role is not None:
            headers = {"Authorization": f"Bearer {self.tokens[role]}"} | headers
        fails = options.pop("raise_app_exceptions", True)
        transport = httpx.ASGITransport(
            self.app, client=options.pop("address", ("127.0.0.1", 5000)), raise_app_exceptions=fails
        )
        return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers, **options)

    async def post(self, text: str = "#claim_status where is it", **fields: Any) -> httpx.Response:
        """A customer's message by a program with the channel role."""
        record = {"external_id": f"x{next(_numbers)}", "sender": "li@example.com", "text": text} | fields
        async with self.client(Role.CHANNEL) as client:
            return await client.post("/api/v1/messages", json=record)

    async def ticket(self, text: str = "#claim_status where is it", **fields: Any) -> str:
        """The public number of a posted message's ticket."""
        answer = await self.post(text, **fields)
        assert answer.status_code == 202, answer.text
        await self.world.flow.finish()
        async with self.client(Role.ADMIN) as client:
            return str((await client.get("/api/v1/tickets")).json()["items"][0]["number"])

    async def count(self, table: str, **where: Any) -> int:
        condition = " AND ".join(f"{name} = :{name}" for name in where) or "1 = 1"
        statement = sa.text(f"SELECT count(*) FROM {table} WHERE {condition}")
        return int(await self.world.database.read(lambda connection: connection.scalar(statement, where)) or 0)


@asynccontextmanager
async def serving(
    world: World, tokens: dict[Role, str] | None = None, *, hooks: Sequence[Hook] = ()
) -> AsyncIterator[Api]:
    """An API process over a world. `tokens`: those of another process of the same world."""
    nudges: list[int] = []
    arrivals = Arrivals(world.database, world.flow)
    web = Web(
        settings=world.settings.web,
        database=world.database,
        queue=world.queue,
        flow=world.flow,
        desk=world.desk,
        verbs=world.verbs,
        hooks=Hooks(
            {each.name: each for each in hooks},
            arrivals,
            world.settings.state_dir / "spool",
        ),
        secret="s" * 40,
        outgoing=lambda: ["api", "chat"],
        nudge=lambda: nudges.append(1),
    )
    if tokens is None:
        tokens = {}
        now = datetime.now(UTC)
        for role in Role:
            tokens[role] = await world.database.write(
                partial(people.add_token, name=f"the-{role.value}", role=role, now=now)
            )
    app = create_app(web)
    async with app.router.lifespan_context(app):
        yield Api(world, web, app, tokens, nudges)
    await arrivals.close()
