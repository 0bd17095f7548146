"""A small world with a Telegram bot: the channel as the application makes it, our Bot API, and the real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from channels import Channel, Surroundings, Take
from channels.settings import TelegramSettings
from channels.telegram import channel
from channels.telegram_listen import Pace
from router.arrivals import Arrivals
from router.delivery import Delivery
from router.media import Media
from settings import Settings
from storage import leases
from storage.database import Database
from tests.samples import NoLeases
from tests.telegram_server import TOKEN, BotApi
from tests.worlds import World, make_world

#: a group that is served
GROUP = -1001234
QUICK = Pace(poll=1, lease=60.0, look=0.05, first=0.01, most=0.05, slow=0.05)


def given(url: str, **values: Any) -> TelegramSettings:
    known: dict[str, Any] = {"enabled": True, "token": TOKEN, "api_url": url, "timeout": 2.0, "groups": [GROUP]}
    return TelegramSettings(**(known | values))


def make(url: str, pace: Pace = QUICK, **values: Any) -> Channel:
    return channel("telegram", given(url, **values), Surroundings("https://sluice.test", NoLeases()), pace)


@dataclass
class Held:
    """The leases of one process, in the database."""

    database: Database
    holder: str

    async def hold(self, name: str, seconds: float) -> bool:
        return await self.database.write(
            lambda connection: leases.hold(connection, name, self.holder, datetime.now(UTC), seconds)
        )


@dataclass
class Bot:
    """A process that listens, and its world."""

    world: World
    api: BotApi
    channel: Channel
    arrivals: Arrivals
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def listen(self, take: Take | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(self.channel.sources[0].run(take or self.arrivals.take))
        self.tasks.append(task)
        return task

    async def stop(self) -> None:
        """As a process that is killed: nothing is said to Telegram."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def rows(self, query: str) -> list[Any]:
        return await self.world.database.read(
            lambda connection: [tuple(row) for row in connection.execute(sa.text(query))]
        )

    async def texts(self) -> list[str]:
        query = "SELECT text FROM message WHERE channel = 'telegram' AND direction = 'in' ORDER BY id"
        return [str(row[0]) for row in await self.rows(query)]

    async def confirmed(self) -> None:
        """Everything that waited at Telegram was taken and confirmed."""
        await until(lambda: not self.api.waiting, "all updates are confirmed")


async def until(check: Any, what: str, seconds: float = 20.0) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.01)
            return
    raise AssertionError(f"not within {seconds:g} s: {what}")


@asynccontextmanager
async def telegram(
    database: Database, settings: Settings, api: BotApi, *, pace: Pace = QUICK, holder: str = "me", **values: Any
) -> AsyncIterator[Bot]:
    world = make_world(database, settings)
    around = Surroundings("https://sluice.test", Held(database, holder))
    made = channel("telegram", given(api.url, **values), around, pace)
    assert made.sender is not None
    assert made.fetcher is not None
    carries = {"telegram": made.sender.limits}
    world = make_world(database, settings, carries=carries)
    world.delivery = Delivery(database, replace(world.desk), {"telegram": made.sender})
    bot = Bot(world, api, made, Arrivals(database, world.flow))
    try:
        yield bot
    finally:
        await bot.stop()
        await bot.arrivals.close()
        await made.sender.close()


def media(bot: Bot) -> Media:
    assert bot.channel.fetcher is not None
    return Media(bot.world.database, {"telegram": bot.channel.fetcher})
