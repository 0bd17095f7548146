"""The tracking page: what a customer may see of their ticket, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from domain import Attachment, Message, TicketState, public_number
from storage import outbox
from storage.tables import Outbox, Ticket, table
from tests.chat_world import AGENT, ChatWorld
from web.chat_words import PAGES

ticket = table(Ticket)
outbox_table = table(Outbox)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChatWorld]:
    with ChatWorld(tmp_path, workers=False) as made:
        yield made


@pytest.fixture
async def browser(world: ChatWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url) as client:
        yield client


def write(world: ChatWorld, text: str, external_id: str = "m1", **more: object) -> sa.Row[tuple[object, ...]]:
    """A customer's mail becomes a ticket."""
    fields = {
        "channel": "mail",
        "account": "mail",
        "external_id": external_id,
        "sender": "wang@example.cn",
        "sender_name": "王芳",
        "subject": "王芳的理赔",
        "received_at": datetime.now(UTC),
        "text": text,
        "key": external_id,
    }
    item = Message(**(fields | more))  # type: ignore[arg-type]
    [stored] = world.run(world.web.flow.receive([item], ring=False))
    world.run(world.web.flow.process([stored.message_id]))
    return world.read(lambda connection: connection.execute(sa.select(ticket).order_by(ticket.c.id.desc())).first())  # type: ignore[return-value]


async def test_shows_state_department_and_public_messages(world: ChatWorld, browser: httpx.AsyncClient) -> None:
    row = write(world, "我的理赔到哪一步了？\n<script>alert(1)</script>")
    note, transfer = (
        world.web.verbs.note("内部：客户情绪激动"),
        world.web.verbs.transfer("customer_service", "转派原因在此"),
    )
    world.reply(row.id, "资料已收齐。\n请等待。")
    world.write(lambda connection: note(connection, row.id, AGENT))
    world.write(lambda connection: transfer(connection, row.id, AGENT))
    answer = await browser.get(f"/t/{row.token}")
    assert answer.status_code == 200
    page = answer.text
    for shown in (
        public_number(row.id),
        "客户服务中心正在处理。",
        "资料已收齐。\n请等待。",
        "我的理赔到哪一步了？",
        "系统自动回复",
    ):
        assert shown in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for hidden in ("内部", "转派原因", "王芳", "wang@example.cn", "claim_status", "person:li", "<script", "0.95"):
        assert hidden not in page, hidden


async def test_headers_keep_the_link_to_oneself(world: ChatWorld, browser: httpx.AsyncClient) -> None:
    row = write(world, "我的理赔")
    for path in (f"/t/{row.token}", "/t/unknown"):
        headers = (await browser.get(path)).headers
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-robots-tag"] == "noindex, nofollow"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
    page = (await browser.get(f"/t/{row.token}")).text
    assert '<meta name="robots" content="noindex, nofollow">' in page
    assert f"<title>工单 {public_number(row.id)}</title>" in page


async def test_risk_and_tags_are_not_named(world: ChatWorld, browser: httpx.AsyncClient) -> None:
    row = write(world, "我的理赔")
    change = sa.update(ticket).values(
        risk=["self_harm", "legal"], tags=["vip-secret"], priority="urgent", sentiment="negative"
    )
    world.write(lambda connection: connection.execute(change))
    page = (await browser.get(f"/t/{row.token}?lang=en")).text.lower()
    for hidden in ("self_harm", "self-harm", "legal", "vip-secret", "urgent", "negative"):
        assert hidden not in page


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("state", list(TicketState))
async def test_every_state_has_its_words_and_step(
    world: ChatWorld, browser: httpx.AsyncClient, state: TicketState, language: str
) -> None:
    row = write(world, "我的理赔")
    world.write(lambda connection: connection.execute(sa.update(ticket).values(state=state.value)))
    page = (await browser.get(f"/t/{row.token}?lang={language}")).text
    department = "理赔部" if language == "zh" else "Claims"
    assert PAGES[language][f"state_{state}"].format(department=department).replace("'", "&#39;") in page
    assert page.count('aria-current="step"') == 1
    reached = {"new": 1, "open": 2, "pending": 2, "resolved": 3, "closed": 4}[state]
    assert page.count('class="reached"') == reached
    assert f'lang="{"zh-Hans" if language == "zh" else "en"}"' in page


async def test_language_is_the_links_then_the_tickets_then_the_browsers(
    world: ChatWorld, browser: httpx.AsyncClient
) -> None:
    row = write(world, "My claim, please", "m-en")
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    assert "Your request" in (await browser.get(f"/t/{row.token}", headers=chinese)).text
    assert "您的工单" in (await browser.get(f"/t/{row.token}?lang=zh")).text
    assert "Your request" in (await browser.get(f"/t/{row.token}?lang=fr")).text
    missing = await browser.get("/t/nothing", headers={"Accept-Language": "en-GB"})
    assert (missing.status_code, "No request belongs to this link" in missing.text) == (404, True)
    assert "没有对应的工单" in (await browser.get("/t/nothing", headers=chinese)).text


async def test_failed_answers_and_machines_mail_are_not_shown(world: ChatWorld, browser: httpx.AsyncClient) -> None:
    row = write(world, "我的理赔")
    world.reply(row.id, "这条没有发出去")
    newest = sa.select(sa.func.max(outbox_table.c.id)).scalar_subquery()
    failed = sa.update(outbox_table).where(outbox_table.c.id == newest).values(state="failed")
    world.write(lambda connection: connection.execute(failed))
    assert "这条没有发出去" not in (await browser.get(f"/t/{row.token}")).text
    message_id = world.read(lambda connection: connection.scalar(sa.select(sa.func.max(outbox_table.c.message_id))))
    assert world.write(lambda connection: outbox.requeue(connection, message_id, datetime.now(UTC)))
    assert "这条没有发出去" in (await browser.get(f"/t/{row.token}")).text


async def test_files_are_named_and_quotes_are_cut(world: ChatWorld, browser: httpx.AsyncClient) -> None:
    picture = Attachment(name="<i>照片</i>.png", media_type="image/png", content=b"x")
    row = write(world, "我的理赔\n> 旧的引文", clean="我的理赔", attachments=(picture,))
    page = (await browser.get(f"/t/{row.token}")).text
    assert "文件：&lt;i&gt;照片&lt;/i&gt;.png" in page
    assert "旧的引文" not in page


@pytest.mark.parametrize("token", ["x", "x" * 65, "%00", "'%20or%201=1--", "😀", "x" * 5000])
async def test_wrong_links_get_a_page_in_words(browser: httpx.AsyncClient, token: str) -> None:
    answer = await browser.get(f"/t/{token}")
    assert (answer.status_code, "这个链接没有对应的工单" in answer.text) == (404, True)
