"""The contract where no provider calls: mail in a mailbox, programs with a token, visitors of the web chat.

They come in by doors of their own, so that only those checks of the contract apply which are about what is stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from app import _MailMemory
from channels.mail import MailSource
from domain import Role
from settings import Settings
from storage.database import Database
from storage.tables import Event, Message, Raw
from tests import test_channel_contract as contract
from tests.api_world import Api, serving
from tests.chat_client import Client, refused, visit
from tests.chat_world import ChatWorld
from tests.contract import NONE, Property, cell
from tests.mail_world import QUICK, box, flags, settings_for, until
from tests.reading import rows
from tests.servers import Dovecot
from tests.worlds import make_world

TEXTS = {"zh": "理赔三周没有消息", "en": "where is my claim & my money", "emoji": "😡👨‍👩‍👧 no answer"}
every_door = pytest.mark.parametrize("door_name", ["api", "chat", "mail"])


class Door(Protocol):
    database: Database
    #: somebody asked the database while it was down
    asked: asyncio.Event

    async def give(self, key: str, text: str) -> None:
        """Returns once it is acknowledged. The same key is the same delivery."""
        ...

    async def give_in_vain(self, key: str, text: str) -> str:
        """While the database is down: what the other side sees."""
        ...

    async def after_all(self, key: str, text: str) -> None:
        """The database is back: what the other side does then, until it is acknowledged."""
        ...

    async def nobody(self) -> bool | None:
        """Somebody without a right to write is refused. None: there is no such thing."""
        ...


@dataclass
class ApiDoor:
    api: Api
    database: Database
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, key: str, text: str, **headers: str) -> int:
        body = {"external_id": key, "sender": "ann", "text": text}
        async with self.api.client(Role.CHANNEL, raise_app_exceptions=False) as client:
            return (await client.post("/api/v1/messages", json=body, headers=headers)).status_code

    async def give(self, key: str, text: str) -> None:
        assert await self.post(key, text) in (200, 202)

    async def give_in_vain(self, key: str, text: str) -> str:
        assert await self.post(key, text) == 503
        return "503"

    async def after_all(self, key: str, text: str) -> None:
        await self.give(key, text)

    async def nobody(self) -> bool | None:
        good = self.api.tokens[Role.CHANNEL]
        tokens = ["", "Bearer", f"Bearer {good[:-1]}", f"Bearer {good}x", f"Basic {good}"]
        return {await self.post("k", "hello", Authorization=each) for each in tokens} == {401}


@dataclass
class MailDoor:
    dovecot: Dovecot
    user: str
    database: Database
    given: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self, key: str, text: str) -> None:
        head = f"From: Ann <ann@customer.test>\r\nSubject: hello\r\nMessage-ID: <{key}@customer.test>\r\n"
        kind = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
        self.dovecot.deliver(self.user, f"{head}{kind}\r\n{text}\r\n".encode())
        self.given += 1

    def marks(self) -> int:
        return sum("$SluiceStored" in line for line in flags(self.dovecot, self.user))

    async def give(self, key: str, text: str) -> None:
        self.drop(key, text)
        await until(lambda: self.marks() == self.given)

    async def give_in_vain(self, key: str, text: str) -> str:
        before = self.marks()
        self.drop(key, text)
        await self.asked.wait()
        assert self.marks() == before
        return "not marked"

    async def after_all(self, key: str, text: str) -> None:
        await until(lambda: self.marks() == self.given)

    async def nobody(self) -> bool | None:
        return None  # who may put mail into the mailbox is the mail server's to say


@dataclass
class ChatDoor:
    world: ChatWorld
    client: Client
    database: Database
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def give(self, key: str, text: str) -> None:
        await self.client.send(type="say", id=key, text=text)
        assert (await self.client.kind("ack"))["id"] == key

    async def give_in_vain(self, key: str, text: str) -> str:
        await self.client.send(type="say", id=key, text=text)
        await self.asked.wait()
        assert all(frame["type"] != "ack" for frame in self.client.frames if frame.get("id") == key)
        return "no ack"

    async def after_all(self, key: str, text: str) -> None:
        token = self.client.welcome["token"]  # as the widget does: it comes back and says again what has no ack
        async with visit(self.world, token) as self.client:
            await self.give(key, text)

    async def nobody(self) -> bool | None:
        return [await refused(self.world, token=each) for each in ("nonsense", "a.b.c")] == [4001] * 2


@pytest.fixture
async def door(
    door_name: str, database_url: str, database: Database, settings: Settings, request: Any, tmp_path: Path
) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        if door_name == "chat":
            world = stack.enter_context(ChatWorld(tmp_path, database=database_url, workers=False))
            client = await stack.enter_async_context(visit(world))
            yield ChatDoor(world, client, world.database)
            return
        made = make_world(database, settings)
        if door_name == "api":
            yield ApiDoor(await stack.enter_async_context(serving(made)), database)
            return
        dovecot: Dovecot = request.getfixturevalue("dovecot")
        user = f"contract.{tmp_path.name.lower()}@insurer.test"
        dovecot.deliver(user)
        source = MailSource(settings_for(box(dovecot, user)), _MailMemory(database), **QUICK)
        task = asyncio.create_task(source.run(made.flow.receive))
        yield MailDoor(dovecot, user, database)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def came_in(door: Door) -> list[Any]:
    return rows(door.database, Message, direction="in")


def note(record: Property, test: Any, door_name: str, text: str = "yes") -> None:
    cell(record, contract.TABLE, str(test.__doc__), door_name, text)


@every_door
async def test_every_text_comes_in_as_it_is_and_its_raw_form_is_kept(
    record_property: Property, door_name: str, door: Door
) -> None:
    note(record_property, contract.test_every_example, door_name)
    for key, text in TEXTS.items():
        await door.give(key, text)
    found = came_in(door)
    assert [each.text.strip() for each in found] == list(TEXTS.values())
    assert all(rows(door.database, Raw, message_id=each.id)[0].body for each in found)


@every_door
async def test_the_same_delivery_is_stored_once(record_property: Property, door_name: str, door: Door) -> None:
    note(record_property, contract.test_twice, door_name)
    for _time in range(3):
        await door.give("same", TEXTS["zh"])
    assert len(came_in(door)) == 1
    assert rows(door.database, Event, kind="duplicate_differs") == []


@every_door
async def test_who_has_no_right_to_write_is_refused(record_property: Property, door_name: str, door: Door) -> None:
    note(record_property, contract.test_refused, door_name)
    result = await door.nobody()
    if result is None:
        note(record_property, contract.test_refused, door_name, NONE)
        return
    assert result
    assert came_in(door) == []


@every_door
async def test_while_the_database_is_down_nothing_is_acknowledged(
    record_property: Property, door_name: str, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(record_property, contract.test_down, door_name)
    loop = asyncio.get_running_loop()

    def down(*_arguments: Any) -> list[Any]:
        loop.call_soon_threadsafe(door.asked.set)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise sa.exc.OperationalError("BEGIN", {}, error)

    with monkeypatch.context() as broken:
        broken.setattr(Database, "_together", down)
        sees = await door.give_in_vain("k", TEXTS["en"])
        assert came_in(door) == []
    await door.after_all("k", TEXTS["en"])
    assert [each.text.strip() for each in came_in(door)] == [TEXTS["en"]]
    note(record_property, contract.test_down, door_name, sees)
