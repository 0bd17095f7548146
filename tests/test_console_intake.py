"""The console's intake: automatic mail, quarantine, channel health."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial

import pytest
import sqlalchemy as sa

from channels import mail_parse
from domain import Automatic, AutomaticKind, Unreadable, public_number
from storage import health, messages, tables
from tests.console_world import Console, both
from tests.worlds import message

pytest_plugins = ["tests.console_fixtures"]


@both
async def test_automatic_mail_becomes_a_ticket_by_one_click(console: Console) -> None:
    automatic = Automatic(kind=AutomaticKind.NO_REPLY, why="no-reply sender")
    [kept] = await console.world.come_in(message("#claim_status please", subject="From a form", automatic=automatic))
    assert kept.ticket_id is None
    browser = await console.signed_in("sun")
    assert "From a form" in (await browser.get("/console/intake/mail")).text
    assert "From a form" not in (await browser.get("/console/intake/mail?kind=bounce")).text
    assert (await browser.post(f"/console/intake/mail/{kept.message_id}")).status_code == 303
    [made] = await console.world.flow.process([kept.message_id])
    assert made.ticket_id is not None
    assert (await browser.post(f"/console/intake/mail/{kept.message_id}")).status_code == 409


@both
async def test_quarantine_is_read_anew_or_discarded_with_a_reason(console: Console) -> None:
    raw = b"From: Wang <w@example.com>\r\nSubject: Hello\r\n\r\n#claim_status from quarantine\r\n"
    unreadable = [
        Unreadable(channel="mail", account="mail", external_id=f"u{n}", received_at=datetime.now(UTC),
                   reason="could not be read", raw=raw, sender="w@example.com")
        for n in range(2)
    ]  # fmt: skip
    first, second = await console.world.flow.receive(unreadable)
    browser = await console.signed_in("sun")
    page = await browser.get("/console/intake/quarantine")
    assert page.text.count("could not be read<") == 2
    shown = await browser.get(f"/console/m/{first.message_id}/raw")
    assert shown.content == raw
    assert shown.headers["content-type"].startswith("text/plain")
    entries = re.findall(r"/quarantine/(\d+)/retry", page.text)
    newest, oldest = entries
    assert (await browser.post(f"/console/intake/quarantine/{oldest}/retry")).status_code == 303
    [outcome] = await console.world.flow.process([first.message_id])
    assert outcome.ticket_id is not None
    ticket = await browser.get(f"/console/t/{public_number(outcome.ticket_id)}")
    assert "from quarantine" in ticket.text
    assert (await browser.post(f"/console/intake/quarantine/{oldest}/retry")).status_code == 404
    assert (await browser.post(f"/console/intake/quarantine/{newest}/discard", reason=" ")).status_code == 422
    assert (await browser.post(f"/console/intake/quarantine/{newest}/discard", reason="a test")).status_code == 303
    assert "The quarantine is empty" in (await browser.get("/console/intake/quarantine")).text
    assert (await browser.get(f"/console/m/{second.message_id}/raw")).content == raw


@both
async def test_what_still_cannot_be_read_stays_in_quarantine_with_the_new_reason(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = Unreadable(channel="mail", account="mail", external_id="u", received_at=datetime.now(UTC),
                         reason="the old reason", raw=b"From: w@example.com\r\n\r\nx")  # fmt: skip
    [stored] = await console.world.flow.receive([strange])

    def parse(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr(mail_parse, "parse", parse)
    browser = await console.signed_in("sun")
    path = re.findall(r"/console/intake/quarantine/\d+/retry", (await browser.get("/console/intake/quarantine")).text)
    answer = await browser.post(path[0])
    assert answer.status_code == 422
    assert "It still cannot be read. It stays in quarantine" in answer.text
    assert "RecursionError" in answer.text
    assert "the old reason" not in answer.text
    row = await console.world.database.read(lambda connection: messages.get(connection, stored.message_id))
    assert (row.state, row.reason, row.tries) == ("quarantined", "it cannot be parsed: RecursionError", 1)
    monkeypatch.undo()
    assert (await browser.post(path[0])).status_code == 303
    [outcome] = await console.world.flow.process([stored.message_id])
    assert outcome.ticket_id is not None


async def test_health_adds_up_and_says_loudly_when_it_does_not(console: Console) -> None:
    await console.ticket()
    await console.world.flow.receive([message("#claim_status waits")])
    rows = [("mail", False, "connection refused")]
    await console.web.database.write(partial(health.tell, rows=rows, now=datetime.now(UTC)))
    browser = await console.signed_in("root")
    page = (await browser.get("/console/intake/health")).text
    assert "Every accepted message is accounted for." in page
    assert "connection refused" in page
    assert re.search(r'data-name="Accepted" class="num"><b>2</b>', page)
    assert re.search(r'data-name="Ticketed" class="num">1<', page)
    assert re.search(r'data-name="On their way" class="num">1<', page)
    lost = sa.update(tables.table(tables.Message)).values(state="lost").where(sa.text("state = 'received'"))
    await console.world.database.write(lambda connection: connection.execute(lost))
    page = (await browser.get("/console/intake/health")).text
    assert "1 accepted message is unaccounted for." in page
    assert "Difference: 1" in page
    assert 'role="alert">' in page
