"""Who asks how far their ticket is hears it from the ticket, on any channel, and nobody else does."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from domain import Message, public_number, ticket_id_of
from router import status
from settings import Settings
from storage.database import Database
from tests.worlds import World, make_world, message


@pytest.mark.parametrize(
    "text",
    [
        "进度怎么样了",
        "处理得怎么样了?",
        "请问有结果了吗",
        "我的工单到哪一步了",
        "處理進度？",
        "any update?",
        "Any news on this please",
        "where is my ticket",
        "What's happening with my request?",
        "status?",
    ],
)
def test_a_short_question_about_the_matter_is_one_about_the_ticket(text: str) -> None:
    assert status.asks(text, named=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "理赔进度怎么样了",
        "退款到哪一步了",
        "你好",
        "谢谢,已经处理好了",
        "where is my claim money, any update?",
        "please update my address",
        "I have been asked for the status of my policy",
        "进度" * 40,
        "The status quo cannot go on, " * 9,
    ],
)
def test_what_asks_for_something_else_is_left_to_people(text: str) -> None:
    assert not status.asks(text, named=False)


@pytest.mark.parametrize(
    "form", ["{}", "where is {}?", "工单{}进度怎么样了", "How far is my claim {}? any news", "{}。"]
)
def test_a_number_of_ones_own_may_stand_alone(form: str) -> None:
    assert status.asks(form.format("S-123456"), named=True)


def test_numbers_are_found_as_people_write_them() -> None:
    one, two = public_number(1), public_number(2)
    digits = one.removeprefix("S-")
    for text in (one, one.lower(), f"s{digits}", f"工单{one}呢", f"Ｓ－{digits}", f"S {digits}?"):
        assert status.numbers(text) == [1], text
    assert status.numbers(f"{one} and {two} and {one}") == [1, 2]
    for text in (f"POS-{digits}", f"{one}99999999", "S-012345", "S-1", "plain"):
        assert 1 not in status.numbers(text), text


# --- in the river -----------------------------------------------------------------------------------------------------


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


def line(text: str, sender: str = "ann", **values: Any) -> Message:
    return message(text, channel="sms", account="+1", sender=sender, thread=sender, **values)


async def answers(world: World, kind: str) -> list[str]:
    query = sa.text(
        "SELECT message.text FROM outbox JOIN message ON message.id = outbox.message_id WHERE kind = :kind ORDER BY 1"
    )
    return await world.database.read(lambda connection: list(connection.scalars(query, {"kind": kind})))


async def tickets(world: World) -> int:
    return await world.database.read(lambda connection: connection.scalar(sa.text("SELECT count(*) FROM ticket"))) or 0


async def test_the_ticket_of_the_conversation_answers_and_people_see_the_question(world: World) -> None:
    [first] = await world.come_in(line("#claim_status 我的理赔"))
    assert first.ticket_id
    [asked] = await world.come_in(line("进度怎么样了"))
    assert asked.ticket_id == first.ticket_id
    [said] = await answers(world, "status")
    number = public_number(first.ticket_id)
    assert f"工单 {number}：已收到，等待处理，由理赔部处理。预计不晚于" in said
    assert "http://sluice.test/t/" in said


async def test_a_number_leads_to_its_own_ticket_and_not_to_the_newest(world: World) -> None:
    [old] = await world.come_in(message("#claim_status one", channel="mail", sender="ann@example.com"))
    [new] = await world.come_in(message("#invoice_request two", channel="mail", sender="ann@example.com"))
    assert old.ticket_id != new.ticket_id
    number = public_number(old.ticket_id or 0)
    [asked] = await world.come_in(
        message(f"Where is my ticket {number}?", channel="mail", sender="ann@example.com", subject="?")
    )
    assert asked.ticket_id == old.ticket_id
    [said] = await answers(world, "status")
    assert f"Ticket {number}: received and waiting for a colleague, with Claims." in said


async def test_who_is_no_party_of_a_ticket_hears_nothing_of_it(world: World) -> None:
    [hers] = await world.come_in(line("#claim_status mine"))
    number = public_number(hers.ticket_id or 0)
    [other] = await world.come_in(line(f"where is my ticket {number}?", sender="bob"))
    assert other.ticket_id != hers.ticket_id
    assert await answers(world, "status") == []
    for text in await answers(world, "acknowledgement"):
        assert ticket_id_of(text.split("S-")[1][:6]) in (hers.ticket_id, other.ticket_id)


async def test_a_first_question_without_a_ticket_opens_one(world: World) -> None:
    await world.come_in(line("进度怎么样了"))
    assert await tickets(world) == 1
    assert await answers(world, "status") == []


async def test_who_asks_without_end_is_not_answered_without_end(world: World) -> None:
    await world.come_in(line("#claim_status 我的理赔"))
    for _ in range(6):
        await world.come_in(line("进度怎么样了"))
    assert len(await answers(world, "status")) == world.desk.limits.automatic_per_thread - 1
