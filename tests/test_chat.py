"""Web chat over its own protocol: what is acknowledged is stored, numbered, and comes back to every tab."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from channels.webchat import WebChatSender, parse
from domain import Attachment, ChannelError, InvalidInput, NotFound, Reply, Role, Unavailable
from router.tickets import Actor
from storage import chat, messages
from storage.database import Database
from tests.chat_client import (
    NOW,
    PNG,
    outbox,
    stored,
    ticket,
    visit,
)
from tests.chat_world import AGENT, ChatWorld
from web.chat_files import attachment, kind_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChatWorld]:
    with ChatWorld(tmp_path) as made:
        yield made


# --- a line, and its way back -----------------------------------------------------------------------------------------


async def test_line_becomes_ticket_and_answer_comes_back(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="say", id="a1", text="我的理赔到哪一步了？")
        ack = await client.kind("ack")
        assert ack == {"type": "ack", "id": "a1", "seq": 1}
        acknowledgement = await client.line(seq=2)
        assert acknowledgement["from"] == "bot"
        assert "工单 S-" in acknowledgement["text"]
        row = world.read(lambda connection: connection.execute(sa.select(ticket)).one())
        assert (row.channel, row.address, row.department) == ("chat", client.session, "claims")
        world.reply(row.id, "您好，资料已经收齐。")
        answer = await client.line(seq=3)
        assert (answer["from"], answer["text"]) == ("agent", "您好，资料已经收齐。")
    states = world.read(lambda connection: connection.execute(sa.select(outbox.c.state)).scalars().all())
    assert set(states) <= {"sent", "sending"}  # the last one may be settled a moment after its line is there
    assert "sent" in states


async def test_acknowledged_only_after_commit_and_numbered(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="say", id="a1", text="claim, please")
        ack = await client.kind("ack")
        # Read by another connection at the moment of the acknowledgement.
        rows = world.read(lambda connection: chat.lines(connection, client.session))
        assert (rows[0].seq, rows[0].text) == (ack["seq"], "claim, please")


async def test_nothing_acknowledged_while_the_database_is_down(
    world: ChatWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with visit(world) as client:

        async def down(*_: Any, **__: Any) -> Any:
            raise Unavailable

        with monkeypatch.context() as broken:
            broken.setattr(world.web.flow, "receive", down)
            await client.send(type="say", id="a1", text="理赔")
            nack = await client.until(lambda frame: frame["type"] in ("ack", "nack"))
            assert (nack["type"], nack["error"]) == ("nack", "later")
            assert nack["retry_after"] > 0
        assert stored(world) == []
        await client.send(type="say", id="a1", text="理赔")
        assert (await client.kind("ack"))["seq"] == 1


async def test_resent_line_is_stored_once_and_keeps_its_number(world: ChatWorld) -> None:
    async with visit(world) as client:
        for _ in range(3):
            await client.send(type="say", id="same", text="理赔进度")
        seqs = [(await client.kind("ack"))["seq"] for _ in range(3)]
        token = client.welcome["token"]
    async with visit(world, token) as again:
        await again.send(type="say", id="same", text="理赔进度")
        seqs.append((await again.kind("ack"))["seq"])
    assert seqs == [1, 1, 1, 1]
    assert len(stored(world)) == 1


async def test_crash_between_storing_and_numbering_is_healed_by_resending(
    world: ChatWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with visit(world) as client:

        async def crash(*_: Any) -> int:
            raise Unavailable

        with monkeypatch.context() as broken:
            broken.setattr(world.chat.hub, "number", crash)
            await client.send(type="say", id="c1", text="理赔资料")
            assert (await client.until(lambda frame: frame["type"] in ("ack", "nack")))["type"] == "nack"
        assert len(stored(world)) == 1
        await client.send(type="say", id="c1", text="理赔资料")
        ack = await client.kind("ack")
        assert (await client.line(id="c1"))["seq"] == ack["seq"]
    assert len(stored(world)) == 1


async def test_two_tabs_are_one_conversation(world: ChatWorld) -> None:
    async with visit(world) as left, visit(world, left.welcome["token"]) as right:
        assert left.session == right.session
        await left.send(type="say", id="l1", text="claim from the left")
        assert (await right.line(id="l1"))["text"] == "claim from the left"
        await right.send(type="say", id="r1", text="and from the right")
        assert (await left.line(id="r1"))["from"] == "visitor"
        await left.line(seq=3)
        await right.line(seq=3)
        assert [each["seq"] for each in left.lines] == [1, 2, 3]
        assert sorted(each["seq"] for each in right.lines) == [1, 2, 3]
    tickets_of = world.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(ticket)))
    assert tickets_of == 1


async def test_resumes_from_the_last_line_seen(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="say", id="a1", text="理赔")
        await client.line(seq=2)
        token = client.welcome["token"]
        row = world.read(lambda connection: connection.execute(sa.select(ticket)).one())
    for number in range(3, 6):
        world.reply(row.id, f"第 {number} 条")
    async with visit(world, token, seen=2) as back:
        await back.line(seq=5)
        assert [each["seq"] for each in back.lines] == [3, 4, 5]
        assert next(each for each in back.frames if each["type"] == "lines")["after"] == 2


async def test_gap_is_filled_on_request(world: ChatWorld) -> None:
    async with visit(world) as client:
        for number in range(4):
            await client.send(type="say", id=f"g{number}", text=f"理赔 {number}")
        await client.line(id="g3")
        client.lines.clear()
        await client.send(type="after", seq=1)
        frame = await client.until(lambda each: each["type"] == "lines" and each["after"] == 1)
        assert frame["lines"][0]["seq"] == 2
        seqs = [each["seq"] for each in frame["lines"]]
        assert seqs == list(range(2, 2 + len(seqs)))


async def test_long_conversation_comes_in_pages(world: ChatWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.chat_hub.PAGE", 2)
    async with visit(world) as client:
        for number in range(5):
            await client.send(type="say", id=f"p{number}", text=f"理赔 {number}")
        await client.line(id="p4")
        await client.line(**{"from": "bot"})
        token = client.welcome["token"]
    async with visit(world, token) as back:
        await back.line(seq=6)
        assert [each["seq"] for each in back.lines] == [1, 2, 3, 4, 5, 6]
        assert max(len(each["lines"]) for each in back.frames if each["type"] == "lines") == 2


async def test_state_agent_and_typing_come_and_are_resynced(world: ChatWorld) -> None:
    async with visit(world, lang="en") as client:
        await client.send(type="say", id="a1", text="claim status")
        await client.until(lambda frame: frame["type"] == "state" and frame["department"] == "Claims")
        row = world.read(lambda connection: connection.execute(sa.select(ticket)).one())
        person_id = world.add_person("li")
        verb = world.web.verbs.assign("li")
        world.write(lambda connection: verb(connection, row.id, Actor("person:li", Role.AGENT, person_id)))
        state = await client.until(lambda frame: frame["type"] == "state" and frame["agent"] == "li")
        assert (state["state"], state["number"][:2]) == ("in progress", "S-")
        assert state["url"] == f"{world.url}/t/{row.token}"
        world.loop.call_soon_threadsafe(world.chat.hub.agent_types, client.session)
        await client.until(lambda frame: frame["type"] == "state" and frame["typing"])
        token, session = client.welcome["token"], client.session
        await client.send(type="typing")
        await client.send(type="ping")
        await client.kind("pong")
        assert world.run(_call(lambda: world.chat.hub.is_typing(session)))
    resolve = world.web.verbs.resolve("done")
    world.write(lambda connection: resolve(connection, row.id, AGENT))
    async with visit(world, token, lang="en", seen=99) as back:
        state = await back.kind("state")
        assert (state["state"], state["agent"]) == ("resolved", "li")


async def _call(work: Callable[[], Any]) -> Any:
    return work()


async def test_another_process_pushes_within_its_poll(tmp_path: Path) -> None:
    """Web and worker apart: the worker's `send` cannot ring the web's sockets, the poll finds the line."""
    with ChatWorld(tmp_path, workers=False) as web:
        async with visit(web) as client:
            await client.send(type="say", id="a1", text="理赔")
            await client.kind("ack")
            with ChatWorld(tmp_path, nudged=False):
                assert (await client.line(seq=2))["from"] == "bot"


async def test_closed_ticket_follows_the_routers_rules(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="say", id="a1", text="理赔")
        await client.line(seq=2)
        row = world.read(lambda connection: connection.execute(sa.select(ticket)).one())
        verb = world.web.verbs.resolve("done")
        world.write(lambda connection: verb(connection, row.id, AGENT))
        world.write(lambda connection: world.web.verbs.close(connection, row.id, AGENT))
        await client.send(type="say", id="a2", text="理赔又有问题")
        await client.until(lambda frame: frame["type"] == "state" and frame["state"] == "已收到" and frame["number"])
        await client.line(seq=4)
    rows = world.read(lambda connection: connection.execute(sa.select(ticket).order_by(ticket.c.id)).all())
    assert [(each.state, each.linked_id) for each in rows] == [("closed", None), ("new", rows[0].id)]


# --- the channel's own parts ------------------------------------------------------------------------------------------


def test_parse_is_pure_and_exact() -> None:
    made = parse("s" * 22, "c1", "  第一行\r\n第二行\x00\x08  ", NOW, longest=100)
    assert (made.channel, made.account, made.sender, made.thread) == ("chat", "web", "s" * 22, "s" * 22)
    assert (made.external_id, made.text) == (f"{'s' * 22}:c1", "第一行\n第二行")
    assert made == parse("s" * 22, "c1", "  第一行\r\n第二行\x00\x08  ", NOW, longest=100)
    for client_id, text, field in (("", "x", "id"), ("a b", "x", "id"), ("x" * 65, "x", "id"), ("a", " \n", "text")):
        with pytest.raises(InvalidInput) as caught:
            parse("s", client_id, text, NOW, longest=10)
        assert caught.value.field == field
    assert len(parse("s", "a", "😀" * 10, NOW, longest=10).text) == 10
    with pytest.raises(InvalidInput):
        parse("s", "a", "😀" * 11, NOW, longest=10)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x18ftypheic\0\0", "image/heic"),
        (b"\0\0\0\x18ftypisom\0\0", "video/mp4"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg xmlns=", None),
        (b"PK\x03\x04", None),
        (b"", None),
    ],
)
def test_type_is_read_from_content(content: bytes, expected: str | None) -> None:
    kind = kind_of(content)
    assert (kind[0] if kind else None) == expected


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd.png"),
        ("C:\\Users\\王\\照片.jpeg", "照片.png"),
        ("evil\u202egnp.exe", "evilgnp.png"),
        ("", "file.png"),
        ("..", "file.png"),
        ("a" * 300 + ".png", "a" * 100 + ".png"),
    ],
)
def test_file_names_are_harmless(name: str, kept: str) -> None:
    assert attachment(name, PNG) == Attachment(name=kept, media_type="image/png", content=PNG)


class FakeLog:
    def __init__(self, result: int | Exception) -> None:
        self.result = result
        self.calls: list[tuple[str, int]] = []

    async def number(self, session: str, message_id: int) -> int:
        self.calls.append((session, message_id))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def test_sender_commits_then_rings() -> None:
    log, rung = FakeLog(7), list[str]()
    reply = Reply(to="s1", thread="s1", text="hello", key="out.1", message_id=42)
    receipt = await WebChatSender(log, rung.append).send(reply)
    assert (receipt.provider_id, log.calls, rung) == ("7", [("s1", 42)], ["s1"])


async def test_sender_says_what_went_wrong_and_rings_nobody() -> None:
    rung = list[str]()
    reply = Reply(to="s1", text="hello", key="out.1", message_id=42)
    with pytest.raises(ChannelError) as gone:
        await WebChatSender(FakeLog(NotFound()), rung.append).send(reply)
    assert gone.value.permanent
    with pytest.raises(ChannelError) as down:
        await WebChatSender(FakeLog(Unavailable()), rung.append).send(reply)
    assert (down.value.permanent, down.value.unknown, down.value.retry_after) == (False, False, 5)
    assert rung == []


# --- numbering, on both databases -------------------------------------------------------------------------------------


async def test_numbers_follow_one_another_under_contention(database: Database, database_url: str) -> None:
    """Two processes number the lines of one session, some of them twice: no gap, no line with two numbers."""
    other = Database(database_url)
    try:
        await database.write(
            lambda connection: chat.open_session(connection, "s" * 22, site="x", language="zh", now=NOW)
        )
        lines = [parse("s" * 22, f"n{number}", "text", NOW, longest=10) for number in range(20)]
        ids = [each.message_id for each in await database.write_batch(messages.store, lines)]
        logs = [chat.Log(database), chat.Log(other)]
        seqs = await asyncio.gather(*(log.number("s" * 22, each) for each in ids for log in logs))
        assert seqs[0::2] == seqs[1::2]
        assert sorted(seqs[0::2]) == list(range(1, 21))
        rows = await database.read(lambda connection: chat.lines(connection, "s" * 22, 15))
        assert [row.seq for row in rows] == [16, 17, 18, 19, 20]
        assert await database.read(lambda connection: chat.last_seqs(connection, ["s" * 22, "none"])) == {"s" * 22: 20}
        with pytest.raises(NotFound):
            await logs[0].number("none", ids[0])
    finally:
        other.close()


async def test_overview_is_of_the_newest_ticket(database: Database) -> None:
    def unit(connection: Connection) -> None:
        chat.open_session(connection, "a", site="x", language="zh", now=NOW)
        chat.open_session(connection, "a", site="other", language="en", now=NOW)

    await database.write(unit)
    row = await database.read(lambda connection: chat.get(connection, "a"))
    assert row is not None
    assert (row.site, row.language) == ("x", "zh")
    overview = (await database.read(lambda connection: chat.overviews(connection, ["a", "b"])))["a"]
    assert (overview.last_seq, overview.ticket_id, overview.ended_at) == (0, None, None)
    assert await database.read(lambda connection: chat.newest_ticket(connection, "a")) is None
    assert await database.write(lambda connection: chat.end(connection, "a", NOW))
    assert await database.write(lambda connection: chat.end(connection, "a", NOW + timedelta(days=1)))
    assert not await database.write(lambda connection: chat.end(connection, "b", NOW))
    row = await database.read(lambda connection: chat.get(connection, "a"))
    assert row is not None
    assert row.ended_at == NOW
