"""A whole call over the real endpoint, every turn twice: what the caller hears, and what people see."""

from __future__ import annotations

from typing import Any

import pytest

from domain import Role
from router.tickets import Actor
from storage.tables import Event
from tests.phone_reading import DAY_AND_NIGHT, PERSON, Door, came_in, finish, parts_of
from tests.phone_world import Caller, said, verbs
from tests.reading import answers, on, rows, ticket, tickets
from tests.samples.phone import CUSTOMER, OURS

pytest_plugins = ["tests.phone_fixtures"]

# --- a conversation ---------------------------------------------------------------------------------------------------


async def test_a_call_in_chinese_from_the_first_ring_to_the_end(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    twiml = await caller.call()
    assert verbs(twiml) == ["Gather"]
    assert "中文服务请按 1" in said(twiml)
    assert "For English, press 2" in said(twiml)
    await finish(api)
    opened = ticket(api.world.database)
    assert (opened.department, bool(opened.look_first), opened.address) == ("triage", True, CUSTOMER)
    twiml = await caller.press("1")
    [gather] = twiml.iter("Gather")
    assert (gather.get("language"), gather.get("input")) == ("cmn-Hans-CN", "speech dtmf")
    assert "保存" in said(twiml), "the consent comes before the first words"
    twiml = await caller.say("#claim_status 我的理赔三周没有消息")
    assert "已经记下了" in said(twiml)
    await finish(api)
    now = ticket(api.world.database)
    assert (now.id, now.department, now.intent, bool(now.look_first)) == (opened.id, "claims", "claim_status", False)
    await caller.say("保单号是 8800123456789012345")
    twiml = await caller.silence()
    assert verbs(twiml) == ["Say", "Hangup"]
    assert "回电" in said(twiml)
    await caller.end()
    await finish(api)
    first, second, third = came_in(api)
    assert [each.text for each in (first, second, third)] == [
        "", "#claim_status 我的理赔三周没有消息", "保单号是 8800123456789012345"]  # fmt: skip
    assert parts_of(first) == [("call", "A call came in"), ("call", "The call ended (35 s)")]
    assert {each.ticket_id for each in (first, second, third)} == {opened.id}
    assert {each.account for each in (first, second, third)} == {OURS}
    assert answers(api.world.database) == [], "nothing is sent to a phone"
    assert rows(api.world.database, Event, kind="duplicate_differs") == []


async def test_a_call_in_english(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    twiml = await caller.press("2")
    [gather] = twiml.iter("Gather")
    assert gather.get("language") == "en-US"
    assert gather.get("profanityFilter") == "false"
    assert "Please tell us in a sentence" in said(twiml)
    assert "If you do not agree, please hang up" in said(twiml)
    assert "Thank you, we have it" in said(await caller.say("#claim_status where is my money"))


async def test_who_presses_no_key_is_asked_in_the_first_language(door: Door) -> None:
    api = await door(languages=["en", "zh"])
    caller = Caller(api)
    assert said(await caller.call()).startswith("Hello")
    [gather] = (await caller.silence()).iter("Gather")
    assert gather.get("language") == "en-US"
    await caller.call()
    [gather] = (await caller.press("2")).iter("Gather")
    assert gather.get("language") == "cmn-Hans-CN"


async def test_with_one_language_nobody_is_asked_for_it(door: Door) -> None:
    api = await door(languages=["en"])
    twiml = await Caller(api).call()
    [gather] = twiml.iter("Gather")
    assert gather.get("input") == "speech dtmf"
    assert "Hello" in said(twiml)


async def test_who_hangs_up_without_a_word_leaves_a_ticket_that_says_so(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    await caller.end(seconds="4")
    await finish(api)
    [row] = came_in(api)
    assert parts_of(row) == [("call", "A call came in"), ("call", "The call ended (4 s)")]
    found = ticket(api.world.database)
    assert (found.department, found.route["rule"]) == ("triage", "triage.nothing_said")


@pytest.mark.parametrize("status", ["no-answer", "busy", "failed", "canceled"])
async def test_a_call_that_never_was_one_is_kept_too_even_told_first(door: Door, status: str) -> None:
    api = await door()
    caller = Caller(api)
    await caller.end(status)
    await caller.call()
    held = [each.message_id for each in await api.world.queue.take(10, 5.0)]
    await api.world.flow.process(held)
    [row] = came_in(api)
    assert len(parts_of(row)) == 1
    assert len(tickets(api.world.database)) == 1
    assert rows(api.world.database, Event, kind="duplicate_differs") == []


async def test_that_a_call_ended_wakes_no_ticket_that_was_resolved_meanwhile(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    await caller.press("1")
    await caller.say("#claim_status 怎么还没有赔")
    await finish(api)
    found = ticket(api.world.database)
    li = Actor("person:li", Role.SUPERVISOR)
    await on(api.world.database, api.world.verbs.resolve("done"), found.id, li)
    await caller.end()
    await finish(api)
    assert ticket(api.world.database).state == "resolved"


# --- not understood ---------------------------------------------------------------------------------------------------


async def test_who_says_nothing_is_asked_twice_again_then_recorded_then_called_back(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    await caller.press("1")
    for _again in range(2):
        twiml = await caller.silence()
        assert verbs(twiml) == ["Gather"]
        assert "没有听到您说话" in said(twiml)
    twiml = await caller.silence()
    assert verbs(twiml) == ["Say", "Record", "Say", "Hangup"], "silence is no recording: the call goes on below it"
    [record] = twiml.iter("Record")
    assert (record.get("maxLength"), record.get("transcribe")) == ("120", None)
    first = twiml.find("Say")
    assert first is not None
    assert "录音" in (first.text or "")
    assert "不同意" in (first.text or "")
    assert "回电" in said(await caller.leave())
    await finish(api)
    assert [parts_of(each) for each in came_in(api)] == [
        [("call", "A call came in")],
        [("audio", "Recorded message (7 s)")],
    ]
    assert ticket(api.world.database).department == "triage"


async def test_low_confidence_is_marked_and_asked_once(door: Door) -> None:
    api = await door()
    caller = Caller(api)
    await caller.call()
    await caller.press("2")
    assert "say it once more" in said(await caller.say("#claim_status mumble", "0.31"))
    assert "Thank you, we have it" in said(await caller.say("mumble mumble", "0.0"))
    await caller.say("clear", "no number")
    _ring, low, none, clear = came_in(api)
    assert parts_of(low) == [("call", "Understood with low confidence (0.31)")]
    assert parts_of(none) == [("call", "Understood with low confidence (0.00)")]
    assert parts_of(clear) == []
    assert low.text == "#claim_status mumble"


async def test_a_call_ends_politely_after_so_many_turns(door: Door) -> None:
    api = await door(turns=4)
    caller = Caller(api)
    await caller.call()
    await caller.press("1")
    for number in range(2):
        assert verbs(await caller.say(f"还有第{number}件事")) == ["Gather"]
    assert verbs(await caller.say("还有一件事")) == ["Say", "Hangup"]


async def test_who_needs_a_person_gets_one_after_any_number_of_turns(door: Door) -> None:
    api = await door(turns=2, transfer_to=PERSON, hours=DAY_AND_NIGHT)
    caller = Caller(api)
    await caller.call()
    await caller.press("1")
    assert "Dial" in verbs(await caller.say("救命"))
    assert verbs(await caller.dialled("busy")) == ["Say", "Hangup"]


# --- a person ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["menu", "words", "spoken", "recorded"])
async def test_who_wants_a_person_is_put_through_at_any_step(door: Door, step: str) -> None:
    api = await door(transfer_to=PERSON, hours=DAY_AND_NIGHT)
    caller = Caller(api)
    await caller.call()
    if step != "menu":
        await caller.press("1")
    if step == "recorded":
        for _again in range(3):
            await caller.silence()
        twiml = await caller.leave(key="0")
    else:
        twiml = await (caller.say("请转人工") if step == "spoken" else caller.press("0"))
    [dial] = twiml.iter("Dial")
    assert [each.text for each in dial.iter("Number")] == [PERSON]
    assert dial.get("callerId") is None
    assert int(dial.get("timeLimit", "0")) > 0
    assert verbs(await caller.dialled("completed", DialCallDuration="95")) == ["Hangup"]
    ring, *rest = came_in(api)
    assert parts_of(ring)[1:] == [("call", "Put through to a person (95 s)")]
    if step in ("menu", "words"):
        assert (rest[0].text, parts_of(rest[0])) == ("转人工", [("button", "转人工")])


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled", "something new", ""])
async def test_when_no_colleague_answers_the_caller_is_recorded(door: Door, status: str) -> None:
    api = await door(transfer_to=PERSON, hours=DAY_AND_NIGHT)
    caller = Caller(api)
    await caller.call()
    await caller.press("0")
    twiml = await caller.dialled(status)
    assert "同事暂时无法接听" in said(twiml)
    assert "Record" in verbs(twiml)
    assert parts_of(came_in(api)[0])[1][1].startswith("Could not be put through to a person: ")


@pytest.mark.parametrize("phone", [{"transfer_to": PERSON, "hours": []}, {"transfer_to": "", "hours": DAY_AND_NIGHT}])
async def test_out_of_hours_or_without_anybody_a_message_is_taken(door: Door, phone: dict[str, Any]) -> None:
    api = await door(**phone)
    caller = Caller(api)
    await caller.call()
    twiml = await caller.press("0")
    assert list(twiml.iter("Dial")) == []
    assert "Record" in verbs(twiml)
    assert "没有同事可以接听" in said(twiml)
    await caller.call()
    await caller.press("2")
    twiml = await caller.say("help me, there is a fire")
    assert "call your local emergency number" in said(twiml)
    assert "Record" in verbs(twiml)


# --- who calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["anonymous", "", "+266696687", "+7378742833", "Restricted", "sip:anonymous@x"])
async def test_a_hidden_number_is_nobody_elses(door: Door, number: str) -> None:
    api = await door(transfer_to=PERSON, hours=DAY_AND_NIGHT)
    for call in (1, 2):
        caller = Caller(api, call, number)
        await caller.call()
        assert "电话号码" in said(await caller.press("1")), "who cannot be called back is asked for a number"
        await caller.say("#claim_status 钱呢")
        assert "您的号码没有显示" in said(await caller.silence())
    await finish(api)
    assert {each.address for each in came_in(api)} == {f"anonymous:{Caller(api, each).sid}" for each in (1, 2)}
    assert len(tickets(api.world.database)) == 2
    caller = Caller(api, 3, number)
    await caller.call()
    [dial] = (await caller.press("0")).iter("Dial")
    assert dial.get("callerId") == OURS


async def test_a_caller_by_sip_is_called_as_he_is(door: Door) -> None:
    api = await door()
    await Caller(api, 1, "sip:li@pbx.example.com").call()
    assert [each.address for each in came_in(api)] == ["sip:li@pbx.example.com"]


async def test_two_calls_of_one_customer_are_two_tickets_and_one_customer(door: Door) -> None:
    api = await door()
    for number in (1, 2):
        await Caller(api, number).call()
    await finish(api)
    assert len(tickets(api.world.database)) == 2
    assert await api.count("customer") == 1
