"""WeChat over the real endpoint and database: its three tries, the five seconds, the disk, and the way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from channels import Channel
from domain import Unavailable
from router.arrivals import Arrivals
from router.delivery import Delivery
from router.media import Media
from settings import Settings
from storage.database import Database
from storage.parts import message
from tests.api_world import Api, serving
from tests.samples import Call
from tests.samples.wechat import OPENID, make, plain, samples, sealed, xml
from tests.wechat_server import Said, WechatServer, refused
from tests.worlds import make_world


@pytest.fixture
def wechat() -> Iterator[WechatServer]:
    with WechatServer() as server:
        server.followers[OPENID] = 5
        yield server


@pytest.fixture
async def channel(wechat: WechatServer) -> AsyncIterator[Channel]:
    made = make(api_url=wechat.url, app_id=wechat.app_id)
    yield made
    assert made.sender is not None
    await made.sender.close()


@pytest.fixture
async def api(database: Database, settings: Settings, channel: Channel) -> AsyncIterator[Api]:
    assert channel.hook is not None
    async with serving(make_world(database, settings), hooks=[channel.hook]) as made:
        yield made


async def call(api: Api, given: Call) -> httpx.Response:
    async with api.client(raise_app_exceptions=False) as client:
        url = f"/hooks/wechat?{given.query}"
        return await client.request(given.method, url, content=given.body, headers=dict(given.headers))


async def rows(api: Api, query: str) -> list[Any]:
    return await api.world.database.read(lambda connection: list(connection.execute(sa.text(query))))


async def incoming(api: Api) -> list[Any]:
    return await rows(api, "SELECT external_id, text, state FROM message WHERE direction = 'in' ORDER BY id")


async def test_wechat_makes_sure_of_us_at_the_real_address(api: Api) -> None:
    given = samples()
    assert given.challenge is not None
    assert given.bad_challenge is not None
    assert (await call(api, given.challenge[0])).content == given.challenge[1]
    assert (await call(api, given.bad_challenge)).status_code == 403


@pytest.mark.parametrize("name", samples().unsigned)
async def test_who_does_not_sign_gets_403_and_stores_nothing(api: Api, name: str) -> None:
    assert (await call(api, samples().unsigned[name])).status_code == 403
    assert await api.count("message") == 0


async def test_three_tries_while_the_first_still_runs_are_one_message(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WeChat seals each try anew, so that only the MsgId says that it is the same."""
    open_door = asyncio.Event()
    waiting: list[int] = []
    real = Arrivals.take

    async def slow(self: Arrivals, *given: Any) -> Any:
        waiting.append(1)
        await open_door.wait()
        return await real(self, *given)

    body = xml(Content="#claim_status 我的理赔呢", MsgId=77)
    with monkeypatch.context() as slowed:
        slowed.setattr(Arrivals, "take", slow)
        tries = [asyncio.create_task(call(api, sealed(body))) for _ in range(3)]
        while len(waiting) < 3:
            await asyncio.sleep(0.005)
        open_door.set()
        answers = await asyncio.gather(*tries)
    assert [(each.status_code, each.text) for each in answers] == [(200, "success")] * 3
    assert len({each.body for each in (sealed(body), sealed(body))}) == 2
    await call(api, sealed(body))
    await api.world.flow.finish()
    assert await incoming(api) == [("77", "#claim_status 我的理赔呢", "ticketed")]
    assert await api.count("ticket") == 1


@pytest.mark.parametrize("fault", ["down", "stuck"])
async def test_while_the_database_is_down_wechat_hears_success_within_two_seconds_and_nothing_is_lost(
    api: Api, monkeypatch: pytest.MonkeyPatch, settings: Settings, fault: str
) -> None:
    async def down(*_given: Any) -> None:
        if fault == "stuck":
            await asyncio.Event().wait()
        raise Unavailable

    body = xml(Content="#claim_status 我的理赔呢😡", MsgId=78)
    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "take", down)
        started = time.monotonic()
        answers = await asyncio.gather(*(call(api, sealed(body)) for _ in range(3)))
        assert time.monotonic() - started < 2
        assert [each.text for each in answers] == ["success"] * 3
        assert (await call(api, plain(body))).status_code == 403
        assert api.web.hooks is not None
        with pytest.raises(Unavailable) if fault == "down" else pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await api.web.hooks.replay_once()
    kept = list(Path(settings.state_dir, "spool", "wechat").iterdir())
    assert len(kept) == 3
    assert await api.web.hooks.replay_once() == 3
    assert await api.web.hooks.replay_once() == 0
    await api.world.flow.finish()
    assert await incoming(api) == [("78", "#claim_status 我的理赔呢😡", "ticketed")]


async def test_what_was_kept_is_brought_in_however_late(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on the signed time is for strangers: what we kept was looked at when it came."""

    async def down(*_given: Any) -> None:
        raise Unavailable

    assert api.web.hooks is not None
    long_ago = time.time() - 3 * 86400
    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "take", down)
        assert (await call(api, sealed(xml(Content="#claim_status", MsgId=79)))).text == "success"
    monkeypatch.setattr(time, "time", lambda: long_ago)
    assert await api.web.hooks.replay_once() == 1
    assert len(await incoming(api)) == 1


async def test_garbage_is_kept_with_its_reason_and_answered(api: Api) -> None:
    assert (await call(api, samples().garbage)).text == "success"
    [(state, reason)] = await rows(api, "SELECT state, reason FROM message")
    assert state == "quarantined"
    assert "wechat.aes_keys" in reason


async def test_events_open_no_ticket_and_are_kept(api: Api) -> None:
    for event in ("subscribe", "LOCATION", "VIEW", "teleported"):
        assert (await call(api, sealed(xml("event", Event=event, EventKey="http://a.example")))).text == "success"
    await api.world.flow.finish()
    assert {state for _id, _text, state in await incoming(api)} == {"automatic"}
    assert len(await incoming(api)) == 4
    assert await api.count("ticket") == 0
    assert await api.count("outbox") == 0


# --- the way back -----------------------------------------------------------------------------------------------------


def delivery(api: Api, channel: Channel) -> Delivery:
    assert channel.sender is not None
    return Delivery(api.world.database, api.world.desk, {"wechat": channel.sender})


async def outgoing(api: Api) -> list[Any]:
    return await rows(api, "SELECT state, error FROM outbox ORDER BY id")


async def test_the_answer_goes_out_by_the_customer_service_api_and_only_there(
    api: Api, channel: Channel, wechat: WechatServer
) -> None:
    answer = await call(api, sealed(xml(Content="#claim_status 我的理赔呢")))
    assert answer.content == b"success"  # no passive reply beside it
    await api.world.flow.finish()
    assert await delivery(api, channel).send_due("wechat") == 1
    [(to, text)] = wechat.sent
    assert to == OPENID
    assert "S-" in text
    assert await outgoing(api) == [("sent", "")]


async def test_who_stopped_following_is_not_written_to_until_they_write(
    api: Api, channel: Channel, wechat: WechatServer
) -> None:
    await call(api, sealed(xml(Content="#claim_status", MsgId=1)))
    await api.world.flow.finish()
    await call(api, sealed(xml("event", Event="unsubscribe")))
    await delivery(api, channel).send_due("wechat")
    [(state, error)] = await outgoing(api)
    assert state == "failed"
    assert "unsubscribed" in error
    assert wechat.sent == []
    await call(api, sealed(xml(Content="#claim_dispute once more", MsgId=2)))
    assert await rows(api, "SELECT suppressed FROM address WHERE channel = 'wechat'") == [(None,)]


async def test_after_48_hours_nothing_is_sent_and_the_agent_reads_why(
    api: Api, channel: Channel, wechat: WechatServer
) -> None:
    await call(api, sealed(xml(Content="#claim_status")))
    await api.world.flow.finish()
    before = datetime.now(UTC) - timedelta(hours=48, seconds=1)
    await api.world.database.write(lambda connection: connection.execute(sa.update(message).values(received_at=before)))
    await delivery(api, channel).send_due("wechat")
    [(state, error)] = await outgoing(api)
    assert state == "failed"
    assert "48 hours" in error
    assert wechat.asked["/cgi-bin/message/custom/send"] == 0


@pytest.mark.parametrize(("code", "words"), [(45015, "48 hours"), (45047, "until the customer writes again")])
async def test_what_wechat_refuses_for_good_is_closed_with_its_reason(
    api: Api, channel: Channel, wechat: WechatServer, code: int, words: str
) -> None:
    await call(api, sealed(xml(Content="#claim_status")))
    await api.world.flow.finish()
    wechat.script.append(refused(code))
    await delivery(api, channel).send_due("wechat")
    [(state, error)] = await outgoing(api)
    assert state == "failed"
    assert words in error


async def test_a_voice_message_brings_its_words_and_its_sound(api: Api, channel: Channel, wechat: WechatServer) -> None:
    wechat.files["m1"] = Said(200, {"Content-Type": "audio/amr"}, b"#!AMR sound")
    assert channel.fetcher is not None
    await call(api, sealed(xml("voice", MediaId="m1", Format="amr", Recognition="#claim_status 我的理赔呢。", MsgId=5)))
    await api.world.flow.finish()
    assert await Media(api.world.database, {"wechat": channel.fetcher}).fetch_due() == 1
    assert await incoming(api) == [("5", "#claim_status 我的理赔呢", "ticketed")]
    assert await rows(api, "SELECT media_type FROM attachment") == [("audio/amr",)]
