"""What comes late, twice or never, what must not be stored or spoken, and the database down."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from domain import ForbiddenMove, Role, Unavailable
from router.arrivals import Arrivals
from router.tickets import Actor
from settings import Settings
from storage.tables import Event, Medium, Raw
from tests.phone_reading import DAY_AND_NIGHT, PERSON, Door, came_in, finish, parts_of
from tests.phone_world import Caller, said, verbs
from tests.reading import on, rows, ticket, tickets
from tests.samples.phone import ACCOUNT, CUSTOMER, OURS, fields, recording

pytest_plugins = ["tests.phone_fixtures"]

# --- late, twice, in any order, never ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["action first", "recording first", "action never"])
async def test_a_recording_is_one_message_of_the_same_ticket_however_it_is_told(door: Door, order: str) -> None:
    api = await door(languages=["en"])
    caller = Caller(api)
    await caller.call()
    for _again in range(3):
        twiml = await caller.silence()
    [record] = twiml.iter("Record")
    assert CUSTOMER[1:] not in record.attrib["recordingStatusCallback"], "the number is no matter for proxies' logs"
    await caller.end()
    await finish(api)
    if order == "action first":
        await caller.leave()
        caller.twiml = twiml
    await caller.told("recordingStatusCallback", recording(1))
    if order == "recording first":
        await caller.leave()
    await finish(api)
    _ring, audio = came_in(api)
    assert parts_of(audio) == [("audio", "Recorded message (7 s)")]
    assert (audio.address, audio.account) == (CUSTOMER, OURS)
    [medium] = rows(api.world.database, Medium)
    assert medium.reference["url"].endswith(f"/Accounts/{ACCOUNT}/Recordings/{recording(1)['RecordingSid']}.mp3")
    assert len(tickets(api.world.database)) == 1
    assert rows(api.world.database, Event, kind="duplicate_differs") == []


async def test_a_transcript_is_the_first_words_of_a_ticket_that_had_none(door: Door) -> None:
    api = await door(languages=["en"])
    caller = Caller(api)
    await caller.call()
    for _again in range(3):
        twiml = await caller.silence()
    [record] = twiml.iter("Record")
    assert record.get("transcribe") == "true"
    transcript = {
        "CallSid": caller.sid,
        "AccountSid": ACCOUNT,
        "TranscriptionSid": "TR" + "7" * 32,
        "TranscriptionStatus": "completed",
        "TranscriptionText": "#claim_status my card 4111 1111 1111 1111",
    }
    await caller.told("transcribeCallback", transcript)
    await caller.told("transcribeCallback", transcript | {"TranscriptionSid": "TR8", "TranscriptionText": ""})
    await finish(api)
    assert [each.text for each in came_in(api)] == ["", "#claim_status my card ****1111"]
    assert ticket(api.world.database).department == "claims"


async def test_that_there_is_no_recording_is_said(door: Door) -> None:
    api = await door(languages=["en"])
    caller = Caller(api)
    await caller.call()
    for _again in range(3):
        await caller.silence()
    for status in ("in-progress", "absent", "failed"):
        await caller.told("recordingStatusCallback", recording(1, RecordingStatus=status))
    [row] = came_in(api)
    assert parts_of(row)[1:] == [
        ("call", "There is no recording: nothing was to be heard, or too little"),
        ("call", "There is no recording: Twilio could not keep it"),
    ]
    assert rows(api.world.database, Medium) == []


async def test_a_recording_that_names_nobody_is_kept_all_the_same(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    for number, query in enumerate(("", "?who=", "?who=%ff", "?who=AAAA", "?who=" + "A" * 60), 1):
        answer = await caller.post(f"http://sluice.test/hooks/phone/recording{query}", recording(number))
        assert answer.status_code == 200
    assert {each.address for each in came_in(api)} == {f"anonymous:{caller.sid}"} | {
        f"anonymous:{Caller(api, each).sid}" for each in range(2, 6)
    }


# --- what callers say -------------------------------------------------------------------------------------------------


async def test_what_a_caller_says_never_becomes_twiml(door: Door) -> None:
    api = await door(transfer_to=PERSON, hours=DAY_AND_NIGHT)
    caller = Caller(api)
    await caller.call()
    await caller.press("2")
    attack = "</Say><Dial><Number>+19005550100</Number></Dial><Say>&\"'<![CDATA["
    twiml = await caller.say(attack)
    assert verbs(twiml) == ["Gather"]
    assert "+19005550100" not in said(twiml)
    assert came_in(api)[-1].text == attack
    query = urlencode({"lang": '"><Hangup/>', "turn": "1 or 1=1", "miss": "<", "told": "1"})
    twiml = await caller.turn(f"{caller.base}/hooks/phone/words?{query}", Digits="9")
    assert "Dial" not in verbs(twiml)


async def test_cards_are_masked_before_anything_is_stored(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    await caller.press("1")
    await caller.say("#billing 卡号四一一一一一一一一一一一一一一一，身份证11010519491231002X")
    await finish(api)
    assert came_in(api)[-1].text == "#billing 卡号****1111，身份证****002X"
    raws = b" ".join(each.body for each in rows(api.world.database, Raw))
    assert b"002X" in raws
    assert b"110105" not in raws
    assert "四一一".encode() not in raws


async def test_agents_are_told_that_nothing_can_be_written_to_a_phone(door: Door) -> None:
    api = await door()
    await Caller(api).call()
    await finish(api)
    found = ticket(api.world.database)
    li = Actor("person:li", Role.SUPERVISOR)
    with pytest.raises(ForbiddenMove, match="takes no answers"):
        await on(api.world.database, api.world.verbs.reply("您好"), found.id, li)


# --- the database is down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["down", "slow"])
async def test_a_caller_notices_nothing_while_the_database_is_down(
    door: Door, settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    api = await door()
    never = asyncio.Event()

    async def refused(*_args: Any) -> None:
        if how == "slow":
            await never.wait()
        raise Unavailable

    assert api.web.hooks is not None
    hook = api.web.hooks.known["phone"]
    assert hook.patience is not None
    assert hook.patience < 5
    hook.patience = 0.05
    caller = Caller(api, times=1)
    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "take", refused)
        assert verbs(await caller.call()) == ["Gather"]
        begun = time.monotonic()
        await caller.press("1")
        twiml = await caller.say("#claim_status 卡号4111 1111 1111 1111")
        assert "已经记下了" in said(twiml)
        await caller.end()
        assert time.monotonic() - begun < 5
    kept = sorted(Path(settings.state_dir, "spool", "phone").iterdir())
    assert kept
    assert not any(b"4111" in each.read_bytes() or b"NDExM" in each.read_bytes() for each in kept)
    assert await api.web.hooks.replay_once() == len(kept)
    await finish(api)
    assert [each.text for each in came_in(api)] == ["", "#claim_status 卡号****1111"]
    assert parts_of(came_in(api)[0]) == [("call", "A call came in"), ("call", "The call ended (35 s)")]
    assert ticket(api.world.database).department == "claims"


async def test_a_request_that_names_no_call_is_kept_and_the_caller_hears_something(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    answer = await caller.post("http://sluice.test/hooks/phone", {"Hello": "卡号 4111 1111 1111 1111"})
    assert "Sorry, something is wrong" in answer.text
    [row] = came_in(api)
    assert row.state == "quarantined"
    form = fields(1, CallSid="../../etc")
    await caller.post("http://sluice.test/hooks/phone", form)
    assert [each.state for each in came_in(api)] == ["quarantined"] * 2
