"""What the phone has to do with Twilio: a call of the stand-in, recordings fetched and deleted, and the probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from hypothesis import HealthCheck, given
from hypothesis import settings as examined
from hypothesis import strategies as st
from pydantic import SecretStr

from channels import Channel, Clears, Surroundings
from channels.phone import channel
from channels.phone_voice import trouble
from domain import Message, Unreadable
from router.media import Media
from settings import ROOT, Settings
from storage.database import Database
from storage.tables import Attachment, Medium, table
from storage.tables import Message as Row
from tests.api_world import serving
from tests.reading import rows, tickets
from tests.samples import NoLeases, request_of
from tests.samples.phone import ACCOUNT, NEW, make, recording, settings, signed, spoken
from tests.twilio_server import TwilioServer, reachable
from tests.worlds import make_world

URL = "https://desk.example.com"


def at(api_url: str, **changes: Any) -> Channel:
    return channel("phone", settings(api_url=api_url, **changes), Surroundings(URL, NoLeases()))


# --- a call of the stand-in -------------------------------------------------------------------------------------------


async def test_a_call_that_others_signed_becomes_a_ticket(
    database: Database, settings: Settings, twilio: TwilioServer
) -> None:
    async with reachable() as door:
        here = make(auth_tokens=[SecretStr("older"), SecretStr(twilio.auth_token)], account_sid=twilio.account_sid)
        made = channel("phone", here.hook._settings, Surroundings(door.url, NoLeases()))  # type: ignore[union-attr]
        assert made.hook is not None
        world = make_world(database, settings, public_url=door.url)
        async with serving(world, hooks=[made.hook]) as api, door.answering(api.app):
            number = await twilio.number(
                voice_url=f"{door.url}/hooks/phone", status_callback=f"{door.url}/hooks/phone/status"
            )
            call = await twilio.call_in(number, "+8613800138000")
            await twilio.call_status(call["sid"], "completed")
            await world.flow.finish()
            assert api.web.hooks is not None
            assert api.web.hooks.refused == {}
    [row] = rows(database, Row, direction="in")
    assert (row.external_id, row.account, row.address) == (call["sid"], number, "+8613800138000")
    assert [each["text"].split(" (")[0] for each in row.extra["parts"]] == ["A call came in", "The call ended"]
    assert len(tickets(database)) == 1


# --- does it work -----------------------------------------------------------------------------------------------------


async def probed(twilio: TwilioServer, **changes: Any) -> tuple[bool, str]:
    given = {"account_sid": twilio.account_sid, "auth_tokens": [SecretStr(twilio.auth_token)]} | changes
    probe = at(twilio.url, **given).probe
    assert probe is not None
    health = await probe.probe()
    return health.ok, health.detail


async def test_the_probe_says_what_is_wrong_and_what_to_do(twilio: TwilioServer) -> None:
    number = await twilio.number()
    ok, detail = await probed(twilio, numbers=[number, "+12025550199"])
    assert not ok
    assert f"calls of {number} go to nowhere: set {URL}/hooks/phone at Twilio" in detail
    assert f"set {URL}/hooks/phone/status at Twilio" in detail
    assert f"{number} has no fallback" in detail
    assert "+12025550199 is not a number of the account" in detail
    ok, detail = await probed(twilio, numbers=[])
    assert (ok, detail) == (False, "no number: set phone.numbers")


async def test_a_number_that_calls_us_lacks_its_fallback_alone(twilio: TwilioServer) -> None:
    """The stand-in keeps no fallback address."""
    number = await twilio.number(
        voice_url=f"{URL}/hooks/phone#rp=all&rc=2", status_callback=f"{URL}/hooks/phone/status"
    )
    ok, detail = await probed(twilio, numbers=[number])
    assert (ok, detail) == (False, f"{number} has no fallback for when we are down: see docs/channels/phone.md")


async def test_the_probe_is_content_with_a_number_that_has_all(bench: Bench) -> None:
    account = f"/2010-04-01/Accounts/{ACCOUNT}"
    number = {
        "phone_number": "+12025550123",
        "voice_url": f"{URL}/hooks/phone",
        "voice_fallback_url": "https://static.example.com/fallback.xml",
        "status_callback": f"{URL}/hooks/phone/status",
    }
    bench.shelf.app.add_api_route(f"{account}.json", lambda: {"sid": ACCOUNT, "status": "active"})
    bench.shelf.app.add_api_route(
        f"{account}/IncomingPhoneNumbers.json", lambda: {"incoming_phone_numbers": [number], "next_page_uri": None}
    )
    probe = at(bench.api_url).probe
    assert probe is not None
    health = await probe.probe()
    assert (health.ok, health.detail) == (True, f"+12025550123 call {URL}/hooks/phone")


async def test_the_probe_is_bounded_and_never_raises(twilio: TwilioServer) -> None:
    ok, detail = await probed(twilio, auth_tokens=[SecretStr("wrong")])
    assert not ok
    assert "refuses our account SID or auth token" in detail
    probe = at("http://127.0.0.1:9").probe
    assert probe is not None
    assert "cannot be reached" in (await probe.probe()).detail


# --- recordings -------------------------------------------------------------------------------------------------------


@dataclass
class Shelf:
    """Twilio's recordings, as far as we use them."""

    app: FastAPI = field(default_factory=FastAPI)
    kept: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: what deleting answers instead
    refuses: int = 0

    def __post_init__(self) -> None:
        self.app.add_api_route(
            f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{{name}}", self.called, methods=["GET", "DELETE"]
        )

    async def called(self, request: Request, name: str) -> Response:
        sid = name.partition(".")[0]
        self.asked.append((request.method, name))
        if not request.headers.get("authorization", "").startswith("Basic "):
            return Response(status_code=401)
        if request.method == "DELETE":
            if self.refuses:
                return Response('{"code": 20500, "status": 500}', self.refuses, media_type="application/json")
            if self.kept.pop(sid, None) is None:
                return Response('{"code": 20404, "status": 404}', 404, media_type="application/json")
            return Response(status_code=204)
        if sid not in self.kept:
            return Response('{"code": 20404, "status": 404}', 404, media_type="application/json")
        return Response(self.kept[sid], media_type="audio/mpeg")

    def methods(self) -> list[str]:
        return [method for method, _name in self.asked]


@dataclass
class Bench:
    shelf: Shelf
    api_url: str
    database: Database
    settings: Settings

    async def record(self) -> str:
        """A caller left a message. The recording's id."""
        hook = make().hook
        assert hook is not None
        items = hook.parse(request_of("phone", signed(recording(1), rest="recording"))).items
        await make_world(self.database, self.settings).flow.receive(items)
        return recording(1)["RecordingSid"]

    def media(self, **changes: Any) -> Media:
        fetcher = at(self.api_url, **changes).fetcher
        assert fetcher is not None
        return Media(self.database, {"phone": fetcher})

    async def due(self) -> None:
        """What was put off is due now."""
        medium = table(Medium)
        await self.database.write(lambda c: c.execute(sa.update(medium).values(next_at=datetime.now(UTC))))

    def medium(self) -> Any:
        [row] = rows(self.database, Medium)
        return row

    def contents(self) -> list[bytes]:
        return [each.content for each in rows(self.database, Attachment)]


@pytest.fixture
async def bench(database: Database, settings: Settings) -> AsyncIterator[Bench]:
    shelf = Shelf()
    async with reachable() as door, door.answering(shelf.app):
        yield Bench(shelf, door.url, database, settings)


async def test_a_recording_is_fetched_and_then_deleted_at_twilio(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    media = bench.media()
    assert await media.fetch_due() == 1
    assert bench.contents() == [b"ID3 hello"]
    assert bench.medium().state == "fetched"
    assert bench.shelf.asked == [("GET", f"{sid}.mp3"), ("DELETE", f"{sid}.json")]
    await bench.due()
    assert await media.fetch_due() == 0


async def test_where_the_settings_say_so_it_stays_at_twilio(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    await bench.media(delete_recordings=False).fetch_due()
    assert bench.medium().state == "fetched"
    assert bench.shelf.methods() == ["GET"]


async def test_a_recording_that_is_not_ready_is_asked_for_again(bench: Bench) -> None:
    sid = await bench.record()
    media = bench.media()
    await media.fetch_due()
    assert (bench.medium().state, bench.contents()) == ("waiting", [])
    assert bench.medium().next_at > datetime.now(UTC)
    bench.shelf.kept[sid] = b"ID3 late"
    await bench.due()
    await media.fetch_due()
    assert bench.contents() == [b"ID3 late"]
    assert bench.shelf.methods() == ["GET", "GET", "DELETE"]


async def test_what_twilio_does_not_delete_is_tried_again_and_not_fetched_again(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    bench.shelf.refuses = 503
    media = bench.media()
    await media.fetch_due()
    assert bench.contents() == [b"ID3 hello"], "our copy does not wait for that"
    assert bench.medium().state == "waiting"
    assert "still at the provider" in bench.medium().reason
    bench.shelf.refuses = 0
    await bench.due()
    await media.fetch_due()
    assert (bench.medium().state, bench.medium().reason) == ("fetched", "")
    assert bench.contents() == [b"ID3 hello"]
    assert bench.shelf.methods() == ["GET", "DELETE", "DELETE"]
    assert bench.shelf.kept == {}


async def test_who_dies_between_storing_and_deleting_leaves_it_to_the_next(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    reached, never = asyncio.Event(), asyncio.Event()
    good = at(bench.api_url).fetcher
    assert good is not None
    fetch = good.fetch

    class Dies:
        async def fetch(self, reference: Mapping[str, str]) -> Any:
            return await fetch(reference)

        async def clear(self, reference: Mapping[str, str]) -> None:
            del reference
            reached.set()
            await never.wait()

    task = asyncio.create_task(Media(bench.database, {"phone": Dies()}).fetch_due())
    await asyncio.wait_for(reached.wait(), 10)
    assert bench.contents() == [b"ID3 hello"], "it is committed before anything is deleted"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bench.due()
    assert await bench.media().fetch_due() == 1
    assert bench.medium().state == "fetched"
    assert bench.contents() == [b"ID3 hello"]
    assert bench.shelf.methods() == ["GET", "DELETE"]


async def test_that_it_is_gone_already_is_well(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    media = bench.media()
    fetcher = at(bench.api_url).fetcher
    assert isinstance(fetcher, Clears)
    await media.fetch_due()
    await fetcher.clear(bench.medium().reference)
    assert bench.shelf.methods() == ["GET", "DELETE", "DELETE"]


async def test_a_deployer_who_stops_deleting_does_not_leave_it_half_done(bench: Bench) -> None:
    sid = await bench.record()
    bench.shelf.kept[sid] = b"ID3 hello"
    bench.shelf.refuses = 503
    await bench.media().fetch_due()
    await bench.due()
    await bench.media(delete_recordings=False).fetch_due()
    assert bench.medium().state == "fetched"


# --- pure things ------------------------------------------------------------------------------------------------------


def test_the_static_fallback_says_what_the_menu_would() -> None:
    assert (ROOT / "deploy" / "twilio" / "fallback.xml").read_text("utf-8").strip() == trouble()


@pytest.mark.parametrize(
    ("now", "put_through"),
    [("2026-11-23T09:00+08:00", True), ("2026-11-23T08:59:59+08:00", False), ("2026-11-22T12:00+08:00", False)],
)
def test_the_time_of_the_request_decides_whether_somebody_is_there(now: str, put_through: bool) -> None:
    hook = make(transfer_to="+862112345678").hook
    assert hook is not None
    parsed = hook.parse(request_of("phone", spoken(1, "转人工"), received_at=datetime.fromisoformat(now)))
    assert (b"<Dial" in parsed.answer.body) is put_through
    assert (b"<Record" in parsed.answer.body) is not put_through


def test_what_a_turn_answers_comes_from_the_request_alone() -> None:
    request = request_of("phone", spoken(1, "我要退保"))
    first, second = make().hook, make().hook
    assert first is not None
    assert second is not None
    assert first.parse(request) == second.parse(request)
    assert first.spooled(request) == first.parse(request).answer


_NAMES = [
    "CallSid", "From", "To", "CallStatus", "SpeechResult", "Confidence", "Digits", "RecordingUrl", "RecordingSid",
    "RecordingStatus", "RecordingDuration", "DialCallStatus", "DialCallDuration", "TranscriptionText",
    "TranscriptionSid", "CallDuration", "CallerName",
]  # fmt: skip
_VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["CA1", "completed", "absent", "0", "1", "nan", "inf", "-1", "٣", "", "https://x/y", "anonymous"]),
)


@examined(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(_NAMES), _VALUES),
    st.sampled_from(["", "language", "words", "recorded", "dialled", "recording", "transcript", "status", "ü", "a/b"]),
    st.dictionaries(st.sampled_from(["lang", "turn", "miss", "told", "who"]), _VALUES),
)
def test_whatever_twilio_says_is_read_and_answered(form: dict[str, str], rest: str, query: dict[str, str]) -> None:
    hook = make(transfer_to="+862112345678").hook
    assert hook is not None
    call = signed({name: value.encode("utf-8", "replace").decode() for name, value in form.items()}, NEW, rest="x")
    parsed = hook.parse(request_of("phone", call, rest=rest, query=query))
    assert parsed.answer.status == 200
    assert parsed.answer.body.startswith(b"<?xml")
    for each in parsed.items:
        assert isinstance(each, Message | Unreadable)
        assert each.raw or not form
        if each.seen_at is not None:
            assert len(each.seen_at[1]) <= 64
            assert len(each.seen_at[0]) <= 256
