"""The way back: an outbox row is sent once, tried again where that is safe, and shown where nobody can know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from channels import Limits
from channels.replay import FakeSender
from domain import ChannelError, Receipt, Reply, Role
from router.delivery import Delivery
from router.settings import DeliverySettings
from router.tickets import Actor
from settings import Settings
from storage import outbox
from storage.database import Database
from storage.tables import Event, Outbox, table
from tests.reading import answers, event, incoming, on, rows, trail
from tests.worlds import World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)
NO = ChannelError("no", permanent=True)
LATER = ChannelError("later")
UNKNOWN = ChannelError("the line broke", unknown=True)


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    """A ticket whose acknowledgement is sent, so that a person's reply is the only one in the queue."""
    made = make_world(database, settings)
    await made.come_in(message("#claim_status", subject="Claim"))
    await made.delivery.send_due("api")
    made.sender.sent.clear()
    return made


async def reply(world: World, text: str = "hello") -> None:
    await on(world.database, world.verbs.reply(text), 1, LI)


async def due_now(database: Database) -> None:
    """The waits are over, and so are the holds."""

    def unit(connection: Connection) -> None:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(sa.update(table(Outbox)).values(next_at=past))
        connection.execute(sa.update(table(Outbox)).where(table(Outbox).c.state == "sending").values(held_until=past))

    await database.write(unit)


def newest(database: Database) -> Any:
    return answers(database)[-1]


# --- sent -------------------------------------------------------------------------------------------------------------


async def test_a_queued_answer_is_sent(world: World) -> None:
    await reply(world)
    assert newest(world.database).state == "queued"
    assert await world.delivery.send_due("api") == 1
    row = newest(world.database)
    assert (row.state, row.tries, row.provider_id, row.held_until) == ("sent", 1, "fake-1", None)
    [sent] = world.sender.sent
    stored = incoming(world.database, row.message_id)
    assert (sent.to, sent.text, sent.key, sent.automatic) == ("li@example.com", "hello", stored.key, False)
    assert (sent.subject, sent.message_id, sent.ticket_number[:2]) == ("Claim", row.message_id, "S-")
    assert trail(world.database, 1)[-1] == "sent"
    assert await world.delivery.send_due("api") == 0


class Channel(FakeSender):
    """A fake whose `send` is the test's."""

    def __init__(self, send: Any, **limits: Any) -> None:
        super().__init__(limits=Limits(**limits))
        self._answer = send

    async def send(self, reply: Reply) -> Receipt:
        self.sent.append(reply)
        return await self._answer(reply)  # type: ignore[no-any-return]


def with_channel(world: World, channel: FakeSender) -> Delivery:
    return Delivery(world.database, world.desk, {"api": channel})


async def test_a_channel_that_knows_says_delivered(world: World) -> None:
    async def send(_reply: Reply) -> Receipt:
        return Receipt("p", delivered=True)

    await reply(world)
    await with_channel(world, Channel(send)).send_due("api")
    assert newest(world.database).state == "delivered"


async def test_a_channel_without_a_way_out_leaves_answers_queued(world: World) -> None:
    await reply(world)
    stop = asyncio.Event()
    nowhere = Delivery(world.database, world.desk, {})
    running = asyncio.create_task(nowhere.run(stop))
    other = Delivery(world.database, world.desk, {"mail": world.sender})
    assert await other.send_due("mail") == 0
    stop.set()
    await running
    assert newest(world.database).state == "queued"
    assert world.sender.sent == []


async def test_a_nudge_wakes_the_sender(world: World) -> None:
    took = asyncio.Event()

    async def send(_reply: Reply) -> Receipt:
        took.set()
        return Receipt()

    delivery, stop = with_channel(world, Channel(send)), asyncio.Event()
    running = asyncio.create_task(delivery.run(stop))
    await reply(world)
    delivery.nudge()
    async with asyncio.timeout(30):
        await took.wait()
    stop.set()
    await running
    assert newest(world.database).state == "sent"


# --- not yet ----------------------------------------------------------------------------------------------------------


async def test_what_is_refused_for_now_is_tried_again_later(world: World) -> None:
    world.sender.errors = [LATER, ChannelError("slow down", retry_after=3600.0)]
    await reply(world)
    await world.delivery.send_due("api")
    row = newest(world.database)
    assert (row.state, row.tries, row.error) == ("queued", 1, "later")
    assert row.next_at > row.updated_at
    await due_now(world.database)
    await world.delivery.send_due("api")
    row = newest(world.database)
    assert row.next_at >= row.updated_at + timedelta(hours=1)
    await due_now(world.database)
    await world.delivery.send_due("api")
    assert (newest(world.database).state, newest(world.database).tries) == ("sent", 3)
    assert len({sent.key for sent in world.sender.sent}) == 1


async def test_waits_grow_with_jitter_to_a_bound(world: World) -> None:
    settings = world.desk.delivery
    for tries in range(1, 12):
        bound = min(settings.backoff_most, settings.backoff * 2 ** (tries - 1)).total_seconds()
        waits = [world.delivery.wait(tries, None) for _ in range(50)]
        assert all(0.5 <= wait <= bound for wait in waits)
        assert len(set(waits)) > 10
    assert world.delivery.wait(1, 5000.0) == 5000.0


async def test_after_so_many_tries_it_is_failed(database: Database, settings: Settings) -> None:
    world = make_world(database, settings, delivery=DeliverySettings(tries=2))
    await world.come_in(message())
    world.sender.errors = [LATER, LATER]
    for state in ("queued", "failed"):
        await due_now(database)
        await world.delivery.send_due("api")
        assert newest(database).state == state
    assert event(database, "failed").data["tries"] == 2


# --- never ------------------------------------------------------------------------------------------------------------


async def test_what_is_refused_for_good_is_failed_and_may_be_sent_again_by_a_person(world: World) -> None:
    world.sender.errors = [NO]
    await reply(world)
    await world.delivery.send_due("api")
    row = newest(world.database)
    assert (row.state, row.error) == ("failed", "no")
    await due_now(world.database)
    assert await world.delivery.send_due("api") == 0
    now = datetime.now(UTC)
    assert await world.database.write(lambda connection: outbox.requeue(connection, row.message_id, now))
    assert await world.delivery.send_due("api") == 1
    assert newest(world.database).state == "sent"
    assert not await world.database.write(lambda connection: outbox.requeue(connection, row.message_id, now))


async def test_what_is_longer_than_the_channel_takes_is_not_tried(world: World) -> None:
    channel = FakeSender(limits=Limits(text=3))
    await reply(world, "hello")
    await with_channel(world, channel).send_due("api")
    assert channel.sent == []
    assert newest(world.database).state == "failed"


# --- nobody knows -----------------------------------------------------------------------------------------------------


async def test_an_automatic_answer_that_is_unknown_is_never_sent_again(database: Database, settings: Settings) -> None:
    world = make_world(database, settings)
    await world.come_in(message())
    world.sender.errors = [UNKNOWN]
    await world.delivery.send_due("api")
    await due_now(database)
    assert await world.delivery.send_due("api") == 0
    row = newest(database)
    assert (row.state, row.error) == ("unknown", "the line broke")
    assert not await database.write(lambda connection: outbox.requeue(connection, row.message_id, datetime.now(UTC)))
    assert len(world.sender.sent) == 1
    assert event(database, "unknown").data["kind"] == "acknowledgement"


async def test_a_persons_answer_that_is_unknown_is_sent_once_more_under_its_key(world: World) -> None:
    world.sender.errors = [UNKNOWN, UNKNOWN]
    await reply(world)
    await world.delivery.send_due("api")
    row = newest(world.database)
    assert (row.state, row.repeated) == ("queued", True)
    await due_now(world.database)
    await world.delivery.send_due("api")
    await due_now(world.database)
    assert await world.delivery.send_due("api") == 0
    first, second = world.sender.sent
    assert first.key == second.key
    assert newest(world.database).state == "unknown"
    assert trail(world.database, 1)[-2:] == ["repeated", "unknown"]


async def test_a_repeated_answer_that_arrives_is_sent_and_shown_as_repeated(world: World) -> None:
    world.sender.errors = [UNKNOWN]
    await reply(world)
    await world.delivery.send_due("api")
    await due_now(world.database)
    await world.delivery.send_due("api")
    assert (newest(world.database).state, newest(world.database).repeated) == ("sent", True)


async def test_a_channel_that_does_not_answer_in_time_is_unknown(world: World) -> None:
    async def never(_reply: Reply) -> Receipt:
        await asyncio.Event().wait()
        return Receipt()

    await reply(world)
    await with_channel(world, Channel(never, deadline=0.01)).send_due("api")
    row = newest(world.database)
    assert (row.state, row.repeated) == ("queued", True)
    assert "no answer" in row.error


async def test_a_fault_in_a_channel_is_unknown_and_quotes_nobody(world: World) -> None:
    async def broken(reply: Reply) -> Receipt:
        raise RuntimeError(reply.text)

    await reply(world, "SECRETWORD")
    await with_channel(world, Channel(broken)).send_due("api")
    row = newest(world.database)
    assert row.repeated
    assert "SECRETWORD" not in row.error


# --- after a crash ----------------------------------------------------------------------------------------------------


async def claimed(database: Database) -> None:
    """A process takes what is due, and dies."""

    def unit(connection: Connection) -> None:
        assert outbox.claim(connection, ["api"], datetime.now(UTC), timedelta(seconds=60), 10)

    await database.write(unit)


async def test_a_row_that_is_being_sent_is_left_to_its_sender(world: World) -> None:
    await reply(world)
    await claimed(world.database)
    assert await world.delivery.recover() == 0
    assert await world.delivery.send_due("api") == 0
    assert newest(world.database).state == "sending"


@pytest.mark.parametrize("automatic", [True, False])
async def test_a_row_found_in_sending_after_a_crash_is_unknown(
    database: Database, settings: Settings, automatic: bool
) -> None:
    world = make_world(database, settings)
    await world.come_in(message())
    if not automatic:
        await world.delivery.send_due("api")
        await reply(world)
    world.sender.sent.clear()
    await claimed(database)
    await due_now(database)
    assert await world.delivery.recover() == 1
    await due_now(database)
    await world.delivery.send_due("api")
    row = newest(database)
    assert (row.state, row.repeated) == (("unknown", False) if automatic else ("sent", True))
    assert len(world.sender.sent) == (0 if automatic else 1)
    assert await world.delivery.recover() == 0


# --- two senders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


async def test_two_deliveries_send_no_row_twice(world: World, other: Database) -> None:
    for number in range(40):
        await reply(world, f"hello {number}")
    second = Delivery(other, world.desk, {"api": world.sender})
    counts = [0, 0]

    async def send_all(index: int, delivery: Delivery) -> None:
        while sent := await delivery.send_due("api"):
            counts[index] += sent

    await asyncio.gather(send_all(0, world.delivery), send_all(1, second))
    assert sum(counts) == 40
    assert sorted(sent.text for sent in world.sender.sent) == sorted(f"hello {number}" for number in range(40))
    assert {row.state for row in answers(world.database)} == {"sent"}


async def test_two_that_recover_at_once_write_one_event(world: World, other: Database) -> None:
    await reply(world)
    await claimed(world.database)
    await due_now(world.database)
    second = Delivery(other, world.desk, {})
    await asyncio.gather(world.delivery.recover(), second.recover())
    assert len(rows(world.database, Event, kind="repeated")) == 1


async def test_a_slow_channel_holds_up_no_other(world: World) -> None:
    gate, took = asyncio.Event(), asyncio.Event()

    async def slow(_reply: Reply) -> Receipt:
        await gate.wait()
        return Receipt()

    async def quick(_reply: Reply) -> Receipt:
        took.set()
        return Receipt()

    await reply(world)
    await world.come_in(message(channel="mail"))
    delivery = Delivery(world.database, world.desk, {"api": Channel(slow), "mail": Channel(quick)})
    stop = asyncio.Event()
    running = asyncio.create_task(delivery.run(stop))
    async with asyncio.timeout(30):
        await took.wait()
    assert not gate.is_set()
    gate.set()
    stop.set()
    await running
    assert newest(world.database).state == "sent"
