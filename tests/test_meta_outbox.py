"""From a customer's message to Meta and back: the outbox over a Graph API on loopback, and what a worker fetches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from channels import Channel, pieces
from domain import Role
from router.delivery import Delivery
from router.media import Media
from router.tickets import Actor
from settings import Settings
from storage import customers
from storage.database import Database
from storage.tables import Address, Attachment, Medium, Message, Outbox, table
from tests import meta_server as meta
from tests import meta_world as world
from tests.api_world import serving
from tests.meta_server import Deliveries, GraphServer, Said, page, refusal, said, whatsapp, wrote
from tests.reading import answers, rows, ticket
from tests.worlds import make_world

LI = Actor("person:li", Role.SUPERVISOR)
JPEG = Said(body=b"\xff\xd8\xff" + b"0" * 5000, headers={"Content-Type": "image/jpeg"})
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def graph() -> AsyncIterator[GraphServer]:
    async with GraphServer() as server:
        yield server


class Bench:
    """A ticket of a Messenger customer, and the way back to them."""

    def __init__(self, api: Any, channel: Channel, database: Database) -> None:
        assert channel.sender is not None
        self.api, self.channel, self.database = api, channel, database
        self.delivery = Delivery(database, api.world.desk, {channel.name: channel.sender})

    async def hear(self, *bodies: bytes) -> None:
        async with self.api.client() as client:
            await Deliveries(client, f"/hooks/{self.channel.name}").send(*bodies)
        await self.api.world.flow.finish()

    async def answer(self, text: str) -> None:
        verbs, number = self.api.world.verbs, ticket(self.database).id
        await self.database.write(lambda connection: verbs.reply(text)(connection, number, LI))

    async def go(self) -> None:
        while await self.delivery.send_due(self.channel.name):
            pass

    def states(self) -> list[str]:
        return [each.state for each in answers(self.database)]


@pytest.fixture(params=["messenger", "whatsapp"])
async def bench(
    request: pytest.FixtureRequest, database: Database, settings: Settings, graph: GraphServer
) -> AsyncIterator[Bench]:
    channel = world.make(request.param, graph.url)
    assert channel.sender is not None
    assert channel.hook is not None
    made = make_world(database, settings, carries={channel.name: channel.sender.limits})
    async with serving(made, hooks=[channel.hook]) as api:
        yield Bench(api, channel, database)
    await channel.sender.close()


def english(bench: Bench, text: str) -> bytes:
    return page(said(text)) if bench.channel.name == "messenger" else whatsapp(wrote("text", text))


async def test_a_refused_token_turns_the_channel_red_and_holds_what_waits_until_it_is_right(
    bench: Bench, graph: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.hear(english(bench, "#claim_status where is it"))
    await bench.answer("It is on its way.")
    graph.token = "another"
    await bench.go()
    assert bench.states() == ["queued", "queued"], "nothing is lost and nothing is given up"
    [health] = bench.delivery.healths.values()
    assert "access token" in health.detail
    assert not health.ok
    asked = len(graph.sent)
    await bench.go()
    assert len(graph.sent) == asked, "the account rests"
    graph.token = meta.TOKEN
    await bench.database.write(lambda connection: connection.execute(sa.update(table(Outbox)).values(next_at=LONG_AGO)))
    with monkeypatch.context() as later:  # a minute's rest
        later.setattr("router.delivery._now", lambda: time.monotonic() + 61)
        await bench.go()
    assert bench.states() == ["sent", "sent"]
    assert bench.delivery.healths == {}


async def test_a_long_answer_goes_out_in_several_messages_in_order(bench: Bench, graph: GraphServer) -> None:
    await bench.hear(english(bench, "#claim_status where is it"))
    await bench.go()
    graph.asked.clear()
    limits = bench.channel.sender.limits if bench.channel.sender else None
    assert limits is not None
    text = "\n".join(f"line {n:05}" for n in range(900))
    await bench.answer(text)
    await bench.go()
    told = [each.json.get("text", each.json.get("message")) for each in graph.sent]
    sent = [each.get("body", each.get("text")) for each in told]
    assert len(sent) == len(pieces(text, limits)) > 1
    assert "\n".join(sent) == text


@pytest.mark.parametrize("bench", ["messenger"], indirect=True)
async def test_who_blocked_us_is_not_asked_again_until_they_write(bench: Bench, graph: GraphServer) -> None:
    await bench.hear(english(bench, "#claim_status where is it"))
    await bench.go()
    graph.next.append(refusal(10, 2018108))
    await bench.answer("one")
    await bench.go()
    [place] = rows(bench.database, Address)
    assert place.suppressed in customers.CHOSEN
    await bench.hear(english(bench, "#claim_status hello?"))
    [place] = rows(bench.database, Address)
    assert place.suppressed is None
    await bench.answer("two")
    await bench.go()
    assert bench.states() == ["sent", "failed", "sent"]


async def test_past_the_window_nothing_is_sent_and_the_reason_is_in_words(bench: Bench, graph: GraphServer) -> None:
    await bench.hear(english(bench, "#claim_status where is it"))
    await bench.go()
    graph.asked.clear()
    await bench.answer("late")
    old = datetime.now(UTC) - timedelta(hours=25)
    heard = sa.update(table(Message)).where(table(Message).c.direction == "in").values(received_at=old)
    await bench.database.write(lambda connection: connection.execute(heard))
    await bench.go()
    assert graph.sent == []
    last = answers(bench.database)[-1]
    assert last.state == "failed"
    assert "24 hours" in last.error


async def test_a_picture_waits_while_the_token_is_wrong_and_is_kept_once_it_is_right(
    bench: Bench, graph: GraphServer
) -> None:
    channel = bench.channel
    assert channel.fetcher is not None
    graph.objects["77"] = {"url": f"{graph.url}/1.jpg", "mime_type": "image/jpeg"}
    graph.files["/1.jpg"] = JPEG
    picture = {"type": "image", "payload": {"url": f"{graph.url}/1.jpg"}}
    photo = wrote("image", {"id": "77", "caption": "#claim_status our roof"})
    await bench.hear(
        page(said("#claim_status our roof", attachments=[picture])) if channel.name == "messenger" else whatsapp(photo)
    )
    media = Media(bench.database, {channel.name: channel.fetcher})
    if channel.name == "whatsapp":
        graph.token = "another"
        assert await media.fetch_due() == 1
        [medium] = rows(bench.database, Medium)
        assert (medium.state, "token" in medium.reason) == ("waiting", True)
        graph.token = meta.TOKEN
        due = sa.update(table(Medium)).values(next_at=LONG_AGO)
        await bench.database.write(lambda connection: connection.execute(due))
    assert await media.fetch_due() == 1
    [kept] = rows(bench.database, Attachment)
    assert (kept.content, kept.media_type) == (JPEG.body, "image/jpeg")
