"""/hooks/<channel>: verified, stored, committed, and only then answered; and what a provider tells beside messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from channels import Answer
from domain import Unavailable
from router.arrivals import Arrivals
from settings import Settings
from storage.database import Database
from tests.api_world import Api, serving
from tests.hook_channel import NAME, FakeHook, delivery, signed
from tests.worlds import make_world

Event = dict[str, Any]


@pytest.fixture
def hook() -> FakeHook:
    return FakeHook()


@pytest.fixture
async def api(database: Database, settings: Settings, hook: FakeHook) -> AsyncIterator[Api]:
    async with serving(make_world(database, settings), hooks=[hook]) as made:
        yield made


async def call(api: Api, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    async with api.client(raise_app_exceptions=False) as client:
        given = signed(body) if headers is None else headers
        return await client.post(f"/hooks/{NAME}", content=body, headers=given)


async def rows(api: Api, query: str) -> list[Any]:
    return await api.world.database.read(lambda connection: list(connection.execute(sa.text(query))))


def line(external: str = "1", **values: Any) -> Event:
    return {"id": external, "from": "ann", "text": "#claim_status where is it"} | values


async def test_a_signed_delivery_is_stored_before_it_is_answered(api: Api) -> None:
    answer = await call(api, delivery(line("1"), line("2")))
    assert (answer.status_code, answer.text) == (200, "ok")
    assert await api.count("message", channel=NAME) == 2


@pytest.mark.parametrize("signature", [None, b"", b"0" * 64, "ü".encode()])
async def test_who_does_not_sign_is_refused_and_stores_nothing(api: Api, signature: bytes | None) -> None:
    headers = {} if signature is None else {b"x-signature": signature}
    async with api.client() as client:
        answer = await client.post(f"/hooks/{NAME}", content=delivery(line()), headers=headers)
    assert answer.status_code == 403
    assert await api.count("message") == 0
    assert api.web.hooks is not None
    assert api.web.hooks.refused == {NAME: 1}


async def test_the_same_delivery_twice_and_twice_at_once_is_one_message(api: Api) -> None:
    body = delivery(line())
    answers = [*await asyncio.gather(call(api, body), call(api, body)), await call(api, body)]
    assert {each.status_code for each in answers} == {200}
    assert await api.count("message") == 1


async def test_what_cannot_be_read_is_kept_and_acknowledged(api: Api) -> None:
    assert (await call(api, b"\xff\x00 no json")).status_code == 200
    assert await rows(api, "SELECT state, reason FROM message") == [("quarantined", "no JSON")]


async def test_a_provider_makes_sure_of_us(api: Api) -> None:
    async with api.client() as client:
        assert (await client.get(f"/hooks/{NAME}?token=hello&challenge=42")).text == "42"
        assert (await client.get(f"/hooks/{NAME}?token=wrong&challenge=42")).status_code == 403
        assert (await client.get("/hooks/telegram")).status_code == 404
        assert (await client.put(f"/hooks/{NAME}")).status_code == 405


# --- the database is down ---------------------------------------------------------------------------------------------


async def test_while_the_database_is_down_the_provider_is_told_to_come_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_args: Any) -> None:
        raise Unavailable

    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "take", down)
        answer = await call(api, delivery(line()))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert (await call(api, delivery(line()))).status_code == 200


async def test_a_provider_that_cannot_wait_is_answered_and_its_request_brought_in_later(
    api: Api, hook: FakeHook, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    hook.kept, hook.patience = Answer(b"success"), 0.05
    never = asyncio.Event()

    async def slow(*_args: Any) -> None:
        await never.wait()

    body = delivery(line(text="#claim_status 我的理赔呢🙂"))
    with monkeypatch.context() as broken:
        broken.setattr(Arrivals, "take", slow)
        assert (await call(api, body)).text == "success"
        assert (await call(api, b"unsigned", {})).status_code == 403
    kept = list(Path(settings.state_dir, "spool", NAME).iterdir())
    assert len(kept) == 1
    assert api.web.hooks is not None
    assert api.web.hooks.spooled() == {NAME: 1}
    assert await api.web.hooks.replay_once() == 1
    assert await rows(api, "SELECT text FROM message") == [("#claim_status 我的理赔呢🙂",)]
    assert await api.web.hooks.replay_once() == 0
    assert api.web.hooks.spooled() == {}


# --- messages of parts ------------------------------------------------------------------------------------------------


async def finish(api: Api) -> None:
    await api.world.flow.finish()


async def test_a_picture_without_words_waits_for_the_first_words_to_be_routed(api: Api) -> None:
    await call(api, delivery(line("1", text="", files=["car.png"])))
    await finish(api)
    query = "SELECT department, look_first, intent FROM ticket"
    [(department, look_first, _intent)] = await rows(api, query)
    assert (department, bool(look_first)) == ("triage", True)
    assert await rows(api, "SELECT count(*) FROM outbox") == [(0,)]
    await call(api, delivery(line("2", text="#file_claim somebody hit my car")))
    await finish(api)
    [(department, look_first, intent)] = await rows(api, query)
    assert (department, bool(look_first), intent) == ("claims", False, "file_claim")
    assert await rows(api, "SELECT kind FROM outbox") == [("acknowledgement",)]
    assert await rows(api, "SELECT state FROM message WHERE direction = 'in' ORDER BY id") == [
        ("ticketed",),
        ("appended",),
    ]


async def test_an_album_is_one_message_however_it_comes(api: Api) -> None:
    first = line("album", text="#file_claim my car", album=True, mark="1", files=["1.png"])
    await call(api, delivery(first, line("album", text="", album=True, mark="2", files=["2.png"])))
    await call(api, delivery(first))
    await call(api, delivery(line("album", text="", album=True, mark="3", files=["3.png"])))
    rings = await api.world.queue.take(10, 5.0)
    await api.world.flow.process([each.message_id for each in rings])
    assert await rows(api, "SELECT text, state FROM message WHERE direction = 'in'") == [
        ("#file_claim my car", "ticketed")
    ]
    assert await rows(api, "SELECT part, state FROM medium ORDER BY part") == [
        (0, "waiting"),
        (1, "waiting"),
        (2, "waiting"),
    ]
    await call(api, delivery(line("album", text="", album=True, mark="4", files=["late.png"])))
    assert await api.count("medium") == 4
    assert await api.count("event", kind="duplicate_differs") == 0


async def test_what_the_customer_takes_back_is_gone_and_that_it_was_there_stays(api: Api) -> None:
    await call(api, delivery(line("1", files=["a.png"])))
    await finish(api)
    await call(api, delivery({"gone": "1"}))
    await call(api, delivery({"gone": "1"}, {"gone": "unknown"}))
    assert await rows(api, "SELECT text FROM message WHERE direction = 'in'") == [("",)]
    assert await api.count("medium") == 0
    assert await api.count("event", kind="withdrawn") == 1


async def test_a_reworded_message_taken_back_goes_with_all_its_wordings(api: Api) -> None:
    await call(api, delivery(line("1", text="#claim_status first wording")))
    await call(api, delivery(line("1:edit", text="#claim_status second wording", revises="1")))
    await finish(api)
    await call(api, delivery({"gone": "1"}))
    assert await rows(api, "SELECT text FROM message WHERE direction = 'in'") == [("",), ("",)]


async def test_a_thumb_up_does_not_reopen_what_was_resolved(api: Api) -> None:
    await call(api, delivery(line("1")))
    await finish(api)
    await api.world.database.write(lambda c: c.execute(sa.text("UPDATE ticket SET state = 'resolved'")))
    await call(api, delivery(line("2", text="", reaction="👍")))
    await finish(api)
    assert await rows(api, "SELECT state FROM ticket") == [("resolved",)]
    assert await rows(api, "SELECT state FROM message WHERE direction = 'in' ORDER BY id") == [
        ("ticketed",),
        ("appended",),
    ]


async def test_what_the_database_refuses_as_it_is_lies_in_quarantine_and_the_rest_is_stored(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Arrivals.take

    async def strange(self: Arrivals, items: Any, notices: Any = ()) -> Any:
        if any(getattr(each, "text", "") == "poison" for each in items):
            raise ValueError("the database does not take this")
        return await take(self, items, notices)

    monkeypatch.setattr(Arrivals, "take", strange)
    answer = await call(api, delivery(line("1"), line("2", text="poison"), {"stop": "ann", "why": "opted_out"}))
    assert answer.status_code == 200
    assert await rows(api, "SELECT state, reason FROM message ORDER BY id") == [
        ("received", None),
        ("quarantined", "It could not be stored (ValueError)."),
    ]
    assert await rows(api, "SELECT suppressed FROM address") == [("opted_out",)]
