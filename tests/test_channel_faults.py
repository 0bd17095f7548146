"""The fault matrix: what goes wrong between a provider and us, on every channel, and what became of the message.

Nothing is lost: what the provider tried to give is stored, and what we had to say is sent or shown as not sent. Nothing
is doubled: only a person's answer whose fate nobody can know goes out once more, and is shown as such (promise P2).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from channels import Sender
from domain import Role
from router.arrivals import Arrivals
from router.delivery import Delivery
from router.tickets import Actor
from settings import Settings
from storage import outbox
from storage.database import Database
from storage.tables import Message, Outbox, Ticket, table
from tests.api_world import serving
from tests.contract import NONE, Property, adapters, cell, samples_of
from tests.provider_server import HTML, ProviderServer, Said, provider
from tests.reading import rows
from tests.samples import Samples
from tests.test_channel_contract import Bench, channel_of
from tests.worlds import make_world

LI = Actor("person:li", Role.SUPERVISOR)
IN, OUT = "Faults on the way in: messages and tickets", "Faults on the way out: a person's answer / the bot's"
every_adapter = pytest.mark.parametrize("adapter", adapters())

#: what the provider says to one sending, and whether anybody can know afterwards what became of it
SAYS: dict[str, tuple[Said, bool]] = {
    "says nothing until we give up": (Said(silent=True), False),
    "cuts the line after it took it": (Said(cut=True), False),
    "says 429": (Said(429, {"Retry-After": "1", "Content-Type": "application/json"}, b"{}"), True),
    "says 500": (Said(500, {"Content-Type": "application/json"}, b"{}"), True),
    "says 503 by a proxy's page": (Said(503, {"Content-Type": "text/html"}, b"<html>busy</html>"), True),
    "says HTML where JSON belongs": (HTML, False),
}
OURS = ("is down", "takes it, we crash before we know", "would take it, we crash before we ask")


# --- the way out ------------------------------------------------------------------------------------------------------


@dataclass
class Way:
    """One channel's way out, to a provider that answers as told."""

    bench: Bench
    server: ProviderServer
    make: Callable[[], Sender]
    senders: list[Sender] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.bench.channel.name

    @property
    def database(self) -> Database:
        return self.bench.api.world.database

    def delivery(self) -> Delivery:
        """Of another process each time: nothing is remembered but what stands in the database."""
        self.senders.append(self.make())
        return Delivery(self.database, self.bench.api.world.desk, {self.name: self.senders[-1]})

    async def later(self, *, crashed: bool = False) -> None:
        """The waits are over, and where a process died, so is its hold."""

        def unit(connection: Connection) -> None:
            past = datetime.now(UTC) - timedelta(seconds=1)
            rows_of = table(Outbox)
            connection.execute(sa.update(rows_of).where(rows_of.c.state == "queued").values(next_at=past))
            if crashed:
                connection.execute(sa.update(rows_of).where(rows_of.c.state == "sending").values(held_until=past))

        await self.database.write(unit)

    async def settled(self, row_id: int) -> Any:
        """The row once nothing more happens to it."""
        for _try in range(10):
            await self.delivery().send_due(self.name)
            row = next(each for each in rows(self.database, Outbox) if each.id == row_id)
            if row.state not in ("queued", "sending"):
                return row
            await self.later()
        raise AssertionError(f"it never ends: {row.state}, {row.error}")


@asynccontextmanager
async def way_out(adapter: str, database: Database, settings: Settings) -> AsyncIterator[Way | None]:
    samples = samples_of(adapter)
    at = samples.at
    if at is None or samples.taken is None:
        yield None
        return
    async with provider(Said(*samples.taken), samples.beside) as server:
        channel, hook = channel_of(samples)
        assert channel.sender is not None

        def make() -> Sender:
            sender = at(server.url).sender
            assert sender is not None
            # The test decides when the next try is due, not the provider's rate.
            sender.limits = replace(sender.limits, rate=None)
            return sender

        world = make_world(database, settings, carries={channel.name: channel.sender.limits})
        async with serving(world, hooks=[hook]) as api:
            way = Way(Bench(samples, channel, hook, api), server, make)
            yield way
        for each in [channel.sender, *way.senders]:
            await each.close()


async def acknowledged(way: Way) -> int:
    """The outbox row of what the bot says to a customer's first message."""
    bench = way.bench
    assert (await bench.call(bench.example("en").call)).status_code == 200
    await bench.api.world.flow.process([each.id for each in bench.came_in() if each.state == "received"])
    [row] = rows(way.database, Outbox)
    return int(row.id)


async def answered(way: Way) -> int:
    """The outbox row of a person's answer to the same ticket."""
    [ticket] = rows(way.database, Ticket)
    await way.database.write(lambda connection: way.bench.api.world.verbs.reply("你好")(connection, ticket.id, LI))
    return int(rows(way.database, Outbox)[-1].id)


def seen(row: Any, taken: int) -> str:
    times = {0: "never", 1: "once", 2: "twice"}[taken]
    return f"{row.state} {times}" + (" (shown)" if row.repeated else "")


def check(row: Any, taken: int, *, knowable: bool) -> None:
    """0 lost, 0 doubled."""
    if row.automatic and not knowable:
        assert (row.state, row.repeated) in (("unknown", False), ("sent", False), ("delivered", False)), row.error
        assert taken <= 1
        return
    assert row.state in ("sent", "delivered"), (row.state, row.error)
    assert taken == 1 or (taken == 2 and row.repeated and not row.automatic)


@every_adapter
@pytest.mark.parametrize("fault", SAYS)
async def test_the_provider(
    fault: str, adapter: str, record_property: Property, database: Database, settings: Settings
) -> None:
    cell(record_property, OUT, f"the provider {fault}", adapter)
    said, knowable = SAYS[fault]
    results = []
    async with way_out(adapter, database, settings) as way:
        if way is None:
            cell(record_property, OUT, f"the provider {fault}", adapter, NONE)
            return
        for queue in (acknowledged, answered):
            row_id = await queue(way)
            way.server.script.append(said)
            way.server.sendings.clear()
            row = await way.settled(row_id)
            taken = len(way.server.sendings)
            check(row, taken, knowable=knowable and row.state != "unknown")
            results.append(seen(row, taken))
    cell(record_property, OUT, f"the provider {fault}", adapter, " / ".join(reversed(results)))


@every_adapter
@pytest.mark.parametrize("fault", OURS)
async def test_we_or_the_line(
    fault: str,
    adapter: str,
    record_property: Property,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell(record_property, OUT, f"the provider {fault}", adapter)
    results = []
    async with way_out(adapter, database, settings) as way:
        if way is None:
            cell(record_property, OUT, f"the provider {fault}", adapter, NONE)
            return
        for queue in (acknowledged, answered):
            row_id = await queue(way)
            way.server.sendings.clear()
            if fault == "is down":
                await way.server.stop()
                await way.delivery().send_due(way.name)
                await way.server.start()
                await way.later()
            elif fault.startswith("would"):
                hold = timedelta(seconds=9)
                await database.write(
                    partial(outbox.claim, channels=[way.name], now=datetime.now(UTC), hold=hold, limit=9)
                )
                await _die(way)
            else:

                async def dead(*_arguments: Any) -> None:
                    raise asyncio.CancelledError

                with monkeypatch.context() as crash:
                    crash.setattr(Delivery, "_settle", dead)
                    with pytest.raises(asyncio.CancelledError):
                        await way.delivery().send_due(way.name)
                await _die(way)
            row = await way.settled(row_id)
            taken = len(way.server.sendings)
            check(row, taken, knowable=fault == "is down")
            results.append(seen(row, taken))
    cell(record_property, OUT, f"the provider {fault}", adapter, " / ".join(reversed(results)))


async def _die(way: Way) -> None:
    """The process that was sending is gone, and another one finds what it left."""
    await way.later(crashed=True)
    assert await way.delivery().recover() == 1
    await way.later()


# --- the way in -------------------------------------------------------------------------------------------------------


@dataclass
class In:
    """One webhook, and the provider's part of the conversation with it."""

    bench: Bench
    samples: Samples
    settings: Settings

    async def give(self, name: str) -> int:
        return (await self.bench.call(self.bench.example(name).call)).status_code

    def texts(self, *names: str) -> int:
        return sum(len(self.bench.example(name).texts) for name in names)


Fault = Callable[[In, pytest.MonkeyPatch], Any]


async def the_same_thrice(into: In, _patch: pytest.MonkeyPatch) -> int:
    assert {await into.give("en") for _time in range(3)} == {200}
    return into.texts("en")


async def the_same_at_once(into: In, _patch: pytest.MonkeyPatch) -> int:
    assert set(await asyncio.gather(*(into.give("en") for _time in range(5)))) == {200}
    return into.texts("en")


async def out_of_order(into: In, _patch: pytest.MonkeyPatch) -> int:
    for name in ("emoji", "en", "zh", "emoji"):
        assert await into.give(name) == 200
    return into.texts("emoji", "en", "zh")


class Killed(BaseException):
    """No fault that anything could answer to: the process is gone."""


async def crash_before_commit(into: In, patch: pytest.MonkeyPatch) -> int:
    async def dead(*_arguments: Any) -> None:
        raise Killed

    with patch.context() as crash:
        crash.setattr(Arrivals, "take", dead)
        with pytest.raises(Killed):
            await into.give("en")
    assert into.bench.came_in() == []
    assert await into.give("en") == 200
    return into.texts("en")


async def crash_after_commit(into: In, patch: pytest.MonkeyPatch) -> int:
    """The row is there, the provider heard nothing and comes again; nobody rang the bell."""
    take = Arrivals.take

    async def dead(*arguments: Any) -> None:
        await take(*arguments)
        raise Killed

    with patch.context() as crash:
        crash.setattr(Arrivals, "take", dead)
        with pytest.raises(Killed):
            await into.give("en")
    assert len(into.bench.came_in()) == into.texts("en")
    assert await into.give("en") == 200
    return into.texts("en")


async def the_line_is_cut(into: In, patch: pytest.MonkeyPatch) -> int:
    """The provider hangs up while we store: it is stored or not, and the next try stores it once."""
    take, begun = Arrivals.take, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        begun.set()
        return await take(*arguments)

    with patch.context() as watched:
        watched.setattr(Arrivals, "take", slow)
        call = asyncio.create_task(into.give("en"))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert await into.give("en") == 200
    return into.texts("en")


WAYS: dict[str, Fault] = {
    "the same three times": the_same_thrice,
    "the same five times at once": the_same_at_once,
    "out of order, one twice": out_of_order,
    "our crash before the commit": crash_before_commit,
    "our crash after the commit": crash_after_commit,
    "the line is cut while we store": the_line_is_cut,
}


@every_adapter
@pytest.mark.parametrize("fault", WAYS)
async def test_on_the_way_in(
    fault: str,
    adapter: str,
    record_property: Property,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell(record_property, IN, fault, adapter)
    samples = samples_of(adapter)
    channel, hook = channel_of(samples)
    async with serving(make_world(database, settings), hooks=[hook]) as api:
        expected = await WAYS[fault](In(Bench(samples, channel, hook, api), samples, settings), monkeypatch)
    # Another process takes up what the first one left.
    after = make_world(database, settings)
    await after.flow.finish()
    found = rows(database, Message, direction="in")
    assert len(found) == expected
    assert {each.state for each in found} <= {"ticketed", "appended", "automatic"}
    opened = [each for each in found if each.state == "ticketed"]
    assert len(rows(database, Ticket)) == len(opened)
    if channel.sender is not None:
        await channel.sender.close()
    cell(record_property, IN, fault, adapter, f"{len(found)} of {expected}, {len(opened)} opened")
