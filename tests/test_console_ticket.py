"""One ticket in the console: what it shows, what people do with it, and that nothing typed is lost or sent twice."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa

from domain import Attachment, OutState, TicketState, ticket_id_of
from nlu.entities import find
from storage import events, tables, tickets
from storage.types import AnyRow
from tests.console_world import Console, both
from tests.worlds import message
from web import console_views
from web.console_ticket import clean_html
from web.words import words

pytest_plugins = ["tests.console_fixtures"]


def _id(number: str) -> int:
    found = ticket_id_of(number)
    assert found is not None
    return found


async def _row(console: Console, number: str) -> AnyRow:
    return await console.world.database.read(lambda connection: tickets.get(connection, _id(number)))


async def _said(console: Console, number: str) -> list[AnyRow]:
    """What people answered or noted, in order."""
    rows = await console.world.database.read(lambda connection: tickets.messages(connection, _id(number)))
    return [row for row in rows if row.direction == "note" or (row.direction == "out" and not row.out_automatic)]


async def _kinds(console: Console, number: str) -> list[str]:
    rows = await console.world.database.read(lambda connection: events.of_ticket(connection, _id(number)))
    return [row.kind for row in rows]


def _field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', page)
    assert found is not None
    return found[1]


# --- answering --------------------------------------------------------------------------------------------------------


@both
async def test_a_reply_is_queued_and_delivery_hears_of_it(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    answer = await browser.post(f"/console/t/{number}/say", text=" 您好，正在审核。 ", origin="q/claims")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/console/t/{number}?from=q/claims"
    [reply] = await _said(console, number)
    assert (reply.text, reply.out_state, reply.author) == ("您好，正在审核。", "queued", "li")
    assert console.nudges == [1]
    row = await _row(console, number)
    assert (row.state, row.owner) == ("open", "li")
    page = await browser.get(answer.headers["location"])
    assert "Reply queued for sending." in page.text
    assert "Reply queued for sending." not in (await browser.get(answer.headers["location"])).text


@pytest.mark.parametrize("then", ["pending", "resolved"])
async def test_a_reply_may_change_the_state_in_the_same_step(console: Console, then: str) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    await browser.post(f"/console/t/{number}/say", text="Done.", then=then)
    assert (await _row(console, number)).state == then
    assert len(await _said(console, number)) == 1


@both
async def test_a_note_is_kept_and_never_sent(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    await browser.post(f"/console/t/{number}/say", text="called the hospital", mode="note")
    [note] = await _said(console, number)
    assert (note.direction, note.out_state) == ("note", None)
    assert "Internal note by li" in (await browser.get(f"/console/t/{number}")).text


@both
async def test_the_same_form_sent_twice_is_one_answer(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    key = _field((await browser.get(f"/console/t/{number}")).text, "key")
    for _ in range(2):
        assert (await browser.post(f"/console/t/{number}/say", text="once", key=key)).status_code == 303
    assert len(await _said(console, number)) == 1


@both
async def test_a_newer_message_of_the_customer_stops_the_reply_and_keeps_the_text(console: Console) -> None:
    number = await console.ticket(thread="t")
    browser = await console.signed_in("li")
    page = (await browser.get(f"/console/t/{number}")).text
    seen, key = _field(page, "seen"), _field(page, "key")
    await console.world.come_in(message("please stop, I found it", thread="t"))
    refused = await browser.post(f"/console/t/{number}/say", text="my long answer", seen=seen, key=key)
    assert refused.status_code == 409
    assert "my long answer</textarea>" in refused.text
    assert "please stop, I found it" in refused.text
    assert await _said(console, number) == []
    part = await browser.post(f"/console/t/{number}/say", fragment=True, text="my long answer", seen=seen, key=key)
    assert part.status_code == 409
    assert "please stop, I found it" in part.text
    assert "<textarea" not in part.text
    newer = re.search(r'data-seen="(\d+)"', part.text)
    assert newer is not None
    sent = await browser.post(
        f"/console/t/{number}/say", fragment=True, text="my long answer", seen=seen, anyway=newer[1], key=key
    )
    assert sent.status_code == 200
    assert sent.headers["hx-trigger"] == "said"
    assert len(await _said(console, number)) == 1


async def test_what_was_typed_comes_back_with_every_refusal(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    empty = await browser.post(f"/console/t/{number}/say", text="   ")
    assert empty.status_code == 422
    assert "Write something first." in empty.text
    await browser.post(f"/console/t/{number}/resolve", code="done")
    await browser.post(f"/console/t/{number}/close")
    closed = await browser.post(f"/console/t/{number}/say", text="<b>too late</b>")
    assert closed.status_code == 409
    assert "&lt;b&gt;too late&lt;/b&gt;</textarea>" in closed.text


@both
async def test_a_failed_answer_can_be_sent_again(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    await browser.post(f"/console/t/{number}/say", text="answer")
    [reply] = await _said(console, number)
    box = tables.table(tables.Outbox)
    fail = sa.update(box).where(box.c.message_id == reply.id).values(state=OutState.FAILED.value, error="550 no such")
    await console.world.database.write(lambda connection: connection.execute(fail))
    page = (await browser.get(f"/console/t/{number}")).text
    assert "Not sent" in page
    assert "550 no such" in page
    assert f"/console/t/{number}/again/{reply.id}" in page
    other = await console.ticket("#claim_status other", sender="b@example.com")
    assert (await browser.post(f"/console/t/{other}/again/{reply.id}")).status_code == 404
    assert (await browser.post(f"/console/t/{number}/again/{reply.id}")).status_code == 303
    assert (await _said(console, number))[0].out_state == "queued"
    assert "requeued" in await _kinds(console, number)
    assert (await browser.post(f"/console/t/{number}/again/{reply.id}")).status_code == 409


# --- the other verbs --------------------------------------------------------------------------------------------------


@both
async def test_the_way_of_a_ticket_by_forms(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")

    async def state() -> str:
        return str((await _row(console, number)).state)

    async def do(verb: str, **fields: str) -> int:
        return (await browser.post(f"/console/t/{number}/{verb}", fragment=False, origin="", **fields)).status_code

    assert await do("assign", to="me") == 303
    assert (await _row(console, number)).owner == "li"
    assert await do("assign", user="") == 303
    assert (await _row(console, number)).owner is None
    assert await do("assign", user="ghost") == 422
    assert await do("pending") == 303
    assert await state() == TicketState.PENDING
    assert await do("pending") == 409
    assert await do("reopen") == 303
    assert await do("priority", priority="high") == 303
    assert await do("priority", priority="absurd") == 404
    assert await do("resolve", code="answered") == 303
    assert (await _row(console, number)).resolution_code == "answered"
    assert await do("reopen") == 303
    assert await do("resolve", code="done") == 303
    assert await do("close") == 303
    assert await do("reopen") == 409
    assert await state() == TicketState.CLOSED


@both
async def test_a_transfer_needs_a_reason_and_leads_the_agent_back_to_the_list(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    path = f"/console/t/{number}/transfer"
    assert (await browser.post(path, department="billing", reason=" ")).status_code == 422
    assert (await browser.post(path, department="nowhere", reason="x")).status_code == 422
    answer = await browser.post(path, department="billing", reason="it is about a payment", origin="q/claims")
    assert answer.headers["location"] == "/console/q/claims"
    assert (await browser.get(f"/console/t/{number}")).status_code == 403
    other = await (await console.signed_in("zhao")).get(f"/console/t/{number}")
    assert "li moved it here from Claims." in other.text
    assert "it is about a payment" in other.text


# --- what it shows ----------------------------------------------------------------------------------------------------


async def test_risk_stands_first_and_self_harm_has_its_card(console: Console) -> None:
    number = await console.ticket("#claim_dispute #self_harm I cannot go on")
    browser = await console.signed_in("sun")
    page = (await browser.get(f"/console/t/{number}")).text
    assert page.index("Self-harm risk") < page.index("<h1")
    assert "What to do now" in page
    assert "12356" in page
    calm = await console.ticket("#claim_status hello", sender="b@example.com")
    assert "What to do now" not in (await browser.get(f"/console/t/{calm}")).text


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        (
            "#claim_status=0.91",
            "The model said Claim status, 91%; it may route alone from 50% up.",
            "模型判断为“理赔进度”",
        ),
        ("#claim_status=0.3", "The model guessed Claim status, 30%; below 50% people decide.", "低于 50% 由人工决定"),
        ("nothing", "The model found none of our matters in it; people decide.", "模型没有找到相关业务"),
        ("#claim_dispute #self_harm", "Somebody may be in danger", "可能有人身危险"),
        ("#claim_status #injury", "Somebody is hurt or has died: Claims has it at top priority.", "有人受伤或身故"),
        ("#emergency_assistance", "Help is needed on the spot", "需要现场救援"),
    ],
)
async def test_why_here_is_one_sentence_in_both_languages(
    console: Console, text: str, english: str, chinese: str
) -> None:
    row = await _row(console, await console.ticket(text))
    assert english in console_views.why_here(row, console.web.desk, words("en"))
    assert chinese in console_views.why_here(row, console.web.desk, words("zh"))


async def test_every_event_is_said_in_words(console: Console) -> None:
    """No kind of event that the code writes is shown by its bare name."""
    folder = Path(__file__).parent.parent
    written = {
        kind
        for part in ("router", "storage", "web")
        for file in (folder / part).glob("*.py")
        for kind in re.findall(r'events\.row\(\s*"([a-z_]+)"', file.read_text())
    }
    written |= {"opened", "appended", "risk", "answer_held", "sent", "delivered", "failed", "unknown", "repeated"}
    number = await console.ticket()
    [first, *_] = await console.world.database.read(lambda connection: events.of_ticket(connection, _id(number)))
    # These are not of a ticket, or a message in the timeline says them.
    elsewhere = {"quarantined", "quarantine_retried", "quarantine_discarded", "automatic_revived", "erased"}
    elsewhere |= {"standing", "model_promoted", "model_rolled_back", "model_trained"}
    for kind in sorted(written - elsewhere - console_views.SHOWN_BY_MESSAGES):
        event = _Event(kind, first.actor, {})
        said = console_views.event_sentence(event, console.web.desk, words("zh"))
        assert kind not in said, kind


class _Event:
    def __init__(self, kind: str, actor: str, data: dict[str, object]) -> None:
        self.kind, self.actor, self.data = kind, actor, data


async def test_what_customers_write_never_becomes_markup(console: Console) -> None:
    evil = "<script>alert(1)</script>"
    number = await console.ticket(f"#claim_status {evil}", subject=evil, sender_name=evil, sender="x<b>@example.com")
    browser = await console.signed_in("sun")
    for path in (f"/console/t/{number}?from=q/all", "/console/q/all", f"/console/review/{number}"):
        page = (await browser.get(path)).text
        assert evil not in page
        assert "&lt;script&gt;" in page
        assert "<b>@example.com" not in page


async def test_a_mail_s_original_is_shown_without_what_loads_or_runs(console: Console) -> None:
    raw = (
        b"From: a@example.com\r\nSubject: Hi\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n"
        b'<p style="color:red" onclick="x()">Dear <b>all</b></p><img src="https://track.example/p.gif">'
        b"<script>steal()</script><style>p{}</style><form action=//e.example><input></form>"
        b'<a href="javascript:x()">bad</a> <a href="https://ok.example">good</a>'
    )
    number = await console.ticket("#claim_status Dear all", channel="mail", account="mail", raw=raw)
    browser = await console.signed_in("sun")
    row = await console.world.database.read(lambda connection: tickets.first_message(connection, _id(number)))
    assert row is not None
    answer = await browser.get(f"/console/m/{row.id}/original")
    laid_out = answer.text.split('<div class="foreign">')[1].split("</section>")[0]
    assert "<b>all</b>" in laid_out
    assert "https://ok.example" in laid_out
    for bad in ("style=", "onclick", "<img", "track.example", "steal", "<form", "<input", "javascript:"):
        assert bad not in laid_out, bad
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


def test_sanitised_html_keeps_words() -> None:
    assert clean_html("<table><tr><td>1</td></tr></table><iframe src=x></iframe>text") == (
        "<table><tbody><tr><td>1</td></tr></tbody></table>text"
    )


async def test_attachments_are_downloads(console: Console) -> None:
    file = Attachment(name='出院 "小结".html', media_type="text/html", content=b"<script>1</script>")
    number = await console.ticket("#claim_status papers", attachments=(file,))
    browser = await console.signed_in("li")
    page = (await browser.get(f"/console/t/{number}")).text
    found = re.search(r"/console/a/\d+", page)
    assert found is not None
    answer = await browser.get(found[0])
    assert answer.content == b"<script>1</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    assert "filename*=UTF-8''%E5%87%BA%E9%99%A2" in disposition
    assert (await (await console.signed_in("zhao")).get(found[0])).status_code == 403


async def test_changes_for_an_open_page_come_without_the_composer(console: Console) -> None:
    number = await console.ticket(thread="t")
    browser = await console.signed_in("li")
    page = (await browser.get(f"/console/t/{number}")).text
    last = re.search(r'data-last="(\d+)"', page)
    assert last is not None
    await console.world.come_in(message("one more thing", thread="t"))
    part = (await browser.get(f"/console/t/{number}/live?after={last[1]}")).text
    assert "one more thing" in part
    assert "where is my money" not in part
    assert 'id="head-state"' in part
    # What may be done depends on the state, and comes along; what somebody is typing does not.
    assert 'id="actions" hx-swap-oob="true"' in part
    for field in ("<textarea", 'id="composer"', "<dialog"):
        assert field not in part


async def test_personal_numbers_are_marked_and_shown_by_their_ends_beside_the_messages(console: Console) -> None:
    text = "身份证11010519491231002X，卡号4111 1111 1111 1111，手机13800138000，保单号:P2026001234567"
    number = await console.ticket(f"#claim_status {text}")
    tags = {"entities": [asdict(entity) for entity in find(text)]}
    await console.world.database.write(
        lambda connection: connection.execute(sa.update(tables.Message).values(tags=tags))
    )
    browser = await console.signed_in("li")
    page = (await browser.get(f"/console/t/{number}")).text
    facts = page.partition("Named in the messages</h3>")[2].partition("</dl>")[0]
    assert re.findall(r'<dt>([^<]+)</dt><dd class="cut">([^<]+?)(?: <span|</dd>)', facts) == [
        ("Identity number", "****002X"), ("Card or account", "****1111"), ("Phone number", "****8000"),
        ("Policy number", "P202****4567"),
    ]  # fmt: skip
    assert facts.count(">personal<") == 3
    assert text in page


async def test_the_customer_s_other_tickets_are_named(console: Console) -> None:
    first = await console.ticket("#claim_status one")
    second = await console.ticket("#payment_problem two")
    supervisor, agent = await console.signed_in("sun"), await console.signed_in("li")
    assert f"/console/t/{second}" in (await supervisor.get(f"/console/t/{first}")).text
    assert f"/console/t/{second}" not in (await agent.get(f"/console/t/{first}")).text


@pytest.mark.parametrize(
    ("given", "shown"),
    [("13812346021", "138****6021"), ("a1234567@x.cn", "a123****4567@x.cn"), ("call 12345", "call 12345")],
)
def test_long_numbers_are_masked(given: str, shown: str) -> None:
    assert console_views.mask(given) == shown
