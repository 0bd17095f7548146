"""The generic webhook: signed JSON by a field mapping, in by the real door, and no way out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import build
from channels.settings import FieldMap
from channels.webhook import WebhookHook
from domain import Forbidden, ForbiddenMove, Incoming, Message, Role, SettingsError, Unreadable, public_number
from router.tickets import Actor
from settings import Settings, load
from storage.database import Database
from tests.api_world import Api, serving
from tests.console_world import make_console
from tests.reading import answers, on
from tests.samples import Call, request_of
from tests.samples.webhook import NAME, body, make, review, settings, signed
from tests.worlds import make_world

LI = Actor("person:li", Role.SUPERVISOR)
NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)


def read(content: Any, *, fields: dict[str, Any] | None = None, **changes: Any) -> list[Incoming]:
    """What a body brings by a mapping."""
    if fields is not None:
        changes["fields"] = FieldMap(**({"sender": "from", "text": "text"} | fields))
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    hook = WebhookHook(NAME, settings(**({"records": ""} | changes)))
    return list(hook.parse(request_of(NAME, Call(written), received_at=NOW)).items)


def one(content: Any, **fields: Any) -> Message:
    [item] = read(content, fields=fields)
    assert isinstance(item, Message)
    return item


def reason(content: Any, **fields: Any) -> str:
    [item] = read(content, fields=fields)
    assert isinstance(item, Unreadable)
    return item.reason


RECORD = {"from": "li", "text": "hello"}


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "records", "count"),
    [
        (RECORD, "", 1),
        ([RECORD, RECORD | {"text": "b"}], "", 2),
        ({"data": {"items": [RECORD, RECORD | {"text": "b"}]}}, "data.items", 2),
        ({"data": [{"item": RECORD}]}, "data.0.item", 1),
        ({"data.items": [RECORD]}, "data.items", 1),
        ([], "", 0),
    ],
)
def test_a_body_is_one_record_or_a_list_or_has_them_at_a_path(content: Any, records: str, count: int) -> None:
    found = read(content, fields={}, records=records)
    assert [type(each) for each in found] == [Message] * count


@pytest.mark.parametrize(
    ("content", "records", "why"),
    [
        (b"\xff", "", "no JSON"),
        (b"", "", "no JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"from": "a", "text": ' + b"[" * 990 + b"]" * 990 + b"}", "", "nested too deeply"),
        ("words", "", "neither an object nor a list"),
        (RECORD, "data.items", "no records at data.items"),
        ({"data": "x"}, "data", "no records at data"),
        ([["no record"]], "", "no JSON object"),
    ],
)
def test_what_has_no_records_is_kept_with_its_reason(content: Any, records: str, why: str) -> None:
    [item] = read(content, fields={}, records=records)
    assert isinstance(item, Unreadable)
    assert why in item.reason
    assert item.raw == (content if isinstance(content, bytes) else item.raw)
    assert item.external_id.startswith("sha256:")


def test_the_source_hears_how_many_records_could_not_be_read() -> None:
    parsed = WebhookHook(NAME, settings()).parse(request_of(NAME, signed(body(review(1, body="a"), {"id": 2}))))
    assert json.loads(parsed.answer.body) == {"records": 2, "unreadable": 1}


# --- fields -----------------------------------------------------------------------------------------------------------


def test_each_field_stands_where_the_mapping_says() -> None:
    record = {
        "review": {"id": 17, "author": {"id": "u1", "nick.name": "李"}},
        "answers": [{"text": "slow"}, {"text": "很慢"}],
        "about": "claims",
        "case": True,
    }
    [item] = read(
        record,
        fields={
            "external_id": "review.id", "sender": "review.author.id", "sender_name": "review.author.nick.name",
            "text": ["answers.0.text", "answers.1.text", "answers.2.text"], "subject": "about", "thread": "case",
        },
    )  # fmt: skip
    assert isinstance(item, Message)
    assert (item.external_id, item.sender, item.sender_name, item.text) == ("17", "u1", "李", "slow\n很慢")
    assert (item.subject, item.thread, item.channel, item.account) == ("claims", "true", NAME, NAME)
    assert json.loads(item.raw) == record


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (4.5, "4.5"), (True, "true"), (False, "false"), ("", ""), (0, "0"), (" a ", "a")]
)
def test_a_number_or_a_boolean_becomes_its_text(value: Any, text: str) -> None:
    assert one(RECORD | {"text": value}).text == text


@pytest.mark.parametrize("value", [None, [], {}, ["a"], {"a": "b"}])
def test_a_text_that_is_not_there_is_named_by_its_path(value: Any) -> None:
    assert reason({"from": "li", "a": {"b": value}}, text=["a.b", "c"]) == "There is no text at a.b, c."


@pytest.mark.parametrize("sender", [{}, {"from": None}, {"from": " "}, {"from": {"id": 1}}])
def test_a_record_without_a_sender_is_kept_aside(sender: dict[str, Any]) -> None:
    assert reason({"text": "hello", **sender}) == "There is no sender at from."


def test_a_record_without_an_id_has_the_digest_of_its_content() -> None:
    plain = one(RECORD)
    [spaced] = read(b'[{"text"  : "hello",\n"from":"li"}]', fields={"external_id": "id"})
    assert plain.external_id == spaced.external_id
    assert plain.external_id.startswith("sha256:")
    assert one(RECORD | {"text": "other"}).external_id != plain.external_id


@pytest.mark.parametrize(
    ("field", "most"), [("sender", 512), ("text", 200_000), ("thread", 512), ("external_id", 1200)]
)
def test_what_is_too_long_to_be_meant_is_kept_aside(field: str, most: int) -> None:
    place = {"sender": "from"}.get(field, field)
    one(RECORD | {place: "x" * most}, **{field: place})
    assert reason(RECORD | {place: "x" * (most + 1)}, **{field: place}).startswith(f"The {field} has")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00+00:00"),
        ("2026-11-20T10:00:00.5+08:00", "2026-11-20T02:00:00.500000+00:00"),
        (1763632800, "2025-11-20T10:00:00+00:00"),
        (1763632800000, "2025-11-20T10:00:00+00:00"),
        ("1763632800.25", "2025-11-20T10:00:00.250000+00:00"),
        ("2026-11-20T10:00:00", None),  # without a zone nobody knows when that was
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        (0, None),
        (-1e300, None),
        (float("inf"), None),
        (float("nan"), None),
        ("9" * 400, None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2027-11-20T10:00:00Z", None),
    ],
)
def test_times_are_the_sources_where_they_are_sane(given: Any, expected: str | None) -> None:
    found = one(RECORD | {"at": given}, received_at="at").received_at
    assert found == (NOW if expected is None else datetime.fromisoformat(expected))
    assert found.tzinfo is UTC


# --- signatures -------------------------------------------------------------------------------------------------------


def hmac_of(content: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def test_a_source_that_signs_the_body_alone() -> None:
    hook = WebhookHook(NAME, settings(timestamp_header="", signature_header="X-Hub-Signature-256"))
    content = body(review(1, body="a"))
    given = f"sha256={hmac_of(content, 'the old secret').hex()}"
    hook.verify(request_of(NAME, Call(content, {"x-hub-signature-256": given})))
    with pytest.raises(Forbidden):
        hook.verify(request_of(NAME, Call(content + b" ", {"x-hub-signature-256": given})))


def test_a_source_that_writes_its_signature_in_base64() -> None:
    hook = WebhookHook(NAME, settings(timestamp_header="", signature_prefix="", signature_encoding="base64"))
    content = body(review(1, body="a"))
    given = base64.b64encode(hmac_of(content, "the new secret")).decode()
    hook.verify(request_of(NAME, Call(content, {"X-Sluice-Signature": given})))
    for wrong in ("", given[:-1], hmac_of(content, "the new secret").hex()):
        with pytest.raises(Forbidden):
            hook.verify(request_of(NAME, Call(content, {"X-Sluice-Signature": wrong})))


@pytest.mark.parametrize(("age", "good"), [(0, True), (299, True), (-299, True), (301, False), (-302, False)])
def test_a_recorded_delivery_is_refused_when_its_time_is_over(age: float, good: bool) -> None:
    hook = WebhookHook(NAME, settings())
    request = request_of(NAME, signed(b"{}", age=age))
    if good:
        hook.verify(request)
        return
    with pytest.raises(Forbidden, match="too far off"):
        hook.verify(request)


@pytest.mark.parametrize("stamp", ["", "soon", "１７６３６３２８００", "-1", "1e9", "9" * 40])
def test_a_signed_time_that_is_none_is_refused(stamp: str) -> None:
    digest = hmac_of(f"{stamp}.{{}}".encode(), "the new secret").hex()
    call = Call(b"{}", {"X-Sluice-Timestamp": stamp, "X-Sluice-Signature": f"sha256={digest}"})
    with pytest.raises(Forbidden, match="too far off"):
        WebhookHook(NAME, settings()).verify(request_of(NAME, call))


def test_nothing_is_told_by_get() -> None:
    with pytest.raises(Forbidden):
        WebhookHook(NAME, settings()).challenge(request_of(NAME, Call(b"", method="GET")))


# --- the application --------------------------------------------------------------------------------------------------


@pytest.fixture
async def api(database: Database, settings: Settings) -> AsyncIterator[Api]:
    hook = make().hook
    assert hook is not None
    names = {NAME: {"zh": "应用评论", "en": "App reviews"}}
    world = make_world(database, settings, mute=frozenset({NAME}), channel_names=names)
    async with serving(world, hooks=[hook]) as made:
        yield made


async def deliver(api: Api, *reviews: Any) -> int:
    call = signed(body(*reviews))
    async with api.client() as client:
        answer = await client.post(f"/hooks/{NAME}", content=call.body, headers=call.headers)
    await api.world.flow.finish()
    return answer.status_code


async def test_a_review_becomes_a_ticket_and_nothing_is_queued_that_could_never_go_out(api: Api) -> None:
    assert await deliver(api, review(1, title="#complaint_service", body="rude")) == 200
    assert await api.count("ticket", channel=NAME) == 1
    assert answers(api.world.database) == []
    async with api.client() as client:
        assert (await client.get("/readyz")).json()["down"] == []


async def test_a_review_of_self_harm_opens_its_ticket_and_queues_nothing_either(api: Api) -> None:
    await deliver(api, review(1, body="#self_harm #claim_status I cannot go on"))
    assert answers(api.world.database) == []
    assert await api.count("event", kind="answer_held") == 1


async def test_who_answers_is_told_that_the_channel_takes_no_answers(api: Api) -> None:
    await deliver(api, review(1, body="#claim_status"))
    with pytest.raises(ForbiddenMove, match="takes no answers"):
        await on(api.world.database, api.world.verbs.reply("We are sorry"), 1, LI)
    assert answers(api.world.database) == []
    async with api.client(Role.ADMIN) as client:
        refused = await client.post(f"/api/v1/tickets/{public_number(1)}/reply", json={"text": "We are sorry"})
    assert refused.status_code == 409
    assert "takes no answers" in refused.text


async def test_an_answer_from_before_the_channel_was_mute_is_shown_as_stuck(api: Api) -> None:
    await deliver(api, review(1, body="#claim_status"))
    speaking = make_world(api.world.database, api.world.settings)
    await on(api.world.database, speaking.verbs.reply("We are sorry"), 1, LI)
    async with api.client() as client:
        parts = (await client.get("/readyz")).json()["parts"]
    assert parts[f"outbox:{NAME}"] == {"ok": False, "detail": "1 answers are queued and the channel has no way out"}


async def test_the_console_shows_the_configured_name_and_offers_no_reply(api: Api) -> None:
    await deliver(api, review(1, body="#complaint_service rude"))
    console = await make_console(api.world)
    page = (await (await console.signed_in("sun")).get(f"/console/t/{public_number(1)}")).text
    assert "App reviews" in page
    assert NAME not in page
    assert "takes no answers" in page
    assert 'id="mode-reply"' not in page
    assert 'id="mode-note"' in page


async def test_a_text_longer_than_the_channel_carries_is_said_to_be_so(api: Api) -> None:
    console = await make_console(api.world)
    number = await console.ticket("#claim_status")
    page = await (await console.signed_in("sun")).post(f"/console/t/{number}/say", text="x" * 60_000, mode="reply")
    assert page.status_code == 422
    assert "longer than the channel carries" in page.text


def test_a_source_of_the_settings_is_a_channel_without_a_way_out(tmp_path: Any) -> None:
    environment = {
        "SLUICE_STATE_DIR": str(tmp_path),
        "SLUICE_WEBHOOKS__APP_REVIEWS__FIELDS__SENDER": "author",
        "SLUICE_WEBHOOKS__APP_REVIEWS__FIELDS__TEXT": "[title, body]",
        "SLUICE_WEBHOOKS__APP_REVIEWS__ZH": "应用评论",
    }
    with pytest.raises(SettingsError, match="a secret is needed"):
        load(environment)
    made = build(load(environment | {"SLUICE_WEBHOOKS__APP_REVIEWS__SECRETS__0": "s3cret"}), roles=())
    [channel] = made.channels
    assert (channel.name, channel.sender) == ("app_reviews", None)
    assert isinstance(channel.hook, WebhookHook)
    assert "app_reviews" in made.desk.mute
    assert made.desk.channel_names["app_reviews"] == {"zh": "应用评论", "en": "应用评论"}
    made.database.close()
    made.tagger.close()


def test_times_of_the_delivery_stand_in_within_a_day() -> None:
    soon = NOW + timedelta(hours=23)
    assert one(RECORD | {"at": soon.isoformat()}, received_at="at").received_at == soon
