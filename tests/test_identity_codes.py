"""Who is who: codes that prove it, and what only suggests it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from domain import InvalidInput, TooMany
from router import identity as who
from router.identity import Identity, Refused, code_in, mask
from router.replies import NoWay
from router.suggestions import suggestions, unconfirmed
from storage import chat, customers, identity
from storage.tables import Event, IdentityCode, IdentityMerge, table
from tests.identity_world import FIRST, LI, PHONE, SECOND, code_of, come, joined, mail, owners, sms, telegram, whatsapp
from tests.reading import answers, event, on, rows
from tests.worlds import World, message

pytest_plugins = ["tests.identity_fixtures"]

# --- a code -----------------------------------------------------------------------------------------------------------


async def test_a_code_said_on_the_first_channel_joins_the_address_that_it_was_sent_to(
    world: World, verbs: Identity
) -> None:
    await come(world, telegram(), mail())
    await on(world.database, verbs.send_code("mail", " Li@Example.com "), 1, LI)
    box = next(row for row in answers(world.database) if row.kind == "code")
    assert (box.channel, box.account, box.address, box.ticket_id, box.automatic) == (
        "mail", "mail", "li@example.com", None, True,
    )  # fmt: skip
    [code] = rows(world.database, IdentityCode)
    assert code_of(world) not in str(code._mapping)
    assert code_of(world) not in str([row.data for row in rows(world.database, Event)])
    [outcome] = await come(world, telegram(f" {code_of(world)}。"))
    assert outcome.ticket_id == 1
    assert set(owners(world).values()) == {1}
    [merge] = rows(world.database, IdentityMerge)
    assert merge.evidence == {
        "kind": "code", "shown": "l***@example.com", "channels": ["mail", "telegram"], "asked": "person:li",
    }  # fmt: skip
    found = event(world.database, "merged")
    assert (found.actor, found.ticket_id) == ("customer", 1)
    assert rows(world.database, IdentityCode)[0].ended_at is not None


async def test_a_code_to_an_address_that_never_wrote_makes_it_the_customer_s(world: World, verbs: Identity) -> None:
    await come(world, telegram())
    await on(world.database, verbs.send_code("mail", "new@example.com"), 1, LI)
    assert "mail:new@example.com" not in owners(world)
    await come(world, telegram(code_of(world)))
    assert owners(world)["mail:new@example.com"] == 1
    await on(world.database, verbs.part(1), 1, LI)
    assert owners(world)["mail:new@example.com"] == 2


async def test_a_right_code_in_a_conversation_of_its_own_joins_the_ticket_that_it_was_asked_on(
    world: World, verbs: Identity
) -> None:
    await come(world, message(sender="app-7"), mail())
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    [outcome] = await come(world, message(code_of(world), sender="app-7"))
    assert outcome.ticket_id == 1


@pytest.mark.parametrize("who_says", ["stranger", "target"])
async def test_a_code_counts_from_its_customer_s_other_address_alone(
    world: World, verbs: Identity, who_says: str
) -> None:
    await come(world, telegram(), mail())
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    said = mail(code_of(world)) if who_says == "target" else telegram(code_of(world), sender="666", thread="666")
    await come(world, said)
    assert rows(world.database, IdentityMerge) == []


async def test_a_code_dies_of_five_wrong_ones_and_of_age(world: World, verbs: Identity) -> None:
    await come(world, telegram(), mail())
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    right = code_of(world)
    wrong = f"{(int(right) + 1) % 10**6:06}"
    for number in range(5):
        assert rows(world.database, IdentityCode)[0].ended_at is None, number
        await come(world, telegram(wrong))
    await come(world, telegram(right))
    assert rows(world.database, IdentityMerge) == []
    assert rows(world.database, IdentityCode)[0].tries == 5
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    old = sa.update(table(IdentityCode)).values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await world.database.write(lambda connection: connection.execute(old))
    await come(world, telegram(code_of(world)))
    assert rows(world.database, IdentityMerge) == []


async def test_codes_are_few(world: World, verbs: Identity) -> None:
    await come(world, telegram())
    for _ in range(who.PER_HOUR):
        await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    with pytest.raises(TooMany):
        await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    for number in range(who.PER_DAY - who.PER_HOUR):
        await on(world.database, verbs.send_code("mail", f"li{number}@example.com"), 1, LI)
    with pytest.raises(TooMany):
        await on(world.database, verbs.send_code("mail", "last@example.com"), 1, LI)
    later = datetime.now(UTC) + timedelta(days=2)
    assert await world.database.write(lambda connection: identity.forget_codes(connection, later)) == who.PER_DAY


async def test_a_code_goes_only_where_it_can(world: World, verbs: Identity) -> None:
    await come(world, telegram(), mail(), whatsapp(received_at=datetime.now(UTC) - timedelta(days=3)))
    for channel, where, wrong in (
        ("mail", "not an address", InvalidInput),
        ("sms", "10086", InvalidInput),
        ("telegram", "12", InvalidInput),  # a bot cannot write first
        ("telegram", "4711", Refused),  # their own
        ("whatsapp", PHONE[1:], NoWay),  # the window is over
        ("hotline", "1", InvalidInput),
    ):
        with pytest.raises(wrong):
            await on(world.database, verbs.send_code(channel, where), 1, LI)
    assert rows(world.database, IdentityCode) == []
    await on(world.database, verbs.send_code("sms", "+86 138-0013 8000"), 1, LI)
    assert rows(world.database, IdentityCode)[0].address == PHONE


async def test_a_right_code_does_not_join_two_people(world: World, verbs: Identity) -> None:
    await come(world, telegram(f"#claim_status 身份证 {FIRST}"), mail(f"#claim_status 身份证 {SECOND}"))
    await on(world.database, verbs.send_code("mail", "li@example.com"), 1, LI)
    await come(world, telegram(code_of(world)))
    assert set(owners(world).values()) == {1, 2}
    assert event(world.database, "merge_refused").data == {"why": "differ", "evidence": "code"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("123456", "123456"),
        (" 123 456 ", "123456"),
        ("１２３４５６", "123456"),
        ("验证码：123456。", "123456"),
        ("Code 123-456", "123456"),
        ("my code is 123456", "123456"),
        ("12345", ""),
        ("1234567", ""),
        ("claim 123456", ""),
        ("123456 please", ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
def test_a_message_that_is_just_a_code(text: str, code: str) -> None:
    assert code_in(text) == code


@pytest.mark.parametrize(
    ("channel", "where", "shown"),
    [
        ("mail", "li@example.com", "l***@example.com"),
        ("sms", PHONE, "+86****8000"),
        ("whatsapp", PHONE[1:], "+86****8000"),
        ("telegram", "47110815", "****0815"),
    ],
)
def test_an_address_is_shown_so_that_nobody_is_reached_by_it(channel: str, where: str, shown: str) -> None:
    assert mask(channel, where) == shown


# --- suggestions ------------------------------------------------------------------------------------------------------


async def suggested(world: World, customer_id: int) -> list[tuple[int, str, bool]]:
    found = await world.database.read(lambda connection: suggestions(connection, world.desk, customer_id))
    return [(each.customer_id, each.kind, each.differ) for each in found]


async def test_what_may_be_made_up_is_told_to_people(world: World) -> None:
    await come(
        world,
        sms(),
        message(channel="phone", sender=PHONE),
        mail(),
        message(sender="li@example.com"),
        message(channel="chat", sender="visitor-1", thread="visitor-1"),
        telegram(),
    )

    def leave(connection: sa.Connection) -> None:
        chat.open_session(connection, "visitor-1", site="", language="zh", now=datetime.now(UTC))
        chat.change(connection, "visitor-1", contact="li@example.com")

    await world.database.write(leave)
    mine = owners(world)
    phone, post = mine[f"phone:{PHONE}"], mine["mail:li@example.com"]
    visitor, program = mine["chat:visitor-1"], mine["api:li@example.com"]
    assert await suggested(world, mine[f"sms:{PHONE}"]) == [(phone, "caller", False)]
    assert await suggested(world, visitor) == [(post, "contact", False)]
    assert sorted(await suggested(world, post)) == sorted(
        [(visitor, "contact", False), (program, "same_address", False)]
    )
    assert await suggested(world, mine["telegram:4711"]) == []


async def test_a_contact_of_nobody_s_yet_is_where_a_code_could_go(world: World) -> None:
    await come(world, message(channel="chat", sender="visitor-1", thread="visitor-1"))

    def leave(connection: sa.Connection, contact: str) -> list[Any]:
        chat.open_session(connection, "visitor-1", site="", language="zh", now=datetime.now(UTC))
        chat.change(connection, "visitor-1", contact=contact)
        return unconfirmed(connection, world.desk, customers.addresses(connection, 1))

    assert await on(world.database, leave, "Li@Example.com") == [("mail", "li@example.com")]
    assert await on(world.database, leave, "+86 138 0013 8000") == [("sms", PHONE)]
    assert await suggested(world, 1) == []


async def test_the_same_identity_card_suggests_and_another_forbids(world: World) -> None:
    await come(world, mail(f"#claim_status 身份证 {FIRST}"), telegram(f"#claim_status 身份证 {FIRST}"))
    assert await suggested(world, 1) == [(2, "identity", False)]
    await come(
        world,
        message("#claim_status", channel="phone", sender=PHONE),
        sms(f"#claim_status 身份证 {FIRST}"),
        message(f"#claim_status 身份证 {SECOND}", channel="phone", sender=PHONE),
    )
    caller, texter = owners(world)[f"phone:{PHONE}"], owners(world)[f"sms:{PHONE}"]
    assert (texter, "caller", True) in await suggested(world, caller)


async def test_who_was_parted_is_not_suggested_again(world: World, verbs: Identity) -> None:
    await come(world, mail(), message(sender="li@example.com"))
    assert len(await suggested(world, 1)) == 1
    await joined(world, verbs, 1, 2)
    assert await suggested(world, 1) == []
    await on(world.database, verbs.part(1), 1, LI)
    assert await suggested(world, 1) == []
