"""Web chat over its own protocol: what is acknowledged is stored, numbered, and comes back to every tab."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from channels.webchat import WebChatSender, parse
from domain import Attachment, ChannelError, InvalidInput, NotFound, Reply, Role, Unavailable
from router.tickets import Actor
from storage import chat, erase, messages
from storage.database import Database
from storage.tables import ChatSession, Outbox, Ticket, table
from storage.tables import Message as MessageTable
from tests.chat_world import AGENT, ChatWorld
from web.chat_files import attachment, kind_of
from web.chat_token import BadToken, Tokens, Visitor, new_visitor
from web.settings import ChatSettings

message = table(MessageTable)
ticket = table(Ticket)
outbox = table(Outbox)
session_table = table(ChatSession)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


class Client:
    """The widget's side of the line."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    @property
    def session(self) -> str:
        return str(jwt.decode(self.welcome["token"], options={"verify_signature": False})["sub"])

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 15))
        if frame["type"] == "lines":
            self.lines.extend(frame["lines"])
        self.frames.append(frame)
        return frame

    async def until(self, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not good(frame := await self.frame()):
            pass
        return frame

    async def kind(self, kind: str) -> dict[str, Any]:
        return await self.until(lambda frame: frame["type"] == kind)

    async def line(self, **wanted: Any) -> dict[str, Any]:
        def fits(line: dict[str, Any]) -> bool:
            return all(line[name] == value for name, value in wanted.items())

        while not (found := [each for each in self.lines if fits(each)]):
            await self.frame()
        return found[0]

    async def closed(self) -> int:
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                await self.frame()
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code


@asynccontextmanager
async def visit(
    world: ChatWorld, token: str = "", *, seen: int = 0, lang: str = "zh", site: str = "", origin: str = ""
) -> AsyncIterator[Client]:
    url = world.url.replace("http", "ws") + "/chat/ws"
    async with ws_connect(url, origin=origin or world.url, open_timeout=15) as socket:  # type: ignore[arg-type]
        client = Client(socket)
        await client.send(type="hello", token=token, site=site or world.url, lang=lang, seen=seen)
        client.welcome = {"token": token}
        client.welcome = await client.frame()
        assert client.welcome["type"] == "welcome"
        yield client


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChatWorld]:
    with ChatWorld(tmp_path) as made:
        yield made


def stored(world: ChatWorld, direction: str = "in") -> list[Any]:
    query = sa.select(message).where(message.c.direction == direction).order_by(message.c.id)
    return list(world.read(lambda connection: connection.execute(query).all()))


async def posted(world: ChatWorld, path: str, token: str = "", **more: Any) -> httpx.Response:
    headers = {
        "Origin": world.url,
        **({"Authorization": f"Bearer {token}"} if token else {}),
        **more.pop("headers", {}),
    }
    async with httpx.AsyncClient(base_url=world.url) as client:
        return await client.post(path, headers=headers, **more)


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
        await left.line(**{"from": "bot"})
        await right.line(**{"from": "bot"})
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


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_foreign_origin_is_refused_at_the_handshake(world: ChatWorld, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with visit(world, origin=origin):
            pass
    assert caught.value.response.status_code == 403


async def test_handshake_without_origin_is_refused(world: ChatWorld) -> None:
    with pytest.raises(InvalidStatus):
        async with ws_connect(world.url.replace("http", "ws") + "/chat/ws"):
            pass


async def _refused(world: ChatWorld, **hello: Any) -> int:
    url = world.url.replace("http", "ws") + "/chat/ws"
    async with ws_connect(url, origin=world.url) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"type": "hello", "site": world.url, "lang": "zh", "seen": 0} | hello))
        return await Client(socket).closed()


async def test_tokens_of_others_are_refused(world: ChatWorld) -> None:
    tokens, visitor = world.chat.tokens, new_visitor(world.url)
    old = tokens.make(visitor, datetime.now(UTC) - timedelta(days=31))
    foreign = Tokens("another secret, long enough for all", timedelta(days=1)).make(visitor, datetime.now(UTC))
    elsewhere = tokens.make(new_visitor("https://shop.example"), datetime.now(UTC))
    for token in (old, foreign, elsewhere, "nonsense", "a.b.c"):
        assert await _refused(world, token=token) == 4001
    assert await _refused(world, site="https://evil.example") == 4003


async def test_broken_frames_end_one_line_only(world: ChatWorld) -> None:
    async with visit(world) as client:
        for text in ("", "[]", "{", '{"type": "hello"}', '{"type": "say", "id": 7}', '{"type": "after", "seq": -1}'):
            async with visit(world) as other:
                await other.socket.send(text)
                assert await other.closed() == 4400
        await client.send(type="say", id="ok", text="理赔")
        assert (await client.kind("ack"))["id"] == "ok"


async def test_bytes_and_giant_frames_end_one_line_only(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.socket.send(b"bytes")
        assert await client.closed() == 4400
    async with visit(world) as client:
        await client.send(type="say", id="big", text="x" * 70_000)
        assert await client.closed() == 1009
    assert stored(world) == []


def test_token_is_signed_dated_and_bound() -> None:
    tokens = Tokens("s" * 40, timedelta(days=30))
    visitor, now = new_visitor("https://a.example"), datetime.now(UTC)
    token = tokens.make(visitor, now)
    assert tokens.read(token) == visitor
    assert tokens.read(token, site="https://a.example") == visitor
    with pytest.raises(BadToken):
        tokens.read(token, site="https://b.example")
    with pytest.raises(BadToken):
        tokens.read(tokens.make(visitor, now - timedelta(days=31)))
    with pytest.raises(BadToken):
        Tokens("t" * 40, timedelta(days=30)).read(token)
    unsigned = jwt.encode(jwt.decode(token, options={"verify_signature": False}), None, algorithm="none")
    with pytest.raises(BadToken):
        tokens.read(unsigned)
    with pytest.raises(BadToken):
        tokens.read(tokens.make(Visitor("../etc", "x"), now))


async def test_token_is_renewed_at_each_visit_and_never_in_an_address(
    world: ChatWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with visit(world) as client:
        session, first = client.session, client.welcome["token"]
        monkeypatch.setattr("web.chat_hub._TOKEN_AGE", timedelta(0))
        await client.send(type="say", id="a1", text="理赔")
        renewed = (await client.kind("token"))["token"]
    async with visit(world, renewed) as back:
        assert back.session == session
    assert jwt.decode(renewed, options={"verify_signature": False})["sub"] == session
    assert world.chat.tokens.read(first).session == session


async def test_too_many_and_too_long(tmp_path: Path) -> None:
    with ChatWorld(tmp_path, settings=ChatSettings(per_minute=2, longest=10)) as world:
        async with visit(world) as client:
            await client.send(type="say", id="long", text="理" * 11)
            nack = await client.kind("nack")
            assert (nack["id"], nack["error"], nack.get("retry_after")) == ("long", "too_long", None)
            await client.send(type="say", id="ok", text="理" * 10)
            await client.kind("ack")
            await client.send(type="say", id="fast", text="理赔")
            nack = await client.kind("nack")
            assert (nack["id"], nack["error"]) == ("fast", "too_fast")
            assert 1 <= nack["retry_after"] <= 60
        assert len(stored(world)) == 1


async def test_connections_of_one_address_are_limited(tmp_path: Path) -> None:
    with ChatWorld(tmp_path, settings=ChatSettings(per_minute=1)) as world:
        for _ in range(10):
            async with visit(world):
                pass
        assert await _refused(world) == 1013


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_end_is_heard_in_every_tab_and_the_token_is_dead(world: ChatWorld) -> None:
    async with visit(world) as left, visit(world, left.welcome["token"]) as right:
        await left.send(type="say", id="a1", text="理赔")
        await left.line(seq=2)
        await left.send(type="end")
        ended = await right.kind("ended")
        assert ended["url"].startswith(f"{world.url}/t/")
        assert await right.closed() == 4009
        assert await left.closed() == 4009
        token = left.welcome["token"]
    assert await _refused(world, token=token) == 4001
    answer = await posted(world, "/chat/contact", token, json={"contact": "a@b.cn"})
    assert (answer.status_code, answer.json()) == (401, {"error": "token"})


async def test_end_before_the_first_line(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="end")
        await client.kind("ended")
        assert await client.closed() == 4009


async def test_restart_tells_the_clients_to_come_back(world: ChatWorld) -> None:
    async with visit(world) as client:
        world.run(world.chat.hub.drain())
        assert await client.closed() == 1012
        assert await _refused(world) == 1012


async def test_quiet_line_is_let_go_and_pings_go_out(world: ChatWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.chat_socket.BEAT", 0.05)
    monkeypatch.setattr("web.chat_socket.QUIET", 0.5)
    async with visit(world) as client:
        await client.kind("ping")
        assert await client.closed() == 4008


async def test_erased_conversation_begins_anew(world: ChatWorld) -> None:
    async with visit(world) as client:
        await client.send(type="say", id="a1", text="理赔")
        await client.line(seq=2)
        token, session = client.welcome["token"], client.session
    row = world.read(lambda connection: connection.execute(sa.select(ticket)).one())
    world.write(lambda connection: erase.customer(connection, row.customer_id, datetime.now(UTC), "person:admin"))
    assert world.read(lambda connection: chat.get(connection, session)) is None
    async with visit(world, token, seen=2) as back:
        assert (back.welcome["seen"], back.welcome["last"]) == (0, 0)
        await back.send(type="say", id="a2", text="理赔")
        assert (await back.kind("ack"))["seq"] == 1


# --- files and contacts -----------------------------------------------------------------------------------------------


async def test_upload_joins_the_ticket_with_type_by_content(world: ChatWorld) -> None:
    async with visit(world) as client:
        token = client.welcome["token"]
        await client.send(type="say", id="a1", text="理赔资料")
        await client.line(seq=2)
        name = {"X-File-Name": "C%3A%5C%E7%85%A7%E7%89%87.exe", "X-Client-Id": "f1"}
        answer = await posted(world, "/chat/upload", token, content=PNG, headers=name)
        assert answer.json() == {"seq": 3}
        again = await posted(world, "/chat/upload", token, content=PNG, headers=name)
        assert again.json() == {"seq": 3}
        line = await client.line(id="f1")
        assert (line["text"], line["files"]) == ("文件：照片.png", [{"name": "照片.png", "size": len(PNG)}])
    [row] = world.read(lambda connection: messages.attachments(connection, [stored(world)[1].id]))
    assert (row.media_type, row.size) == ("image/png", len(PNG))
    assert world.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(ticket))) == 1


async def test_upload_is_refused_with_a_word(tmp_path: Path) -> None:
    class Scanner:
        async def scan(self, content: bytes, name: str) -> str:
            if content.endswith(b"down"):
                raise OSError("no scanner")
            return "EICAR" if content.endswith(b"virus") else ""

    settings = ChatSettings(upload_most=1000)
    with ChatWorld(tmp_path, settings=settings, scanner=Scanner()) as world:
        async with visit(world) as client:
            token = client.welcome["token"]

            async def tried(content: Any) -> tuple[int, str]:
                headers = {"X-File-Name": "a.png", "X-Client-Id": "f"}
                answer = await posted(world, "/chat/upload", token, content=content, headers=headers)
                return answer.status_code, answer.json()["error"]

            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(20):
                    yield PNG

            assert await tried(PNG * 100) == (413, "file_size")
            assert await tried(chunks()) == (413, "file_size")
            assert await tried(b"<html><script>") == (422, "file_type")
            assert await tried(b"MZ" + b"\0" * 50) == (422, "file_type")
            assert await tried(b"") == (422, "file_empty")
            assert await tried(PNG + b"virus") == (422, "file_unsafe")
            assert await tried(PNG + b"down") == (503, "later")
        assert stored(world) == []


async def test_posts_need_token_and_origin(world: ChatWorld) -> None:
    token = world.chat.tokens.make(new_visitor(world.url), datetime.now(UTC))
    for path in ("/chat/contact", "/chat/upload"):
        assert (await posted(world, path, content=b"{}")).status_code == 401
        assert (await posted(world, path, "x.y.z", content=b"{}")).status_code == 401
        foreign = await posted(world, path, token, content=b"{}", headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()) == (403, {"error": "origin"})
    gone = world.chat.tokens.make(new_visitor("https://was-allowed.example"), datetime.now(UTC))
    assert (await posted(world, "/chat/contact", gone, json={})).status_code == 401


async def test_contact_goes_to_the_same_ticket(world: ChatWorld) -> None:
    async with visit(world) as client:
        token = client.welcome["token"]

        async def left(**body: str) -> tuple[int, Any]:
            answer = await posted(world, "/chat/contact", token, json=body)
            return answer.status_code, answer.json()

        assert await left(contact="not an address") == (422, {"error": "contact"})
        assert await left(contact="wang@example.cn") == (422, {"error": "text"})
        assert await left(contact="wang@example.cn", text="理赔没人回", id="t1") == (200, {"seq": 2})
        await client.line(text="我的联系方式：wang@example.cn")
        status, _answer = await left(contact="+86 138 0013 8000")
        assert status == 200
        await client.line(text="我的联系方式：+86 138 0013 8000")
        row = world.read(lambda connection: chat.get(connection, client.session))
        assert row.contact == "+86 138 0013 8000"
        await client.line(**{"from": "bot"})
        await client.line(seq=4)
    assert world.run(_processed(world, 3))
    assert world.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(ticket))) == 1


async def _processed(world: ChatWorld, count: int) -> bool:
    """All is stored, and `count` messages are led to their ends."""
    while await world.web.queue.depth():
        await asyncio.sleep(0.01)
    rows = await world.database.read(
        lambda connection: connection.execute(sa.select(message.c.ticket_id).where(message.c.direction == "in")).all()
    )
    return len(rows) == count and all(row.ticket_id is not None for row in rows)


# --- the form without script ------------------------------------------------------------------------------------------


async def test_form_without_script(world: ChatWorld) -> None:
    async with httpx.AsyncClient(base_url=world.url, headers={"Origin": world.url}) as browser:
        page = await browser.get("/chat?lang=zh")
        assert "<form" in page.text
        sent = {"text": "理赔 <img src=x onerror=alert(1)>", "id": "form-1"}
        for _ in range(2):  # a double click
            answer = await browser.post("/chat?lang=zh", data=sent)
            assert (answer.status_code, answer.headers["location"]) == (303, "/chat?lang=zh#end")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        page = await browser.get("/chat?lang=zh")
        assert "理赔 &lt;img src=x onerror=alert(1)&gt;" in page.text
        assert "<img" not in page.text
        empty = await browser.post("/chat?lang=en", data={"text": " ", "id": "form-2"})
        assert empty.status_code == 422
        assert "Not sent." in empty.text
        foreign = await browser.post("/chat", data=sent, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
    assert len(stored(world)) == 1


async def test_disabled_chat_is_not_there(tmp_path: Path) -> None:
    with ChatWorld(tmp_path, settings=ChatSettings(enabled=False)) as world:
        async with httpx.AsyncClient(base_url=world.url) as browser:
            for path in ("/chat", "/chat/frame", "/widget.js"):
                assert (await browser.get(path)).status_code == 404


async def test_only_allowed_sites_may_frame(tmp_path: Path) -> None:
    settings = ChatSettings(origins=["https://shop.example"])
    with ChatWorld(tmp_path, settings=settings) as world:
        async with httpx.AsyncClient(base_url=world.url) as browser:
            policy = (await browser.get("/chat/frame")).headers["content-security-policy"]
            assert "frame-ancestors 'self' https://shop.example" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in (await browser.get("/chat")).headers["content-security-policy"]
            loader = await browser.get("/widget.js")
            assert loader.headers["content-type"].startswith("text/javascript")
        async with visit(world, site="https://shop.example") as client:
            assert world.chat.tokens.read(client.welcome["token"]).site == "https://shop.example"


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
    assert (row.site, row.language) == ("x", "zh")
    overview = (await database.read(lambda connection: chat.overviews(connection, ["a", "b"])))["a"]
    assert (overview.last_seq, overview.ticket_id, overview.ended_at) == (0, None, None)
    assert await database.read(lambda connection: chat.newest_ticket(connection, "a")) is None
    assert await database.write(lambda connection: chat.end(connection, "a", NOW))
    assert await database.write(lambda connection: chat.end(connection, "a", NOW + timedelta(days=1)))
    assert not await database.write(lambda connection: chat.end(connection, "b", NOW))
    assert (await database.read(lambda connection: chat.get(connection, "a"))).ended_at == NOW
