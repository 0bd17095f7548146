"""An answer by another of the customer's channels, where the first cannot carry it or another is better."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from domain import ForbiddenMove, InvalidInput, Role, Standing, public_number
from router.arrivals import note
from router.identity import Identity
from router.replies import NoWay, Replies, Way
from tests.api_world import serving
from tests.identity_world import ADDRESS, LI, PHONE, come, joined, mail, owners, sms, telegram, whatsapp
from tests.reading import answers, event, incoming, on, ticket
from tests.worlds import World, message

pytest_plugins = ["tests.identity_fixtures"]

# --- answering on another channel -------------------------------------------------------------------------------------


async def ways(world: World, ticket_id: int) -> list[Way]:
    row = ticket(world.database, ticket_id)
    found: list[Way] = await world.database.read(lambda connection: Replies(world.desk).ways(connection, row))
    return found


async def test_an_answer_by_another_channel_and_what_is_said_to_it_are_of_the_ticket(
    world: World, verbs: Identity
) -> None:
    await come(world, mail(), sms(), sms("#claim_status of somebody else", sender="+8613900139000"))
    await joined(world, verbs, 1, 2)
    await on(world.database, world.verbs.reply("短信答复", by=("sms", PHONE)), 1, LI)
    box = answers(world.database)[-1]
    said = incoming(world.database, box.message_id)
    assert (box.channel, box.account, box.address, box.ticket_id) == ("sms", "+861069", PHONE, 1)
    assert (said.thread, said.extra, said.key[:4]) == (f"+861069 {PHONE}", None, "out.")
    assert event(world.database, "replied").data == {"message": said.id, "channel": "sms"}
    assert [each.ticket_id for each in await come(world, sms("thank you"))] == [1]
    # Nobody else's words come to it.
    other = await come(world, sms("thank you", sender="+8613900139000", thread=f"+861069 {PHONE}"))
    assert [each.ticket_id for each in other] != [1]
    # An answer to the SMS ticket itself takes the conversation back.
    await on(world.database, world.verbs.reply("and this"), 2, LI)
    assert [each.ticket_id for each in await come(world, sms("thanks again"))] == [2]


async def test_a_mail_instead_of_a_text_names_no_foreign_keys_and_its_answer_joins(
    world: World, verbs: Identity
) -> None:
    await come(world, telegram(key="tg-1"), mail(key="old@x"))
    await joined(world, verbs, 1, 2)
    await on(world.database, world.verbs.reply("by mail", by=("mail", "")), 1, LI)
    said = incoming(world.database, answers(world.database)[-1].message_id)
    assert (said.channel, said.extra, said.account) == ("mail", None, "mail")
    assert said.subject.endswith(public_number(1))
    joining = await come(world, mail("thanks", key="new@x", thread_keys=(said.key,), subject=f"Re: {said.subject}"))
    assert [each.ticket_id for each in joining] == [1]
    await on(world.database, world.verbs.reply("again", by=("mail", "li@example.com")), 1, LI)
    assert incoming(world.database, answers(world.database)[-1].message_id).extra == {"keys": [said.key, "new@x"]}
    await on(world.database, world.verbs.reply("own"), 1, LI)
    own = incoming(world.database, answers(world.database)[-1].message_id)
    assert (own.channel, own.extra) == ("telegram", {"keys": ["tg-1"]})


async def test_only_the_customer_s_own_addresses_can_be_answered_to(world: World) -> None:
    await come(world, mail(), sms())
    for by in (("sms", PHONE), ("sms", ""), ("mail", "eve@example.com")):
        with pytest.raises(NoWay) as refused:
            await on(world.database, world.verbs.reply("hello", by=by), 1, LI)
        assert refused.value.kind == "other"
    await on(world.database, world.verbs.reply("hello", by=("mail", "li@example.com")), 1, LI)
    assert answers(world.database)[-1].channel == "mail"


async def test_what_cannot_carry_an_answer_says_so_and_the_others_stay(world: World, verbs: Identity) -> None:
    await come(world, whatsapp(received_at=datetime.now(UTC) - timedelta(days=2)), mail(), telegram())
    await joined(world, verbs, 1, 2)
    await joined(world, verbs, 1, 3)
    blocked = Standing(channel="telegram", address="4711", at=datetime.now(UTC), refused="blocked")
    await world.database.write(lambda connection: note(connection, [blocked]))
    assert [(each.channel, each.own, each.problem) for each in await ways(world, 1)] == [
        ("whatsapp", True, "window"), ("mail", False, ""), ("telegram", False, "chosen"),
    ]  # fmt: skip
    for by, kind in ((None, "window"), (("telegram", "4711"), "chosen")):
        with pytest.raises(NoWay) as refused:
            await on(world.database, world.verbs.reply("hello", by=by), 1, LI)
        assert refused.value.kind == kind
    await on(world.database, world.verbs.reply("hello", by=("mail", "")), 1, LI)
    bounce = sa.update(ADDRESS).where(ADDRESS.c.channel == "mail").values(suppressed="bounced")
    await world.database.write(lambda connection: connection.execute(bounce))
    with pytest.raises(NoWay, match="came back"):
        await on(world.database, world.verbs.reply("hello", by=("mail", "")), 1, LI)


async def test_a_channel_without_a_way_out_is_answered_elsewhere(world: World, verbs: Identity) -> None:
    await come(world, message(channel="hotline", sender="7"), mail(), message(channel="post", sender="8"))
    with pytest.raises(ForbiddenMove, match="only brings messages"):
        await on(world.database, world.verbs.reply("hello"), 1, LI)
    await joined(world, verbs, 1, 2)
    await joined(world, verbs, 1, 3)
    assert [(each.channel, each.problem) for each in await ways(world, 1)] == [("hotline", "mute"), ("mail", "")]
    assert [(each.channel, each.problem) for each in await ways(world, 3)] == [("post", "no_way"), ("mail", "")]
    await on(world.database, world.verbs.reply("hello", by=("mail", "li@example.com")), 1, LI)
    with pytest.raises(InvalidInput, match="characters"):
        await joined_sms(world, verbs)


async def joined_sms(world: World, verbs: Identity) -> None:
    """What is too long for the channel that was chosen is told at once."""
    await come(world, sms())
    await joined(world, verbs, 1, owners(world)[f"sms:{PHONE}"])
    await on(world.database, world.verbs.reply("x" * 1001, by=("sms", PHONE)), 1, LI)


async def test_parting_cuts_what_was_answered_across(world: World, verbs: Identity) -> None:
    """P9: after it, the one customer's answer no longer lands in the other's ticket."""
    await come(world, mail(), sms())
    await joined(world, verbs, 1, 2)
    await on(world.database, world.verbs.reply("by text", by=("sms", PHONE)), 1, LI)
    await come(world, sms("thank you"))
    await on(world.database, verbs.part(1), 1, LI)
    [outcome] = await come(world, sms("and another thing"))
    assert outcome.ticket_id not in (None, 1)
    assert ticket(world.database, outcome.ticket_id).customer_id == 2


async def test_a_program_answers_by_another_channel_too(world: World, verbs: Identity) -> None:
    await come(world, mail(), sms(), telegram())
    await joined(world, verbs, 1, 2)
    path = f"/api/v1/tickets/{public_number(1)}"
    async with serving(world) as api, api.client(Role.AGENT) as program:
        for body, status in (
            ({"channel": "sms"}, 200),
            ({"channel": "sms", "address": PHONE}, 200),
            ({"channel": "telegram", "address": "4711"}, 409),  # another customer's
            ({"channel": "whatsapp"}, 409),
            ({"address": PHONE}, 422),
            ({"channel": "sms", "address": PHONE, "more": "x"}, 422),
            ({}, 200),
        ):
            answer = await program.post(f"{path}/reply", json={"text": "hello", **body})
            assert answer.status_code == status, (body, answer.text)
        said = (await program.get(path)).json()["messages"]
    assert [each["channel"] for each in said if each.get("kind") == "reply"] == ["sms", "sms", "mail"]
