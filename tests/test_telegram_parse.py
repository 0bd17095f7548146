"""What one update of the Bot API means: words, parts, keys, commands, buttons; and that nothing breaks it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as fuzzed
from hypothesis import strategies as st

from channels import telegram_buttons as buttons
from channels.telegram_parse import Found, read
from domain import AutomaticKind, Message, PartKind, Rating, Standing, Unreadable

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SENT = NOW - timedelta(minutes=3)
GROUP, TOPIC = -1001234, 55
LI = {"id": 7, "is_bot": False, "first_name": "Li", "last_name": "Na", "language_code": "en"}
PRIVATE = {"id": 7, "type": "private", "first_name": "Li"}
FILE = {"file_id": "F", "file_unique_id": "U", "file_size": 12}


def found(update: Any) -> Found:
    return read(update, json.dumps(update).encode(), bot="42", groups=[GROUP], now=NOW)


def note(**values: Any) -> dict[str, Any]:
    return {"message_id": 5, "date": int(SENT.timestamp()), "chat": PRIVATE, "from": LI} | values


def said(**values: Any) -> Message:
    [item] = found({"update_id": 1, "message": note(**values)}).items
    assert isinstance(item, Message)
    return item


def edit(**values: Any) -> Found:
    edited = int((SENT + timedelta(seconds=30)).timestamp())
    return found({"update_id": 2, "edited_message": note(**({"edit_date": edited} | values))})


def test_a_message_carries_who_where_and_when() -> None:
    item = said(text="我的理赔呢🙂")
    assert (item.account, item.external_id, item.sender, item.thread) == ("42", "7:5", "7", "7")
    assert (item.text, item.sender_name, item.received_at) == ("我的理赔呢🙂", "Li Na", SENT)
    assert json.loads(item.raw)["message"]["text"] == "我的理赔呢🙂"
    assert item.seen_at is None  # numbers of updates may come round again after a week


@pytest.mark.parametrize(("days", "expected"), [(-400, NOW), (2, NOW), (-1, NOW - timedelta(days=1))])
def test_a_time_that_cannot_be_right_is_the_time_of_the_delivery(days: int, expected: datetime) -> None:
    assert said(text="a", date=int((NOW + timedelta(days=days)).timestamp())).received_at == expected


@pytest.mark.parametrize(
    ("content", "kind", "text", "media_type"),
    [
        ({"photo": [FILE | {"width": 9, "height": 9, "file_id": "small"}, FILE | {"width": 90, "height": 90}]},
         PartKind.IMAGE, "", "image/jpeg"),
        ({"voice": FILE | {"duration": 2}}, PartKind.AUDIO, "", "audio/ogg"),
        ({"video_note": FILE | {"duration": 2, "length": 3}}, PartKind.VIDEO, "", "video/mp4"),
        ({"document": FILE | {"mime_type": "application/pdf", "file_name": "保单.pdf"}},
         PartKind.FILE, "", "application/pdf"),
        ({"document": FILE | {"mime_type": "image/heic"}}, PartKind.IMAGE, "", "image/heic"),
        ({"document": FILE | {"mime_type": "text/html\r\nX-Evil: 1"}},
         PartKind.FILE, "", "application/octet-stream"),
        ({"animation": FILE | {"duration": 2, "width": 3, "height": 3}, "document": FILE},
         PartKind.VIDEO, "", "video/mp4"),
        ({"sticker": FILE | {"type": "regular", "width": 3, "height": 3, "is_animated": False, "is_video": False,
                             "emoji": "😡"}}, PartKind.STICKER, "😡", ""),
        ({"location": {"latitude": 31.2, "longitude": 121.5}}, PartKind.LOCATION, "31.2, 121.5", ""),
        ({"location": {"latitude": 31.2, "longitude": 121.5},
          "venue": {"location": {"latitude": 31.2, "longitude": 121.5}, "title": "Garage", "address": "1 Road"}},
         PartKind.LOCATION, "Garage, 1 Road (31.2, 121.5)", ""),
        ({"contact": {"phone_number": "+8613800000000", "first_name": "Wang"}},
         PartKind.CONTACT, "Wang, +8613800000000", ""),
        ({"story": {"chat": PRIVATE, "id": 1}}, PartKind.STORY, "", ""),
        ({"dice": {"emoji": "🎲", "value": 4}}, PartKind.UNKNOWN, "dice", ""),
        ({"hologram": {"of": "a kind that is not there yet"}}, PartKind.UNKNOWN, "unknown", ""),
    ],
)  # fmt: skip
def test_what_is_no_words_is_a_typed_part(content: dict[str, Any], kind: PartKind, text: str, media_type: str) -> None:
    item = said(**content)
    [part] = item.parts
    assert (item.text, part.kind, part.text, part.media_type) == ("", kind, text, media_type)
    assert (part.reference is not None) == bool(media_type)
    if part.reference is not None:
        assert part.reference["file_id"] == "F"
        assert part.reference["size"] == "12"


def test_a_caption_is_the_customers_words() -> None:
    item = said(voice=FILE | {"duration": 2}, caption="listen to this")
    assert (item.text, [each.kind for each in item.parts]) == ("listen to this", [PartKind.AUDIO])


def test_a_rich_message_gives_its_words() -> None:
    blocks = [{"type": "paragraph", "text": ["my ", {"type": "bold", "text": "claim"}]},
              {"type": "paragraph", "text": "is late"}]  # fmt: skip
    assert said(rich_message={"blocks": blocks}).text == "my claim\nis late"


def test_pictures_of_an_album_have_one_key_and_their_own_marks() -> None:
    photo = [FILE | {"width": 9, "height": 9}]
    one, two = said(photo=photo, media_group_id="g"), said(photo=photo, media_group_id="g", message_id=6)
    assert one.merges
    assert one.external_id == two.external_id == "7:album:g"
    assert (one.seen_at, two.seen_at) == (("42:7", "5"), ("42:7", "6"))


def test_a_field_in_a_form_that_is_not_known_costs_the_field_and_not_the_words() -> None:
    entities = [{"type": "bold", "offset": 0, "length": 1}, {"type": "bold", "offset": "far"}]
    item = said(text="where is my claim", entities=entities, sender_boost_count="many")
    assert item.text == "where is my claim"
    assert [each.kind for each in item.parts] == [PartKind.UNKNOWN]


# --- edits ------------------------------------------------------------------------------------------------------------


def test_an_edit_revises_and_two_in_one_second_both_count() -> None:
    [[one], [two], [again]] = edit(text="one").items, edit(text="two").items, edit(text="one").items
    assert isinstance(one, Message)
    assert (one.revises, one.text, one.received_at) == ("7:5", "one", SENT + timedelta(seconds=30))
    assert one.external_id == again.external_id != two.external_id
    assert one.answerable


def test_an_edited_caption_keeps_its_picture_and_names_the_album() -> None:
    [item] = edit(photo=[FILE | {"width": 9, "height": 9}], caption="red", media_group_id="g").items
    assert isinstance(item, Message)
    assert (item.revises, item.merges, item.text, len(item.parts)) == ("7:album:g", False, "red", 1)


def test_the_next_point_of_a_place_that_is_shared_live_is_nothing_new() -> None:
    assert edit(location={"latitude": 1.0, "longitude": 2.0, "live_period": 900}) == Found()


# --- where it comes from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["group", "supergroup", "channel"])
def test_other_groups_are_nothing_of_ours(kind: str) -> None:
    chat = {"id": -5, "type": kind, "title": "x"}
    assert found({"update_id": 1, "message": note(chat=chat, text="hello")}) == Found()
    assert edit(chat=chat, text="hello") == Found()


def test_a_group_that_is_served_is_a_thread_with_topics_and_its_edits_ask_for_no_answer() -> None:
    chat = {"id": GROUP, "type": "supergroup", "title": "x"}
    item = said(chat=chat, text="/stop", is_topic_message=True, message_thread_id=TOPIC)
    assert (item.sender, item.thread, item.text) == ("7", f"{GROUP}/{TOPIC}", "/stop")
    [edited] = edit(chat=chat, text="hello").items
    assert isinstance(edited, Message)
    assert not edited.answerable


def test_who_writes_for_a_chat_is_that_chat_and_another_bot_is_a_machine() -> None:
    chat = {"id": GROUP, "type": "supergroup", "title": "Drivers"}
    anonymous = said(chat=chat, text="a", sender_chat=chat, **{"from": LI | {"is_bot": True}})
    assert (anonymous.sender, anonymous.sender_name, anonymous.automatic) == (str(GROUP), "Drivers", None)
    machine = said(chat=chat, text="a", **{"from": LI | {"is_bot": True}})
    assert machine.automatic is not None
    assert machine.automatic.kind is AutomaticKind.NO_REPLY


@pytest.mark.parametrize(
    "content",
    [{"pinned_message": {"message_id": 1, "date": 0, "chat": PRIVATE}}, {"new_chat_title": "x"},
     {"message_auto_delete_timer_changed": {"message_auto_delete_time": 5}}],
)  # fmt: skip
def test_what_telegram_itself_says_is_nobodys_message(content: dict[str, Any]) -> None:
    assert found({"update_id": 1, "message": note(**content)}) == Found()


def test_updates_that_are_not_for_us_are_left_and_new_kinds_are_kept() -> None:
    query = {"id": "1", "from": LI, "query": "", "offset": ""}
    assert found({"update_id": 1, "inline_query": query}) == Found()
    [item] = found({"update_id": 1, "telepathy": {}}).items
    assert isinstance(item, Unreadable)


# --- commands, buttons, standing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "refused", "words", "hint"),
    [
        ("/start", None, None, ""),
        ("/start@claims_bot", None, None, ""),
        ("/stop", "opted_out", None, ""),
        ("/stop writing to me at night!", "opted_out", "writing to me at night!", ""),
        ("/start where is my claim?", None, "where is my claim?", ""),
        ("/start S-123456", None, "", "S-123456"),
        ("/start campaign_7", None, "", ""),
    ],
)
def test_commands(text: str, refused: str | None, words: str | None, hint: str) -> None:
    result = found({"update_id": 1, "message": note(text=text)})
    assert result.notices == (Standing(channel="telegram", address="7", at=SENT, refused=refused),)
    assert [each.text for each in result.items if isinstance(each, Message)] == ([] if words is None else [words])
    for item in result.items:
        assert isinstance(item, Message)
        assert item.ticket_hint == hint
        assert [each.kind for each in item.parts] == ([] if words else [PartKind.LINK])


@pytest.mark.parametrize("text", ["/started", "start", "/status", "please /stop"])
def test_what_only_looks_like_a_command_is_words(text: str) -> None:
    assert said(text=text).text == text


def pressed(data: str, **values: Any) -> Found:
    query = {"id": "99", "from": LI, "chat_instance": "1", "data": data, "message": note(text="...")} | values
    return found({"update_id": 1, "callback_query": query})


def test_a_button_is_what_it_says_in_the_language_that_it_was_shown_in() -> None:
    for row in buttons.keyboard("acknowledgement", "S-123456", "zh-Hant").inline_keyboard:
        [button] = row
        result = pressed(button.callback_data or "")
        [item] = result.items
        assert isinstance(item, Message)
        assert (item.text, item.ticket_hint, item.thread) == (button.text, "S-123456", "7")
        assert (item.external_id, item.sender) == ("callback:99", "7")
        [part] = item.parts
        assert (part.kind, part.text, part.name) == (PartKind.BUTTON, button.text, button.callback_data)
        assert result.pressed is not None
        assert (result.pressed.query, result.pressed.text) == ("99", "已收到")


def test_a_star_is_a_rating_and_no_message() -> None:
    stars = buttons.keyboard("status", "S-123456", "en").inline_keyboard[-1]
    ratings = [pressed(each.callback_data or "") for each in stars]
    assert all(not each.items for each in ratings)
    scores = [each.notices[0].score for each in ratings if isinstance(each.notices[0], Rating)]
    assert scores == [1, 2, 3, 4, 5]


def test_who_is_in_need_of_care_is_offered_a_person_and_nothing_else() -> None:
    rows = buttons.keyboard("care", "S-123456", "en").inline_keyboard
    assert [[each.text for each in row] for row in rows] == [["Talk to a person"]]


@pytest.mark.parametrize(
    "data", ["", "0|status|S-123456|zh", "1|status|S-12|zh", "1|rate6|S-123456|zh", "1|rate|S-123456|zh",
             "1|status|S-123456|de", "1|status9|S-123456|zh", "1|status|S-123456|zh|", "menu:claims", "x" * 64],
)  # fmt: skip
def test_a_button_of_another_time_is_answered_and_does_nothing(data: str) -> None:
    result = pressed(data)
    assert (result.items, result.notices) == ((), ())
    assert result.pressed is not None
    assert "no longer" in result.pressed.text


def test_a_button_under_a_message_that_is_gone_still_works() -> None:
    gone = {"chat": PRIVATE, "message_id": 5, "date": 0}
    [item] = pressed("1|person|S-123456|en", message=gone).items
    assert isinstance(item, Message)
    assert (item.text, item.thread) == ("Talk to a person", "7")
    assert len(pressed("1|person|S-123456|en", message=None).items) == 1


def test_a_button_in_a_group_that_is_not_served_does_nothing() -> None:
    elsewhere = note(chat={"id": -5, "type": "supergroup", "title": "x"}, text="...")
    assert pressed("1|person|S-123456|en", message=elsewhere).items == ()


def test_data_of_every_button_fits() -> None:
    for kind in ("acknowledgement", "status", "care"):
        for row in buttons.keyboard(kind, "S-123456789012", "zh").inline_keyboard:
            for each in row:
                assert len((each.callback_data or "").encode()) <= 64


# --- nothing breaks it ------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_PATHS: list[list[str | int]] = [
    ["message"], ["message", "chat"], ["message", "chat", "id"], ["message", "chat", "type"], ["message", "from"],
    ["message", "date"], ["message", "message_id"], ["message", "text"], ["message", "photo"],
    ["message", "photo", 0, "width"], ["message", "entities"], ["message", "media_group_id"], ["update_id"],
]  # fmt: skip


@fuzzed(st.sampled_from(_PATHS), _json)
def test_nothing_in_an_update_breaks_it(path: list[str | int], value: Any) -> None:
    update: Any = {"update_id": 1, "message": note(text="a", photo=[FILE | {"width": 9, "height": 9}])}
    here = update
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    result = found(update)
    assert len(result.items) <= 1
    for item in result.items:
        assert item.received_at.tzinfo is not None


@fuzzed(_json)
def test_no_json_breaks_it(update: Any) -> None:
    for item in found(update).items:
        assert isinstance(item, Unreadable)
