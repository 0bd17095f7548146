"""Storing: a known key stores nothing again, strange content costs nothing, what is unreadable is kept whole."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain import Attachment, Automatic, AutomaticKind, Incoming, NotFound, Stored, Unreadable
from storage import messages
from storage.database import Database
from storage.tables import Attachment as AttachmentTable
from storage.tables import Event, Message, Quarantine, Raw, Sighting
from tests.reading import event, incoming, rows
from tests.worlds import message


async def store(database: Database, *items: Incoming) -> list[Stored]:
    return await database.write_batch(messages.store, items)


def unreadable(external_id: str = "u", **values: Any) -> Unreadable:
    given: dict[str, Any] = {"channel": "mail", "account": "mail", "received_at": datetime.now(UTC), "reason": "why"}
    return Unreadable(external_id=external_id, **(given | values))


# --- dedupe -----------------------------------------------------------------------------------------------------------


async def test_the_same_key_is_stored_once(database: Database) -> None:
    item = message(external_id="x")
    [first] = await store(database, item)
    [again, twin] = await store(database, item, item)
    assert first == Stored(1, new=True)
    assert again == twin == Stored(1, new=False)
    assert len(rows(database, Message)) == len(rows(database, Raw)) == 1
    assert rows(database, Event) == []


async def test_the_same_batch_twice_stores_it_once(database: Database) -> None:
    batch = [message(external_id=f"x{number}") for number in range(20)]
    first = await store(database, *batch)
    again = await store(database, *batch, message(external_id="more"))
    assert [each.message_id for each in again[:20]] == [each.message_id for each in first]
    assert [each.new for each in again] == [False] * 20 + [True]


async def test_channel_and_account_are_part_of_the_key(database: Database) -> None:
    items = [message(external_id="x"), message(external_id="x", account="b"), message(external_id="x", channel="mail")]
    assert all(each.new for each in await store(database, *items))


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_key_with_other_content_keeps_the_first_and_is_an_event(
    database: Database, together: bool
) -> None:
    items = [message("first", external_id="x"), message("second", external_id="x")]
    if together:
        first, second = await store(database, *items)
    else:
        [first], [second] = [await store(database, item) for item in items]
    assert first == Stored(1, new=True)
    assert second == Stored(1, new=False, differs=True)
    assert incoming(database, 1).text == "first"
    assert rows(database, Raw)[0].body == b"first"
    assert event(database, "duplicate_differs").data == {"message": 1}


async def test_a_digest_given_by_the_channel_decides_what_is_other_content(database: Database) -> None:
    await store(database, message(external_id="x", raw=b"a", fingerprint="f"))
    [again] = await store(database, message(external_id="x", raw=b"b", fingerprint="f"))
    assert not again.differs


async def test_a_mark_that_was_seen_is_a_second_key(database: Database) -> None:
    seen = ("box", "7:1")
    [first] = await store(database, message(external_id="x", seen_at=seen))
    [again] = await store(database, message("rewritten by a server", external_id="y", seen_at=seen))
    assert again == Stored(first.message_id, new=False)
    assert len(rows(database, Message)) == 1


async def test_one_mail_in_two_mailboxes_is_one_message_seen_twice(database: Database) -> None:
    first, second = (message("same", external_id="x", seen_at=(box, "7:1")) for box in ("a", "b"))
    assert [each.new for each in await store(database, first, second)] == [True, False]
    assert [(row.place, row.message_id) for row in rows(database, Sighting)] == [("a", 1), ("b", 1)]
    with database.reading() as connection:
        assert messages.unseen_marks(connection, "api", "a", ["7:1", "7:2", "8:1"]) == ["7:2", "8:1"]


# --- strange content --------------------------------------------------------------------------------------------------


async def test_what_no_database_takes_is_replaced(database: Database) -> None:
    bad = "a\0b\ud800c"
    item = message(
        bad, subject=bad, sender=bad, sender_name=bad, external_id=bad, key=bad, thread=bad, thread_keys=(bad,),
        reply_to=bad, clean=bad, attachments=(Attachment(name=bad, media_type=bad, content=b"\0\xff"),),
        automatic=Automatic(kind=AutomaticKind.BOUNCE, why=bad, concerns=(bad,), recipients=(bad,)), raw=b"\0\xff",
    )  # fmt: skip
    [stored] = await store(database, item)
    row = incoming(database, stored.message_id)
    clean = "a\ufffdb?c"
    assert {row.text, row.subject, row.address, row.name, row.key, row.thread, row.clean, row.reason} == {clean}
    assert row.extra["keys"] == row.extra["concerns"] == [clean]
    assert rows(database, Raw)[0].body == b"\0\xff"
    assert [again.new for again in await store(database, item)] == [False]


async def test_ids_that_are_too_long_are_told_apart_by_their_digest(database: Database) -> None:
    # Random, so that PostgreSQL cannot press it into an index row.
    head = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(5000))
    stored = await store(database, *(message(external_id=head + end) for end in ("a", "b", "a")))
    assert [each.new for each in stored] == [True, True, False]


async def test_long_addresses_names_and_keys_cost_one_message_their_ends(database: Database) -> None:
    long = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(5000))
    item = message(
        "x", subject=long, sender=long, sender_name=long, key=long, thread=long, thread_keys=(long,), reply_to=long,
        recipient=long, ticket_hint=long, seen_at=("box", "7:1"),
        attachments=(Attachment(name=long, media_type=long, content_id=long, content=b"x"),),
    )  # fmt: skip
    assert [each.new for each in await store(database, item, message())] == [True, True]
    assert incoming(database, 1).address == long[:512]


_FIELDS = (
    "text", "subject", "sender", "sender_name", "external_id", "key", "thread", "reply_to", "clean", "ticket_hint",
)  # fmt: skip
_texts = st.text(st.characters(exclude_categories=()), max_size=40)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(values=st.fixed_dictionaries(dict.fromkeys(_FIELDS, _texts)), reason=_texts)
def test_any_text_can_be_stored(database: Database, values: dict[str, Any], reason: str) -> None:
    broken = unreadable(values["external_id"], reason=reason, sender=values["sender"])
    items: list[Incoming] = [message(**values, raw=b"x"), broken]
    stored = database.submit_batch(messages.store, items).result(30)
    assert all(isinstance(each, Stored) for each in stored)


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_what_cannot_be_read_is_kept_whole_in_quarantine(database: Database) -> None:
    [stored] = await store(database, unreadable(raw=b"\0broken", sender="li@example.com", subject="s"))
    row = incoming(database, stored.message_id)
    assert (row.state, row.reason, row.address) == ("quarantined", "why", "li@example.com")
    [entry] = rows(database, Quarantine)
    assert (entry.message_id, entry.step, entry.reason, entry.outcome) == (1, "read", "why", None)
    with database.reading() as connection:
        assert messages.body(connection, 1) == b"\0broken"
        assert [(row.message_id, row.size) for row in messages.quarantined(connection)] == [(1, 7)]
    [again] = await store(database, unreadable(raw=b"\0broken"))
    assert not again.new
    assert len(rows(database, Quarantine)) == 1


async def test_attachments_are_kept_with_their_digest(database: Database) -> None:
    files = (
        Attachment(name="合同.pdf", media_type="application/pdf", content=b"pdf"),
        Attachment(name="", media_type="image/png", content=b"", content_id="cid"),
    )
    [stored] = await store(database, message(attachments=files))
    assert await store(database, message(attachments=files, external_id="other"))
    kept = rows(database, AttachmentTable, message_id=stored.message_id)
    assert [(row.name, row.size, row.content) for row in kept] == [("合同.pdf", 3, b"pdf"), ("", 0, b"")]
    assert kept[0].sha256 == hashlib.sha256(b"pdf").hexdigest()
    with database.reading() as connection:
        assert [row.name for row in messages.attachments(connection, [stored.message_id])] == ["合同.pdf", ""]
        assert messages.attachment_of(connection, kept[0].id).content == b"pdf"
        with pytest.raises(NotFound):
            messages.attachment_of(connection, 99)
        with pytest.raises(NotFound):
            messages.get(connection, 99)
        with pytest.raises(NotFound):
            messages.body(connection, 99)


async def test_the_channels_time_and_ours_are_kept_apart(database: Database) -> None:
    sent = datetime(2020, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
    await store(database, message(received_at=sent))
    row = incoming(database, 1)
    assert row.received_at == sent
    assert row.stored_at > sent
