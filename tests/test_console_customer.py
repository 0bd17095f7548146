"""A customer's page over all channels, joining and parting there, codes, and answering by another address."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from channels import Limits
from domain import Standing, ticket_id_of
from router.arrivals import note
from router.identity import Identity
from settings import Settings
from storage import chat, tickets
from storage.database import Database
from storage.tables import IdentityCode, IdentityMerge, Outbox
from tests.console_world import Browser, Console, both, make_console
from tests.reading import answers, event, on, rows, trail
from tests.worlds import make_world

pytest_plugins = ["tests.console_fixtures"]

PHONE = "+8613800138000"
CARRIES = {
    "mail": Limits(),
    "sms": Limits(ordered=True),
    "whatsapp": Limits(ordered=True, window=timedelta(hours=24)),
    "chat": Limits(),
}


@pytest.fixture
async def console(console_url: str, settings: Settings) -> AsyncIterator[Console]:
    database = Database(console_url)
    yield await make_console(make_world(database, settings, carries=CARRIES, mute=frozenset({"hotline"})))
    database.close()


async def three(console: Console) -> list[str]:
    """One person by mail, by SMS and with a ticket of another department; nothing joined yet."""
    return [
        await console.ticket("#claim_status where is my money", channel="mail", account="mail", sender="li@example.com",
                             sender_name="Wang Li", subject="My claim"),
        await console.ticket("#claim_status by text", channel="sms", account="+861069", sender=PHONE, thread="pair"),
        await console.ticket("#payment_problem a secret of billing", channel="telegram", account="bot", sender="4711"),
    ]  # fmt: skip


async def join(console: Console, *others: int, reason: str = "said so") -> None:
    for other in others:
        unit = Identity(console.world.desk).decide(other, reason)
        await on(console.world.database, unit, 1, console.actor("sun"))


def _id(number: str) -> int:
    found = ticket_id_of(number)
    assert found is not None
    return found


async def owner(console: Console, number: str) -> int:
    row = await console.world.database.read(lambda connection: tickets.get(connection, _id(number)))
    return int(row.customer_id)


# --- the page ---------------------------------------------------------------------------------------------------------


@both
async def test_the_page_shows_everything_over_all_channels_and_of_others_no_word(console: Console) -> None:
    numbers = await three(console)
    await join(console, 2, 3)
    li = await console.signed_in("li")
    page = (await li.get("/console/c/1")).text
    for word in ("where is my money", "by text", "+861****8000", "Wang Li", "SMS", "Telegram", "said so", *numbers):
        assert word in page, word
    assert "a secret of billing" not in page
    assert f'href="/console/t/{numbers[2]}"' not in page
    assert f"A message on {numbers[2]}, which is with Billing" in page
    assert page.index("where is my money") < page.index("by text")
    sun = await console.signed_in("sun")
    assert "a secret of billing" in (await sun.get("/console/c/1")).text
    assert 'href="/console/c/1"' in (await li.get(f"/console/t/{numbers[0]}")).text


async def test_who_may_see_none_of_the_tickets_sees_no_customer(console: Console) -> None:
    await three(console)
    li, zhao = await console.signed_in("li"), await console.signed_in("zhao")
    assert (await zhao.get("/console/c/1")).status_code == 403
    assert (await li.get("/console/c/3")).status_code == 403
    assert (await zhao.get("/console/c/3")).status_code == 200
    assert (await li.get("/console/c/77")).status_code == 404
    for path in ("/console/c/3/join", "/console/c/3/part/1"):
        assert (await li.post(path, other="1", who="li@example.com", reason="x")).status_code == 403
    assert rows(console.world.database, IdentityMerge) == []


async def test_who_was_joined_is_shown_with_whom(console: Console) -> None:
    await three(console)
    await join(console, 2)
    li = await console.signed_in("li")
    answer = await li.get("/console/c/2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/c/1")


async def test_a_long_history_is_shown_in_parts(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.console_customer._SHOWN", 3)
    number = await console.ticket("#claim_status word0", thread="t")
    for turn in range(1, 6):
        await console.ticket(f"#claim_status word{turn}", thread="t")
    li = await console.signed_in("li")
    seen: list[str] = []
    path = "/console/c/1"
    while path:
        page = (await li.get(path)).text
        assert len(re.findall('<li class="msg', page)) <= 3
        seen += re.findall(r'class="text"[^>]*>#claim_status (word\d)', page)
        earlier = re.search(r'href="(\?before=\d+)"', page)
        path = f"/console/c/1{earlier[1]}" if earlier else ""
    assert sorted(seen) == [f"word{turn}" for turn in range(6)]
    assert number in page


# --- joining and parting ----------------------------------------------------------------------------------------------


@both
async def test_a_suggestion_is_decided_on_the_ticket_and_undone_there(console: Console) -> None:
    first = await console.ticket("#claim_status by text", channel="sms", account="+861069", sender=PHONE)
    second = await console.ticket("#claim_status call", channel="phone", sender=PHONE, sender_name="<b>Eve</b>")
    li = await console.signed_in("li")
    page = (await li.get(f"/console/t/{first}")).text
    assert "May be the same person as &lt;b&gt;Eve&lt;/b&gt;" in page
    assert "Same phone number, as the caller showed it: +86****8000" in page
    refused = await li.post("/console/c/1/join", other="2", hint="caller", back=first, reason=" ")
    assert refused.status_code == 422
    assert "Say why" in refused.text
    done = await li.post("/console/c/1/join", other="2", hint="caller", back=first, origin="q/claims", reason="asked")
    assert done.headers["location"] == f"/console/t/{first}?from=q/claims"
    assert await owner(console, second) == 1
    [merge] = rows(console.world.database, IdentityMerge)
    assert merge.evidence == {"kind": "agent", "reason": "asked", "hint": "caller"}
    assert event(console.world.database, "merged").ticket_id == _id(first)
    page = (await li.get(f"/console/t/{first}")).text
    assert "May be the same person" not in page
    assert "Joined with" in page
    assert "Customers joined by li: Decided by a person." in page
    assert (await li.post("/console/c/1/part/1", back=first)).status_code == 303
    assert await owner(console, second) == 2
    assert "li parted joined customers again." in (await li.get(f"/console/t/{first}")).text
    again = await li.post("/console/c/1/part/1", back=first)
    assert again.status_code == 409
    assert "It was undone before." in again.text


@both
async def test_another_customer_is_named_by_a_ticket_or_an_address(console: Console) -> None:
    numbers = await three(console)
    sun = await console.signed_in("sun")
    for who, wrong in (
        ("nobody@example.com", "There is no such customer."),
        ("S-999999", "There is no such customer."),
        ("3", "There is no such customer."),
        ("Wang Li", "There is no such customer."),
        (numbers[0], "They are one customer already."),
    ):
        answer = await sun.post("/console/c/1/join", who=who, reason="same voice")
        assert answer.status_code in (409, 422), who
        assert wrong in answer.text, who
    await sun.post("/console/c/1/join", who=numbers[1], reason="same voice")
    await sun.post("/console/c/1/join", who="4711", reason="same voice")
    assert "There is no such customer." in (await sun.post("/console/c/1/join", who="4711", reason="x")).text
    await sun.post("/console/c/1/join", who=numbers[2], reason="same voice")
    assert [await owner(console, number) for number in numbers] == [1, 1, 1]


async def test_an_agent_joins_no_customer_of_whom_they_may_know_nothing(console: Console) -> None:
    numbers = await three(console)
    li = await console.signed_in("li")
    assert (await li.post("/console/c/1/join", who=numbers[2], reason="x")).status_code == 403
    assert (await li.post("/console/c/1/join", other="3", reason="x")).status_code == 403
    assert await owner(console, numbers[2]) == 3


# --- codes ------------------------------------------------------------------------------------------------------------


@both
async def test_a_contact_left_in_the_chat_is_confirmed_by_a_code(console: Console) -> None:
    def leave(connection: sa.Connection) -> None:
        chat.open_session(connection, "visitor-1", site="", language="en", now=datetime.now(UTC))
        chat.change(connection, "visitor-1", contact="li@example.com")

    number = await console.ticket("#claim_status hi", channel="chat", sender="visitor-1", thread="visitor-1")
    await console.world.database.write(leave)
    li = await console.signed_in("li")
    assert "Left in the chat, not confirmed: li@example.com" in (await li.get(f"/console/t/{number}")).text
    answer = await li.post(f"/console/t/{number}/code", channel="mail", address="li@example.com")
    assert answer.status_code == 303
    assert console.nudges == [1]
    [box] = rows(console.world.database, Outbox, kind="code")
    page = (await li.get(f"/console/t/{number}")).text
    assert "li had a code sent by Mail, to be said here." in page
    text = await console.world.database.read(
        lambda c: c.execute(sa.text(f"select text from message where id = {box.message_id}")).scalar_one()
    )
    code = re.findall(r"\d{6}", text)[0]
    assert code not in page
    assert code not in (await li.get("/console/c/1")).text
    await console.ticket(code, channel="chat", sender="visitor-1", thread="visitor-1")
    page = (await li.get(f"/console/t/{number}")).text
    assert "A code sent to the other address was said here: l***@example.com" in page
    assert "Answer by" in page


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("nonsense", "Enter a mail address"),
        ("12345", "Enter a mail address"),
        ("li@example.com", "They are one customer already."),
    ],
)
async def test_a_code_that_cannot_go_says_why(console: Console, address: str, wrong: str) -> None:
    [number, *_] = await three(console)
    li = await console.signed_in("li")
    answer = await li.post(f"/console/t/{number}/code", address=address)
    assert answer.status_code in (409, 422)
    assert wrong in answer.text
    assert "Send anyway" not in answer.text
    assert rows(console.world.database, IdentityCode) == []


async def test_a_code_for_another_department_s_ticket_is_not_sent(console: Console) -> None:
    numbers = await three(console)
    li = await console.signed_in("li")
    assert (await li.post(f"/console/t/{numbers[2]}/code", address="x@example.com")).status_code == 403
    assert rows(console.world.database, IdentityCode) == []


# --- answering by another channel -------------------------------------------------------------------------------------


def _options(page: str) -> list[tuple[str, bool, bool]]:
    """(value, chosen, disabled) of each address that an answer may go to."""
    found = re.search(r'<select name="by".*?</select>', page, re.S)
    options = re.findall(r"<option value=\"([^\"]*)\" (.*?)>", found[0]) if found else []
    return [(value, "selected" in rest, "disabled" in rest) for value, rest in options]


async def say(browser: Browser, number: str, by: str = "") -> Any:
    return await browser.post(f"/console/t/{number}/say", text="the answer", by=by)


@both
async def test_an_agent_chooses_the_address_that_the_answer_goes_to(console: Console) -> None:
    number, *_ = await three(console)
    li = await console.signed_in("li")
    assert _options((await li.get(f"/console/t/{number}")).text) == []
    await join(console, 2)
    page = (await li.get(f"/console/t/{number}")).text
    assert _options(page) == [("", True, False), (f"sms {PHONE}", False, False)]
    assert "SMS +861****8000" in page
    assert (await say(li, number, by=f"sms {PHONE}")).status_code == 303
    assert (answers(console.world.database)[-1].channel, answers(console.world.database)[-1].address) == ("sms", PHONE)
    assert "SMS +86****8000" in (await li.get(f"/console/t/{number}")).text
    await console.ticket("thanks by text", channel="sms", account="+861069", sender=PHONE, thread="pair")
    assert "thanks by text" in (await li.get(f"/console/t/{number}")).text
    assert (await say(li, number)).status_code == 303
    assert answers(console.world.database)[-1].channel == "mail"


@both
async def test_where_the_first_channel_cannot_carry_it_another_is_chosen(console: Console) -> None:
    old = datetime.now(UTC) - timedelta(days=2)
    number = await console.ticket(channel="whatsapp", account="1", sender="8613900139000", received_at=old)
    await console.ticket(channel="mail", account="mail", sender="li@example.com")
    li = await console.signed_in("li")
    page = (await li.get(f"/console/t/{number}")).text
    assert "No channel can carry an answer to this customer now." in page
    assert 'id="send"' in page
    refused = await say(li, number)
    assert refused.status_code == 409
    assert "The time for answers on this channel is over until the customer writes again." in refused.text
    await join(console, 2)
    page = (await li.get(f"/console/t/{number}")).text
    assert _options(page) == [("", False, True), ("mail li@example.com", True, False)]
    assert "The answer goes by Mail li@example.com instead." in page
    assert "No channel can carry" not in page


async def test_a_channel_that_takes_no_answers_is_answered_elsewhere_or_not_at_all(console: Console) -> None:
    number = await console.ticket(channel="hotline", sender="7")
    await console.ticket(channel="sms", account="+861069", sender=PHONE)
    li = await console.signed_in("li")
    page = (await li.get(f"/console/t/{number}")).text
    assert "No channel can carry" in page
    assert 'id="send"' not in page
    await join(console, 2)
    page = (await li.get(f"/console/t/{number}")).text
    assert 'id="send"' in page
    assert _options(page) == [("", False, True), (f"sms {PHONE}", True, False)]
    assert (await say(li, number, by=f"sms {PHONE}")).status_code == 303
    blocked = Standing(channel="sms", address=PHONE, at=datetime.now(UTC), refused="opted_out")
    await console.world.database.write(lambda connection: note(connection, [blocked]))
    page = (await li.get(f"/console/t/{number}")).text
    assert "No channel can carry" in page
    assert "wants no messages" in (await li.get("/console/c/1")).text


async def test_an_address_of_somebody_else_is_refused_with_the_text_kept(console: Console) -> None:
    number, *_ = await three(console)
    li = await console.signed_in("li")
    for by in (f"sms {PHONE}", "mail eve@example.com", "telegram 4711"):
        answer = await say(li, number, by=by)
        assert answer.status_code == 409
        assert "the answer</textarea>" in answer.text
        assert "is not the customer&#39;s any more" in answer.text
    assert trail(console.world.database, 1) == ["opened", "acknowledgement"]
    part = await li.post(f"/console/t/{number}/say", fragment=True, text="x", by=f"sms {PHONE}")
    assert "is not the customer&#39;s any more" in part.text
