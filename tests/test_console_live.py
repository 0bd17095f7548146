"""Live pages: what another process did is told, once each, to those who may know, and never with words in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from domain import ticket_id_of
from storage import events, tables
from storage.database import Database
from tests.console_world import Console, both
from web.auth import Visit
from web.console_live import Live, Trail
from web.words import words

pytestmark = both
pytest_plugins = ["tests.console_fixtures"]


@pytest.fixture
async def live(console: Console) -> AsyncIterator[Live]:
    """A poller that ends before its database does."""
    made = Live(console.world.database)
    yield made
    await _over(made)


async def _over(live: Live) -> None:
    live.close()
    if live._task is not None:
        await asyncio.wait([live._task], timeout=20)
        assert live._task.done()


def _visit(console: Console, name: str) -> Visit:
    actor = console.actor(name)
    person = type("Person", (), {"id": actor.person_id, "name": name})()
    return Visit(console.web, person, actor, "", words("en"))


async def _next(stream: AsyncIterator[dict[str, Any]], key: str) -> Any:
    """The next thing said under a key."""
    async with asyncio.timeout(20):
        async for said in stream:
            if key in said:
                return said[key]
    raise AssertionError("the stream ended")


async def _change(console: Console, number: str, text: str) -> None:
    verb = console.web.verbs.note(text)
    ticket_id = ticket_id_of(number)
    assert ticket_id is not None
    await console.world.database.write(lambda connection: verb(connection, ticket_id, console.actor("sun")))


async def test_a_page_hears_what_another_process_did(console: Console) -> None:
    number = await console.ticket()
    # A second connection to the same database, as a web process beside a worker has.
    elsewhere = Database(console.world.database.url.render_as_string(hide_password=False))
    live = Live(elsewhere)
    stream = live.follow(_visit(console, "li"))
    assert await _next(stream, "hello")
    await _change(console, number, "very private words")
    [told] = await _next(stream, "tickets")
    assert (told["n"], told["d"], told["k"]) == (number, "claims", ["noted"])
    assert "private" not in json.dumps(told)
    await _over(live)
    elsewhere.close()


async def test_hello_names_the_newest_event_that_is_not_told_any_more(console: Console, live: Live) -> None:
    """What happens before it, the page asks for; what happens after it, it is told: nothing falls between."""
    number = await console.ticket()
    before = await console.world.database.read(events.newest)
    first = live.follow(_visit(console, "li"))
    assert await _next(first, "at") == before
    await _change(console, number, "one")
    await _next(first, "tickets")
    second = live.follow(_visit(console, "sun"))
    assert await _next(second, "at") == await console.world.database.read(events.newest) > before
    await _change(console, number, "two")
    for stream in (first, second):
        assert [each["n"] for each in await _next(stream, "tickets")] == [number]


async def test_a_page_hears_only_of_its_departments(console: Console, live: Live) -> None:
    foreign = await console.ticket("#payment_problem x", sender="a@example.com")
    mine = await console.ticket("#claim_status x", sender="b@example.com")
    stream = live.follow(_visit(console, "li"))
    counts = await _next(stream, "counts")
    assert counts["claims"] == 1
    assert "billing" not in counts
    assert "review" not in counts
    await _change(console, foreign, "one")
    await _change(console, mine, "two")
    heard = [each["n"] for each in await _next(stream, "tickets")]
    assert heard == [mine]


async def test_pages_share_one_poller_that_stops_with_the_last(console: Console, live: Live) -> None:
    streams = [live.follow(_visit(console, name)) for name in ("li", "sun")]
    for stream in streams:
        await _next(stream, "hello")
    assert live._task is not None
    task = live._task
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        await task
    assert not live._pages


async def test_closing_ends_the_streams(console: Console, live: Live) -> None:
    stream = live.follow(_visit(console, "li"))
    await _next(stream, "hello")
    live.close()
    async with asyncio.timeout(20):
        rest = [said async for said in stream]
    assert all("hello" not in said for said in rest)


async def test_a_poller_that_dies_ends_its_streams_and_the_next_page_starts_another(
    console: Console, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = live.follow(_visit(console, "li"))
    await _next(stream, "hello")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Trail, "read", broken)
    async with asyncio.timeout(20):
        rest = [said async for said in stream]
    assert all("hello" not in said for said in rest)
    monkeypatch.undo()
    assert await _next(live.follow(_visit(console, "li")), "hello")


async def test_a_slow_page_is_told_to_load_again(console: Console, live: Live) -> None:
    numbers = [await console.ticket("#claim_status x", sender=f"{n}@example.com") for n in range(3)]
    stream = live.follow(_visit(console, "li"))
    await _next(stream, "hello")
    [page] = live._pages
    for _ in range(60):
        page.tell({"tickets": [{"n": numbers[0]}]})
    assert await _next(stream, "reset")


async def test_events_that_become_visible_late_are_told_once(console: Console) -> None:
    """PostgreSQL numbers events before their commit: 8 may be seen before 7."""
    number = await console.ticket()
    database, table = console.world.database, tables.table(tables.Event)
    newest = await database.read(events.newest)
    trail = Trail(newest)

    async def write(event_id: int) -> None:
        row = events.row("noted", "person:li", datetime.now(UTC), ticket_id=ticket_id_of(number))
        await database.write(lambda connection: connection.execute(sa.insert(table).values(id=event_id, **row)))

    async def read(clock: float) -> list[int]:
        rows, more = await database.read(lambda connection: trail.read(connection, clock))
        assert not more
        return [row.id - newest for row in rows]

    await write(newest + 1)
    await write(newest + 3)
    assert await read(0) == [1, 3]
    assert await read(1) == []
    await write(newest + 2)
    await write(newest + 4)
    assert await read(2) == [2, 4]
    await write(newest + 6)
    assert await read(3) == [6]
    # A number that never comes was rolled back: it is not waited for for ever.
    assert await read(1000) == []
    assert trail.holes == {}
