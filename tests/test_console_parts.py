"""Pictures, voices and places in a ticket: shown once they are here, and never anything that a browser would run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection

from channels import Limits
from domain import ChannelError, Part, PartKind, Withdrawal, ticket_id_of
from router.arrivals import note
from router.media import Media
from storage import messages, tickets
from tests.console_world import Console
from tests.hook_channel import NAME, FakeFetcher, now
from web.console_parts import media_type

pytest_plugins = ["tests.console_fixtures"]

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


async def _ticket(console: Console, *parts: Part) -> str:
    return await console.ticket("#claim_status look", channel=NAME, account="a", sender="ann", parts=parts)


def _files(connection: Connection, number: str) -> dict[str, int]:
    ids = [each.id for each in tickets.messages(connection, ticket_id_of(number) or 0)]
    return {each.name: each.id for each in messages.attachments(connection, ids)}


async def test_a_part_is_named_and_its_content_shown_when_it_is_here(console: Console) -> None:
    number = await _ticket(
        console,
        Part(kind=PartKind.IMAGE, name="car.png", reference={"id": "car.png"}),
        Part(kind=PartKind.AUDIO, reference={"id": "voice"}),
        Part(kind=PartKind.LOCATION, text="31.23, 121.47 <b>Pudong</b>"),
        Part(kind=PartKind.UNKNOWN),
    )
    browser = await console.signed_in("li")
    page = (await browser.get(f"/console/t/{number}")).text
    assert page.count("is being fetched") == 2
    assert "31.23, 121.47 &lt;b&gt;Pudong&lt;/b&gt;" in page
    assert "A kind of message that Sluice does not know" in page
    fetcher = FakeFetcher({"car.png": PNG, "voice": ChannelError("it has expired", permanent=True)})
    await Media(console.world.database, {NAME: fetcher}).fetch_due()
    page = (await browser.get(f"/console/t/{number}")).text
    assert '<img src="/console/a/1/view" alt="Picture"' in page
    assert "could not be fetched" in page
    assert "it has expired" in page
    assert page.count('href="/console/a/1"') == 1  # not once more among the files
    live = (await browser.get(f"/console/t/{number}/live?after=99")).text
    assert "/console/a/1/view" in live


async def test_only_what_is_a_picture_by_its_bytes_is_shown_and_to_whom_the_ticket_is(console: Console) -> None:
    number = await _ticket(
        console, *(Part(kind=PartKind.IMAGE, name=name, reference={"id": name}) for name in ("a.png", "evil.png"))
    )
    fetcher = FakeFetcher({"a.png": PNG, "evil.png": b"<svg onload=alert(1)>"})
    await Media(console.world.database, {NAME: fetcher}).fetch_due()
    browser = await console.signed_in("li")
    files = await console.world.database.read(partial(_files, number=number))
    shown = await browser.get(f"/console/a/{files['a.png']}/view")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert "sandbox" in shown.headers["content-security-policy"]
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert (await browser.get(f"/console/a/{files['evil.png']}/view")).status_code == 404
    other = await console.signed_in("zhao")
    assert (await other.get(f"/console/a/{files['a.png']}/view")).status_code == 403


async def test_a_message_taken_back_says_so_and_a_picture_alone_waits_in_triage(console: Console) -> None:
    number = await console.ticket("#claim_status secret", channel=NAME, account="a", external_id="m-1", sender="ann")
    gone = Withdrawal(channel=NAME, account="a", external_id="m-1", at=now())
    await console.world.database.write(partial(note, notices=[gone]))
    browser = await console.signed_in("sun")
    page = (await browser.get(f"/console/t/{number}")).text
    assert "secret" not in page.partition("<ol")[2].partition("composer")[0]
    assert "took this message back" in page
    number = await console.ticket(
        "", channel=NAME, account="a", sender="bob", parts=(Part(kind=PartKind.IMAGE, reference={"id": "x"}),)
    )
    assert "It holds no words yet" in (await browser.get(f"/console/t/{number}")).text
    assert "No words yet" in (await browser.get("/console/review")).text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"RIFF....WAVEfmt ", "audio/wav"),
        (b"OggS\0", "audio/ogg"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"<html>", ""),
        (b"", ""),
        (b"%PDF-1.7", ""),
    ],
)
def test_a_type_is_told_by_the_first_bytes(content: bytes, kind: str) -> None:
    assert media_type(content) == kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "1 SMS segment (GSM-7)"),
        ("好" * 71, "2 SMS segments (UCS-2)"),
        ("", ""),
        ("x" * 1601, "This is longer than the channel carries. Shorten it, then send."),
    ],
)
async def test_what_a_text_costs_is_said_while_it_is_written(console: Console, text: str, said: str) -> None:
    console.web.desk = replace(console.web.desk, carries={"sms": Limits(text=1600)})
    browser = await console.signed_in("li")
    number = await console.ticket()
    answer = await browser.post(f"/console/t/{number}/cost", text=text, channel="sms")
    assert answer.text == said
    other = await browser.post(f"/console/t/{number}/cost", text=text, by="chat somebody")
    assert other.text == ""
