"""What goes out by the Graph API, what is fetched from it, and what it says of a token: over a server on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels import pieces, too_long
from channels.meta_graph import Graph
from channels.settings import MessengerSettings
from domain import ChannelError, Receipt, Role
from router.tickets import Actor
from tests import meta_server as meta
from tests import meta_world as world
from tests.meta_server import Fault, GraphServer, Said, refusal
from tests.samples import marks
from tests.server_base import free_port

LI = Actor("person:li", Role.SUPERVISOR)
every_channel = pytest.mark.parametrize("name", ["messenger", "instagram", "whatsapp"])


@pytest.fixture
async def graph() -> AsyncIterator[GraphServer]:
    async with GraphServer() as server:
        yield server


async def send(name: str, url: str, reply: Any = None, **changes: Any) -> Receipt:
    sender = world.make(name, url, **changes).sender
    assert sender is not None
    try:
        return await sender.send(reply or world.reply(name))
    finally:
        await sender.close()


async def refused(name: str, url: str, reply: Any = None, **changes: Any) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        await send(name, url, reply, **changes)
    return raised.value


# --- sending ----------------------------------------------------------------------------------------------------------


@every_channel
async def test_the_token_is_in_the_header_and_nowhere_else(
    name: str, graph: GraphServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert (await send(name, graph.url)).provider_id
    [asked] = graph.sent
    assert asked.headers["authorization"] == f"Bearer {meta.TOKEN}"
    assert meta.TOKEN not in f"{asked.path} {asked.query} {asked.body!r}"
    error = await refused(name, graph.url, accounts=[{"id": world.MAKERS[name][2], "token": "EAAwrong"}])
    assert "EAAwrong" not in str(error)
    assert "graph" not in "".join(each.getMessage() for each in caplog.records if each.name == "httpx")
    assert "EAAwrong" not in repr(world.make(name, accounts=[{"id": "123", "token": "EAAwrong"}]))


async def test_each_account_sends_with_its_own_token(graph: GraphServer) -> None:
    accounts = [{"id": "111", "token": "one"}, {"id": "222", "token": "two"}]
    graph.token = "two"
    await send("messenger", graph.url, world.reply("messenger", account="222"), accounts=accounts)
    assert graph.sent[-1].path == "/v25.0/222/messages"
    error = await refused("messenger", graph.url, world.reply("messenger", account="333"), accounts=accounts)
    assert (error.broken, len(graph.sent)) == (True, 1)
    assert "333" in str(error)


async def test_messenger_sends_an_answer_with_our_mark_on_it(graph: GraphServer) -> None:
    await send("messenger", graph.url, world.reply("messenger", "您好🙂"))
    assert graph.sent[0].json == {
        "recipient": {"id": meta.PSID},
        "messaging_type": "RESPONSE",
        "message": {"text": "您好🙂", "metadata": "sluice:k1"},
    }
    await send("instagram", graph.url)
    assert graph.sent[1].path == "/v25.0/me/messages"
    assert "metadata" not in graph.sent[1].json["message"]


@pytest.mark.parametrize("name", ["messenger", "instagram"])
@pytest.mark.parametrize(
    ("changes", "heard", "automatic", "tag"),
    [
        ({"human_agent": True}, 30, False, "HUMAN_AGENT"),
        ({"human_agent": True}, 23, False, None),
        ({"human_agent": True}, 30, True, None),
        ({}, 30, False, None),
    ],
)
async def test_a_day_later_a_persons_answer_is_marked_as_one_where_that_is_allowed(
    name: str, changes: Any, heard: int, automatic: bool, tag: str | None, graph: GraphServer
) -> None:
    at = datetime.now(UTC) - timedelta(hours=heard)
    await send(name, graph.url, world.reply(name, heard_at=at, automatic=automatic), **changes)
    body = graph.sent[0].json
    assert (body["messaging_type"], body.get("tag")) == ("MESSAGE_TAG" if tag else "RESPONSE", tag)


@every_channel
def test_windows_and_lengths_are_those_of_the_provider(name: str) -> None:
    sender, with_agent = world.make(name).sender, None
    assert sender is not None
    limits = sender.limits
    assert (limits.window, limits.automatic_window) == (timedelta(days=1), timedelta(days=1))
    assert (limits.receipts, limits.ordered, limits.parts) == (True, True, 5)
    longest = {"messenger": "赔" * 2000, "instagram": "赔" * 333 + "a", "whatsapp": "赔" * 4096}[name]
    assert pieces(longest, limits) == [longest]
    assert len(pieces(longest + "赔", limits)) == 2
    assert too_long(longest * 6, limits)
    if name != "whatsapp":
        with_agent = world.make(name, human_agent=True).sender
        assert with_agent is not None
        assert (with_agent.limits.window, with_agent.limits.automatic_window) == (timedelta(days=7), timedelta(days=1))
    emoji = pieces("👨‍👩‍👧" * 700, limits)
    assert "".join(emoji) == "👨‍👩‍👧" * 700
    assert all(limits.measure(each) <= (limits.text or 0) for each in emoji)


@every_channel
@pytest.mark.parametrize("to", ["", "no number", "../me", "123/messages?x=1", "１２３４５", "12 34"])
async def test_what_is_no_address_is_never_asked(name: str, to: str, graph: GraphServer) -> None:
    error = await refused(name, graph.url, world.reply(name, to=to))
    assert (error.permanent, graph.asked) == (True, [])


@every_channel
async def test_only_what_meta_may_have_is_unknown(name: str, graph: GraphServer) -> None:
    graph.next.append(Fault.CLOSE)
    assert (await refused(name, graph.url)).unknown
    graph.next.append(Fault.HANG)
    assert (await refused(name, graph.url, timeout=0.3)).unknown
    nobody = f"http://127.0.0.1:{free_port()}"
    error = await refused(name, nobody)
    assert (error.unknown, error.retry_after is not None, nobody in str(error)) == (False, True, False)


async def test_a_drip_of_an_answer_does_not_stretch_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + b" " * 90:
            try:
                writer.write(bytes([byte]))
                await asyncio.wait_for(asyncio.shield(stop.wait()), 0.05)
            except (TimeoutError, OSError):
                continue
        writer.close()

    stop = asyncio.Event()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    before = asyncio.get_running_loop().time()
    assert (await refused("messenger", f"http://127.0.0.1:{port}", timeout=0.4)).unknown
    assert asyncio.get_running_loop().time() - before < 2
    stop.set()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-business-use-case-usage": '{"1":[{"estimated_time_to_regain_access":7}]}'}, 420.0),
        ({"retry-after": "90"}, 90.0),
        ({"x-business-use-case-usage": '{"1":[{"estimated_time_to_regain_access":999999}]}'}, 86400.0),
        ({"x-business-use-case-usage": "[[]"}, 300.0),
        ({"x-business-use-case-usage": '{"1":7,"2":["x"]}'}, 300.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 300.0),
        ({}, 300.0),
    ],
)
async def test_a_limit_lasts_as_long_as_meta_says(headers: Any, expected: float, graph: GraphServer) -> None:
    limit = refusal(613)
    graph.next.append(Said(limit.status, limit.body, headers))
    error = await refused("messenger", graph.url)
    assert (error.pause, error.retry_after) == (True, expected)


# --- media ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def fetch(graph: GraphServer) -> AsyncIterator[Any]:
    senders = []

    async def do(name: str, reference: Any, **changes: Any) -> Any:
        channel = world.make(name, graph.url, **changes)
        senders.append(channel.sender)
        assert channel.fetcher is not None
        return await channel.fetcher.fetch({"account": world.MAKERS[name][2], **reference})

    yield do
    for sender in senders:
        assert sender is not None
        await sender.close()


JPEG = Said(body=b"\xff\xd8\xff" + b"0" * 5000, headers={"Content-Type": "image/jpeg"})


async def test_whatsapp_media_are_asked_for_by_id_and_fetched_with_the_token(graph: GraphServer, fetch: Any) -> None:
    graph.objects["77"] = {"url": f"{graph.url}/media/77?ext=1", "mime_type": "application/pdf", "file_size": 5003}
    graph.files["/media/77"] = JPEG
    found = await fetch("whatsapp", {"id": "77", "name": "Gutachten 报告.pdf", "media_type": "application/pdf"})
    assert (found.name, found.media_type, found.content) == ("Gutachten 报告.pdf", "application/pdf", JPEG.body)
    asked, got = graph.asked
    assert (asked.path, asked.query) == ("/v25.0/77", {"phone_number_id": meta.NUMBER})
    assert got.headers["authorization"] == f"Bearer {meta.TOKEN}"


async def test_messenger_media_are_fetched_by_address_without_the_token(graph: GraphServer, fetch: Any) -> None:
    graph.files["/v/1.jpg"] = JPEG
    found = await fetch("messenger", {"url": f"{graph.url}/v/1.jpg?oh=1"})
    assert (found.name, found.media_type, found.content) == ("1.jpg", "image/jpeg", JPEG.body)
    assert "authorization" not in graph.asked[0].headers


async def test_a_redirect_is_followed_without_the_token(graph: GraphServer, fetch: Any) -> None:
    graph.objects["77"] = {"url": f"{graph.url}/a"}
    graph.files["/a"] = Said(302, headers={"Location": "/b"})
    graph.files["/b"] = JPEG
    assert (await fetch("whatsapp", {"id": "77"})).name == "image.jpg"
    assert "authorization" not in graph.asked[-1].headers


@pytest.mark.parametrize(
    "url",
    [
        "http://scontent.xx.fbcdn.net/1.jpg",
        "https://evilfbcdn.net/1.jpg",
        "https://fbcdn.net.evil.example/1.jpg",
        "https://fbcdn.net@evil.example/1.jpg",
        "http://169.254.169.254/latest/meta-data",
        "https://localhost/1.jpg",
        "file:///etc/passwd",
        "https://[",
        "",
    ],
)
async def test_nothing_is_fetched_from_elsewhere(url: str, graph: GraphServer, fetch: Any) -> None:
    graph.files["/a"] = Said(302, headers={"Location": url or "http://127.0.0.1:1/"})
    for reference in ({"url": url}, {"url": f"{graph.url}/a"}):
        with pytest.raises(ChannelError) as raised:
            await fetch("messenger", reference)
        assert raised.value.permanent
    graph.objects["77"] = {"url": url}
    with pytest.raises(ChannelError, match="somebody else"):
        await fetch("whatsapp", {"id": "77"})


async def test_metas_own_hosts_are_good() -> None:
    graph = Graph(MessengerSettings(), {})
    for host in ("scontent.xx.fbcdn.net", "lookaside.fbsbx.com", "scontent.cdninstagram.com", "www.facebook.com"):
        assert graph.is_metas(f"https://{host}/1.jpg?oh=1")
    await graph.close()


@pytest.mark.parametrize(
    ("said", "permanent"),
    [(Said(404), True), (Said(403), True), (Said(503), False), (Said(429), False), (Said(410), True)],
)
async def test_what_is_gone_is_gone_and_what_is_slow_is_tried_again(
    said: Said, permanent: bool, graph: GraphServer, fetch: Any
) -> None:
    graph.files["/1.jpg"] = said
    with pytest.raises(ChannelError) as raised:
        await fetch("messenger", {"url": f"{graph.url}/1.jpg"})
    assert marks(raised.value) == marks(ChannelError()) | ({"permanent": True} if permanent else {"retry": True})


async def test_what_is_too_large_is_not_read_to_its_end(graph: GraphServer, fetch: Any) -> None:
    graph.files["/1.jpg"] = JPEG
    with pytest.raises(ChannelError, match="larger") as raised:
        await fetch("messenger", {"url": f"{graph.url}/1.jpg"}, media_most=5002)
    assert raised.value.permanent
    assert await fetch("messenger", {"url": f"{graph.url}/1.jpg"}, media_most=5003)
    graph.objects["77"] = {"url": f"{graph.url}/1.jpg", "file_size": "5003"}
    graph.asked.clear()
    with pytest.raises(ChannelError, match="larger"):
        await fetch("whatsapp", {"id": "77"}, media_most=5002)
    assert len(graph.asked) == 1, "its size was told beforehand"


# --- does the token work ----------------------------------------------------------------------------------------------


async def probe(name: str, url: str, **changes: Any) -> Any:
    channel = world.make(name, url, **changes)
    assert channel.probe is not None
    assert channel.sender is not None
    health = await channel.probe.probe()
    await channel.sender.close()
    return health


@every_channel
async def test_a_probe_says_whose_account_it_is_or_what_to_do(name: str, graph: GraphServer) -> None:
    account = world.MAKERS[name][2]
    names = {"name": "Sun Insurance", "username": "sun.insurance", "display_phone_number": "+1 555"}
    graph.objects[account] = names
    health = await probe(name, graph.url)
    assert health.ok
    assert any(each in health.detail for each in names.values())
    faults: list[tuple[Said | Fault, str]] = [
        (refusal(190, 463, status=401), "expired"),
        (refusal(190, status=401), "access token"),
        (refusal(10, status=403), "permission"),
        (refusal(100, 33), "no such account"),
        (meta.html(502), "HTTP 502"),
        (Fault.CLOSE, "cannot be reached"),
    ]
    for told, expected in faults:
        graph.next.append(told)
        health = await probe(name, graph.url)
        assert (health.ok, expected in health.detail) == (False, True), health.detail


@every_channel
async def test_a_probe_names_the_variable_of_a_missing_token(name: str, graph: GraphServer) -> None:
    graph.objects["111"] = {}
    accounts = [{"id": "111", "token": meta.TOKEN}, {"id": "222", "name": "Second"}]
    health = await probe(name, graph.url, accounts=accounts)
    assert not health.ok
    assert "111: works" in health.detail
    assert f"Second (222): no access token; give it by SLUICE_{name.upper()}__ACCOUNTS__1__TOKEN" in health.detail
    assert not (await probe(name, graph.url, accounts=[])).ok
