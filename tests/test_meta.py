"""What Meta's three channels share, at the real endpoint: signature, challenge, batches, redelivery, strange forms.

Each channel's forms are in `test_meta_messages` and `test_whatsapp`, what goes out in `test_meta_send`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from domain import Forbidden, Message, Unavailable, Unreadable
from router.arrivals import Arrivals
from settings import Settings
from storage.database import Database
from storage.tables import Message as Table
from tests import meta_server as meta
from tests import meta_world as world
from tests.api_world import Api, serving
from tests.meta_server import Deliveries, happened, instagram, page, said, whatsapp, wrote
from tests.reading import rows
from tests.samples import request_of
from tests.worlds import make_world

ALL = ("messenger", "instagram", "whatsapp")
every_channel = pytest.mark.parametrize("name", ALL)


@pytest.fixture
async def api(database: Database, settings: Settings) -> AsyncIterator[Api]:
    async with serving(make_world(database, settings), hooks=[world.hook_of(name) for name in ALL]) as made:
        yield made


def english(name: str) -> bytes:
    return {
        "messenger": page(said("where is my money")),
        "instagram": instagram(said("where is my money", sender=meta.IGSID, to=meta.INSTAGRAM)),
        "whatsapp": whatsapp(wrote("text", "where is my money")),
    }[name]


def texts(api: Api) -> list[str]:
    return [each.text for each in rows(api.world.database, Table, direction="in")]


# --- signature and challenge ------------------------------------------------------------------------------------------


@every_channel
def test_the_signature_is_of_the_bytes_and_not_of_what_they_mean(name: str) -> None:
    """Meta escapes what it writes; the same JSON written another way has another signature."""
    hook = world.hook_of(name)
    body = english(name).replace(b"where is my money", b"\\u6211\\ud83d\\ude42 http:\\/\\/x")
    hook.verify(request_of(name, world.call(body)))
    for otherwise in (json.dumps(json.loads(body)).encode(), json.dumps(json.loads(body), ensure_ascii=False).encode()):
        assert json.loads(otherwise) == json.loads(body)
        with pytest.raises(Forbidden):
            hook.verify(request_of(name, world.call(otherwise), headers=_lower(meta.signed(body))))


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"hub.mode": "unsubscribe"}, "another mode"),
        ({"hub.verify_token": "what we told meta"}, "another case"),
        ({"hub.verify_token": ""}, "no token"),
        ({"hub.verify_token": "我们"}, "not ASCII"),
        ({"hub.challenge": ""}, "nothing to say"),
    ],
)
def test_only_who_was_told_the_token_makes_sure_of_us(query: dict[str, str], why: str) -> None:
    hook = world.hook_of("messenger")
    good = {"hub.mode": "subscribe", "hub.verify_token": world.OLD_VERIFY, "hub.challenge": "42"}
    assert hook.challenge(request_of("messenger", world.call(b""), query=good)).body == b"42"
    with pytest.raises(Forbidden):
        hook.challenge(request_of("messenger", world.call(b""), query=good | query))


# --- batches, redelivery ----------------------------------------------------------------------------------------------


async def test_batches_duplicates_and_disorder_end_as_each_message_once(api: Api) -> None:
    first, second, third = (said(f"#claim_status {word}") for word in ("one", "two", "three"))
    async with api.client() as client:
        await Deliveries(client, "/hooks/messenger").send(
            page(third, first), page(first), page(second, first, third), page(second)
        )
    assert sorted(texts(api)) == ["#claim_status one", "#claim_status three", "#claim_status two"]


async def test_what_could_not_be_stored_is_answered_503_and_comes_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, times = Arrivals.take, 0

    async def down_twice(self: Arrivals, *args: Any) -> Any:
        nonlocal times
        times += 1
        if times <= 2:
            raise Unavailable
        return await take(self, *args)

    monkeypatch.setattr(Arrivals, "take", down_twice)
    async with api.client(raise_app_exceptions=False) as client:
        deliveries = Deliveries(client, "/hooks/whatsapp")
        await deliveries.send(whatsapp(wrote("text", "one")), whatsapp(wrote("text", "two")))
    assert deliveries.heard == [503, 503, 200, 200]
    assert sorted(texts(api)) == ["one", "two"]


async def test_one_event_that_cannot_be_read_costs_none_of_the_others(api: Api) -> None:
    async with api.client() as client:
        body = page(said("one"), {"message": {"mid": "m_x", "text": "from nobody"}}, "no event at all", said("two"))
        await Deliveries(client, "/hooks/messenger").send(body)
    assert texts(api) == ["one", "", "", "two"]
    reasons = await api.world.database.read(
        lambda connection: sorted(connection.exec_driver_sql("SELECT reason FROM quarantine").scalars())
    )
    assert len(reasons) == 2
    assert set(reasons) == {"Meta does not say who it is from"}


async def test_several_accounts_of_ours_keep_their_conversations_apart(api: Api) -> None:
    async with api.client() as client:
        deliveries = Deliveries(client, "/hooks/whatsapp")
        await deliveries.send(*(whatsapp(wrote("text", f"to {n}"), number=n) for n in (meta.NUMBER, "999")))
    await api.world.flow.finish()
    assert await api.count("ticket") == 2
    assert await api.count("ticket", account="999") == 1


# --- strange forms ----------------------------------------------------------------------------------------------------


@every_channel
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b'"page"', b"{}", b'{"object":"page"}', b'{"object":"group","entry":[]}', b"[" * 90_000,
     b'{"object":"page","entry":[],"entry":{}}', b"\xff\xfe\x00", b'{"object":"instagram","entry":[{"id":"1"}]}'],
)  # fmt: skip
def test_what_says_nothing_is_kept_whole_with_a_reason(name: str, body: bytes) -> None:
    [item] = world.parse(name, body).items
    assert isinstance(item, Unreadable)
    assert item.raw == body
    assert item.reason


@every_channel
def test_what_the_app_should_not_be_subscribed_to_is_shown_to_people(name: str) -> None:
    kind = {"messenger": "page", "instagram": "instagram", "whatsapp": "whatsapp_business_account"}[name]
    change = {"field": "feed", "value": {"item": "comment", "message": "hi"}}
    [item] = world.parse(name, meta.encoded({"object": kind, "entry": [{"id": "123", "changes": [change]}]})).items
    assert isinstance(item, Unreadable)
    assert "'feed'" in item.reason
    assert json.loads(item.raw) == change


@pytest.mark.parametrize("nested", [900, 950, 980, 990, 995, 1000, 5000])
def test_what_is_nested_too_deeply_is_kept_whole(nested: int) -> None:
    body = page(said("hi")).replace(b'"hi"', b"[" * nested + b"]" * nested)
    [item] = world.parse("messenger", body).items
    assert json.loads(item.raw) if isinstance(item, Message) else item.raw == body


@pytest.mark.parametrize(
    "stamp", ["", "soon", None, True, [], {}, -1, 0, 3e300, "9" * 4000, 1_000, "1700000000", 99_999_999_999_999]
)
def test_a_time_that_cannot_be_right_is_the_time_of_receipt(stamp: Any) -> None:
    now = datetime.now(UTC)
    found = world.one(world.parse("messenger", page(said("hi") | {"timestamp": stamp}), received_at=now))
    assert found.received_at == (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) if stamp == "1700000000" else now)


def test_a_clock_that_is_ahead_opens_no_window_for_longer() -> None:
    now = datetime.now(UTC)
    ahead = int((now + timedelta(minutes=3)).timestamp() * 1000)
    assert (
        world.one(world.parse("messenger", page(said("hi") | {"timestamp": ahead}), received_at=now)).received_at == now
    )


async def test_no_database_stumbles_over_what_json_can_say(api: Api) -> None:
    """NUL and half a surrogate pair are JSON, and no text for a database."""
    bad = "a\\u0000b\\ud800c"
    bodies = {
        "messenger": page(
            said("TEXT", attachments=[{"type": "file", "payload": {"url": "TEXT"}}]),
            said(attachments=[{"type": "fallback", "title": "TEXT"}]),
            said("two", mid="TEXT"),
            happened(delivery={"mids": ["TEXT"]}),
            said(mid="TEXT", is_deleted=True),
            happened(reaction={"mid": "TEXT", "emoji": "TEXT"}),
        ),
        "whatsapp": whatsapp(
            wrote("document", {"id": "TEXT", "filename": "TEXT", "caption": "TEXT"}),
            wrote("location", {"name": "TEXT", "latitude": "TEXT"}, context={"id": "TEXT"}),
            statuses=[meta.status("TEXT", "failed", errors=[{"title": "TEXT"}])],
        ),
    }  # fmt: skip
    async with api.client() as client:
        for name, body in bodies.items():
            deliveries = Deliveries(client, f"/hooks/{name}", tries=1)
            await deliveries.send(body.replace(b"TEXT", bad.encode()))
            assert deliveries.heard == [200], name
    await api.world.flow.finish()
    assert await api.count("message", state="received") == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bent(draw: st.DrawFn, name: str) -> Any:
    """A good notification of which some value, anywhere, is something else."""
    body = json.loads(draw(st.sampled_from(_GOOD[name])))
    for _ in range(draw(st.integers(1, 3))):
        place, steps = body, 0
        while isinstance(place, dict | list) and place and steps < 12:
            key: Any = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 5)) == 0:
                place[key] = draw(JSON)
                break
            place, steps = inner, steps + 1
    return body


_FILE = {"type": "image", "payload": {"url": "https://x.fbcdn.net/1.jpg", "sticker_id": 3}}
_EVENTS = [
    said("hi", attachments=[_FILE, {"type": "location", "payload": {"coordinates": {"lat": 1, "long": 2}}}],
         quick_reply={"payload": "P"}, reply_to={"mid": "m_1", "story": {"url": "https://x.fbcdn.net/s", "id": "1"}}),
    happened(postback={"title": "T", "payload": "P", "mid": "m_2", "referral": {"ref": "r", "source": "ADS"}}),
    happened(message_edit={"mid": "m_1", "text": "new", "num_edit": 1}),
    happened(reaction={"mid": "m_1", "emoji": "❤", "action": "react"}),
    happened(delivery={"mids": ["m_1"], "watermark": 5}),
    said(is_deleted=True),
    meta.echo("ours", app_id=5, metadata="sluice:k"),
]  # fmt: skip
_MESSAGES = [
    wrote("image", {"id": "1", "mime_type": "image/png", "caption": "c"}, context={"id": "w", "referred_product": {}}),
    wrote("contacts", [{"name": {"formatted_name": "A"}, "phones": [{"phone": "1"}], "emails": [{"email": "e"}]}]),
    wrote("interactive", {"type": "list_reply", "list_reply": {"id": "1", "title": "t", "description": "d"}}),
    wrote("order", {"text": "t", "product_items": [{"product_retailer_id": "s", "quantity": 2}]}),
    wrote("edit", {"original_message_id": "w", "message": {"type": "text", "text": {"body": "b"}}}),
    wrote("revoke", {"original_message_id": "w"}),
    wrote("unsupported", {"type": "poll"}, errors=[{"code": 131051, "title": "t"}]),
    wrote("system", {"body": "b", "wa_id": "1", "type": "user_changed_number"}, referral={"headline": "h"}),
]
_GOOD = {
    "messenger": [page(each) for each in _EVENTS],
    "instagram": [instagram(each) for each in _EVENTS],
    "whatsapp": [
        *(whatsapp(each) for each in _MESSAGES),
        whatsapp(statuses=[meta.status("w", "failed", errors=[{"code": 1, "title": "t"}])]),
    ],
}


@every_channel
@given(data=st.data())
@how(max_examples=150, deadline=None)
def test_no_form_of_a_signed_notification_raises_or_is_lost(name: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(bent(name))).encode()
    parsed = world.parse(name, body)
    assert parsed.answer.status == 200
    for item in parsed.items:
        assert item.raw
        assert item.external_id
        assert item.account.isdigit() or isinstance(item, Unreadable)
