"""Who is who: joined by evidence and never by a name, parted again without a trace, forgotten together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from domain import InvalidInput, Message, public_number
from router.identity import Identity, Refused
from storage import customers, erase, identity
from storage.database import Database
from storage.tables import Customer, Event, IdentityCode, IdentityMerge, Ticket
from storage.tables import Message as MessageTable
from tests.identity_world import (
    CARRIES,
    FIRST,
    LI,
    PHONE,
    SECOND,
    code_of,
    come,
    joined,
    mail,
    of_messages,
    of_tickets,
    owners,
    sms,
    telegram,
    whatsapp,
)
from tests.reading import event, on, rows, tickets, trail
from tests.worlds import World, make_world, message

pytest_plugins = ["tests.identity_fixtures"]

# --- the same number --------------------------------------------------------------------------------------------------


async def test_a_number_that_two_providers_vouch_for_is_one_person(world: World) -> None:
    await come(world, sms())
    await come(world, whatsapp("#claim_status and here", sender_name="Wang"))
    assert set(owners(world).values()) == {1}
    assert of_tickets(world) == [1, 1]
    [merge] = rows(world.database, IdentityMerge)
    assert merge.evidence == {"kind": "same_number", "shown": "+86****8000", "channels": ["sms", "whatsapp"]}
    found = event(world.database, "merged")
    assert found.data == {"merge": 1, "kept": 1, "absorbed": 2, "evidence": "same_number"}
    assert PHONE not in str(merge.evidence)


async def test_two_channels_in_one_batch_are_one_person_too(world: World) -> None:
    await world.come_in(whatsapp(), sms())
    assert len(set(owners(world).values())) == 1
    assert len(set(of_tickets(world))) == 1
    assert None not in of_messages(world)


@pytest.mark.parametrize(
    "other",
    [
        message(channel="phone", sender=PHONE),  # who calls can show any number
        whatsapp(sender="US.13491208655302741918"),  # a name of WhatsApp's own, no number
        whatsapp(sender="8613800138001"),
        telegram(sender="8613800138000"),
        mail(sender="8613800138000@example.com"),
    ],
)
async def test_what_only_looks_alike_is_joined_by_nobody(world: World, other: Message) -> None:
    await come(world, sms(sender_name="Wang Li"))
    await come(world, replace(other, external_id="other", sender_name="Wang Li"))
    assert len(set(owners(world).values())) == 2
    assert rows(world.database, IdentityMerge) == []


async def test_a_short_code_is_no_number(world: World) -> None:
    await come(world, sms(sender="10086"), whatsapp(sender="10086"))
    assert len(set(owners(world).values())) == 2


async def test_a_number_that_changed_hands_is_not_joined(world: World) -> None:
    """The first message from there names another identity card."""
    await come(world, sms(f"#claim_status 身份证 {FIRST}"))
    await come(world, whatsapp(f"#claim_status 身份证 {SECOND}"))
    assert len(set(owners(world).values())) == 2
    await come(world, whatsapp(f"#claim_status 身份证 {SECOND}"))
    assert len(set(owners(world).values())) == 2


async def test_the_same_card_is_no_obstacle(world: World) -> None:
    await come(world, sms(f"#claim_status 身份证 {FIRST}"))
    await come(world, whatsapp(f"#claim_status 身份证 {FIRST}"))
    assert len(set(owners(world).values())) == 1


async def test_mail_and_programs_cost_no_lookup(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    really = identity.having_number

    def count(*given: Any) -> Any:
        asked.append(given)
        return really(*given)

    monkeypatch.setattr(identity, "having_number", count)
    await come(world, mail(), message())
    await come(world, sms())
    await come(world, sms("#claim_status again"))
    assert len(asked) == 1


# --- people decide, and undo ------------------------------------------------------------------------------------------


async def test_a_decision_moves_everything_and_undoing_it_gives_back_exactly_that(
    world: World, verbs: Identity
) -> None:
    await come(world, mail(sender_name="Li"), telegram("#claim_status on the phone"), message(sender="other"))
    before = owners(world), of_tickets(world), of_messages(world)
    assert await joined(world, verbs, 2, 1) == 1
    assert of_tickets(world) == [1, 1, 3]
    assert event(world.database, "merged").actor == "person:li"
    [merge] = rows(world.database, IdentityMerge)
    assert merge.evidence == {"kind": "agent", "reason": "they said so on the phone"}
    assert "reason" not in event(world.database, "merged").data
    assert await on(world.database, verbs.part(merge.id), 1, LI) == 2
    assert (owners(world), of_tickets(world), of_messages(world)) == before
    assert event(world.database, "unmerged").data == {"merge": 1, "kept": 1, "absorbed": 2}
    [merge] = rows(world.database, IdentityMerge)
    assert merge.undone_by == "person:li"
    with pytest.raises(Refused) as refused:
        await on(world.database, verbs.part(merge.id), 1, LI)
    assert refused.value.why == "undone"


async def test_what_came_later_goes_back_with_its_address(world: World, verbs: Identity) -> None:
    await come(world, mail(), telegram())
    await joined(world, verbs, 1, 2)
    await come(world, telegram("#claim_status the same thread"), mail("#claim_status another", key="b@x"))
    await come(world, telegram("#payment_problem", sender="4711", thread="other chat"))
    assert of_tickets(world) == [1, 1, 1, 1]
    await on(world.database, world.verbs.note("called them"), 2, LI)
    await on(world.database, world.verbs.reply("hello"), 2, LI)
    await on(world.database, verbs.part(1), 1, LI)
    assert of_tickets(world) == [1, 2, 1, 2]
    by_place = {(row.channel, row.customer_id) for row in rows(world.database, MessageTable)}
    assert by_place == {("mail", 1), ("telegram", 2)}
    await come(world, telegram("#claim_status and after"))
    assert of_messages(world)[-1] == 2


async def test_a_name_goes_over_where_there_is_none_and_back(world: World, verbs: Identity) -> None:
    await come(world, sms(), telegram(sender_name="Wang"))
    await joined(world, verbs, 1, 2)
    assert [row.name for row in rows(world.database, Customer)] == ["Wang", "Wang"]
    await on(world.database, verbs.part(1), 1, LI)
    assert [row.name for row in rows(world.database, Customer)] == ["", "Wang"]


async def test_merges_of_merges_are_undone_in_any_order(world: World, verbs: Identity) -> None:
    await come(world, mail(), telegram(), sms())
    before = owners(world), of_tickets(world), of_messages(world)
    for first, second in ((1, 2), (2, 1)):
        await joined(world, verbs, 2, 3)
        assert await joined(world, verbs, 3, 1) == 1
        assert of_tickets(world) == [1, 1, 1]
        base = len(rows(world.database, IdentityMerge)) - 2
        for number in (first, second):
            await on(world.database, verbs.part(base + number), 1 if number == 2 or first == 1 else 2, LI)
        assert (owners(world), of_tickets(world), of_messages(world)) == before


async def test_who_named_different_identity_cards_is_never_joined(world: World, verbs: Identity) -> None:
    await come(world, mail(f"#claim_status 我的身份证 {FIRST}"), telegram(f"#claim_status 身份证号 {SECOND}"))
    with pytest.raises(Refused, match="two people") as refused:
        await joined(world, verbs, 1, 2)
    assert refused.value.why == "differ"
    assert of_tickets(world) == [1, 2]
    assert rows(world.database, IdentityMerge) == []


async def test_joining_needs_a_reason_and_two_customers(world: World, verbs: Identity) -> None:
    await come(world, mail(), telegram())
    for reason in ("  ", "x" * 501):
        with pytest.raises(InvalidInput):
            verbs.decide(2, reason)
    with pytest.raises(Refused):
        await joined(world, verbs, 1, 1)
    await joined(world, verbs, 1, 2)
    with pytest.raises(Refused):
        await joined(world, verbs, 2, 1)
    with pytest.raises(Refused):
        await joined(world, verbs, 1, 77)


async def test_one_customer_s_ticket_is_the_other_s_only_while_they_are_one(world: World, verbs: Identity) -> None:
    """A ticket's number is believed of its own customer."""
    await come(world, mail(), telegram(thread=""))
    named = f"#claim_status about {public_number(1)}"
    [outcome] = await come(world, telegram(named, thread=""))
    assert outcome.ticket_id != 1
    await joined(world, verbs, 1, 2)
    [outcome] = await come(world, telegram(named, thread=""))
    assert outcome.ticket_id == 1


async def test_the_river_and_those_who_join_do_not_cross(world: World, verbs: Identity, database_url: str) -> None:
    """While another process joins and parts, every ticket and message is of who has its address."""
    second = Database(database_url)
    river = make_world(second, world.settings, carries=CARRIES)
    await come(world, mail(key="m0@x"), telegram())

    async def flow() -> None:
        for turn in range(12):
            await river.come_in(
                mail(key=f"m{turn + 1}@x"), telegram(thread=f"chat {turn}"), sms(sender=f"+861380013{turn:04}")
            )

    async def decide() -> None:
        for turn in range(8):
            await joined(world, verbs, 1, 2)
            if turn < 7:
                await on(world.database, verbs.part(turn + 1), 1, LI)

    await asyncio.gather(flow(), decide())
    second.close()
    mine = owners(world)
    assert mine["mail:li@example.com"] == mine["telegram:4711"] == 1
    of_ticket = {row.id: row.customer_id for row in tickets(world.database)}
    for row in rows(world.database, MessageTable):
        assert row.customer_id == mine[f"{row.channel}:{row.address}"] == of_ticket[row.ticket_id], row.id
    assert len(of_ticket) >= 12


# --- forgetting -------------------------------------------------------------------------------------------------------


async def test_forgetting_takes_those_who_were_joined_and_what_was_said_of_them(world: World, verbs: Identity) -> None:
    await come(world, mail(sender_name="Wang"), telegram(sender_name="Wang Li"), message(sender="other"))
    await joined(world, verbs, 1, 2)
    await on(world.database, verbs.send_code("sms", PHONE), 1, LI)

    def forget(connection: sa.Connection) -> None:
        assert customers.named(connection, "2") == [1]
        erase.customer(connection, 1, datetime.now(UTC), "person:li")

    await world.database.write(forget)
    assert [row.name for row in rows(world.database, Customer)] == ["", "", ""]
    assert [row.erased_at is not None for row in rows(world.database, Customer)] == [True, True, False]
    assert rows(world.database, IdentityMerge)[0].evidence == {"kind": "agent"}
    assert rows(world.database, IdentityCode) == []
    assert [row.address for row in rows(world.database, Ticket)] == ["", "", "other"]
    assert all(PHONE not in row.text and row.address != PHONE for row in rows(world.database, MessageTable))
    with pytest.raises(Refused) as refused:
        await on(world.database, verbs.part(1), 1, LI)
    assert refused.value.why == "erased"
    with pytest.raises(Refused):
        await joined(world, verbs, 3, 1)


async def test_events_hold_ids_and_labels_alone(world: World, verbs: Identity) -> None:
    await come(world, telegram(), mail(sender_name="Wang"))
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    await come(world, telegram(code_of(world)))
    await on(world.database, verbs.part(1), 1, LI)
    assert {"code_sent", "merged"} <= set(trail(world.database, 1))
    said = str([row.data for row in rows(world.database, Event)])
    assert "example.com" not in said
    assert "Wang" not in said
