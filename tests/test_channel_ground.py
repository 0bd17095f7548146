"""What every channel with a provider stands on: sending in pieces and in order, what providers say later, fetching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from channels import Limits, pieces, too_long
from domain import (
    ChannelError,
    ForbiddenMove,
    InvalidInput,
    OutState,
    Part,
    PartKind,
    Receipt,
    Reply,
    Standing,
    Status,
)
from router.arrivals import note
from router.delivery import Delivery
from router.media import Media
from router.tickets import Verbs
from settings import Settings
from storage import erase, leases, tickets
from storage.database import Database
from tests.hook_channel import AGENT, NAME, FakeFetcher, FakeOut, line, rows
from tests.worlds import World, make_world


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


async def reply(world: World, text: str, ticket_id: int, verbs: Verbs | None = None) -> None:
    verb = (verbs or world.verbs).reply(text)
    await world.database.write(lambda connection: verb(connection, ticket_id, AGENT))


async def opened(world: World, sender: str = "ann", **values: Any) -> int:
    """A ticket of that sender whose receipt is gone."""
    [outcome] = await world.come_in(line(sender=sender, **values))
    await world.database.write(lambda connection: connection.execute(sa.text("UPDATE outbox SET state = 'sent'")))
    assert outcome.ticket_id
    return outcome.ticket_id


# --- pieces -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.integers(4, 60), st.sampled_from([len, lambda text: len(text.encode())]))
def test_pieces_fit_and_lose_nothing_but_blanks_at_the_cuts(text: str, most: int, measure: Any) -> None:
    found = pieces(text, Limits(text=most, measure=measure))
    if measure(text) <= most:
        assert found == [text]
        return
    assert all(measure(each) <= most for each in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_text_is_cut_where_a_reader_would_pause() -> None:
    limits = Limits(text=24)
    assert pieces("We have your papers. They are complete.", limits) == ["We have your papers.", "They are complete."]
    assert pieces("您上传的理赔材料已经收到。审核需要三个工作日，请耐心等待。", limits)[0].endswith("收到。")
    family = "👨‍👩‍👧"
    assert "".join(pieces(family * 9, Limits(text=8))) == family * 9
    assert all(not each.startswith("\u200d") for each in pieces(family * 9, Limits(text=8)))


def test_what_is_too_long_is_said_in_the_channels_own_unit() -> None:
    limits = Limits(text=2048, measure=lambda text: len(text.encode()), unit="bytes", parts=2)
    assert too_long("好" * 1000, limits) == ""
    said = too_long("好" * 1500, limits)
    assert said == "This channel carries 2,048 bytes in each of 2 messages at most; this has 4,500."


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_a_long_answer_goes_out_in_pieces_and_a_repeat_begins_where_the_first_stopped(world: World) -> None:
    ticket_id = await opened(world)
    out = FakeOut(limits=Limits(text=12, parts=5, receipts=True, ordered=True))
    delivery = Delivery(world.database, world.desk, {NAME: out})
    await reply(world, "first part. second part. third part.", ticket_id)
    taken: list[str] = []
    send = out.send

    async def once(reply: Reply) -> Receipt:
        taken.append(reply.text)
        if len(taken) == 2:
            raise ChannelError("busy", retry_after=0)
        return await send(reply)

    out.send = once  # type: ignore[method-assign]
    await delivery.send_due(NAME)
    assert await rows(world, "SELECT state, done FROM outbox WHERE kind = 'reply'") == [("queued", 1)]
    await world.database.write(lambda c: c.execute(sa.text("UPDATE outbox SET next_at = created_at")))
    await delivery.send_due(NAME)
    assert taken == ["first part.", "second part.", "second part.", "third part."]
    assert len({each.key for each in out.taken}) == 3
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("sent",)]


async def test_answers_to_one_address_go_out_in_order_and_others_do_not_wait(world: World) -> None:
    first, other = await opened(world, "ann"), await opened(world, "bob")
    for text in ("one", "two"):
        await reply(world, text, first)
    await reply(world, "hello bob", other)
    out = FakeOut()
    send, slow = out.send, [ChannelError("slow down", retry_after=60)]

    async def busy(reply: Reply) -> Receipt:
        if reply.to == "ann" and slow:
            raise slow.pop()
        return await send(reply)

    out.send = busy  # type: ignore[method-assign]
    delivery = Delivery(world.database, world.desk, {NAME: out})
    assert await delivery.send_due(NAME) == 2
    assert [each.text for each in out.taken] == ["hello bob"]
    assert await delivery.send_due(NAME) == 0  # "two" waits for "one"
    await world.database.write(lambda c: c.execute(sa.text("UPDATE outbox SET next_at = created_at")))
    while await delivery.send_due(NAME):
        pass
    assert [each.text for each in out.taken] == ["hello bob", "one", "two"]


async def test_what_the_channel_cannot_carry_is_told_to_the_writer(world: World) -> None:
    limits = Limits(text=10, window=timedelta(hours=24), ordered=True)
    verbs = Verbs(replace(world.desk, carries={NAME: limits}))
    long_ago = datetime.now(UTC) - timedelta(hours=30)
    late = await opened(world, "late", received_at=long_ago)
    fresh = await opened(world, "fresh")
    with pytest.raises(InvalidInput, match="carries 10 characters at most; this has 26"):
        await reply(world, "much longer than ten chars", fresh, verbs)
    with pytest.raises(ForbiddenMove, match="for 24 hours after the customer's last message"):
        await reply(world, "hello", late, verbs)
    await reply(world, "hello", fresh, verbs)
    await world.database.write(
        partial(note, notices=[Standing(channel=NAME, address="fresh", at=datetime.now(UTC), refused="opted_out")])
    )
    with pytest.raises(ForbiddenMove, match="opted_out"):
        await reply(world, "hello", fresh, verbs)
    out = FakeOut(limits=limits)
    await Delivery(world.database, world.desk, {NAME: out}).send_due(NAME)
    assert out.taken == []  # the answer that was on its way is stopped as well
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("failed",)]
    await world.database.write(
        partial(note, notices=[Standing(channel=NAME, address="fresh", at=datetime.now(UTC), refused=None)])
    )
    await reply(world, "welcome", fresh, verbs)


async def test_who_blocked_us_is_remembered(world: World) -> None:
    ticket_id = await opened(world)
    await reply(world, "hello", ticket_id)
    out = FakeOut(results=[ChannelError("blocked by the user", permanent=True, refused="blocked")])
    await Delivery(world.database, world.desk, {NAME: out}).send_due(NAME)
    assert await rows(world, "SELECT suppressed FROM address") == [("blocked",)]


# --- what providers say later -----------------------------------------------------------------------------------------

SENT, DELIVERED, FAILED = OutState.SENT, OutState.DELIVERED, OutState.FAILED


def status(state: OutState, provider_id: str = "p1", reason: str = "") -> Status:
    return Status(channel=NAME, account="a", provider_id=provider_id, state=state, at=datetime.now(UTC), reason=reason)


async def tell(world: World, *said: Status) -> None:
    await world.database.write(partial(note, notices=said))


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ([SENT, DELIVERED], "delivered"),
        ([DELIVERED, SENT], "delivered"),
        ([DELIVERED, DELIVERED], "delivered"),
        ([DELIVERED, FAILED, DELIVERED], "failed"),
        ([FAILED, SENT], "failed"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
async def test_statuses_never_go_backwards_and_may_come_before_we_know(
    world: World, said: Sequence[OutState], end: str, early: bool
) -> None:
    ticket_id = await opened(world)
    await reply(world, "hello", ticket_id)
    delivery = Delivery(world.database, world.desk, {NAME: FakeOut()})
    if early:
        await tell(world, *map(status, said))
        await delivery.send_due(NAME)
    else:
        await delivery.send_due(NAME)
        for each in said:
            await tell(world, status(each))
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [(end,)]


async def test_of_an_answer_in_pieces_all_must_arrive_and_one_failure_is_one(world: World) -> None:
    ticket_id = await opened(world)
    await reply(world, "first part. second part.", ticket_id)
    out = FakeOut(limits=Limits(text=12, parts=5, receipts=True, ordered=True))
    await Delivery(world.database, world.desk, {NAME: out}).send_due(NAME)
    await tell(world, status(DELIVERED, "p1"))
    query = "SELECT state, error FROM outbox WHERE kind = 'reply'"
    assert await rows(world, query) == [("sent", "")]
    await tell(world, status(DELIVERED, "p2"))
    assert await rows(world, query) == [("delivered", "")]
    await tell(world, status(FAILED, "p2", "the number does not exist"))
    assert await rows(world, query) == [("failed", "the number does not exist")]


async def test_an_unknown_result_is_known_when_the_provider_says_it(world: World) -> None:
    ticket_id = await opened(world)
    await reply(world, "hello", ticket_id)
    delivery = Delivery(world.database, world.desk, {NAME: FakeOut()})
    await delivery.send_due(NAME)
    await world.database.write(lambda c: c.execute(sa.text("UPDATE outbox SET state = 'unknown'")))
    await tell(world, status(DELIVERED))
    assert await rows(world, "SELECT state FROM outbox WHERE kind = 'reply'") == [("delivered",)]


# --- fetching ---------------------------------------------------------------------------------------------------------


def picture(name: str) -> Part:
    return Part(kind=PartKind.IMAGE, name=name, reference={"id": name})


async def test_what_a_message_refers_to_is_fetched_once_and_a_failure_is_said(world: World) -> None:
    await world.come_in(line("#file_claim look", parts=(picture("good"), picture("gone"), picture("later"))))
    fetcher = FakeFetcher(
        {
            "good": b"\x89PNG\r\n\x1a\n...",
            "gone": ChannelError("it was deleted", permanent=True),
            "later": ChannelError("busy", retry_after=30),
        }
    )
    media = Media(world.database, {NAME: fetcher})
    assert await media.fetch_due() == 3
    assert await media.fetch_due() == 0
    assert sorted(fetcher.asked) == ["gone", "good", "later"]
    found = await rows(world, "SELECT part, state, reason FROM medium ORDER BY part")
    assert found == [(0, "fetched", ""), (1, "failed", "it was deleted"), (2, "waiting", "busy")]
    assert await rows(world, "SELECT name, size FROM attachment") == [("good", 11)]
    fetcher.files["later"] = b"here"
    due = "UPDATE medium SET next_at = (SELECT min(created_at) FROM ticket)"
    await world.database.write(lambda connection: connection.execute(sa.text(due)))
    assert await media.fetch_due() == 1
    assert await rows(world, "SELECT count(*) FROM attachment") == [(2,)]


async def test_a_customer_who_is_erased_takes_pictures_and_pieces_along(world: World) -> None:

    ticket_id = await opened(world, parts=(picture("good"),))
    await reply(world, "hello", ticket_id)
    await Delivery(world.database, world.desk, {NAME: FakeOut()}).send_due(NAME)
    await Media(world.database, {NAME: FakeFetcher({"good": b"x"})}).fetch_due()
    row = await world.database.read(lambda connection: tickets.get(connection, ticket_id))
    await world.database.write(
        partial(erase.customer, customer_id=row.customer_id, now=datetime.now(UTC), actor="person:root")
    )
    for table in ("medium", "attachment", "message", "outbox"):
        assert await rows(world, f"SELECT count(*) FROM {table}") == [(0,)], table


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_one_process_holds_a_lease_until_it_ends_or_is_given_back(database: Database) -> None:
    now = datetime.now(UTC)

    async def hold(holder: str, at: datetime) -> bool:
        return await database.write(lambda connection: leases.hold(connection, "telegram:1", holder, at, 30))

    assert await hold("a", now)
    assert not await hold("b", now + timedelta(seconds=29))
    assert await hold("a", now + timedelta(seconds=20))
    assert not await hold("b", now + timedelta(seconds=45))
    assert await hold("b", now + timedelta(seconds=51))
    assert not await hold("a", now + timedelta(seconds=52))
    await database.write(lambda connection: leases.give_back(connection, "b"))
    assert await hold("a", now + timedelta(seconds=53))
