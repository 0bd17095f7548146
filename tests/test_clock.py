"""The clock: what is nearly late, late, and long resolved. Any number of clocks write each alarm once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from domain import Role, TicketState
from router.clock import Clock
from router.settings import RetentionSettings
from router.tickets import Actor
from settings import Settings
from storage import tallies
from storage.database import Database
from storage.tables import Customer, Event, Message, Raw, Tally
from tests.reading import event, incoming, on, rows, ticket, trail
from tests.worlds import World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    """A ticket of claims: 5 minutes to the first response, 3 days to the resolution."""
    made = make_world(database, settings)
    await made.come_in(message("#claim_status", thread="t"))
    return made


async def at(world: World, after: timedelta) -> None:
    """Let the clock run as it is so long after the ticket's opening."""
    now = ticket(world.database).created_at + after
    clock = Clock(world.database, world.desk, now=lambda: now)
    while await clock.tick():
        pass


def alarms(world: World) -> list[tuple[str, str]]:
    found = [row for row in rows(world.database, Event, actor="clock") if "promise" in row.data]
    return [(row.kind, row.data["promise"]) for row in found]


async def test_nothing_happens_before_its_time(world: World) -> None:
    before = ticket(world.database)
    await at(world, 4 * MINUTE - timedelta(microseconds=1))
    assert ticket(world.database) == before


async def test_a_ticket_is_warned_once_at_four_fifths_of_its_time(world: World) -> None:
    await at(world, 4 * MINUTE)
    row = ticket(world.database)
    assert (row.alarm, row.priority, row.alarms) == ("warned", "normal", ["first.warned"])
    assert row.next_alarm_at == row.first_due_at
    warned = event(world.database, "warned")
    assert (warned.actor, warned.ticket_id, warned.at) == ("clock", 1, row.created_at + 4 * MINUTE)
    await at(world, 4.5 * MINUTE)
    assert alarms(world) == [("warned", "first")]


async def test_a_broken_promise_is_written_once_and_raises_the_ticket(world: World) -> None:
    await at(world, 4 * MINUTE)
    await at(world, 5 * MINUTE)
    row = ticket(world.database)
    assert (row.alarm, row.priority) == ("breached", "high")
    await at(world, HOUR)
    assert alarms(world) == [("warned", "first"), ("breached", "first")]
    assert ticket(world.database).priority == "high"


async def test_what_is_late_when_the_clock_comes_is_late_and_not_nearly_late(world: World) -> None:
    await at(world, HOUR)
    assert alarms(world) == [("breached", "first")]
    await at(world, 4 * DAY)
    assert alarms(world) == [("breached", "first"), ("breached", "resolve")]
    row = ticket(world.database)
    assert (row.priority, row.next_alarm_at) == ("urgent", None)


async def test_a_persons_answer_keeps_the_first_promise_and_leaves_the_second(world: World) -> None:
    await on(world.database, world.verbs.reply("hello"), 1, LI)
    await at(world, HOUR)
    assert alarms(world) == []
    await at(world, 3 * DAY * 0.8)
    assert alarms(world) == [("warned", "resolve")]


async def test_a_ticket_that_waits_for_the_customer_is_not_late(world: World) -> None:
    await on(world.database, world.verbs.reply("which policy?", then=TicketState.PENDING), 1, LI)
    await at(world, 100 * DAY)
    assert alarms(world) == []


async def test_a_ticket_that_people_alert_to_keeps_its_alert_when_it_is_warned(world: World) -> None:
    await world.come_in(message("#legal #claim_status", thread="t"))
    await at(world, 4 * MINUTE)
    assert ticket(world.database).alarm == "alert"


async def test_a_resolved_ticket_closes_after_seven_days(world: World) -> None:
    await on(world.database, world.verbs.resolve("done"), 1, LI)
    resolved = ticket(world.database).resolved_at
    opened = ticket(world.database).created_at
    await at(world, resolved - opened + 7 * DAY - timedelta(microseconds=1))
    assert ticket(world.database).state == "resolved"
    await at(world, resolved - opened + 7 * DAY)
    row = ticket(world.database)
    assert (row.state, row.closed_at, row.next_alarm_at) == ("closed", resolved + 7 * DAY, None)
    closed = rows(world.database, Event)[-1]
    assert (closed.kind, closed.actor, closed.data) == ("state", "clock", {"from": "resolved", "to": "closed"})
    told = trail(world.database, 1)
    await at(world, 100 * DAY)
    assert trail(world.database, 1) == told


async def test_a_reopened_ticket_is_not_closed(world: World) -> None:
    await on(world.database, world.verbs.resolve("done"), 1, LI)
    await world.come_in(message(thread="t"))
    await at(world, 8 * DAY)
    assert ticket(world.database).state == "open"


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


async def test_two_clocks_at_once_write_one_event(world: World, other: Database) -> None:
    await world.come_in(*(message("#claim_status") for _ in range(10)))
    now = datetime.now(UTC) + HOUR
    clocks = [Clock(each, world.desk, now=lambda: now) for each in (world.database, other) for _ in range(2)]
    await asyncio.gather(*(clock.tick() for clock in clocks))
    assert sorted(row.ticket_id for row in rows(world.database, Event, kind="breached")) == list(range(1, 12))
    assert ticket(world.database, 11).priority == "high"


async def test_a_clock_runs_until_it_is_told_to_stop(world: World) -> None:
    now = datetime.now(UTC) + HOUR
    stop, seen = asyncio.Event(), asyncio.Event()

    def look() -> datetime:
        if alarms(world):
            seen.set()
        return now

    running = asyncio.create_task(Clock(world.database, world.desk, now=look).run(stop))
    async with asyncio.timeout(30):
        await seen.wait()
    stop.set()
    await running
    assert alarms(world) == [("breached", "first")]


# --- tidying ----------------------------------------------------------------------------------------------------------


async def tidy(world: World, after: timedelta, **keep: timedelta | None) -> None:
    desk = make_world(world.database, world.settings, retention=RetentionSettings(**keep)).desk
    now = datetime.now(UTC) + after
    await Clock(world.database, desk, now=lambda: now).tidy()


async def test_payloads_go_after_their_time_and_texts_and_digests_stay(world: World) -> None:
    await world.flow.receive([message("#boom", raw=b"in quarantine")])
    await world.flow.finish()
    await tidy(world, 9 * DAY, raw=10 * DAY)
    assert [row.body != b"" for row in rows(world.database, Raw)] == [True, True]
    await tidy(world, 11 * DAY, raw=10 * DAY)
    kept, held = rows(world.database, Raw)
    assert (kept.body, len(kept.fingerprint), held.body) == (b"", 64, b"in quarantine")
    assert incoming(world.database, 1).text == "#claim_status"


async def test_what_is_kept_for_ever_stays(world: World) -> None:
    await on(world.database, world.verbs.resolve("done"), 1, LI)
    await on(world.database, world.verbs.close, 1, LI)
    await tidy(world, 9999 * DAY, raw=None, automatic=None, closed=None)
    assert rows(world.database, Raw)[0].body != b""
    assert rows(world.database, Customer)[0].erased_at is None


async def test_words_go_after_the_last_ticket_closed(world: World) -> None:
    await on(world.database, world.verbs.resolve("done"), 1, LI)
    await on(world.database, world.verbs.close, 1, LI)
    await world.come_in(message("#claim_status", sender="wang@example.com"))
    await tidy(world, 9 * DAY, closed=10 * DAY)
    assert rows(world.database, Customer)[0].erased_at is None
    await tidy(world, 11 * DAY, closed=10 * DAY)
    gone, stays = rows(world.database, Customer)
    assert gone.erased_at is not None
    assert stays.erased_at is None
    assert {row.address for row in rows(world.database, Message)} == {"wang@example.com"}
    assert event(world.database, "erased").actor == "clock"


async def test_old_limits_are_forgotten(world: World) -> None:
    now = datetime.now(UTC)

    def count(connection: object) -> None:
        tallies.add(connection, {"domain:x.example": 1}, now, DAY)  # type: ignore[arg-type]

    await world.database.write(count)
    await tidy(world, timedelta(0))
    assert {"domain:x.example", "automatic"} <= {row.name for row in rows(world.database, Tally)}
    await tidy(world, 3 * DAY)
    left = {row.name for row in rows(world.database, Tally)}
    assert not {"domain:x.example", "automatic"} & left
    assert any(name.startswith("lag:") for name in left)
