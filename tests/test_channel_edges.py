"""The edges of the channels' ground: what once lost, doubled, leaked or blocked something there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from channels import Answer, Limits
from domain import (
    ChannelError,
    OutState,
    Part,
    PartKind,
    Receipt,
    Reply,
    Standing,
    Status,
    Withdrawal,
    public_number,
)
from router.arrivals import note
from router.delivery import Delivery
from router.media import Media
from settings import Settings
from storage import customers, erase, search, tickets, told
from storage.database import Database
from storage.spool import Spool
from tests.api_world import Api, serving
from tests.hook_channel import AGENT, NAME, FakeFetcher, FakeHook, FakeOut, delivery, line, rows
from tests.worlds import World, make_world


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


async def change(world: World, statement: str) -> None:
    await world.database.write(lambda connection: connection.execute(sa.text(statement)))


async def opened(world: World, sender: str = "ann", **values: Any) -> int:
    """A ticket of that sender whose receipt is gone."""
    [outcome] = await world.come_in(line(sender=sender, **values))
    await change(world, "UPDATE outbox SET state = 'sent' WHERE state = 'queued'")
    assert outcome.ticket_id
    return outcome.ticket_id


async def reply(world: World, text: str, ticket_id: int) -> None:
    verb = world.verbs.reply(text)
    await world.database.write(lambda connection: verb(connection, ticket_id, AGENT))


async def tell(world: World, *notices: Status | Standing | Withdrawal) -> None:
    await world.database.write(partial(note, notices=notices))


def delivered(provider_id: str) -> Status:
    return Status(channel=NAME, account="a", provider_id=provider_id, state=OutState.DELIVERED, at=datetime.now(UTC))


THREE = "first part. second part. third part."
OF_TWELVE = Limits(text=12, parts=5, receipts=True, ordered=True, deadline=0.4)


# --- the way out ------------------------------------------------------------------------------------------------------


async def test_each_message_of_a_long_answer_has_the_deadline_of_its_own(world: World) -> None:
    await reply(world, THREE, await opened(world))
    out = FakeOut(limits=OF_TWELVE)
    send = out.send

    async def slow(reply: Reply) -> Receipt:
        await asyncio.sleep(0.25)
        return await send(reply)

    out.send = slow  # type: ignore[method-assign]
    await Delivery(world.database, world.desk, {NAME: out}).send_due(NAME)
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("sent",)]


async def test_who_was_taken_for_dead_in_the_middle_of_an_answer_sends_no_more_of_it(world: World) -> None:
    await reply(world, THREE, await opened(world))
    out = FakeOut(limits=OF_TWELVE)
    delivery_ = Delivery(world.database, world.desk, {NAME: out})
    send = out.send

    async def lost(reply: Reply) -> Receipt:
        receipt = await send(reply)
        await change(world, "UPDATE outbox SET state = 'queued', next_at = created_at WHERE state = 'sending'")
        return receipt

    out.send = lost  # type: ignore[method-assign]
    await delivery_.send_due(NAME)
    assert [each.text for each in out.taken] == ["first part."]


async def test_an_answer_of_which_a_piece_is_unknown_is_not_delivered_because_another_was(world: World) -> None:
    await reply(world, THREE, await opened(world))
    await change(world, "UPDATE outbox SET repeated = (1 = 1) WHERE kind = 'reply'")
    out = FakeOut(limits=OF_TWELVE)
    send = out.send

    async def breaks(reply: Reply) -> Receipt:
        if out.taken:
            raise ChannelError("the line broke", unknown=True)
        return await send(reply)

    out.send = breaks  # type: ignore[method-assign]
    await Delivery(world.database, world.desk, {NAME: out}).send_due(NAME)
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("unknown",)]
    await tell(world, delivered("p1"))
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("unknown",)]


async def test_an_account_that_is_broken_holds_up_no_other_account(world: World) -> None:
    first, second = await opened(world), await opened(world, account="b")
    assert first != second
    await reply(world, "by the broken one", first)
    await reply(world, "by the good one", second)
    out = FakeOut()
    send = out.send

    async def broken(reply: Reply) -> Receipt:
        if reply.account == "a":
            raise ChannelError("the token is refused", broken=True)
        return await send(reply)

    out.send = broken  # type: ignore[method-assign]
    sender = Delivery(world.database, world.desk, {NAME: out})
    await sender.send_due(NAME)
    await sender.send_due(NAME)
    assert [each.text for each in out.taken] == ["by the good one"]


async def test_a_broken_way_out_is_not_red_for_ever_where_another_process_mended_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reply(world, "hello", await opened(world))
    out = FakeOut(results=[ChannelError("the token is refused", broken=True)])
    sender = Delivery(world.database, world.desk, {NAME: out})
    await sender.send_due(NAME)
    assert [each.ok for each in sender.healths.values()] == [False]
    await sender.recover()
    assert sender.healths
    later = asyncio.get_running_loop().time() + 300
    monkeypatch.setattr("router.delivery._now", lambda: later)
    await sender.recover()
    assert sender.healths == {}


async def test_what_a_provider_says_is_kept_whatever_characters_it_has(world: World) -> None:
    await reply(world, "hello", await opened(world, parts=(Part(kind=PartKind.FILE, reference={"id": "x"}),)))
    wrong = ChannelError("no \x00 \ud800", permanent=True)
    await Delivery(world.database, world.desk, {NAME: FakeOut(results=[wrong])}).send_due(NAME)
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("failed",)]
    await Media(world.database, {NAME: FakeFetcher({"x": wrong})}).fetch_due()
    assert await rows(world, "SELECT state FROM medium") == [("failed",)]
    failed = Status(
        channel=NAME, account="a", provider_id="p\x00", state=OutState.FAILED, at=datetime.now(UTC), reason="\ud800"
    )
    await tell(world, failed)
    assert await rows(world, "SELECT state FROM provider_message") == [("failed",)]


# --- the way in -------------------------------------------------------------------------------------------------------


async def test_a_part_with_characters_that_no_database_takes_is_stored_all_the_same(world: World) -> None:
    place = Part(kind=PartKind.LOCATION, text="caf\x00\ud83d", name="\udc00", reference={"id": "1\x00\ud83d"})
    [outcome] = await world.come_in(line("", parts=(place,)))
    assert outcome.ticket_id
    album: dict[str, Any] = {"merges": True, "external_id": "album", "parts": (place,)}
    await world.come_in(
        line("#claim_status", seen_at=("c", "1"), **album), line("\x00\ud83d", seen_at=("c", "2"), **album)
    )
    assert await rows(world, "SELECT count(*) FROM medium") == [(3,)]


async def test_what_is_taken_back_is_found_no_more_and_stands_in_no_list(world: World) -> None:
    ticket_id = await opened(world, text="#claim_status secretword here", external_id="m", subject="secretsubject")
    await tell(world, Withdrawal(channel=NAME, account="a", external_id="m", at=datetime.now(UTC)))

    def found(connection: sa.Connection) -> list[Any]:
        query = search.matching(connection, "secretword")
        assert query is not None
        return list(connection.scalars(query))

    assert await world.database.read(found) == []
    row = await world.database.read(lambda connection: tickets.get(connection, ticket_id))
    assert "secret" not in row.snippet + row.subject
    assert await rows(world, "SELECT tags FROM message WHERE external_id = 'm'") in ([(None,)], [("null",)])


async def test_a_new_wording_that_nobody_processed_yet_is_taken_back_too(world: World) -> None:
    await opened(world, external_id="m")
    await world.flow.receive([line("#claim_status secretword", external_id="m:2", revises="m")])
    await tell(world, Withdrawal(channel=NAME, account="a", external_id="m", at=datetime.now(UTC)))
    assert await rows(world, "SELECT text FROM message WHERE direction = 'in'") == [("",), ("",)]


async def test_a_hard_bounce_stays_whatever_the_customer_says_later(world: World) -> None:
    await opened(world)
    now = datetime.now(UTC)
    await change(world, "UPDATE address SET suppressed = 'bounced'")
    await tell(world, Standing(channel=NAME, address="ann", at=now, refused="opted_out"))
    await tell(world, Standing(channel=NAME, address="ann", at=now, refused=None))
    known = await world.database.read(lambda connection: customers.find(connection, [(NAME, "ann")]))
    assert known[NAME, "ann"].suppressed == "bounced"


# --- who hears what ---------------------------------------------------------------------------------------------------


async def test_how_far_a_ticket_is_goes_to_no_address_that_is_not_its_customers(world: World) -> None:
    mail: dict[str, Any] = {"channel": "mail", "account": "mail", "sender": "victim@example.com", "thread": ""}
    [first] = await world.come_in(line("#claim_status the roof", **mail))
    number = public_number(first.ticket_id or 0)
    await world.come_in(line(f"where is my ticket {number}?", reply_to="thief@example.net", **mail))
    query = "SELECT address FROM outbox WHERE address = 'thief@example.net'"
    assert await rows(world, query) == []
    await world.come_in(line(f"where is my ticket {number}?", **mail))
    query = "SELECT DISTINCT address FROM outbox WHERE kind = 'status'"
    assert await rows(world, query) == [("victim@example.com",)]


async def test_who_always_wants_answers_elsewhere_hears_there_how_far_a_ticket_is(world: World) -> None:
    mail: dict[str, Any] = {"channel": "mail", "account": "mail", "sender": "ann@example.com", "thread": ""}
    [first] = await world.come_in(line("#claim_status the roof", reply_to="ann@work.example", **mail))
    number = public_number(first.ticket_id or 0)
    await world.come_in(line(f"where is my ticket {number}?", reply_to="ann@work.example", **mail))
    assert await rows(world, "SELECT address FROM outbox WHERE kind = 'status'") == [("ann@work.example",)]


# --- erasing and forgetting -------------------------------------------------------------------------------------------


async def test_a_providers_ids_go_with_the_customer_since_they_may_hold_a_number(world: World) -> None:
    ticket_id = await opened(world)
    await reply(world, "hello", ticket_id)
    await Delivery(world.database, world.desk, {NAME: FakeOut()}).send_due(NAME)
    row = await world.database.read(lambda connection: tickets.get(connection, ticket_id))
    await world.database.write(
        partial(erase.customer, customer_id=row.customer_id, now=datetime.now(UTC), actor="person:root")
    )
    assert await rows(world, "SELECT count(*) FROM provider_message") == [(0,)]


async def test_what_was_said_of_messages_that_are_not_ours_is_forgotten(world: World) -> None:
    await reply(world, "hello", await opened(world))
    await Delivery(world.database, world.desk, {NAME: FakeOut()}).send_due(NAME)
    await tell(world, delivered("p1"), delivered("stranger"))
    now = datetime.now(UTC)
    await world.database.write(lambda connection: told.forget(connection, now - timedelta(days=30)))
    assert await rows(world, "SELECT count(*) FROM provider_message") == [(2,)]
    await world.database.write(lambda connection: told.forget(connection, now + timedelta(days=1)))
    assert await rows(world, "SELECT provider_id FROM provider_message") == [("p1",)]


# --- the spool --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with serving(world, hooks=[FakeHook(kept=Answer(b"success"))]) as made:
        yield made


async def test_what_can_never_be_brought_in_holds_up_nothing_else(api: Api, settings: Settings) -> None:
    folder = Path(settings.state_dir, "spool", NAME)
    hooks = api.web.hooks
    assert hooks is not None
    Spool(folder).keep(b"half a req")
    body = delivery({"id": "1", "from": "ann", "text": "#claim_status"})
    packed = base64.b64encode(body).decode()
    good = (
        f'{{"method":"POST","url":"u","rest":"","query":{{}},"headers":{{}},"body":"{packed}",'
        f'"received_at":"{datetime.now(UTC).isoformat()}"}}'
    )
    Spool(folder).keep(good.encode())
    assert await hooks.replay_once() == 1
    assert await api.count("message", channel=NAME) == 1
    assert hooks.spooled() == {NAME: 1}  # it is still there, and shown


def test_a_full_disk_is_not_filled_further_by_what_could_not_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.spool.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        Spool(tmp_path).keep(b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
