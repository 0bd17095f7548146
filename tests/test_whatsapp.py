"""WhatsApp's messages, statuses and templates. pywa, a library of others, says the same of the same payloads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pywa.client import WhatsApp
from pywa.types.message import DeletedMessage, EditedMessage
from pywa.types.message import Message as PywaMessage
from pywa.types.message_status import MessageStatus
from pywa.types.others import MessageType
from pywa.types.templates import BodyText, TemplateLanguage
from pywa.utils import webhook_updates_validator
from pywa_async.client import WhatsApp as AsyncWhatsApp

from channels.settings import WhatsAppSettings
from domain import AutomaticKind, ChannelError, OutState, PartKind, Status, Unreadable, Withdrawal
from tests import meta_server as meta
from tests import meta_world as world
from tests.meta_server import GraphServer, business, contact, status, whatsapp, wrote

PDF = {"id": "1003383421387256", "mime_type": "application/pdf", "filename": "报告.pdf", "sha256": "ianjM4k="}
DAY_AGO = timedelta(hours=25)


def parsed(message: Any, **value: Any) -> Any:
    return world.one(world.parse("whatsapp", whatsapp(message, **value)))


@pytest.fixture
async def graph() -> AsyncIterator[GraphServer]:
    async with GraphServer() as server:
        yield server


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_has_its_number_its_writer_and_its_own_time() -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=7)
    given = wrote(
        "text", "我的理赔呢🙂", timestamp=str(int(at.timestamp())), context={"id": "wamid.earlier", "from": "1"}
    )
    found = parsed(given)
    assert (found.account, found.recipient, found.sender, found.thread) == (
        meta.NUMBER, meta.NUMBER, meta.WA_ID, meta.WA_ID,
    )  # fmt: skip
    assert (found.sender_name, found.text, found.received_at) == ("李雷", "我的理赔呢🙂", at)
    assert (found.external_id, found.thread_keys) == (given["id"], ("wamid.earlier",))
    assert json.loads(found.raw)["messages"] == [given]
    assert json.loads(found.raw)["contacts"] == [contact()]


def test_each_of_a_batch_has_its_own_writers_name() -> None:
    other = "447911123456"
    body = whatsapp(
        wrote("text", "one"), wrote("text", "two", sender=other), contacts=[contact(), contact(other, "Ann")]
    )
    assert [(each.text, each.sender_name) for each in world.messages(world.parse("whatsapp", body))] == [
        ("one", "李雷"),
        ("two", "Ann"),
    ]


def test_who_hides_the_number_is_their_user_id_and_a_new_number_is_nobody_known() -> None:
    hidden = parsed(wrote("text", "hi", sender=meta.USER_ID), contacts=[contact(meta.USER_ID, "@li")])
    assert (hidden.sender, hidden.sender_name) == (meta.USER_ID, "@li")
    body = "User 李雷 changed from 8613800138000 to 8613900139000"
    changed = parsed(
        wrote("system", {"body": body, "wa_id": "8613900139000", "type": "user_changed_number"}), contacts=[]
    )
    assert (changed.sender, changed.text, changed.answerable) == (meta.WA_ID, "", False)
    assert world.parts(changed) == [("contact", f"{body}\n8613900139000", None)]


@pytest.mark.parametrize(
    ("kind", "content", "text", "part"),
    [
        ("image", {"id": "1", "mime_type": "image/jpeg", "caption": "our roof"}, "our roof",
         ("image", "", {"id": "1", "media_type": "image/jpeg"})),
        ("audio", {"id": "2", "mime_type": "audio/ogg; codecs=opus", "voice": True}, "",
         ("audio", "", {"id": "2", "media_type": "audio/ogg; codecs=opus"})),
        ("video", {"id": "3"}, "", ("video", "", {"id": "3"})),
        ("sticker", {"id": "4", "mime_type": "image/webp", "animated": False}, "",
         ("sticker", "", {"id": "4", "media_type": "image/webp"})),
        ("document", PDF | {"caption": "c"}, "c",
         ("file", "", {"id": PDF["id"], "name": "报告.pdf", "media_type": "application/pdf"})),
        ("location", {"latitude": 31.2304, "longitude": 121.4737, "name": "Bund", "address": "Zhongshan Rd"}, "",
         ("location", "Bund\nZhongshan Rd\n31.2304, 121.4737", None)),
        ("contacts", [{"name": {"formatted_name": "Ann B."}, "phones": [{"phone": "+44 20"}], "emails": []}], "",
         ("contact", "Ann B.\n+44 20", None)),
        ("button", {"text": "Yes", "payload": "YES"}, "Yes", ("button", "Yes", None)),
        ("interactive", {"type": "button_reply", "button_reply": {"id": "b", "title": "Claims"}}, "Claims",
         ("button", "Claims", None)),
        ("interactive", {"type": "list_reply", "list_reply": {"id": "l", "title": "Car", "description": "Cars"}}, "Car",
         ("button", "Car\nCars", None)),
        ("interactive", {"type": "nfm_reply", "nfm_reply": {"name": "flow", "response_json": '{"a":1}'}}, "",
         ("button", '{"a":1}', None)),
        ("reaction", {"message_id": "wamid.x", "emoji": "👍"}, "", ("reaction", "👍", None)),
        ("reaction", {"message_id": "wamid.x"}, "", ("reaction", "", None)),
        ("order", {"text": "please", "product_items": [{"product_retailer_id": "SKU", "quantity": 2}]}, "please",
         ("unknown", "SKU × 2", None)),
        ("hologram", {"depth": 3}, "", ("unknown", "hologram", None)),
    ],
)  # fmt: skip
def test_what_is_no_text_is_a_typed_part(kind: str, content: Any, text: str, part: Any) -> None:
    found = parsed(wrote(kind, content))
    assert (found.text, world.parts(found)) == (text, [part])


def test_what_whatsapp_itself_cannot_carry_is_unknown_with_its_reason() -> None:
    errors = [{"code": 131051, "title": "Message type unknown"}]
    found = parsed(wrote("unsupported", {"type": "poll"}, errors=errors))
    assert world.parts(found) == [("unknown", "Message type unknown\npoll", None)]


def test_what_brought_the_customer_is_a_part_beside_their_words() -> None:
    ad = {"source_url": "https://fb.me/x", "headline": "Home insurance", "source_type": "ad"}
    found = parsed(wrote("text", "hi", referral=ad, context={"referred_product": {"product_retailer_id": "SKU"}}))
    assert found.text == "hi"
    assert [(each.kind, each.text) for each in found.parts] == [
        (PartKind.LINK, "Home insurance\nhttps://fb.me/x"),
        (PartKind.LINK, "SKU"),
    ]


def test_an_edit_revises_and_a_revoked_message_is_withdrawn() -> None:
    inner = {"type": "text", "text": {"body": "12 June"}, "context": {}}
    edited = parsed(wrote("edit", {"original_message_id": "wamid.1", "message": inner}, id="wamid.2"))
    assert (edited.text, edited.revises, edited.external_id) == ("12 June", "wamid.1", "wamid.2")
    revoked = world.parse("whatsapp", whatsapp(wrote("revoke", {"original_message_id": "wamid.1"})))
    assert revoked.items == ()
    assert [each.external_id for each in world.told(revoked, Withdrawal)] == ["wamid.1"]


def test_what_is_said_in_a_group_and_a_reaction_are_not_answered_by_the_bot() -> None:
    assert parsed(wrote("text", "hi")).answerable
    assert not parsed(wrote("text", "hi", group_id="HBgGROUP")).answerable
    assert not parsed(wrote("reaction", {"emoji": "👍"})).answerable


def test_a_chat_that_was_only_opened_says_nothing() -> None:
    opened = world.parse("whatsapp", whatsapp(wrote("request_welcome")))
    assert (opened.items, opened.notices) == ((), ())


def test_what_we_wrote_on_a_phone_is_kept_as_ours_in_the_customers_thread() -> None:
    echo = {"from": "15550783881", "to": meta.WA_ID, "id": "wamid.e", "type": "text", "text": {"body": "Li here"}}
    value = {"metadata": {"phone_number_id": meta.NUMBER}, "message_echoes": [echo]}
    body = business({"field": "smb_message_echoes", "value": value})
    found = world.one(world.parse("whatsapp", body))
    assert found.automatic is not None
    assert found.automatic.kind is AutomaticKind.OWN
    assert (found.sender, found.thread, found.text) == (meta.WA_ID, meta.WA_ID, "Li here")


def test_a_fault_of_the_whole_number_is_shown_to_people() -> None:
    [item] = world.parse("whatsapp", whatsapp(errors=[{"code": 131031, "title": "Account locked"}])).items
    assert isinstance(item, Unreadable)
    assert "restricted" in item.reason


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "state"),
    [("sent", OutState.SENT), ("delivered", OutState.DELIVERED), ("read", OutState.DELIVERED),
     ("played", OutState.DELIVERED), ("failed", OutState.FAILED)],
)  # fmt: skip
def test_statuses_are_told_by_number_and_message(said: str, state: OutState) -> None:
    at = 1_760_000_000
    result = world.parse("whatsapp", whatsapp(statuses=[status("wamid.1", said, at=at)]))
    [told] = world.told(result, Status)
    assert (told.account, told.provider_id, told.state) == (meta.NUMBER, "wamid.1", state)
    assert told.at == datetime.fromtimestamp(at, UTC)
    assert result.items == ()


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([{"code": 131047, "title": "Re-engagement message"}], "another channel"),
        ([{"code": 131026, "title": "Message undeliverable"}], "cannot deliver"),
        ([{"code": 999999, "title": "Something new"}], "Something new"),
        ([], "could not deliver"),
        ("nonsense", "could not deliver"),
    ],
)
def test_why_a_message_failed_is_in_words(errors: Any, words: str) -> None:
    [told] = world.told(world.parse("whatsapp", whatsapp(statuses=[status("w", "failed", errors=errors)])), Status)
    assert words in told.reason


def test_a_status_that_is_not_known_changes_nothing() -> None:
    result = world.parse("whatsapp", whatsapp(statuses=[status("wamid.1", "dreamt_of")]))
    assert (result.items, result.notices) == ((), ())


# --- what goes out ----------------------------------------------------------------------------------------------------


def body(reply: Any, **changes: Any) -> Any:
    sender: Any = world.make("whatsapp", **changes).sender
    return sender.body(reply)


def late(text: str = "一切就绪。", **changes: Any) -> Any:
    return world.reply("whatsapp", text, heard_at=datetime.now(UTC) - DAY_AGO, **changes)


def test_within_a_day_text_is_sent_and_later_the_template_with_it() -> None:
    assert body(world.reply("whatsapp", "好"), template="answer") == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": meta.WA_ID,
        "type": "text",
        "text": {"body": "好", "preview_url": False},
    }
    assert body(late(), template="answer")["template"] == {
        "name": "answer",
        "language": {"code": "zh_CN"},
        "components": [{"type": "body", "parameters": [{"type": "text", "text": "一切就绪。"}]}],
    }


@pytest.mark.parametrize(
    ("language", "languages", "code"),
    [("zh-Hant", None, "zh_CN"), ("en", None, "en"), ("other", None, "en"), ("en", {"zh": "zh_HK"}, "zh_HK")],
)
def test_the_template_speaks_the_customers_language_where_it_can(language: str, languages: Any, code: str) -> None:
    given = {"template_languages": languages} if languages else {}
    assert body(late(language=language), template="answer", **given)["template"]["language"] == {"code": code}


def test_a_template_is_for_people_and_only_where_one_is_set() -> None:
    assert body(late(automatic=True), template="answer")["type"] == "text"
    assert body(late())["type"] == "text"
    without, with_one = world.make("whatsapp").sender, world.make("whatsapp", template="answer").sender
    assert without is not None
    assert with_one is not None
    assert (without.limits.window, with_one.limits.window) == (timedelta(days=1), None)
    assert (without.limits.automatic_window, with_one.limits.automatic_window) == (timedelta(days=1), timedelta(days=1))
    with pytest.raises(ValueError, match="template_languages"):
        WhatsAppSettings(template="answer", template_languages={})


@pytest.mark.parametrize("text", ["one\ntwo", "one\ttwo", "one     two", "x" * 1025, "a\u2028b", "one\r\ntwo"])
def test_what_the_template_cannot_hold_is_refused_in_words(text: str) -> None:
    with pytest.raises(ChannelError, match="one line") as raised:
        body(late(text), template="answer")
    assert raised.value.permanent
    assert body(world.reply("whatsapp", text), template="answer")["text"]["body"] == text


def test_a_template_holds_what_it_may() -> None:
    for text in ("x" * 1024, "one    two", "赔" * 1024, "\nends\n"):
        filled = body(late(text), template="answer")["template"]["components"][0]["parameters"][0]["text"]
        assert filled == text.strip()
    with pytest.raises(ChannelError):
        body(late("x", part=0, parts=2), template="answer")


# --- the second opinion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain", "我的理赔呢🙂", "http://x/?a=1&b=2"])
def test_pywa_finds_our_signatures_good_and_we_find_those_good_that_it_does(text: str) -> None:
    content = whatsapp(wrote("text", text))
    given = meta.signed(content)["X-Hub-Signature-256"]
    assert webhook_updates_validator(meta.SECRET, content, given)
    assert not webhook_updates_validator(meta.SECRET, content + b" ", given)
    world.parse("whatsapp", content)


def test_pywa_reads_the_same_in_the_same_payloads() -> None:
    client = WhatsApp(phone_id=meta.NUMBER, token=meta.TOKEN)
    for given in (
        wrote("text", "我的理赔呢🙂", context={"id": "wamid.e", "from": "1"}),
        wrote("image", PDF | {"caption": "c"}),
        wrote("location", {"latitude": 31.5, "longitude": 121.25, "name": "Bund"}),
        wrote("reaction", {"message_id": "wamid.x", "emoji": "👍"}),
        wrote("unsupported", {"type": "poll"}, errors=[{"code": 131051, "title": "t", "message": "m"}]),
    ):
        content = whatsapp(given)
        theirs: Any = PywaMessage.from_update(client, json.loads(content))
        ours: Any = world.one(world.parse("whatsapp", content))
        assert (ours.external_id, ours.sender, ours.sender_name) == (
            theirs.id, theirs.from_user.wa_id, theirs.from_user.name,
        )  # fmt: skip
        assert (ours.account, ours.received_at) == (theirs.metadata.phone_number_id, theirs.timestamp)
        match theirs.type:
            case MessageType.TEXT:
                assert (ours.text, ours.thread_keys) == (theirs.text, (theirs.reply_to_message.id,))
            case MessageType.IMAGE:
                assert (ours.text, ours.parts[0].reference["id"]) == (theirs.caption, theirs.image.id)
            case MessageType.LOCATION:
                assert ours.parts[0].text == f"Bund\n{theirs.location.latitude}, {theirs.location.longitude}"
            case MessageType.REACTION:
                assert ours.parts[0].text == theirs.reaction.emoji
            case _:
                assert ours.parts[0].kind is PartKind.UNKNOWN


def test_pywa_reads_the_same_in_edits_revocations_and_statuses() -> None:
    client = WhatsApp(phone_id=meta.NUMBER, token=meta.TOKEN)
    inner = {"type": "text", "text": {"body": "new"}}
    content = whatsapp(wrote("edit", {"original_message_id": "wamid.1", "message": inner}))
    edit, ours = EditedMessage.from_update(client, json.loads(content)), world.one(world.parse("whatsapp", content))
    assert (ours.revises, ours.external_id, ours.text) == (edit.original_message_id, edit.id, edit.message.text)
    content = whatsapp(wrote("revoke", {"original_message_id": "wamid.1"}))
    [withdrawn] = world.told(world.parse("whatsapp", content), Withdrawal)
    assert withdrawn.external_id == DeletedMessage.from_update(client, json.loads(content)).original_message_id
    failed = status("wamid.1", "failed", errors=[{"code": 131047, "title": "t", "message": "m"}])
    content = whatsapp(statuses=[failed], contacts=[contact()])
    theirs = MessageStatus.from_update(client, json.loads(content))
    [told] = world.told(world.parse("whatsapp", content), Status)
    assert (told.provider_id, told.state.value, told.at) == (theirs.id, theirs.status.value, theirs.timestamp)
    assert theirs.error is not None
    assert str(theirs.error.code) in told.reason


@pytest.mark.parametrize("to", [meta.WA_ID, meta.USER_ID])
async def test_pywa_posts_what_we_post(to: str, graph: GraphServer) -> None:
    session = httpx.AsyncClient()
    client = AsyncWhatsApp(phone_id=meta.NUMBER, token=meta.TOKEN, session=session)
    session.base_url = httpx.URL(f"{graph.url}/v25.0")
    await client.send_message(to=to, text="您好🙂")
    template = TemplateLanguage.CHINESE_CHN
    hole: Any = BodyText("{{1}}", "an answer")
    await client.send_template(to=to, name="answer", language=template, params=[hole.params("一切就绪。")])
    sender: Any = world.make("whatsapp", graph.url, template="answer").sender
    sent = await sender.send(world.reply("whatsapp", "您好🙂", to=to))
    await sender.send(late(to=to))
    await sender.close()
    await session.aclose()
    assert sent.provider_id.startswith("wamid.")
    theirs, their_template, ours, our_template = graph.sent
    assert ours.path == theirs.path == f"/v25.0/{meta.NUMBER}/messages"
    assert ours.headers["authorization"] == theirs.headers["authorization"]
    assert ours.json == theirs.json
    assert _small(our_template.json) == _small(their_template.json)


def _small(body: Any) -> Any:
    """Names as Meta takes them in either case."""
    return json.loads(json.dumps(body).replace('"BODY"', '"body"').replace('"TEXT"', '"text"'))
