"""Who may use the web chat, what they may send, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import sqlalchemy as sa
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import InvalidStatus

from storage import chat, erase, messages
from tests.chat_client import (
    PNG,
    message,
    posted,
    refused,
    stored,
    ticket,
    visit,
)
from tests.chat_world import ChatWorld
from web.chat_token import BadToken, Tokens, Visitor, new_visitor
from web.settings import ChatSettings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChatWorld]:
    with ChatWorld(tmp_path) as made:
        yield made


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_foreign_origin_is_refused_at_the_handshake(world: ChatWorld, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with visit(world, origin=origin):
            pass
    assert caught.value.response.status_code == 403


async def test_handshake_without_origin_isrefused(world: ChatWorld) -> None:
    with pytest.raises(InvalidStatus):
        async with ws_connect(world.url.replace("http", "ws") + "/chat/ws"):
            pass


async def test_tokens_of_others_arerefused(world: ChatWorld) -> None:
    tokens, visitor = world.chat.tokens, new_visitor(world.url)
    old = tokens.make(visitor, datetime.now(UTC) - timedelta(days=31))
    foreign = Tokens("another secret, long enough for all", timedelta(days=1)).make(visitor, datetime.now(UTC))
    elsewhere = tokens.make(new_visitor("https://shop.example"), datetime.now(UTC))
    for token in (old, foreign, elsewhere, "nonsense", "a.b.c"):
        assert await refused(world, token=token) == 4001
    assert await refused(world, site="https://evil.example") == 4003


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
    unsigned = jwt.encode(jwt.decode(token, options={"verify_signature": False}), "", algorithm="none")
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
        assert await refused(world) == 1013


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
    assert await refused(world, token=token) == 4001
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
    assert await refused(world) == 1012


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
        assert row is not None
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
