"""Telegram by webhook: signed by a secret, stored before it is answered; and the address that Telegram is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from domain import Forbidden, Message, Unreadable
from settings import Settings
from storage.database import Database
from tests.api_world import Api, serving
from tests.samples import request_of
from tests.samples.telegram import HEADER, NEW, OLD, call, make, message, samples
from tests.telegram_server import BotApi, Fault, bad, retry_after, unauthorized
from tests.telegram_world import Bot, telegram, until

_SECRETS: dict[str, Any] = {"mode": "webhook", "webhook_secrets": [NEW, OLD]}


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as made:
        yield made


@pytest.fixture
async def bot(database: Database, settings: Settings, api: BotApi) -> AsyncIterator[Bot]:
    async with telegram(database, settings, api, **_SECRETS) as made:
        yield made


@asynccontextmanager
async def public(bot: Bot) -> AsyncIterator[Api]:
    """Our server, as Telegram reaches it."""
    assert bot.channel.hook is not None
    async with serving(bot.world, hooks=[bot.channel.hook]) as made:
        yield made


def caller(api: Api) -> httpx.AsyncClient:
    return api.client(raise_app_exceptions=False)


async def registered(bot: Bot) -> None:
    bot.listen()
    await until(lambda: bot.channel.sources[0].health.ok, "the webhook is set")


async def test_what_telegram_calls_with_is_stored_and_confirmed(bot: Bot, api: BotApi) -> None:
    await registered(bot)
    assert api.webhook["url"] == "https://sluice.test/hooks/telegram"
    assert api.webhook["secret_token"] == NEW
    assert json.loads(api.webhook["allowed_updates"]) == [
        "message",
        "edited_message",
        "callback_query",
        "my_chat_member",
    ]
    api.says("#claim_status one")
    api.happens(message={"chat": "poison"})
    api.says("#claim_status two")
    async with public(bot) as here, caller(here) as client:
        assert await api.deliver(client) == [200, 200, 200]
    assert await bot.texts() == ["#claim_status one", "", "#claim_status two"]


async def test_the_same_again_and_in_the_other_mode_is_one_message(
    bot: Bot, api: BotApi, database: Database, settings: Settings
) -> None:
    await registered(bot)
    update = api.says("#claim_status one")
    async with public(bot) as here, caller(here) as client:
        await api.deliver(client)
        api.waiting.append(update)
        assert await api.deliver(client) == [200]
    await bot.stop()
    api.waiting.append(update)
    async with telegram(database, settings, api) as polling:
        polling.listen()
        await polling.confirmed()
        assert api.webhook == {}
        assert await polling.texts() == ["#claim_status one"]
    assert await bot.rows("SELECT count(*) FROM event WHERE kind = 'duplicate_differs'") == [(0,)]


async def test_a_pressed_button_is_answered_in_the_same_breath(bot: Bot, api: BotApi) -> None:
    await registered(bot)
    api.presses("1|person|S-123456|zh")
    api.presses("a button of another time")
    async with public(bot) as here, caller(here) as client:
        assert await api.deliver(client) == [200, 200]
    assert [each["text"] for each in api.answered] == ["已收到", "这个按钮已失效，请直接发送消息。"]
    assert await bot.texts() == ["转人工"]


async def test_who_has_no_secret_is_refused_and_stores_nothing(bot: Bot) -> None:
    async with public(bot) as here, caller(here) as client:
        for name, given in samples().unsigned.items():
            headers = {key.encode(): value.encode() for key, value in given.headers.items()}
            answer = await client.post("/hooks/telegram", content=given.body, headers=headers)
            assert answer.status_code == 403, name
        assert (await client.get("/hooks/telegram", headers={HEADER: NEW})).status_code == 403
    assert await bot.texts() == []


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_each_of_the_secrets_is_taken(secret: str) -> None:
    hook = make().hook
    assert hook is not None
    hook.verify(request_of("telegram", call(message(1, text="a"), secret)))
    with pytest.raises(Forbidden):
        hook.verify(request_of("telegram", call(message(1, text="a"), secret[:-1])))


@pytest.mark.parametrize("example", samples().examples, ids=lambda each: each.name)
def test_samples_are_what_they_say(example: Any) -> None:
    hook = make().hook
    assert hook is not None
    parsed = hook.parse(request_of("telegram", example.call))
    found = [each for each in parsed.items if isinstance(each, Message)]
    assert [each.text for each in found] == list(example.texts)
    assert [part.kind for each in found for part in each.parts] == list(example.kinds)
    assert sum(isinstance(each, Unreadable) for each in parsed.items) == example.unreadable


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"1", b'"a"', b"null", b"{}", b"[" * 100_000, b'{"update_id":1}',
                                  b'{"update_id":1,"message":' + b'{"a":' * 400 + b"1" + b"}" * 401])  # fmt: skip
def test_a_body_that_is_no_update_is_kept(body: bytes) -> None:
    hook = make().hook
    assert hook is not None
    [item] = hook.parse(request_of("telegram", samples().garbage, body=body)).items
    assert isinstance(item, Unreadable)
    assert item.reason


# --- the address that telegram is told --------------------------------------------------------------------------------


async def test_the_webhook_is_set_once_and_again_only_when_somebody_changed_it(bot: Bot, api: BotApi) -> None:
    await registered(bot)
    looks = len(api.calls)
    await until(lambda: len(api.calls) > looks + 3, "several looks")
    assert [name for name, _ in api.calls].count("setWebhook") == 1
    api.webhook = {"url": "https://elsewhere.test"}
    await until(lambda: api.webhook["url"] == "https://sluice.test/hooks/telegram", "it is set again")


async def test_where_telegram_cannot_deliver_the_operator_reads_why(bot: Bot, api: BotApi) -> None:
    await registered(bot)
    health = bot.channel.sources[0].health
    api.says("#claim_status one")
    api.info = {"last_error_date": message(1)["message"]["date"], "last_error_message": "Connection timed out"}
    await until(lambda: not health.ok, "red")
    assert "Connection timed out" in health.detail
    assert "1 updates wait" in health.detail
    api.info = {}
    await until(lambda: health.ok, "green again")


@pytest.mark.parametrize(
    ("fault", "words"),
    [(unauthorized(), "@BotFather"), (retry_after(1), "wait 1 s"),
     (bad("Bad Request: bad webhook: An HTTPS URL must be provided for webhook"), "HTTPS URL")],
)  # fmt: skip
async def test_a_refused_registration_is_told_in_words_and_tried_again(
    bot: Bot, api: BotApi, fault: Fault, words: str
) -> None:
    api.fail("setWebhook", fault)
    health = bot.channel.sources[0].health
    bot.listen()
    await until(lambda: words in health.detail, words)
    await until(lambda: health.ok, "it is set")
    assert api.webhook["url"].endswith("/hooks/telegram")
