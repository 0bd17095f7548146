"""What Messenger's and Instagram's events become: messages, parts, notices, and what is left out with a reason."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from domain import AutomaticKind, OutState, PartKind, Standing, Status, Unreadable, Withdrawal
from router.standing import standing_of
from settings import Settings
from storage.database import Database
from storage.tables import Message
from tests import meta_server as meta
from tests import meta_world as world
from tests.api_world import Api, serving
from tests.meta_server import Deliveries, echo, happened, instagram, page, said
from tests.reading import incoming, rows, ticket, tickets, trail
from tests.worlds import make_world

CDN = "https://scontent.xx.fbcdn.net/v/t1/1.jpg?oh=00_Af"
OURS = "1517776481860111"
dm = partial(said, sender=meta.IGSID, to=meta.INSTAGRAM)


def file(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "payload": {"url": CDN} | payload}


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_has_its_page_its_writer_and_its_own_time() -> None:
    at = datetime.now(UTC).replace(microsecond=123000) - timedelta(minutes=7)
    given = said("我的理赔呢🙂", mid="m_7") | {"timestamp": int(at.timestamp() * 1000)}
    found = world.one(world.parse("messenger", page(given)))
    assert (found.channel, found.account, found.recipient) == ("messenger", meta.PAGE, meta.PAGE)
    assert (found.sender, found.thread, found.external_id) == (meta.PSID, meta.PSID, "m_7")
    assert (found.text, found.parts, found.received_at) == ("我的理赔呢🙂", (), at)
    assert json.loads(found.raw) == given
    assert found.answerable


@pytest.mark.parametrize(
    ("attachment", "kind", "text", "fetched"),
    [
        (file("image"), "image", "", CDN),
        (file("audio"), "audio", "", CDN),
        (file("video"), "video", "", CDN),
        (file("file"), "file", "", CDN),
        (file("sticker", sticker_id=3), "sticker", "", CDN),
        (file("image", sticker_id=369239263222822), "sticker", "", CDN),
        (file("story_mention"), "story", "", CDN),
        ({"type": "location", "title": "Home", "payload": {"coordinates": {"lat": 31.23, "long": 121.47}}},
         "location", "Home\n31.23, 121.47", None),
        ({"type": "fallback", "title": "A page", "url": "https://example.com/a", "payload": None},
         "link", "A page\nhttps://example.com/a", None),
        ({"type": "ig_post", "payload": {"title": "A post", "url": CDN, "ig_post_media_id": "1"}},
         "link", f"A post\n{CDN}", None),
        ({"type": "appointment_booking", "payload": {}}, "unknown", "appointment_booking", None),
        ({}, "unknown", "", None),
    ],
)  # fmt: skip
def test_attachments_are_typed_parts(attachment: Any, kind: str, text: str, fetched: str | None) -> None:
    found = world.one(world.parse("messenger", page(said("look", attachments=[attachment]))))
    assert world.parts(found) == [(kind, text, {"url": fetched} if fetched else None)]
    assert found.text == "look"


def test_several_pictures_of_one_message_are_its_parts_and_a_sticker_shown_twice_is_one() -> None:
    pictures = world.one(world.parse("messenger", page(said(attachments=[file("image"), file("image")]))))
    assert [each.kind for each in pictures.parts] == [PartKind.IMAGE] * 2
    twice = [file("sticker", sticker_id=3), file("image", sticker_id=3)]
    sticker = world.one(world.parse("messenger", page(said(attachments=twice))))
    assert [each.kind for each in sticker.parts] == [PartKind.STICKER]


def test_an_answer_names_what_it_answers_and_a_story_is_a_part() -> None:
    found = world.one(world.parse("messenger", page(said("yes", reply_to={"mid": "m_1", "is_self_reply": False}))))
    assert found.thread_keys == ("m_1",)
    story = world.one(world.parse("instagram", instagram(dm("how much?", reply_to={"story": {"url": CDN, "id": "1"}}))))
    assert (story.text, world.parts(story)) == ("how much?", [("story", "", {"url": CDN})])


def test_what_was_pressed_is_the_customers_word() -> None:
    postback = happened(postback={"title": "Talk to a person", "payload": "TALK", "mid": "m_8"})
    found = world.one(world.parse("messenger", page(postback)))
    assert (found.external_id, found.text) == ("m_8", "Talk to a person")
    assert [(each.kind, each.text, each.name) for each in found.parts] == [
        (PartKind.BUTTON, "Talk to a person", "TALK")
    ]
    quick = world.one(world.parse("messenger", page(said("Claims", quick_reply={"payload": "CLAIMS"}))))
    assert (quick.text, quick.parts[0].kind) == ("Claims", PartKind.BUTTON)


def test_what_brought_the_customer_is_a_part() -> None:
    ad = {"ref": "autumn", "source": "ADS", "ads_context_data": {"ad_title": "Home insurance"}}
    for given in (
        said("hi", referral=ad),
        happened(postback={"title": "Start", "referral": ad}),
        happened(referral=ad),
    ):
        found = world.one(world.parse("messenger", page(given)))
        assert ("link", "Home insurance\nautumn\nADS", None) in world.parts(found)


def test_an_edit_is_a_message_of_its_own_that_revises_the_first() -> None:
    edits = [happened(message_edit={"mid": "m_1", "text": f"text {n}", "num_edit": n}) for n in (1, 2)]
    first, second = world.messages(world.parse("messenger", page(*edits)))
    assert (first.text, first.revises, second.text, second.revises) == ("text 1", "m_1", "text 2", "m_1")
    assert len({first.external_id, second.external_id, "m_1"}) == 3


def test_a_reaction_is_a_part_and_taken_back_is_an_empty_one() -> None:
    given = happened(reaction={"mid": "m_1", "reaction": "love", "emoji": "❤️", "action": "react"})
    back = happened(reaction={"mid": "m_1", "action": "unreact"})
    first, second = world.messages(world.parse("messenger", page(given, back)))
    assert (world.parts(first), first.text, first.thread_keys) == ([("reaction", "❤️", None)], "", ("m_1",))
    assert world.parts(second) == [("reaction", "", None)]
    assert first.external_id != second.external_id
    assert not first.answerable


def test_a_conversation_that_another_app_leads_is_kept_and_not_answered_by_the_bot() -> None:
    body = meta.encoded({"object": "page", "entry": [{"id": meta.PAGE, "standby": [said("hello")]}]})
    found = world.one(world.parse("messenger", body))
    assert (found.text, found.answerable) == ("hello", False)


def test_an_event_in_the_newer_envelope_is_read_too() -> None:
    change = {"field": "messages", "value": said("hello")}
    body = meta.encoded({"object": "page", "entry": [{"id": meta.PAGE, "changes": [change]}]})
    assert world.one(world.parse("messenger", body)).text == "hello"


def test_a_page_that_meta_restricts_is_shown_to_people() -> None:
    given = happened(policy_enforcement={"action": "block", "reason": "spam"})
    [item] = world.parse("messenger", page(given)).items
    assert isinstance(item, Unreadable)
    assert "spam" in item.reason


# --- notices ----------------------------------------------------------------------------------------------------------


def test_what_was_delivered_is_told_by_id_and_a_watermark_tells_nothing() -> None:
    parsed = world.parse("messenger", page(happened(delivery={"mids": ["m_1", "m_2"], "watermark": 1})))
    assert [(each.provider_id, each.state) for each in world.told(parsed, Status)] == [
        ("m_1", OutState.DELIVERED),
        ("m_2", OutState.DELIVERED),
    ]
    for silent in (happened(read={"watermark": 1}), happened(delivery={"watermark": 1}),
                   happened(pass_thread_control={"new_owner_app_id": "1"})):  # fmt: skip
        parsed = world.parse("messenger", page(silent))
        assert (parsed.items, parsed.notices) == ((), ())


def test_what_is_unsent_is_withdrawn() -> None:
    parsed = world.parse("instagram", instagram(dm(mid="m_1", is_deleted=True)))
    assert parsed.items == ()
    withdrawn = world.told(parsed, Withdrawal)
    assert (withdrawn[0].account, withdrawn[0].external_id) == (meta.INSTAGRAM, "m_1")


def test_who_writes_takes_messages_again() -> None:
    parsed = world.parse("messenger", page(said("one"), said("two")))
    assert [(each.address, each.refused) for each in world.told(parsed, Standing)] == [(meta.PSID, None)]
    assert world.told(world.parse("messenger", page(echo("ours"))), Standing) == []


# --- echoes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"metadata": "sluice:k1"}, {"app_id": int(OURS)}, {"app_id": OURS}])
def test_an_echo_of_our_own_is_dropped(known: Any) -> None:
    parsed = world.parse("messenger", page(echo("ours", **known), account=meta.PAGE), app_ids=[OURS])
    assert (parsed.items, parsed.notices) == ((), ())


@pytest.mark.parametrize("other", [{}, {"app_id": 263902037430900}, {"metadata": "another program's"}])
def test_what_a_person_wrote_in_metas_inbox_is_kept_as_ours_in_the_customers_thread(other: Any) -> None:
    found = world.one(world.parse("messenger", page(echo("Li here, calling you", **other)), app_ids=[OURS]))
    assert found.automatic is not None
    assert found.automatic.kind is AutomaticKind.OWN
    assert (found.sender, found.thread, found.account) == (meta.PSID, meta.PSID, meta.PAGE)


@pytest.fixture
async def api(database: Database, settings: Settings) -> AsyncIterator[Api]:
    sender = world.make("messenger").sender
    assert sender is not None
    made = make_world(database, settings, carries={"messenger": sender.limits})
    async with serving(made, hooks=[world.hook_of("messenger"), world.hook_of("instagram")]) as api:
        yield api
    await sender.close()


async def deliver(api: Api, *bodies: bytes, name: str = "messenger") -> None:
    async with api.client() as client:
        await Deliveries(client, f"/hooks/{name}").send(*bodies)
    await api.world.flow.finish()


async def test_an_answer_in_metas_inbox_stands_on_the_ticket_and_changes_nothing_else(api: Api) -> None:
    database = api.world.database
    old = said("#claim_status where is it") | {
        "timestamp": int((datetime.now(UTC) - timedelta(hours=30)).timestamp() * 1000)
    }
    await deliver(api, page(old))
    before = ticket(database)
    await deliver(api, page(echo("Li here")), page(echo("Li here", mid="m_echo")), page(echo("Li here", mid="m_echo")))
    after = ticket(database)
    assert (after.state, after.waiting_since) == (before.state, before.waiting_since)
    assert trail(database, after.id).count("automatic_mail") == 2
    sender = world.make("messenger").sender
    assert sender is not None
    with database.reading() as connection:
        told = standing_of(connection, after.customer_id, "messenger", meta.PSID, sender.limits)
    assert "24 hours" in told.refusal, "what we wrote ourselves opens no window"
    await sender.close()


async def test_an_edit_an_unsent_message_and_a_reaction_end_on_the_one_ticket(api: Api) -> None:
    database = api.world.database
    await deliver(api, page(said("#claim_status where is it", mid="m_1")))
    await deliver(
        api,
        page(happened(message_edit={"mid": "m_1", "text": "#claim_status where are they", "num_edit": 1})),
        page(happened(reaction={"mid": "m_1", "emoji": "👍", "action": "react"})),
    )
    assert len(tickets(database)) == 1
    first, edited, reaction = rows(database, Message, direction="in")
    assert edited.extra["revises"] == "m_1"
    assert reaction.extra["parts"] == [{"kind": "reaction", "text": "👍"}]
    await deliver(api, page(said(mid="m_1", is_deleted=True)))
    assert [incoming(database, each.id).text for each in (first, edited)] == ["", ""]
    assert trail(database, ticket(database).id).count("withdrawn") == 1


async def test_an_unknown_echo_without_a_ticket_is_kept_and_opens_none(api: Api) -> None:
    await deliver(api, page(echo("We wish you a happy new year")))
    assert tickets(api.world.database) == []
    assert incoming(api.world.database, 1).state == "automatic"


async def test_the_same_person_on_two_pages_is_nobody_we_know(api: Api) -> None:
    """A page-scoped id says nothing about another page's: people are never merged without proof."""
    await deliver(api, page(said("#claim_status one")))
    await deliver(api, page(said("#claim_status two", sender="5005005005005005", to="777"), account="777"))
    assert await api.count("customer") == 2
    assert len(tickets(api.world.database)) == 2
